"""Pictures of other tools pair with ours, whatever their article."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palp_lab.study.result import Cost, Result
from palp_lab.study.spelling import spelled_alike


def prompts(result: Result) -> set[str]:
    return {record.prompt for record in result.records}


def with_articles(result: Result) -> Result:
    """The result with "a {}" in place of "{}"."""
    return replace(result, records=tuple(replace(r, prompt=r.prompt.replace("{}", "a {}")) for r in result.records))


@pytest.mark.parametrize("article", ["ours", "theirs"])
def test_a_foreign_prompt_is_spelled_as_the_trained_ones_are(study: list[Result], article: str) -> None:
    trained, other = study[0], replace(study[1], cost=Cost())
    if article == "ours":
        trained = with_articles(trained)
    else:
        other = with_articles(other)
    assert prompts(trained).isdisjoint(prompts(other))
    one, two = spelled_alike([trained, other])
    assert one == trained and prompts(two) == prompts(one)
    assert [record.metrics for record in two.records] == [record.metrics for record in other.records]


def test_trained_ones_keep_their_spelling_and_strangers_theirs(study: list[Result]) -> None:
    """A photo of <cat> and a photo of a <cat> are two prompts to who was trained on them."""
    both = [study[0], with_articles(study[1])]
    assert spelled_alike(both) == both
    foreign = replace(study[2], cost=Cost())
    assert spelled_alike([*both, with_articles(foreign)])[2] == with_articles(foreign)
    unknown = replace(foreign, records=tuple(replace(r, prompt="a {} asleep") for r in foreign.records))
    assert spelled_alike([study[0], unknown])[1] == unknown

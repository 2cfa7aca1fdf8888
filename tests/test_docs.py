"""The documents: every link leads somewhere, every command shown composes, every recipe is in the table."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from palp_lab.cli_help import VERBS, groups
from palp_lab.composition import compose, conf_folder

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    p for folder in (".", "docs", "experiments") for p in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_dead_links(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        target = (link[0] or link[1]).split("#")[0]
        if target and "://" not in target and not (page.parent / target).exists():
            dead.append(target)
    assert not dead


def commands() -> list[tuple[str, str]]:
    """Every `palp-lab ...` line in a code block, with its page."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            lines = block.replace("\\\n", " ").splitlines()
            found += [
                (str(page.relative_to(ROOT)), line.strip()) for line in lines if line.strip().startswith("palp-lab ")
            ]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_shown_composes(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if not words:
        return
    verb, rest = words[0], words[1:]
    assert verb in VERBS
    overrides = [word for word in rest if "=" in word and not word.startswith("hydra")]
    compose(verb, *(word if "[" in word or '"' in word else word.split(",")[0] for word in overrides))


def test_the_table_of_methods_is_complete() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [choice for choice in groups(conf_folder()).get("method", []) if f"`{choice}`" not in text]
    assert not missing


def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.M))
    assert {"help", "setup", "demo", "test", "test-slow", "lint", "bench", "study"} <= targets
    assert targets == set(re.findall(r"^([a-z-]+):.*## ", text, re.M))

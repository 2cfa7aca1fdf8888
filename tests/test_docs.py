"""The documents: every link leads somewhere, every command shown would run, every recipe is in the table."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from palp_lab.cli_help import VERBS, groups
from palp_lab.composition import compose, conf_folder
from palp_lab.parts import open_dataset
from palp_lab.schema import check
from palp_lab.training import as_plain, read_settings
from tests.dataset.pictures import photos

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


def anchor(heading: str) -> str:
    """The name under which a page's heading is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_into_a_page_name_a_heading_of_it(page: Path) -> None:
    dead = []
    for path, name in re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        there = (page.parent / path if path else page).read_text(encoding="utf-8")
        if name not in map(anchor, re.findall(r"^#+ (.*)$", there, re.M)):
            dead.append(f"{path}#{name}")
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
def test_every_command_shown_is_one_that_would_run(page: str, line: str) -> None:
    """It composes, its keys and kinds are known, and the engine takes its settings."""
    words = shlex.split(line, comments=True)[1:]
    if not words:
        return
    verb, rest = words[0], words[1:]
    assert verb in VERBS
    overrides = [word for word in rest if "=" in word and not word.startswith("hydra")]
    overrides = [re.sub(r"=(?:tag\(log,)?interval\(([^,]+),.*", r"=\1", word) for word in overrides]
    config = compose(verb, *(word if "[" in word or '"' in word else word.split(",")[0] for word in overrides))
    check(config)
    read_settings(as_plain(config))


def test_the_dataset_that_contributing_shows_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    [node] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "AlbumDataset" in block]
    for name, content in (("album_package/album.py", code), ("conf/dataset/album.yaml", node)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content.replace("my_package", "album_package"))
    photos(tmp_path / "mia-cat", 3)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PALP_LAB_TARGETS", "album_package")
    words = ("dataset=album", f"dataset.album={tmp_path / 'mia-cat'}", "+dataset.held_out=1")
    config = compose("run", *words, config_dir=tmp_path / "conf")
    check(config)
    concept = open_dataset(config).concept()
    assert (concept.name, concept.superclass, len(concept.photos), len(concept.held_out)) == ("mia-cat", "cat", 2, 1)
    assert config.metrics.name == compose("run", "metrics=photos").metrics.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_shown_is_yaml(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        yaml.safe_load(block)


def test_the_table_of_methods_is_complete() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [choice for choice in groups(conf_folder()).get("method", []) if f"`{choice}`" not in text]
    assert not missing


def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.M))
    assert {"help", "setup", "demo", "test", "test-slow", "lint", "bench", "study"} <= targets
    assert targets == set(re.findall(r"^([a-z-]+):.*## ", text, re.M))


GONE = ("stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2", "runwayml/stable-diffusion-v1-5")
"""Repositories that were taken off the hub; mirrors hold the same files."""


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted(conf_folder().rglob("*.yaml"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_nothing_points_to_a_repository_that_left_the_hub(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [name for name in GONE if re.search(rf"{name}(?![\w-])", text)]

"""The cells of a sweep: composed as Hydra composes them, once per choice of groups, each key where it belongs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from palp_lab import doctor
from palp_lab.cli import main
from palp_lab.composition import conf_folder, register_resolvers, version_options
from palp_lab.sweeper import ChoiceLoader
from palp_lab.types import UserError

CELLS = (
    ["method=ti_db", "seed=0", 'target="a sketch of a {} in Paris, at night"'],
    ["method=ti_db", "seed=1", "dataset.superclass=dog", "checkpoints=[1,2]"],
    ["losses=[reconstruction]", "losses.reconstruction.weight=0.5", "generate.steps=3"],
    ["method=palp", "+losses.prompt_alignment.t=same", "seed=1"],
)


class Counting:
    """A loader that counts what it composes."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.composed = inner, 0

    def load_sweep_config(self, *arguments: Any) -> DictConfig:
        self.composed += 1
        return self.inner.load_sweep_config(*arguments)

    def get_group_options(self, *arguments: Any) -> list[str]:
        return self.inner.get_group_options(*arguments)


@pytest.fixture
def hydra_loader() -> Iterator[tuple[Counting, DictConfig]]:
    """Hydra's own loader and the master configuration of a sweep."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(conf_folder()), **version_options(initialize_config_dir)):
        loader = GlobalHydra.instance().config_loader()
        yield Counting(loader), loader.load_configuration("run", overrides=[], run_mode=RunMode.MULTIRUN)


def test_what_a_part_takes_reaches_the_cells_that_replace_it(hydra_loader: tuple[Counting, DictConfig]) -> None:
    """A recipe's phrase goes with the words it was written for; one that the command line gives stays."""
    hydra, master = hydra_loader
    cell = ["method=custom_diffusion", "tokens=rare", "tokens.phrase='my {word} {superclass}'", "seed=1"]
    assert ChoiceLoader(hydra).applicable(master, [cell]) == [cell]  # type: ignore[arg-type]
    alias = ["method=palp_nfsd", "losses=[reconstruction,sds]", "losses.prompt_alignment.reference=noise"]
    assert ChoiceLoader(hydra).applicable(master, [alias]) == [alias]  # type: ignore[arg-type]


@pytest.mark.parametrize("lines", CELLS, ids=lambda lines: lines[0])
def test_a_cell_is_what_hydra_composes(hydra_loader: tuple[Counting, DictConfig], lines: list[str]) -> None:
    hydra, master = hydra_loader
    theirs = OmegaConf.to_container(hydra.load_sweep_config(master, lines), resolve=False)
    ours = OmegaConf.to_container(ChoiceLoader(hydra).load_sweep_config(master, lines), resolve=False)  # type: ignore[arg-type]
    assert ours == theirs


def test_each_choice_is_composed_once_and_cells_share_nothing(hydra_loader: tuple[Counting, DictConfig]) -> None:
    hydra, master = hydra_loader
    loader, before = ChoiceLoader(hydra), hydra.composed  # type: ignore[arg-type]
    cells = loader.applicable(master, [[f"method={m}", f"seed={s}"] for m in ("ti_db", "palp") for s in range(5)])
    configs = [loader.load_task(master, cell) for cell in cells]
    assert hydra.composed - before == 2
    assert [config.seed for config in configs] == [0, 1, 2, 3, 4] * 2
    assert [config.labels.method for config in configs] == ["ti_db"] * 5 + ["palp"] * 5
    configs[0].optimizer.lr = 7.0
    assert configs[1].optimizer.lr != 7.0


def test_worker_processes_compose_for_themselves(hydra_loader: tuple[Counting, DictConfig]) -> None:
    """A launcher sends the loader to its workers, without what was composed here."""
    hydra, master = hydra_loader
    loader = ChoiceLoader(hydra.inner)
    loader.constant = ["method"]
    here = loader.load_sweep_config(master, CELLS[0])
    assert here.hydra.job.config.override_dirname.exclude_keys == ["method"], "of which its folder's name is made"
    sent = pickle.loads(pickle.dumps(loader))
    assert sent._composed == {}
    assert OmegaConf.to_container(sent.load_sweep_config(master, CELLS[0])) == OmegaConf.to_container(here)


def test_a_part_that_was_replaced_takes_no_key(hydra_loader: tuple[Counting, DictConfig]) -> None:
    """The recipe's rank is left behind by edits=full; the number of the sweep must not bring it back."""
    hydra, master = hydra_loader
    loader = ChoiceLoader(hydra)  # type: ignore[arg-type]
    grid = [["method=palp", f"edits={e}", "edits.rank=3"] for e in ("full", "lora")]
    assert loader.applicable(master, grid) == [["method=palp", "edits=full"], grid[1]]
    with pytest.raises(UserError, match=r"edits\.rnak: no such key in any cell.*did you mean edits\.rank"):
        loader.applicable(master, [[*cell[:2], "edits.rnak=3"] for cell in grid])


def test_a_key_goes_to_the_recipes_that_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PALP_LAB_OUTPUT", str(tmp_path))
    seen: list[tuple[str, int | None]] = []

    def note(config: DictConfig) -> None:
        seen.append((config.labels.method, OmegaConf.select(config, "losses.prior_preservation.count")))

    monkeypatch.setattr(doctor, "doctor", note)
    assert main(["doctor", "-m", "method=ti_db,dreambooth", "losses.prior_preservation.count=7,8"]) == 0
    assert seen == [("ti_db", None), ("dreambooth", 7), ("dreambooth", 8)], "ti_db once: its two cells are one"
    assert main(["doctor", "-m", "method=ti_db,dreambooth", "losses.prior_preservation.count=9"]) == 0
    assert seen[3:] == [("ti_db", None), ("dreambooth", 9)], "a constant as well, which the defaults do not have"
    capsys.readouterr()
    assert main(["doctor", "-m", "method=ti_db,dreambooth", "losses.prior_preservation.cuont=7"]) == 2
    said = capsys.readouterr().err.strip()
    assert "no such key in any cell of this sweep; did you mean losses.prior_preservation.count?" in said
    assert len(seen) == 5 and len(said.splitlines()) == 1


def test_composing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from palp_lab import compose; from palp_lab.schema import check\n"
        "check(compose('run', 'method=dreambooth'), trusting=True); check(compose('run', 'edits=lora'), trusting=True)"
        "\n"
        "sys.exit(', '.join({'torch', 'diffusers', 'lightning'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

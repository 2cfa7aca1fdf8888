"""What `--help` teaches: the verbs, the groups with their choices, and lines to copy. Reads the YAML headers only."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import fill

from palp_lab.composition import conf_folder

VERBS = {
    "run": "train, generate, score: one cell of a study; -m sweeps it",
    "train": "learn one concept with one method",
    "generate": "draw prompts x seeds from one or several saved adapters",
    "score": "measure pictures, this tool's or any other's, under a named protocol",
    "report": "curves, front, tables and a page from results",
    "export": "an adapter as files other tools read",
    "pretrain": "train the embedded models of the tiny world",
    "doctor": "is this machine ready?",
}

EXAMPLES = {
    "run": (
        "palp-lab run method=palp 'target=\"a sketch of {} in Paris\"'",
        "palp-lab run -m method=ti_db,palp dataset.seed=1,2 seed=0,1",
        "palp-lab run method=custom_diffusion 'losses=[reconstruction,prompt_alignment]' --cfg job",
    ),
    "train": (
        "palp-lab train method=dreambooth_lora dataset.superclass=cat dataset.shots=4",
        "palp-lab train method=palp 'target=\"a sketch of {} in Paris\"' trainer.max_steps=200",
        "palp-lab train method=textual_inversion optimizer.lr=1e-3 --cfg job",
    ),
    "generate": (
        "palp-lab generate method=palp 'target=\"a sketch of {} in Paris\"'",
        "palp-lab generate 'adapters=[outputs/my_cat]' generate.seeds=8 generate.guidance=5",
        "palp-lab generate 'adapters=[outputs/my_cat]' generate.image=sofa.jpg generate.mask=sofa_mask.png",
    ),
    "score": (
        "palp-lab score method=palp 'target=\"a sketch of {} in Paris\"'",
        "palp-lab score images=pictures/of_another_tool",
        "palp-lab score metrics=tiny --cfg job",
    ),
    "report": (
        "palp-lab report",
        "palp-lab report output=outputs",
        "palp-lab report --cfg job",
    ),
    "export": (
        "palp-lab export adapter=outputs/my_cat",
        "palp-lab export adapter=outputs/my_cat 'format=[lora,kohya]' to=my_cat_for_others",
        "palp-lab export --cfg job",
    ),
    "pretrain": (
        "palp-lab pretrain --cfg job",
        "palp-lab pretrain device=cuda",
        "palp-lab pretrain output=my_world",
    ),
    "doctor": (
        "palp-lab doctor",
        "palp-lab doctor device=cuda",
        "palp-lab doctor logger=wandb logger.mode=offline",
    ),
}

AUTOMATIC = {"hydra", "tuning"}
"""Groups nobody chooses from by hand: Hydra's own, and what follows from model and method."""

WIDTH = 116


def groups(folder: Path) -> dict[str, list[str]]:
    """Every group of a configuration folder and its choices."""
    found = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        choices = sorted(f.stem for f in path.glob("*.yaml"))
        if choices and path.name != "hydra":
            found[path.name] = choices
    return found


def defaults(folder: Path, verb: str) -> dict[str, str]:
    """The choice each group has where the command line makes none."""
    chosen: dict[str, str] = {}
    for path in (folder / "base.yaml", folder / f"{verb}.yaml"):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        chosen.update(re.findall(r"^ +- (?:optional )?(\w+): \[?(\w+)", text, re.MULTILINE))
    return chosen


def overview() -> str:
    """The page of `palp-lab` and `palp-lab --help`."""
    verbs = "\n".join(f"  {verb:<10}{says}" for verb, says in VERBS.items())
    examples = "\n".join(f"  {line}" for line in EXAMPLES["run"])
    return (
        "palp-lab <verb> [key=value ...]     methods of text-to-image personalization as recipes, on one front\n\n"
        f"{verbs}\n\nexamples\n{examples}\n\n"
        "palp-lab <verb> --help lists groups, choices and examples; --cfg job prints what would run.\n"
        "Braces, commas and brackets in a value need two pairs of quotes, as above."
    )


def of_verb(verb: str) -> str:
    """The page of `palp-lab <verb> --help`."""
    folder = conf_folder()
    chosen = defaults(folder, verb)
    lines = [f"palp-lab {verb} [group=choice] [key=value] ...     {VERBS[verb]}", ""]
    lines.append("groups and their choices (* unless you say otherwise)")
    for group, choices in groups(folder).items():
        if group in chosen and group not in AUTOMATIC:
            words = ", ".join(f"{choice}*" if choice == chosen[group] else choice for choice in choices)
            lines.append(_row(group, words, 12))
    lines += ["", "keys"]
    for path in (folder / f"{verb}.yaml", folder / "base.yaml"):
        lines += [_row(key, says, 28) for key, says in _commented_keys(path)]
    lines += ["", "examples", *(f"  {line}" for line in EXAMPLES[verb])]
    lines += [
        "",
        "as in any Hydra program: -m sweeps (a=1,2), --cfg job shows, --info explains, --config-dir adds a folder",
    ]
    return "\n".join(lines)


def _row(name: str, says: str, column: int) -> str:
    return fill(says, WIDTH, initial_indent=f"  {name:<{column}}", subsequent_indent=" " * (column + 2))


def _commented_keys(path: Path) -> list[tuple[str, str]]:
    """The top-level keys of a file with the comments beside and right below them: the file documents itself."""
    found: list[tuple[str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        key, comment = line.partition(":")[0], line.partition("#")[2].strip()
        if line[:1].isalpha() and comment:
            value = line.partition(":")[2].partition("#")[0].strip()
            found.append((f"{key}={value}" if value and "$" not in value else key, comment))
        elif found and line[:1] == " " and line.strip()[:1] == "#":
            found[-1] = (found[-1][0], f"{found[-1][1]} {comment}")
    return found

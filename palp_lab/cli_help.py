"""What `--help` teaches: the verbs, the groups with their choices, and lines to copy. Reads the YAML headers only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from palp_lab.composition import conf_folder, own_folders

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
        "palp-lab run method=palp 'target=\"a sketch of {} in the snow\"'",
        "palp-lab run -m method=ti_db,palp dataset.seed=1,2 seed=0,1",
        "palp-lab run method=p_plus 'losses=[reconstruction,prompt_alignment]' --cfg job",
    ),
    "train": (
        "palp-lab train method=dreambooth_lora dataset.superclass=cat dataset.shots=4",
        "palp-lab train method=palp 'target=\"a sketch of {} in the snow\"' trainer.max_steps=200",
        "palp-lab train method=textual_inversion optimizer.token_lr=1e-3 --cfg job",
    ),
    "generate": (
        "palp-lab generate method=palp 'target=\"a sketch of {} in the snow\"'",
        "palp-lab generate 'adapters=[outputs/my_cat]' 'generate.prompts=[\"a {} on the beach\"]' generate.seeds=8",
        "palp-lab generate 'adapters=[outputs/my_cat]' generate.image=sofa.jpg generate.mask=sofa_mask.png",
    ),
    "score": (
        "palp-lab score method=palp 'target=\"a sketch of {} in the snow\"'",
        "palp-lab score images=pictures/of_another_tool model=sd15",
        "palp-lab score metrics=tiny --cfg job",
    ),
    "report": (
        "palp-lab report",
        "palp-lab report 'compare=[ti_db,palp_control]' scope=all",
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

SILENT = {"defaults", "hydra", "verb", "_target_", "_partial_"}
"""Keys that are not given on a command line."""

KEY = re.compile(r"(\w+):(?:\s+([^\s#].*?))?(?:\s+#\s*(.*))?")
"""A line of a configuration file: key, value and comment."""

BESIDE = 20
"""The column from which a comment on a line of its own goes on with the one above it."""

WIDTH = 116


def groups(*folders: Path) -> dict[str, list[str]]:
    """Every group of some configuration folders and its choices."""
    found: dict[str, set[str]] = {}
    for path in (p for folder in folders if folder.is_dir() for p in folder.iterdir() if p.is_dir()):
        choices = {f.stem for f in path.glob("*.yaml")}
        if choices and path.name != "hydra":
            found.setdefault(path.name, set()).update(choices)
    return {group: sorted(choices) for group, choices in sorted(found.items())}


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


def asked(words: Sequence[str], folders: Sequence[Path]) -> dict[str, list[str]]:
    """The choices a command line makes, by group: `dataset=folder`, `losses=[reconstruction,sds]`."""
    there = groups(*folders)
    found: dict[str, list[str]] = {}
    for word in words:
        group, _, value = word.partition("=")
        choices = [choice for choice in value.strip("[]").split(",") if choice in there.get(group, ())]
        found |= {group: choices} if choices else {}
    return found


def of_verb(verb: str, words: Sequence[str] = ()) -> str:
    """The page of `palp-lab <verb> --help`; the other `words` of the line may choose (`dataset=folder`), and add
    folders with choices of their own."""
    folder = conf_folder()
    folders = (folder, *own_folders(words))
    chosen = {group: [choice] for group, choice in defaults(folder, verb).items()}
    chosen |= {group: choices for group, choices in asked(words, folders).items() if group in chosen}
    lines = [f"palp-lab {verb} [group=choice] [key=value] ...     {VERBS[verb]}", ""]
    lines.append("groups and their choices (* unless you or the recipe, method=..., choose another)")
    for group, choices in groups(*folders).items():
        if group in chosen and group not in AUTOMATIC:
            listed = ", ".join(f"{choice}*" if choice in chosen[group] else choice for choice in choices)
            lines.append(_row(group, listed, 12))
    lines += ["", "keys"]
    for path in (folder / f"{verb}.yaml", folder / "base.yaml"):
        lines += [_row(key, says, 28) for key, says in keys(path)]
    lines += [
        "",
        "keys of the choices marked *, with values that recipe and tuning may replace (--cfg job shows);",
        f"and of another choice: palp-lab {verb} dataset=folder --help",
    ]
    for group, choices in chosen.items():
        paths = [own / group / f"{choice}.yaml" for choice in choices for own in folders]
        if group not in AUTOMATIC:
            lines += [_row(f"{group}.{key}", says, 38) for path in paths for key, says in keys(path) if says]
    lines += ["", "examples", *(f"  {line}" for line in EXAMPLES[verb])]
    lines += [
        "",
        "as in any Hydra program: -m sweeps (a=1,2), --cfg job shows, --info explains, --config-dir adds a folder",
    ]
    return "\n".join(lines)


def _row(name: str, says: str, column: int) -> str:
    first = f"  {name:<{column - 1}} "
    return fill(says, WIDTH, initial_indent=first, subsequent_indent=" " * (column + 2)) if says else f"  {name}"


def keys(path: Path) -> list[tuple[str, str]]:
    """Every key of a file with its value, dotted, and the comment beside and right below it: the file documents itself.
    A key that only holds others is among them where it has a comment. None of a file that writes over other groups."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows: list[_Key] = []
    inside: list[tuple[int, str]] = []
    for line in text.splitlines() if "@package _global_" not in text else []:
        words, depth = line.strip(), len(line) - len(line.lstrip())
        if words.startswith("#") and rows and depth >= BESIDE:
            rows[-1].says += f" {words[1:].strip()}"
        elif match := KEY.fullmatch(words):
            name, value, comment = (part or "" for part in match.groups())
            inside = [*(one for one in inside if one[0] < depth), (depth, name)]
            rows.append(_Key([word for _, word in inside], value, comment))
    parents = {tuple(row.path[:-1]) for row in rows}
    told = [row for row in rows if not SILENT & set(row.path) and (row.says or tuple(row.path) not in parents)]
    return [(row.name(), row.says) for row in told]


@dataclass
class _Key:
    """A key as its line has it."""

    path: list[str]
    value: str
    says: str

    def name(self) -> str:
        """Dotted, with a value that is short and needs nothing else to be read."""
        shown = self.value and "$" not in self.value and len(self.value) <= 24
        return ".".join(self.path) + (f"={self.value}" if shown else "")

"""The rules of the house, read from the source: who may import whom, how long a module may be, what names mean."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "palp_lab").rglob("*.py"))
LONGEST = 300

FLOOR = {
    "types": 0,
    "layouts": 0,
    "diffusion": 1,
    "metrics": 1,
    "study": 1,
    "model": 2,
    "tinyworld": 2,
    "dataset": 3,
    "attention": 3,
    "tokens": 4,
    "edits": 4,
    "adapter": 5,
    "losses": 6,
    "engine": 7,
}
"""Dependencies point down: a module imports from floors below its own, or from its own package. What is not listed is a
verb or the ground under the verbs (build, launch, ...) and may import everything."""

APART = {"metrics", "study"}
"""Lean on types only: pictures and results can come from any tool."""

GRANTED = {
    ("metrics/protocols.py", "palp_lab.dataset.concept"),
    ("study/dreambench_plus.py", "palp_lab.dataset.concept"),
}
"""Exceptions: who strips the concept from a prompt asks the concept's module how a sentence takes its noun."""

DOORS = {
    "diffusers": ["model/*", "engine/optimizer.py", "tinyworld/pretrain*", "pretrain.py"],
    "transformers": ["model/*", "metrics/embedders.py", "metrics/reader.py", "tinyworld/pretrain*", "pretrain.py"],
    "lightning": ["engine/*"],
    "optuna": ["search.py"],
    "wandb": ["study/sinks.py", "study/tracking.py"],
    "peft": ["edits/*", "model/*"],
    "hydra": [
        "build.py", "cli_errors.py", "composition.py", "launch.py", "schema.py", "sweeper.py", "trusted.py",
        "verdict.py",
    ],
}  # fmt: skip
"""One library, one door: who may import it."""


FOREIGN = {"diffusion/sampler.py"}
"""May ask hasattr: diffusers' schedulers share no base class that says what they offer."""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT / "palp_lab"))


def package(path: Path) -> str:
    first = path.relative_to(ROOT / "palp_lab").parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports when it runs, inside functions too; not what only the type checker sees."""

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from visit(child)
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")))


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield path, node


each_module = pytest.mark.parametrize("path", MODULES, ids=relative)


@each_module
def test_dependencies_point_down(path: Path) -> None:
    here = package(path)
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first != "palp_lab" or not rest:
            continue
        there = rest.split(".")[0]
        if there == here or any(relative(path) == file and name.startswith(granted) for file, granted in GRANTED):
            continue
        if here in APART:
            assert there == "types", f"{here} leans on types only, but {relative(path)} imports {name}"
        elif here in FLOOR:
            assert FLOOR.get(there, 99) < FLOOR[here], f"{relative(path)} imports {name}, which does not lie below it"


@each_module
def test_one_library_one_door(path: Path) -> None:
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        if doors is not None:
            assert any(fnmatch(relative(path), door) for door in doors), (
                f"{relative(path)} imports {name}; its door is {doors}"
            )


@pytest.mark.parametrize("path", [p for p in MODULES if package(p) == "diffusion"], ids=relative)
def test_diffusion_is_mathematics(path: Path) -> None:
    """torch, the standard library, and its own package; of ours only the vocabulary of types."""
    for name in imports(path):
        first = name.split(".")[0]
        assert first in {"torch", "palp_lab", *sys.stdlib_module_names}


@each_module
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@each_module
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not tree.body:
        return
    silent = [] if ast.get_docstring(tree) else [path.name]
    for node in tree.body:
        public = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            silent.append(node.name)
    assert not silent, f"{relative(path)}: no docstring on {', '.join(silent)}"


def test_names_are_nouns_of_the_papers() -> None:
    vague = ("Manager", "Handler", "Helper", "Utils", "Util")
    assert not [f"{relative(path)}: {node.name}" for path, node in classes() if node.name.endswith(vague)]
    assert not [relative(path) for path in MODULES if path.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_a_class_is_abstract_or_final() -> None:
    """Nothing inherits from a class of ours that can be instantiated; what has abstract methods is called Abstract."""
    own = {node.name for _, node in classes()}
    wrong = []
    for path, node in classes():
        for base in node.bases:
            name = ast.unparse(base).split("[")[0].split(".")[-1]
            if name in own - {"UserError", "Protocol"} and not name.startswith(("Abstract", "_Abstract")):
                wrong.append(f"{relative(path)}: {node.name} inherits from {name}")
        abstract = any(
            "abstractmethod" in ast.unparse(d)
            for f in node.body
            if isinstance(f, ast.FunctionDef)
            for d in f.decorator_list
        )
        if abstract and not node.name.startswith(("Abstract", "_Abstract")):
            wrong.append(f"{relative(path)}: {node.name} has abstract methods")
    assert not wrong


def test_no_asking_an_object_what_it_is() -> None:
    """A missing ability is a Capability; isinstance on a family of ours would be a switch in disguise."""
    bases = {node.name: {ast.unparse(b).split("[")[0].split(".")[-1] for b in node.bases} for _, node in classes()}
    family = {
        name
        for name, above in bases.items()
        if name.startswith("Abstract") or any(a.startswith("Abstract") for a in above)
    }
    wrong = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "hasattr" and relative(path) not in FOREIGN:
                wrong.append(f"{relative(path)}:{node.lineno}: hasattr")
            if node.func.id == "isinstance" and family & {
                n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)
            }:
                wrong.append(f"{relative(path)}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong


def test_nothing_is_unpickled() -> None:
    wrong = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "torch.load",
                "pickle.load",
                "pickle.loads",
                "joblib.load",
            }:
                wrong += [f"{relative(path)}:{node.lineno}"] if "weights_only=True" not in ast.unparse(node) else []
    assert not wrong


def test_the_suite_mirrors_the_package() -> None:
    """tests/<package>/test_<module>.py, so that a module's tests are where one looks for them."""
    across = {"contracts", "architectures", "faults", "bench"}  # look at the package from another side
    stray = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.parent.relative_to(ROOT / "tests").parts
        if folder and folder[0] not in across and not (ROOT / "palp_lab" / folder[0]).is_dir():
            stray.append(str(path))
    assert not stray

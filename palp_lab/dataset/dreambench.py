"""The DreamBooth dataset: 30 subjects, each a folder of photos beside a table of class nouns."""

from __future__ import annotations

from pathlib import Path

from palp_lab.dataset.concept import AbstractDataset, Concept
from palp_lab.dataset.folder import FolderDataset
from palp_lab.types import UserError

TABLE = "prompts_and_classes.txt"


class DreamBenchDataset(AbstractDataset):
    """One subject of the DreamBooth dataset. Final.

    `root` is the dataset's own folder (`dataset/` of its repository), which holds a folder per subject and
    prompts_and_classes.txt, from which the class noun is read.

    Source: arXiv 2208.12242, section 4.
    """

    def __init__(self, root: str | None, subject: str = "cat", resolution: int = 512, placeholder: str = "<v>") -> None:
        if not root:
            raise UserError("dataset.root: has no value; give the folder of the DreamBooth dataset, dataset.root=...")
        classes = read_classes(Path(root).expanduser() / TABLE)
        if subject not in classes:
            raise UserError(f"dataset.subject={subject}: must be one of {', '.join(sorted(classes))}")
        self.subject = subject
        self.photos = FolderDataset(str(Path(root).expanduser() / subject), classes[subject], resolution, placeholder)

    def concept(self) -> Concept:
        return self.photos.concept()


def read_classes(path: Path) -> dict[str, str]:
    """Class noun of each subject, from the table the dataset comes with."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read; dataset.root must hold the DreamBooth dataset's {TABLE}") from error
    start = next((i for i, line in enumerate(lines) if line.strip() == "subject_name,class"), None)
    if start is None:
        raise UserError(f"{path}: has no table 'subject_name,class'")
    rows = [line.partition(",") for line in lines[start + 1 :]]
    table = {}
    for name, comma, noun in rows:
        if not comma:
            break
        table[name.strip()] = noun.strip()
    return table

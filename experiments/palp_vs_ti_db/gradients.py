"""gradients.csv, from the logs of finished trainings: how the losses' gradients stand to each other.

    python experiments/palp_vs_ti_db/gradients.py outputs     # the folder the study was written to

One row per training of the ledger whose log is there: the cosine between reconstruction and prompt alignment at the
parameters, and the norm of the weighted term over that of reconstruction, means over steps 100 to the end.
"""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path

from cells import DIALS, HERE, arms_of, ledger

FILE = HERE / "gradients.csv"
COLUMNS = ("arm", "concept", "train_seed", "target", "cosine", "ratio")
COSINE, TERM, OWN = (
    "cosine/reconstruction~prompt_alignment",
    "prompt_alignment/gradient",
    "reconstruction/gradient",
)


def read_gradients(store: Path) -> None:
    """Add the store's trainings to gradients.csv; those of other machines, whose logs are not here, stay."""
    with FILE.open(encoding="utf-8", newline="") as file:
        found = {tuple(row[:4]): tuple(row[4:]) for row in csv.reader(file) if row != list(COLUMNS)}
    logs = {log.parent.name.rpartition("_")[2]: log for log in store.glob("*/cells/*/log.csv")}  # folders end in a hash
    for result in ledger():
        arms = [arm for arm in arms_of(result) if arm not in DIALS]
        if not arms or result.run[:8] not in logs:
            continue
        with logs[result.run[:8]].open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(COSINE) and int(row["step"]) >= 100]
        if rows:
            cosine = statistics.mean(float(row[COSINE]) for row in rows)
            ratio = statistics.mean(float(row[TERM]) / float(row[OWN]) for row in rows)
            axes = result.axes
            key = (arms[0], str(axes["concept"]), str(axes["train_seed"]), str(axes.get("target") or ""))
            found[key] = (f"{cosine:.4f}", f"{ratio:.4f}")
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*key, *values) for key, values in sorted(found.items()))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python experiments/palp_vs_ti_db/gradients.py FOLDER, a folder that a study was written to")
    read_gradients(Path(sys.argv[1]))

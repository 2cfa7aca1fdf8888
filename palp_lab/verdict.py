"""The end of a sweep: which cells failed? Read from what is on disk, so that every launcher is judged alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from palp_lab.launch import STATUS


class NameFailures(Callback):
    """Hydra callback: ends the program with status 1 after a sweep in which a job failed or was lost, and names it."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Raises SystemExit(1) where `failures` finds any. Hydra swallows exceptions of callbacks, but not this one."""
        folder = Path(config.hydra.sweep.dir)
        wrong, jobs = failures(folder)
        if wrong:
            print(f"palp-lab: {len(wrong)} of {jobs} cells failed (under {folder}):", file=sys.stderr)
            for line in wrong:
                print(f"  {line}", file=sys.stderr, flush=True)
            raise SystemExit(1)


def failures(sweep: Path) -> tuple[list[str], int]:
    """One line per job of a sweep's folder that failed or never finished, and the number of jobs."""
    wrong, jobs = [], 0
    for path in sorted(sweep.glob(f"*/{STATUS}")):
        jobs += 1
        status = json.loads(path.read_text(encoding="utf-8"))
        if status["state"] != "done":
            cell = " ".join(status.get("overrides", [])) or path.parent.name
            wrong.append(f"{cell}: {status.get('error', 'lost: its process ended without a word')}")
    return wrong, jobs

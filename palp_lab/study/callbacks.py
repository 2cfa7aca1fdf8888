"""Hydra callbacks: a job knows its folder, and the end of a sweep is a report."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.utils import get_method

from palp_lab.study.sweeps import Job, begin, cells_of
from palp_lab.types import UserError


class ReportSweep(Callback):
    """Tells every job where its folder is, and after a sweep draws the report of its cells.

    `end` names the function that is called with the sweep's configuration and its cells (what the jobs left on disk).
    It is a name, not an import, because studies lean on nothing above them. A sweep in which jobs failed is reported
    as far as it got; a report that fails is a failed job of the sweep and so decides the exit status.
    """

    def __init__(self, end: str = "palp_lab.run.end_sweep") -> None:
        self.end = end

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        """Runs in the process of the job, whatever launched it."""
        about = config.hydra
        pairs = (str(text).lstrip("+~").partition("=") for text in about.overrides.task)
        folder = Path(about.runtime.output_dir)
        begin(Job(folder, {key: value for key, _, value in pairs}, swept=about.mode.name == "MULTIRUN"))

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Runs in the process that was started by hand."""
        sweep = Path(config.hydra.sweep.dir)
        if not (cells := cells_of(sweep)):
            return
        try:
            get_method(self.end)(config, cells)
        except Exception as error:
            folder = sweep / "report"
            folder.mkdir(parents=True, exist_ok=True)
            line = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            status = {"state": "failed", "overrides": ["the report"], "error": f"{line} ({folder / 'error.txt'})"}
            (folder / "status.json").write_text(json.dumps(status, indent=1), encoding="utf-8")
            print(f"palp-lab: the report: {line}", file=sys.stderr, flush=True)

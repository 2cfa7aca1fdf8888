"""One recipe on one true architecture with random weights, in a process of its own: the memory it takes at its peak and
the seconds of a step. `python -m tests.bench.true_size <case as JSON> <file to write>`."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GIGABYTE = 1e9
TARGETS = {("sd14", "palp", "bfloat16"): 8.0, ("sdxl", "ti_db", "bfloat16"): 24.0}
"""What a step of one picture should fit into, in gigabytes: the aims of the design."""
SMALL = {
    "sd14": {
        "unet": {"block_out_channels": [32, 64, 128, 128], "cross_attention_dim": 64, "attention_head_dim": 4},
        "vae": {"block_out_channels": [32, 32, 64, 64]},
        "text_encoder": {"hidden_size": 64, "num_attention_heads": 4},
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [32, 64, 128], "cross_attention_dim": 128, "attention_head_dim": [1, 2, 4],
            "transformer_layers_per_block": [1, 1, 2], "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 64 + 6 * 32,
        },
        "vae": {"block_out_channels": [32, 32, 64, 64]},
        "text_encoder": {"hidden_size": 64, "num_attention_heads": 4},
        "text_encoder_2": {"hidden_size": 64, "num_attention_heads": 4, "projection_dim": 64},
    },
}  # fmt: skip
"""What is narrower where only the measuring itself is tried: every block and level, 128 px, two text layers."""
WARM = 3
"""Steps that do not count (ours: kernels are chosen, the optimizer takes its memory)."""


@dataclass(frozen=True)
class Case:
    """What is trained. `small` tries the measuring on narrow parts."""

    architecture: str
    method: str
    dtype: str = "float32"
    checkpointing: bool = False
    device: str = "cpu"
    steps: int = 1
    small: bool = False
    batch: int = 1

    def overrides(self) -> list[str]:
        """The command line of `palp-lab run`."""
        words = [
            f"model={self.architecture}", "model.path=random", f"method={self.method}", f"dtype={self.dtype}",
            f"device={self.device}", f"trainer.batch_size={self.batch}", f"trainer.max_steps={self.steps}",
            f"trainer.precision={'bf16' if self.dtype == 'bfloat16' else 32}",
            f"trainer.gradient_checkpointing={str(self.checkpointing).lower()}", "trainer.save_every=100000",
            "log.progress=false", "target='a sketch of a {} in the snow'",
        ]  # fmt: skip
        data = os.environ.get("PALP_LAB_DATA")
        if data and (Path(data) / "skeletons" / self.architecture / "model_index.json").is_file():
            words.append(f"model.config={Path(data).resolve() / 'skeletons' / self.architecture}")
        return words

    @property
    def target(self) -> float | None:
        """Gigabytes it should fit into, where the design says."""
        known = not self.small and not self.checkpointing and self.batch == 1
        return TARGETS.get((self.architecture, self.method, self.dtype)) if known else None


@dataclass(frozen=True)
class Measured:
    """A case and what was found: the peak in bytes, what is counted from shapes, what the model alone held before, and
    seconds of a step. What is None was not measured, and `why` says why."""

    case: Case
    peak: int | None = None
    counted: int | None = None
    model: int | None = None
    seconds: float | None = None
    trainable: int | None = None
    why: str = ""

    def row(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self.case), **{k: v for k, v in asdict(self).items() if k != "case"}, "aim": self.case.target}


def measure(case: Case, timeout: float = 3600) -> Measured:
    """Runs a case in a fresh process, so that no other one's memory counts."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "tests.bench.true_size", json.dumps(asdict(case)), str(out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PALP_LAB_OUTPUT": folder, "PYTHONWARNINGS": "ignore"}
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return Measured(case, why=f"not finished in {timeout:.0f} s")
        if not out.is_file():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")
            return Measured(case, why=f"failed: {last.strip()[:120]}")
        found = Measured(case, **json.loads(out.read_text(encoding="utf-8")))
    busy = load > (os.cpu_count() or 1) - 1
    if case.device == "cpu" and busy:
        return replace(found, seconds=None, why=f"time not measured: the machine was busy (load {load:.1f})")
    return found


def resident_peak() -> int:
    """Bytes the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Trains in this process."""
    import torch

    from palp_lab.engine.footprint import Uncounted
    from tests.bench.lab import Photos, step_times

    config, model = open_case(case)
    device = model.device
    if device.type == "cuda":
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        held = resident_peak()
    side = model.resolution
    prior = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    times, outcome = step_times(model, Photos(side), config, folder, prior=prior)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident_peak()
    seconds = statistics.median(times[WARM:] or times[-1:])
    found = {"peak": peak, "model": held, "seconds": seconds, "trainable": int(outcome.cost["trainable_parameters"])}
    try:
        return found | count(config, model)
    except (Uncounted, RuntimeError):  # too little memory for a second copy, say
        return found


def open_case(case: Case) -> tuple[Any, Any]:
    """A case's configuration and its model with random weights."""
    from palp_lab.build import build

    config = configure(case)
    return config, build(config.model, "model", device=case.device, dtype=case.dtype)


def configure(case: Case) -> Any:
    """A case's configuration; every stage gets a step."""
    from omegaconf import OmegaConf

    from palp_lab import compose

    config = compose("run", *case.overrides())
    OmegaConf.set_struct(config, False)
    if case.small:
        _narrow(config, case.architecture)
    for i, stage in enumerate(config.stages):
        if "until" in stage:
            stage.until = i + 1
    return config


def count(config: Any, model: Any) -> dict[str, int]:
    """What is trained, in numbers, and what all tensors take at the peak of a step, in bytes, with torch's optimizer
    as on CUDA; nothing is computed."""
    from palp_lab.adapter import Adapter
    from palp_lab.build import build, build_all
    from palp_lab.dataset.captions import read_captions
    from palp_lab.engine.footprint import training_peak
    from palp_lab.training import as_plain, read_settings
    from tests.bench.lab import Photos

    plain, edits = as_plain(config), build(config.edits, "edits")
    adapter = Adapter(model, build(config.tokens, "tokens"), edits, Photos(model.resolution).concept())
    try:
        losses, captions = build_all(config.losses, "losses"), read_captions(plain["captions"])
        step = training_peak(adapter, losses, read_settings(plain), captions, plain["target"], foreach=True)
        numbers = sum(parameter.numel() for _, parameter in adapter.parts())
        return {"counted": model.weight_bytes + step, "trainable": numbers}
    finally:
        edits.detach()


def _narrow(config: Any, architecture: str) -> None:
    dimensions = config.model.dimensions
    for part, keys in SMALL[architecture].items():
        dimensions[part].update(keys)
        if part.startswith("text_encoder"):
            dimensions[part].update({"intermediate_size": 128, "num_hidden_layers": 2})
    dimensions.unet.sample_size, dimensions.vae.sample_size = 16, 128


def main() -> None:
    """The process of one case."""
    case, out = Case(**json.loads(sys.argv[1])), Path(sys.argv[2])
    out.write_text(json.dumps(run(case, out.parent)), encoding="utf-8")


if __name__ == "__main__":
    main()

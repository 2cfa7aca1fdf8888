"""Is this machine ready? Every check says what it found, and the fix where something is wrong."""

from __future__ import annotations

import netrc
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "lightning", "hydra-core", "wandb", "torchmetrics", "numpy")
BAD_LIGHTNING = {"2.6.2", "2.6.3"}
"""Malicious uploads (GHSA-w37p-236h-pfx3)."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what is there, and the fix where it is wrong (else empty)."""

    subject: str
    found: str
    fix: str = ""
    there: bool = True
    """False for what is not on this machine and need not be."""


def doctor(config: DictConfig) -> None:
    """Prints the findings and raises SystemExit(1) where one needs a fix."""
    checks: list[Callable[[DictConfig], Finding]] = [_python, _libraries, _device, _threads, _disk, _model, _logger]
    findings = [*(check(config) for check in checks), *scorers(config), *presets()]
    for finding in findings:
        mark = "fix " if finding.fix else "ok  " if finding.there else "--  "
        print(f"{mark} {finding.subject:<15} {finding.found}")
        if finding.fix:
            print(f"     {'':<15} -> {finding.fix}")
    if any(finding.fix for finding in findings):
        raise SystemExit(1)


def _python(config: DictConfig) -> Finding:
    return Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _libraries(config: DictConfig) -> Finding:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    bad = [line for line in found if line.startswith("lightning ") and line.split()[1] in BAD_LIGHTNING]
    fix = ""
    if missing:
        fix = f"pip install {' '.join(missing)}"
    elif bad:
        fix = "this release was a malicious upload: pip install 'lightning!=2.6.2,!=2.6.3', then change your keys"
    return Finding("libraries", ", ".join(found), fix)


def _device(config: DictConfig) -> Finding:
    from palp_lab.build import build_device

    try:
        device = build_device(config.device)
    except UserError as error:
        return Finding("device", str(config.device), str(error))
    if device.type != "cuda":
        return Finding("device", str(device))
    import torch

    properties = torch.cuda.get_device_properties(device)
    return Finding("device", f"{device} {properties.name}, {properties.total_memory / 2**30:.0f} GB")


def _threads(config: DictConfig) -> Finding:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    said = f"{config.threads} per job on {cores} cores"
    return Finding("threads", said, f"threads={cores}" if config.threads > cores or config.threads < 1 else "")


def _disk(config: DictConfig) -> Finding:
    folder = Path(config.output).absolute()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    said = f"{free:.1f} GB free under {there}"
    if not os.access(there, os.W_OK):
        return Finding("disk", said, f"cannot write there: give output=<another folder> ({folder})")
    small = free < config.free_gigabytes
    return Finding(
        "disk",
        said,
        f"{config.free_gigabytes} GB are asked for: free some, or output=<folder elsewhere>" if small else "",
    )


def _model(config: DictConfig) -> Finding:
    from palp_lab.build import build

    try:
        model = build(config.model, "model", device=str(config.device), dtype=str(config.dtype))
    except UserError as error:
        return Finding("model", str(config.labels.model), str(error))
    except Exception as error:
        return Finding("model", str(config.labels.model), f"does not open: {type(error).__name__}: {error}")
    said = f"{config.labels.model}: {model.resolution} px, {len(model.sites)} cross-attention sites, {model.kind}"
    return Finding("model", f"{said}, {model.weight_bytes / 1e9:.2f} GB of weights in {config.dtype}")


def scorers(config: DictConfig) -> list[Finding]:
    """Whether the networks that score are on this machine: those of the configuration, which a folder that is not there
    stops, and those that real photos are measured with, which come from the hub when they are first needed."""
    from omegaconf import OmegaConf

    from palp_lab.composition import conf_folder
    from palp_lab.metrics.embedders import network_is_here

    used = _networks(OmegaConf.to_container(config.metrics, resolve=False))
    known = _networks(OmegaConf.to_container(OmegaConf.load(conf_folder() / "metrics" / "photos.yaml")))
    findings = []
    for path in dict.fromkeys([*used, *known]):
        if network_is_here(path):
            findings.append(Finding("scorer", f"{path}: here"))
            continue
        from_hub = path.count("/") == 1 and not Path(path).is_absolute() and not Path(path).exists()
        get = f"not here: hf download {path} where there is a network"
        fix = "" if from_hub else f"give metrics.embedders the folder a transformers model was saved to ({path})"
        findings.append(
            Finding("scorer", f"{path}: {get if from_hub else 'no network there'}", fix, there=not from_hub)
        )
    return findings


def _networks(node: Any) -> list[str]:
    """The paths of the networks below a protocol's node."""
    if not isinstance(node, dict):
        return []
    own = [str(node["path"])] if node.get("path") and "_target_" in node else []
    return [*own, *(path for value in node.values() for path in _networks(value))]


def presets() -> list[Finding]:
    """Which of the shipped choices of model= could be opened here without a network; none of them has to be."""
    from omegaconf import OmegaConf

    from palp_lab.composition import conf_folder
    from palp_lab.model.folder import lacking

    findings = []
    for file in sorted((conf_folder() / "model").glob("*.yaml")):
        node: Any = OmegaConf.load(file)
        above = [file.with_name(f"{name}.yaml") for name in node.pop("defaults", []) if name != "_self_"]
        whole = OmegaConf.merge(*(OmegaConf.load(path) for path in above), node)
        lost = lacking(whole.path)
        size = sum((OmegaConf.select(whole, "dimensions.parameters") or {}).values()) * 4 / 1e9
        how = (
            f"hf download {whole.path} where there is a network" if "/" in whole.path else "not shipped with this build"
        )
        said = "here" if not lost else f"not here ({', '.join(lost)}): {how}"
        size_said = f"; {size:.1f} GB of weights in float32" if size else ""
        findings.append(Finding(file.stem, said + size_said, there=not lost))
    return findings


def _logger(config: DictConfig) -> Finding:
    if config.logger.name == "tensorboard":
        if not any(map(find_spec, ("tensorboard", "tensorboardX"))):
            return Finding("tensorboard", "not installed", "pip install 'palp-lab[tensorboard]'")
        return Finding("tensorboard", f"tensorboard --logdir {config.logger.folder}")
    if config.logger.name != "wandb":
        return Finding("wandb", "not used (logger=wandb sends results there, logger.mode=offline keeps them here)")
    mode = os.environ.get("WANDB_MODE", config.logger.mode)
    if mode == "online" and not _logged_in():
        return Finding("wandb", "online, but nobody is logged in", "wandb login, or logger.mode=offline")
    return Finding("wandb", str(mode))


def _logged_in() -> bool:
    """Whether W&B will find a key, without starting W&B."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(server) is not None
    except (OSError, netrc.NetrcParseError):
        return False

"""Workers of a sweep side by side on one machine: each takes a CUDA device for itself."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from palp_lab.study.locks import hold

PINNED = "PALP_LAB_DEVICE"

TURNS = 64
"""So many workers share a device before they are no longer counted."""


def own_device(number: int) -> None:
    """Gives a worker process that nobody has placed one CUDA device for all its jobs: joblib would put every worker on
    the first. It is the one with the fewest workers, from that of its first job's number on; a worker that ended, as
    joblib ends those that have grown, leaves its place to the next. What `CUDA_VISIBLE_DEVICES` leaves out stays out.
    """
    if PINNED in os.environ:
        return
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        import torch

        told = ",".join(map(str, range(torch.cuda.device_count())))
    if len(devices := told.split(",")) > 1:
        first = number % len(devices)
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[PINNED] = _claimed([*devices[first:], *devices[:first]])


def _claimed(devices: list[str]) -> str:
    """The first device with the fewest workers of this user on this machine; the first of all where that cannot be
    known."""
    folder = Path(tempfile.gettempdir()) / f"palp_lab-devices-{os.getuid()}"
    names = [re.sub(r"[^\w-]", "-", device.strip()) for device in devices]
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for turn in range(TURNS):
            for device, name in zip(devices, names, strict=True):
                if hold(folder / f"{name}.{turn}"):
                    return device
    except OSError:
        pass
    return devices[0]

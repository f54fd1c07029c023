"""Where a run is computed: what its results say of it, and what of it decides their last digits."""

import ctypes
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import torch

from aae_runner import __version__


def use_own_cores() -> None:
    """Lets torch use no more threads than this process has cores: its affinity and quota count.

    A parallel sweep says how many by OMP_NUM_THREADS, which torch has read already. With more threads than
    free cores a step takes several times as long.
    """
    torch.set_num_threads(min(torch.get_num_threads(), joblib.cpu_count()))


def give_back_memory() -> None:
    """Lets glibc hand back each large tensor when it is freed; otherwise they leave holes behind."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 8 << 20)  # M_MMAP_THRESHOLD: above the weights of 1000 x 1000 units, which are reused
        mallopt(-1, 64 << 20)  # M_TRIM_THRESHOLD


def device_of_job(number: int) -> str:
    """Spreads the jobs of a sweep over the GPUs: the device of a job, by its number."""
    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if count > 1 else "auto"


def arithmetic(device: torch.device, engine: str) -> dict[str, str]:
    """What a resumed run must share with its beginning, to end with the same bits."""
    return {
        "torch": str(torch.__version__),  # a plain string, as states hold no others
        "device": device.type,
        "precision": torch.get_float32_matmul_precision(),
        "engine": engine,
    }


def environment(device: torch.device, engine: str) -> dict[str, Any]:
    """What a reader of a result wants to know of the machine and the program that found it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "aae_runner": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **arithmetic(device, engine),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What of the arithmetic is another one now; empty where nothing is."""
    return ", ".join(
        f"{name} {before.get(name)} (now {value})" for name, value in now.items() if before.get(name) != value
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    """Of the checkout that the program runs from; None for an installed package."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()

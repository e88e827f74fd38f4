"""What a run computed on, for its record."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from regraft import __version__

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "pandas", "hydra-core", "wandb")


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, processor, device and threads."""
    import torch

    return {
        "regraft": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def started_together() -> int:
    """How many processes do this run: those that torchrun or accelerate launch started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0. The first alone writes what the run leaves."""
    return int(os.environ.get("RANK", "0")) if started_together() > 1 else 0


class Memory:
    """How much memory this process took at most since the object was made.

    Args:
        device: Its memory is watched if it is a GPU, else that of the process.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                # Linux starts to count anew; elsewhere the peak is that of the process's whole life
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        """Bytes."""
        import torch

        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        with contextlib.suppress(OSError, StopIteration):
            with open("/proc/self/status", encoding="ascii") as status:
                line = next(line for line in status if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if platform.system() == "Darwin" else most * 1024

    def told(self, error: BaseException) -> str:
        """A message for the user whose run needed more than there is."""
        import torch

        if self.device.type == "cuda":
            there = torch.cuda.get_device_properties(self.device).total_memory
        else:
            there = psutil.virtual_memory().total
        return (
            f"out of memory: {self.peak() / 2**30:.1f} GiB at most, of {there / 2**30:.1f} GiB on {self.device.type} "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Raise recovery.accumulation, or "
            "lower recovery.batch_size and evaluation.batch_size."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is of memory that could not be had, on a GPU or in the process."""
    import torch

    # torch's allocator for the CPU raises a plain RuntimeError
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)


@functools.cache
def commit() -> str | None:
    """The commit of the code when this process began to use it, with a `+` if files differed from it.

    None for an installed package.
    """
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()

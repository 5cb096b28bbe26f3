"""What this process holds in memory, by the kernel's account (Linux with glibc only)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def resident(field: str = "VmRSS") -> float:
    """MiB held now, or at the peak since it was last reset (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def with_peak(work: Callable[[], Result]) -> tuple[Result, float]:
    """What ``work`` returns, and by how many MiB its peak exceeds what was held before."""
    ctypes.CDLL(None).malloc_trim(0)  # gives back what was freed, which would be used again without a trace
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held now
    before = resident()
    result = work()
    return result, resident("VmHWM") - before

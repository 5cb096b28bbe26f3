"""Resident memory of this process, as the kernel reports it (Linux with glibc only)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def resident(field: str = "VmRSS") -> float:
    """MiB now, or the peak since its last reset (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def with_peak(work: Callable[[], Result]) -> tuple[Result, float]:
    """The result of ``work``, and the MiB by which the peak during the call exceeds the memory before it."""
    ctypes.CDLL(None).malloc_trim(0)  # returns freed memory: its reuse would be invisible
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident()
    result = work()
    return result, resident("VmHWM") - before

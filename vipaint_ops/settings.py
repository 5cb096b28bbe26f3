"""Fields of configurations that carry their range, and one check of all of them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import InputError

_LARGEST = 2**64 - 1
"""Largest integer of a setting: that of a seed."""


@dataclass(frozen=True)
class Range:
    """The finite numbers from ``low`` to ``high``: without ``low`` itself if ``open``, integers only if ``whole``."""

    low: float
    high: float = math.inf
    open: bool = False
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open else value >= self.low
        return above and value <= self.high and abs(value) <= (_LARGEST if self.whole else sys.float_info.max)

    def __str__(self) -> str:
        if self.open and self.low == 0 and self.high == math.inf:
            return "positive"
        lower = f"{'above' if self.open else 'at least'} {self.low:g}"
        return lower if self.high == math.inf else f"{lower} and at most {self.high:g}"


def number(default: float, low: float, high: float = math.inf, *, open: bool = False) -> Any:
    """A field that holds a number of a :class:`Range`, an integer where ``default`` is one."""
    return field(default=default, metadata={"range": Range(low, high, open, isinstance(default, int))})


def choice(default: str, options: tuple[str, ...]) -> Any:
    """A field that holds one of ``options``."""
    return field(default=default, metadata={"options": options})


class Settings:
    """Base of configurations: every :func:`number` and :func:`choice` is checked when one is made.

    Raises:
        InputError: a choice is not one of its options; or a value is not a number, not an integer where the default is
            one, not finite, or outside its range.
    """

    def __post_init__(self) -> None:
        for setting in fields(self):  # type: ignore[arg-type]
            if "range" in setting.metadata:
                check_number(setting.name, getattr(self, setting.name), setting.metadata["range"])
            options = setting.metadata.get("options")
            if options and getattr(self, setting.name) not in options:
                raise InputError(
                    f"{setting.name} is {getattr(self, setting.name)!r}; choose one of {', '.join(options)}"
                )


def check_number(name: str, value: Any, allowed: Range) -> None:
    """Refuse a value of ``name`` that is not a number of the ``allowed`` range.

    Raises:
        InputError: see above.
    """
    kind = int if allowed.whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InputError(f"{name} is {value!r}; it must be {'an integer' if allowed.whole else 'a number'}")
    if value not in allowed:
        raise InputError(f"{name} is {value}; it must be {allowed}")


def is_finite(value: Any) -> bool:
    """Whether it is a number, and one that a float can hold; a truth value is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max

"""Values for one widget: sane and cheap ones, the ends of its range, and hostile ones."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

CHEAP = {
    "iterations": 2,
    "samples": 1,
    "num_samples": 1,
    "steps": 2,
    "particles": 1,
    "gradient_steps": 1,
    "inner_steps": 1,
    "latent_iterations": 2,
    "pixel_iterations": 2,
    "ode_steps": 1,
    "refreshes": 1,
    "travel_length": 1,
    "travel_visits": 1,
    "solver_iterations": 2,
    "spread_iterations": 1,
    "kernel_size": 9,
    "factor": 2,
    "size": 64,
    "width": 64,
    "height": 64,
    "preset": "fast",
    "noise_level": 0.05,
}
"""Values of a first try that takes little time; all other widgets have their defaults."""
_WORK = {*CHEAP, "prediction_steps", "components", "feather", "border"} - {"preset", "noise_level", "kernel_size"}
"""Widgets whose upper end takes hours by right."""
_TEXTS = [
    "",
    "\0",
    "../../../../escaped",
    "/etc/passwd",
    "%year%",
    "é\N{SNOWMAN}" * 40,
    "a" * 300,
    "1 2; 3",
    "nan, nan",
]
_OTHERS = [None, True, [], {}, [1.0, 2.0], {"a": 1}, "", "abc", "nan", "1e400"]


@dataclass(frozen=True)
class Value:
    """A value of a widget, and whether it reaches the node through a link, past the checks of ComfyUI."""

    value: Any
    linked: bool = False


@dataclass(frozen=True)
class Widget:
    """A widget as ComfyUI describes it: ``kind`` is INT, FLOAT, STRING, BOOLEAN or a list of choices."""

    name: str
    kind: str | list[Any]
    facts: dict[str, Any]

    def cheap(self) -> Any:
        """The default, or a value that takes less time."""
        choices = self.choices()
        if self.name in CHEAP and (choices is None or CHEAP[self.name] in choices):
            return CHEAP[self.name]
        if "default" in self.facts:
            return self.facts["default"]
        return choices[0] if choices else ""

    def choices(self) -> list[Any] | None:
        """The options of a choice; older hosts have them in place of the type."""
        return self.kind if isinstance(self.kind, list) else self.facts.get("options")

    def legal(self, numbers: random.Random) -> Value:
        """A value that the node has to take, or to refuse in words."""
        choices = self.choices()
        if choices:
            quick = [choice for choice in choices if not str(choice).startswith("published")]
            return Value(numbers.choice(quick), linked=numbers.random() < 0.3)
        if self.kind in ("INT", "FLOAT"):
            return Value(self._number(numbers), linked=numbers.random() < 0.3)
        if self.kind == "BOOLEAN":
            return Value(numbers.random() < 0.5)
        return Value(numbers.choice(_TEXTS), linked=numbers.random() < 0.3)

    def hostile(self, numbers: random.Random) -> Value:
        """A value that ComfyUI or the node has to refuse, if it is not legal by chance."""
        linked = numbers.random() < 0.5
        if self.kind in ("INT", "FLOAT"):
            least, most = self.facts.get("min", 0), self.facts.get("max", 1)
            odd = [float("nan"), float("inf"), -float("inf"), "nan", "inf", "-inf", "1e400", 2**70, -(2**70)]
            past = [least - 1, most + 1, 0, -1, 10**13, 0.5, "7", str(least)]
            return Value(numbers.choice([*odd, *past, *_OTHERS]), linked)
        if self.choices():
            wrong = ["", "no such choice", str(self.choices()[0]).upper(), 0, -1, 10**9]
            return Value(numbers.choice([*wrong, *_OTHERS, *_TEXTS]), linked)
        return Value(numbers.choice([*_OTHERS, *_TEXTS, 3, 2.5]), linked)

    def _number(self, numbers: random.Random) -> float:
        least, most = self.facts.get("min", 0), self.facts.get("max", 1)
        if self.name in _WORK:
            return numbers.choice([least, self.cheap(), min(most, max(least, self.cheap() + 1))])
        if self.kind == "INT":
            return numbers.choice([least, most, numbers.randint(least, most)])
        return numbers.choice([least, most, numbers.uniform(least, most)])

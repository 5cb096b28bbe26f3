"""Thousands of cases, one after the other: seeded, resumable, a line of JSON for each."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.host import Host, Outcome, record, smallest

_BATCH = 50
"""Cases between two checks of what no case may change."""


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; a half-written last one does not count."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


class Results:
    """The file of one campaign; cases that it holds are not run again."""

    def __init__(self, folder: Path, name: str, seed: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}-{seed}.jsonl"
        self.path.touch()
        self._seed = seed

    def pending(self, count: int) -> Iterator[tuple[int, int]]:
        """Number and seed of the cases that are still to run."""
        done = read(self.path)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in done))
        first = 1 + max((line["case"] for line in done), default=-1)
        for case in range(first, count):
            yield case, self._seed * 1_000_000 + case

    def add(self, line: dict[str, Any]) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def prompts(host: Host, results: Results, count: int) -> None:
    """Random prompts. Of an unexpected outcome, the smallest prompt is kept when it is first seen."""
    seen = {line["about"] for line in read(results.path) if "prompt" in line}

    def run(case: int, seed: int) -> dict[str, Any]:
        made = host.prompts.case(seed)
        outcome = host.run(made)
        line = record(case, outcome, target=made.target)
        if not outcome.expected and outcome.about not in seen:
            seen.add(outcome.about)
            line["prompt"] = smallest(host.run, host.prompts, seed, outcome).graph.prompt
        return line

    _in_batches(host, results, count, run)


def interrupts(host: Host, results: Results, count: int) -> None:
    """Stops at random moments."""
    _in_batches(host, results, count, lambda case, seed: record(case, host.interrupt(seed)), batch=10)


def _in_batches(
    host: Host, results: Results, count: int, run: Callable[[int, int], dict[str, Any]], batch: int = _BATCH
) -> None:
    for case, seed in results.pending(count):
        line = run(case, seed)
        if line["kind"] in ("no answer", "hang"):
            host.restart()
        elif case % batch == batch - 1:
            line["changed"] = host.unchanged()
            line["resident"] = host.server.resident_bytes()
        results.add(line)


def offline(check: Callable[[int, Path], str], results: Results, count: int) -> None:
    """Cases without ComfyUI: ``check(seed, folder)`` returns "ok", "refused" or what was unexpected."""
    for case, seed in results.pending(count):
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            found = check(seed, Path(folder))
        kind = {"ok": "ran", "refused": "refused by the pack"}.get(found, "unexpected")
        seconds = round(time.monotonic() - started, 2)
        results.add(record(case, Outcome(kind, found if kind == "unexpected" else ""), seconds=seconds))

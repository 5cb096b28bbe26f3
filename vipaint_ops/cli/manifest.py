"""The manifest of a batch: one line of JSON for each item."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .items import Item
from .made import results_of
from .workers import Outcome

NAME = "manifest.jsonl"


class Manifest:
    """A file that grows by a line with every result. At the end, it has the order of the table.

    A line has the ``name`` of the item, its ``status`` (done or failed), ``seconds`` and ``attempts`` of this run (0 if
    it was finished before), ``reason`` of a failure, ``notices``, and ``files``, relative to the manifest's folder.
    """

    def __init__(self, folder: Path):
        self._path = folder / NAME
        self._lines: dict[str, str] = {}
        self._replace("")

    def add(self, item: Item, outcome: Outcome, attempts: int) -> None:
        """Write the line of an item."""
        record: dict[str, Any] = {
            "name": item.name,
            "status": "failed" if outcome.status else "done",
            "seconds": round(outcome.seconds, 3),
            "attempts": attempts,
        }
        if outcome.status:
            record["reason"] = outcome.reason
        if outcome.notices:
            record["notices"] = outcome.notices
        if not outcome.status:
            record["files"] = [f"{item.name}/{name}" for name in results_of(self._path.parent / item.name)]
        self._lines[item.name] = json.dumps(record, ensure_ascii=False) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(self._lines[item.name])

    def sort(self, items: list[Item]) -> None:
        """Bring the lines into the order of the items."""
        self._replace("".join(self._lines[item.name] for item in items))

    def _replace(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self._path)

"""What a run is made from: two runs of which it is equal give the same pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .output import INPUTS, RECORD, digest, inputs_of, read_json, recorded_files

MODEL = ("prior", "prior_config")
"""Inputs that are known by their path, as they are too large to be read for a comparison."""


def made_from(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a run as they were parsed, and the SHA-256 of its input files, for its record."""
    given = {name: value for name, value in options.given.items() if name not in (*INPUTS, "out", "overwrite")}
    given |= {option: str(path.absolute()) for option, path in inputs_of(options, *MODEL)}
    inputs: dict[str, list[str | None]] = {}
    for option, path in inputs_of(options, *(name for name in INPUTS if name not in MODEL)):
        inputs.setdefault(option, []).append(digest(path))
    return dict(json.loads(json.dumps({"options": given, "inputs": inputs})))


def is_finished(options: argparse.Namespace) -> bool:
    """Whether the folder of a run has its record, made from the same, and every file that the record lists."""
    record = Path(options.out) / RECORD
    if read_json(record).get("run") != made_from(options):
        return False
    return all(digest(record.parent / name) == value for name, value in recorded_files(record).items())


def results_of(folder: Path) -> list[str]:
    """Names of the files of the run whose record is in a folder."""
    return list(recorded_files(folder / RECORD))


def differences(options: argparse.Namespace) -> str:
    """How a run differs from the one whose record is in its folder, in words; empty if there is none."""
    recorded = read_json(Path(options.out) / RECORD).get("run")
    if not isinstance(recorded, dict):
        return ""
    words = []
    for kind, now in made_from(options).items():
        before = recorded.get(kind, {})
        changed = [name for name in sorted(now | before) if now.get(name) != before.get(name)]
        if kind == "inputs":
            words += [f"another file for {name}" for name in changed]
        else:
            words += [f"{name} {before.get(name)!r}, now {now.get(name)!r}" for name in changed]
    return "; ".join(words)

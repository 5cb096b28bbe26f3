"""Where the files of a run go, and which files of an earlier run they may replace."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..vipaint.posterior import is_posterior

RECORD = "metrics.json"
"""The record of a run. Its ``files`` have the SHA-256 of every other file."""

_NAMES = re.compile(
    r"(sample_\d{2,}|samples_(mean|spread|different)|sheet|fit|keypoints|degraded(_mask|_kernel)?)\.png"
    r"|posterior(_\d+)?\.safetensors|metrics\.json"
)
INPUTS = ("image", "mask", "truth", "kernel", "posterior", "prior", "prior_config", "pictures")
"""Options that name files or folders to read."""


class Output(Protocol):
    """The place of the files of a run.

    Attributes:
        folder: the folder.
        claim: name of the folder in it that a run works in; places with different claims have no file in common.
        inputs: files that the run reads, by option.
    """

    folder: Path
    claim: str
    inputs: list[tuple[str, Path]]

    def replaced(self) -> list[str]:
        """Names of the files that are there and that the run replaces.

        Raises:
            InputError: there are files that the run must not replace.
        """


class ResultFolder:
    """The folder ``--out``. Replaced is only what the record of an earlier run lists, unchanged since."""

    claim = ".vipaint-run"

    def __init__(self, options: argparse.Namespace):
        self.folder, self.inputs, self._overwrite = Path(options.out), inputs_of(options, *INPUTS), options.overwrite

    def replaced(self) -> list[str]:
        """See :class:`Output`."""
        found = sorted(path for path in self.folder.glob("*") if _NAMES.fullmatch(path.name))
        if found and not self._overwrite:
            raise InputError(
                f"--out {str(self.folder)!r} has results already ({found[0].name}): give another folder or --overwrite"
            )
        recorded = recorded_files(self.folder / RECORD)
        for path in found:
            if path.is_symlink() or recorded.get(path.name, "") != digest(path):
                raise InputError(
                    f"--overwrite does not replace {str(path)!r}: by the record of the folder ({RECORD}), no earlier "
                    "run has written it as it is; move it, or give another folder"
                )
            check_not_input(path, self.inputs)
        return [path.name for path in found]


class PosteriorFile:
    """The file ``--posterior`` of a fit. Replaced is only another posterior."""

    def __init__(self, options: argparse.Namespace):
        self.path, self._overwrite = Path(options.posterior), options.overwrite
        self.folder = self.path.parent
        self.inputs = inputs_of(options, *(name for name in INPUTS if name != "posterior"))
        self.claim = f"{ResultFolder.claim}-{hashlib.sha256(os.fsencode(self.path.name)).hexdigest()[:12]}"

    def replaced(self) -> list[str]:
        """See :class:`Output`."""
        name = f"--posterior {str(self.path)!r}"
        if not os.path.lexists(self.path):
            return []
        if self.path.is_dir() or not self._overwrite:
            raise InputError(f"{name} exists already: give another name or --overwrite")
        check_not_input(self.path, self.inputs)
        if self.path.is_symlink() or not is_posterior(self.path):
            raise InputError(f"--overwrite does not replace {name}, which is no posterior: give another name")
        return [self.path.name]


def check_writable(output: Output) -> None:
    """Look at the place before the work, and change nothing.

    Raises:
        InputError: the folder is not writable, or has files that the run must not replace.
    """
    folder = output.folder
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {str(folder)!r}: {str(existing)!r} is not a folder with write permission")
    # What a run was writing when it was killed is put back by the next run's claim.
    if not (folder / output.claim).is_dir():
        output.replaced()


def check_not_input(path: Path, inputs: list[tuple[str, Path]]) -> None:
    """Refuse a file that a run would replace and reads.

    Raises:
        InputError: it is one of the inputs.
    """
    for option, given in inputs:
        if given.exists() and path.samefile(given):
            raise InputError(f"{option} {str(given)!r} would be replaced by the results: give another place for them")


def digest(path: Path) -> str | None:
    """SHA-256 of a file; None if it is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """The dictionary in a JSON file, empty if there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def recorded_files(record: Path) -> dict[str, Any]:
    """The files that a record lists and that are the work of a run, with the record itself."""
    files = read_json(record).get("files")
    return files | {RECORD: digest(record)} if isinstance(files, dict) else {}


def inputs_of(options: argparse.Namespace, *names: str) -> list[tuple[str, Path]]:
    """Option and path of every input that is given."""
    given = {f"--{name.replace('_', '-')}": getattr(options, name, None) for name in names}
    lists = {option: paths if isinstance(paths, list) else [paths] for option, paths in given.items() if paths}
    return [(option, Path(path)) for option, paths in lists.items() for path in paths]

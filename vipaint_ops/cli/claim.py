"""Writing of the files of a run: all or none, by one run at a time.

A run works in a folder inside the folder of its results, which it locks: ``new`` has its files, ``old`` those that
they replace, and ``journal.json`` the SHA-256 of the new ones, in the order in which they move into place. The last one
is the record of the run. If it is not in place, the next run takes back what has moved.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError
from .output import Output, check_not_input, digest, read_json
from .stop import finish

Write = Callable[[dict[str, bytes]], None]
"""Writes files by name; the last one is the record."""


@contextmanager
def claimed(output: Output, needed: int) -> Iterator[Write]:
    """Claim a place for this run alone. Yields the function that writes the files.

    If it cannot write them there, it writes them to a new temporary folder, which its error names.

    Args:
        needed: the least space on the disk that the files may take, in bytes.

    Raises:
        InputError: another run has the place; it is not writable, too small, or has files that the run must not
            replace.
    """
    folders = (output.folder, *output.folder.absolute().parents)
    made = [folder for folder in folders if not folder.exists()]
    claim = _Claim(output)
    try:
        try:
            claim.take()
        except OSError as error:
            raise InputError(f"cannot write to {str(output.folder)!r}: {_reason(error)}") from error
        if shutil.disk_usage(output.folder).free < needed:
            raise InputError(
                f"cannot write to {str(output.folder)!r}: the results need {needed / 2**20:.0f} MiB or more, and the "
                "disk has less; give another folder"
            )
        output.replaced()
        yield claim.write
    finally:
        finish()
        claim.release()
        for folder in made if not claim.written else ():
            with suppress(OSError):
                folder.rmdir()


class _Claim:
    def __init__(self, output: Output):
        self.output, self.folder = output, output.folder
        self.work = output.folder / output.claim
        self.new, self.old, self.journal = self.work / "new", self.work / "old", self.work / "journal.json"
        self.lock: int | None = None
        self.written = False

    def take(self) -> None:
        """Lock the working folder, and take back what a run that was killed has moved.

        Raises:
            InputError: another run has it.
        """
        while self.lock is None:
            self.work.mkdir(parents=True, exist_ok=True)
            if self.work.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.work))
            with suppress(FileNotFoundError):  # the run that had it has just removed the folder
                self.lock = _locked(self.work / "lock")
        self.take_back()

    def write(self, files: dict[str, bytes]) -> None:
        """Write the files of the run.

        Raises:
            InputError: they could not be written to their place; it names the folder that has them.
        """
        try:
            _write(self.new, files)
            digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
            _write(self.work, {self.journal.name: json.dumps(digests).encode()})
            finish()
            self.old.mkdir()
            for name in self.output.replaced():
                _move(self.folder / name, self.old)
            for name in files:
                _move(self.new / name, self.folder)
        except (OSError, InputError) as error:
            finish()
            with suppress(OSError):
                self.take_back()
            raise InputError(
                f"cannot write to {str(self.folder)!r}: {_reason(error)}; {_keep_elsewhere(files)}"
            ) from error
        self.written = True

    def take_back(self) -> None:
        """Undo what a run has moved without an end, and empty the working folder.

        It can be stopped anywhere and called again: a file that was put back may be the same as a new one, so it looks
        at the new ones only as long as there is a journal.

        Raises:
            InputError: a file to remove is an input of this run.
        """
        files = {name: value for name, value in read_json(self.journal).items() if Path(name).name == name}
        moved = [self.folder / name for name, value in files.items() if value == digest(self.folder / name)]
        moved = [path for path in moved if not (self.new / path.name).exists()]
        if moved and moved[-1].name == list(files)[-1]:
            if self.old.exists():
                shutil.rmtree(self.old)
        else:
            for path in moved:
                check_not_input(path, self.output.inputs)
            for path in moved:
                path.unlink()
        self.journal.unlink(missing_ok=True)
        for path in self.old.glob("*"):
            _move(path, self.folder)
        for folder in (self.old, self.new):
            if folder.exists():
                shutil.rmtree(folder)

    def release(self) -> None:
        with suppress(OSError, InputError):
            if self.lock is not None:
                self.take_back()
                (self.work / "lock").unlink()
                (self.work / "running").unlink(missing_ok=True)
            self.work.rmdir()
        if self.lock is not None:
            os.close(self.lock)


def _locked(path: Path) -> int:
    """A descriptor of a file that this process has locked. The system unlocks it when the process ends.

    On a file system without locks, a file beside it stands for the lock. It stays behind if the process is killed: the
    next run is refused until the user deletes it.

    Raises:
        InputError: another process has locked it.
        FileNotFoundError: the file was removed meanwhile.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(path)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return _marked(path.with_name("running"), descriptor)
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise InputError(
                f"another run is writing to {str(path.parents[1])!r}: wait for it, or give another place"
            ) from error
        raise
    return descriptor


def _marked(path: Path, descriptor: int) -> int:
    """The descriptor, once this process alone has made the file.

    Raises:
        InputError: the file is there.
    """
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, FileExistsError):
            raise
        raise InputError(
            f"another run is writing to {str(path.parents[1])!r}, or was killed: wait for it, or delete {str(path)!r} "
            "if there is none"
        ) from error
    return descriptor


def _move(path: Path, folder: Path) -> None:
    target = folder / path.name
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    path.rename(target)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _keep_elsewhere(files: dict[str, bytes]) -> str:
    """Write the files to a new folder; returns where they are, in words."""
    for parent in (tempfile.gettempdir, Path.home):
        try:
            folder = tempfile.mkdtemp(prefix="vipaint-", dir=parent())
        except (OSError, RuntimeError):
            continue
        try:
            _write(Path(folder), files)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        return f"the results are in {folder!r}"
    return "the results are lost, as no other folder could take them"


def _reason(error: Exception) -> str:
    return f"{error.strerror} ({error.filename})" if isinstance(error, OSError) and error.filename else str(error)

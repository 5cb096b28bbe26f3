"""A list of the files below a folder that is cheap to ask for again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

_FOLDERS = 4096
"""Number of folders whose content is kept."""


def files_below(root: str, suffix: str) -> list[str]:
    """Paths of the files whose name ends with ``suffix``, relative to ``root``, with ``/``, sorted.

    A folder is read again only if it has changed since. Folders that cannot be read and links that lead nowhere are
    left out.
    """
    visited: set[tuple[int, int]] = set()
    return sorted(os.path.relpath(path, root).replace(os.sep, "/") for path in _walk(root, suffix, visited))


def _walk(folder: str, suffix: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    try:
        status = os.stat(folder)
        folders, files = _content(folder, suffix, status.st_mtime_ns)
    except OSError:
        return
    place = (status.st_dev, status.st_ino)
    if place in visited:  # a link to a folder above it
        return
    visited.add(place)
    yield from (path for path in files if os.path.isfile(path))
    for path in folders:
        yield from _walk(path, suffix, visited)


@lru_cache(maxsize=_FOLDERS)
def _content(folder: str, suffix: str, changed: int) -> tuple[list[str], list[str]]:
    """Paths of the folders and of the files with ``suffix`` in a folder; ``changed`` is part of the cache's key."""
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    return [path for path in paths if os.path.isdir(path)], [path for path in paths if path.endswith(suffix)]

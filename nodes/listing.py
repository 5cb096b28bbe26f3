"""A list of the files below a folder that is cheap to ask for again."""

from __future__ import annotations

import os
from functools import lru_cache

_FOLDERS = 4096
"""Number of folders whose content is kept."""


def files_below(root: str, suffix: str) -> list[str]:
    """Paths of the files whose name ends with ``suffix``, relative to ``root``, with ``/``, sorted.

    A folder is read again only if it has changed since. Folders that cannot be read, links that lead nowhere, and names
    that are no text (of bytes that are not UTF-8) are left out.
    """
    found, folders, visited = [], [root], set()
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            inner, files = _content(folder, suffix, status.st_mtime_ns)
        except OSError:
            continue
        place = (status.st_dev, status.st_ino)
        if place not in visited:  # else a link to a folder above it
            visited.add(place)
            found += filter(os.path.isfile, files)
            folders += inner
    return sorted(os.path.relpath(path, root).replace(os.sep, "/") for path in found)


@lru_cache(maxsize=_FOLDERS)
def _content(folder: str, suffix: str, changed: int) -> tuple[list[str], list[str]]:
    """Paths of the folders and of the files with ``suffix`` in a folder; ``changed`` is part of the cache's key."""
    paths = [os.path.join(folder, name) for name in os.listdir(folder) if _is_text(name)]
    return [path for path in paths if os.path.isdir(path)], [path for path in paths if path.endswith(suffix)]


def _is_text(name: str) -> bool:
    return name.encode(errors="ignore").decode() == name

"""Lists and checks the files of both packages: the registry's archive and the wheel.

``python -m tools.package_files FOLDER`` reads the wheel in ``FOLDER`` and writes ``registry.txt`` and ``wheel.txt``
beside it. ``make package`` builds the wheel first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from pathspec import GitIgnoreSpec

ROOT = Path(__file__).parent.parent
LIBRARY = "vipaint_ops/"


def tracked_files() -> list[str]:
    """Files of the repository that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return listed.stdout.rstrip("\0").split("\0")


def registry_files() -> list[str]:
    """Files that ``comfy node publish`` puts into its archive: those that git tracks and .comfyignore leaves in."""
    ignored = GitIgnoreSpec.from_lines((ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines())
    return [name for name in tracked_files() if not ignored.match_file(name)]


def wheel_files(wheel: Path) -> list[str]:
    """Files of a wheel, without its metadata."""
    with ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


def main() -> None:
    """Write both lists; exit with an error if the wheel is not the tracked files of the library."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with the wheel")
    folder = parser.parse_args().folder
    (wheel,) = folder.glob("*.whl")
    lists = {"registry": registry_files(), "wheel": wheel_files(wheel)}
    for name, files in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(sorted(files)) + "\n", encoding="utf-8")
        print(f"{name}: {len(files)} files, see {folder / name}.txt")
    library = {name for name in tracked_files() if name.startswith(LIBRARY)}
    if different := library ^ set(lists["wheel"]):
        sys.exit(f"{wheel.name} and {LIBRARY} differ in {sorted(different)}")


if __name__ == "__main__":
    main()

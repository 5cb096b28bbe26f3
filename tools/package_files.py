"""Lists and checks the files of the packages: the registry's archive, the wheel and the source distribution.

``python -m tools.package_files FOLDER`` reads the wheel and the source distribution in ``FOLDER`` and writes a list for
each beside them. ``make package`` builds both first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

from pathspec import GitIgnoreSpec

ROOT = Path(__file__).parent.parent
LIBRARY = "vipaint_ops/"
BESIDE = {"LICENSE", "README.md", "pyproject.toml"}
"""Files of the source distribution beside the library."""


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


def source_files(archive: Path) -> list[str]:
    """Files of a source distribution, without its metadata."""
    with tarfile.open(archive) as files:
        names = [member.name.partition("/")[2] for member in files if member.isfile()]
    return [name for name in names if name not in ("PKG-INFO", "setup.cfg") and ".egg-info/" not in name]


def main() -> None:
    """Write the lists; exit with an error if a package lacks tracked files of the library, or has others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with the wheel and the source distribution")
    folder = parser.parse_args().folder
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    lists = {"registry": registry_files(), "wheel": wheel_files(wheel), "source": source_files(source)}
    for name, files in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(sorted(files)) + "\n", encoding="utf-8")
        print(f"{name}: {len(files)} files, see {folder / name}.txt")
    library = {name for name in tracked_files() if name.startswith(LIBRARY)}
    for archive, expected in (wheel, library), (source, library | BESIDE):
        if different := expected ^ set(lists["wheel" if archive == wheel else "source"]):
            sys.exit(f"{archive.name} and the tracked files differ in {sorted(different)}")


if __name__ == "__main__":
    main()

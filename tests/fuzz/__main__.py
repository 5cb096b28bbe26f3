"""Try random prompts, interrupts, hostile files and command lines, and write what came of them.

The seeds, and nothing else, decide the cases. A run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz import campaign, command_lines, hostile_files
from tests.fuzz.host import Host
from tests.fuzz.report import failures, report
from tests.host.comfy_server import HOW_TO_ENABLE, find_comfyui


def main() -> int:
    """Run the campaigns and return 1 if anything was unexpected."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    for name, cases in ("prompts", 10_000), ("interrupts", 500), ("files", 2000), ("commands", 1000):
        parser.add_argument(f"--{name}", type=int, default=cases, help=f"how many (default {cases})")
    options = parser.parse_args()

    def results(name: str) -> campaign.Results:
        return campaign.Results(options.out, name, options.seed)

    if options.prompts or options.interrupts:
        with tempfile.TemporaryDirectory() as base:
            host = Host(_comfyui(), Path(base) / "comfyui")
            try:
                campaign.prompts(host, results("prompts"), options.prompts)
                campaign.interrupts(host, results("interrupts"), options.interrupts)
            finally:
                host.close()
    campaign.offline(_file, results("files"), options.files)
    campaign.offline(_command, results("commands"), options.commands)
    text = report(options.out)
    (options.out / "report.md").write_text(text)
    print(text)
    return 1 if failures(options.out) else 0


def _comfyui() -> Path:
    found = find_comfyui()
    if found is None:
        sys.exit(HOW_TO_ENABLE)
    return found


def _file(seed: int, folder: Path) -> str:
    return hostile_files.check(hostile_files.hostile_file(seed, folder))


def _command(seed: int, folder: Path) -> str:
    return command_lines.check(command_lines.commands(seed), folder)


if __name__ == "__main__":
    sys.exit(main())

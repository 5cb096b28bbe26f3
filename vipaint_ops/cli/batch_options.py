"""Arguments and help of ``vipaint batch``."""

from __future__ import annotations

import argparse

from .options import integer

BATCH_USAGE = "vipaint batch TABLE|FOLDER --out DIR [options] [-- options of every item]"
BATCH_EXAMPLES = """\
An item is one picture: a command line of its own, with its own folder DIR/NAME. Items come from a folder of pictures,
or from a table with a row for each. The columns of a table are options of the command without dashes: image, mask,
prompt, seed, samples. Empty cells are options not given; flags are true or false. Paths are relative to the folder of
the table. Several values of --set or --posterior stand in one cell, as in a shell. Two more columns: name (default: the
name of the picture) and command. Options after -- are those of every item; a cell overrides them.

DIR/manifest.jsonl has a line for each item: status, seconds, attempts, reason of a failure, files. Run the same command
again to go on: finished items do not run again. An item whose settings or files have changed since is refused;
--overwrite runs it again. Each worker loads the model once. The number of workers does not change a pixel.

Exit status: 0 all items are done, 1 some have failed, 2 none can run.

examples:
  vipaint batch photos --masks masks --out restored -- --prior ~/models/sd15 --samples 4 --preset fast
  vipaint batch table.csv --out restored --workers 2
  vipaint batch table.parquet --out restored --ray=auto --workers 16 -- --prior /shared/sdxl --dtype float16
"""


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.set_defaults(item_options=())
    parser.add_argument("items", metavar="TABLE|FOLDER", help="a .csv or .parquet table, or a folder of pictures")
    parser.add_argument("--masks", metavar="FOLDER", help="for a folder: masks with the names of the pictures")
    parser.add_argument(
        "--command", dest="item_command", metavar="NAME", default="inpaint", help="command of items without one"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="DIR", help="folder for the folders of the items")
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="run items again whose settings or files have changed, and replace their results",
    )
    machine = parser.add_argument_group("workers")
    machine.add_argument(
        "--workers",
        type=integer(1, 10_000),
        metavar="N",
        help="processes, each with a model in memory (default: one for each GPU, else one; with --ray, else one for "
        "each CPU)",
    )
    machine.add_argument(
        "--threads", type=integer(1, 1024), default=1, metavar="N", help="CPU threads of a worker; can change rounding"
    )
    machine.add_argument(
        "--retries",
        type=integer(0, 100),
        default=1,
        metavar="N",
        help="further attempts for an item whose worker was killed",
    )
    machine.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="workers on a Ray cluster: the one at the address, else of RAY_ADDRESS, else of this machine",
    )

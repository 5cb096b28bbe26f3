"""The items of a batch: each is one command line, with a folder for its results."""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
from collections import Counter
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .output import INPUTS, inputs_of
from .table import Row, read_rows

_NAME = re.compile(r"[\w(][\w .+,=@()-]*")
_LONGEST_NAME = 200
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NOT_A_COLUMN = {"help", "out", "overwrite"}


class Item(NamedTuple):
    """One command line.

    Attributes:
        name: of its folder.
        arguments: of ``vipaint``.
        refusal: why it cannot run; empty if it can.
    """

    name: str
    arguments: tuple[str, ...]
    refusal: str = ""


def read_items(options: argparse.Namespace) -> list[Item]:
    """The items of ``vipaint batch``, each checked by the parser of its command.

    Raises:
        InputError: the table cannot be read, has unknown columns or unusable names, or none of its items can run.
    """
    if any(word.startswith(("--ou", "--ov")) for word in options.item_options):
        raise InputError("--out and --overwrite are options of the batch: give them before --")
    source = Path(options.items)
    rows = read_rows(source, Path(options.masks) if options.masks else None)
    commands = item_commands()
    known = {"name", "command"}.union(*commands.values())
    for name in dict.fromkeys(name for row in rows for name in row.cells):
        if name not in known:
            raise InputError(f"{str(source)!r}: column {name!r} is none of {', '.join(sorted(known))}")
    base = source if source.is_dir() else source.parent
    items = [_item(options, row, name, commands, base) for row, name in zip(rows, _names(rows), strict=True)]
    if all(item.refusal for item in items):
        raise InputError(f"no item of {str(source)!r} can run; the first, {items[0].name!r}: {items[0].refusal}")
    return items


def item_commands() -> dict[str, dict[str, argparse.Action]]:
    """The commands that read a picture and write a folder, each with the options that a row can have."""
    (choices,) = (action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    options = {name: {action.dest: action for action in sub._actions} for name, sub in choices.items()}
    return {
        name: {option: action for option, action in actions.items() if option not in _NOT_A_COLUMN}
        for name, actions in options.items()
        if "out" in actions and "image" in actions and actions["image"].required
    }


@cache
def _parser() -> argparse.ArgumentParser:
    from .parser import build_parser

    return build_parser()


def _names(rows: list[Row]) -> list[str]:
    """A name for every row: that of the table, or the stem of the picture, numbered where it is taken."""
    given = [row.cells["name"] for row in rows if "name" in row.cells]
    for name in given:
        if not _NAME.fullmatch(name) or name.endswith((" ", ".")) or len(os.fsencode(name)) > _LONGEST_NAME:
            raise InputError(
                f"name {name!r} does not suit a folder: use letters, digits and . _ - + , = @ ( ) inside, "
                f"at most {_LONGEST_NAME} bytes"
            )
    count = Counter(name.casefold() for name in given)
    repeated = [name for name in given if count[name.casefold()] > 1]
    if repeated:
        raise InputError(f"name {repeated[0]!r} is given to more than one item: give each its own")
    taken, numbers, names = set(count), Counter[str](), []
    for row in rows:
        if "name" in row.cells:
            names.append(row.cells["name"])
            continue
        stem = name = _safe(Path(row.cells.get("image", "item")).stem)
        while name.casefold() in taken:
            numbers[stem] += 1
            name = f"{stem}-{numbers[stem] + 1}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _safe(stem: str) -> str:
    words = re.sub(r"[^\w .+,=@()-]", "_", stem).lstrip(" .+,=@)-").rstrip(" .")
    return os.fsencode(words)[: _LONGEST_NAME - 20].decode(errors="ignore") or "item"


def _item(
    options: argparse.Namespace, row: Row, name: str, commands: dict[str, dict[str, argparse.Action]], base: Path
) -> Item:
    command = row.cells.get("command", options.item_command)
    try:
        if command not in commands:
            raise ValueError(f"command {command!r} is none of {', '.join(commands)}")
        arguments = [command, *options.item_options]
        for column, cell in row.cells.items():
            if column not in ("name", "command"):
                if column not in commands[command]:
                    raise ValueError(f"{command} has no --{column.replace('_', '-')}")
                arguments += _words(column, commands[command][column], cell, base)
        arguments += [f"--out={Path(options.out).absolute() / name}", *(["--overwrite"] if options.overwrite else [])]
        _check(arguments)
    except ValueError as error:
        return Item(name, (), f"{row.place}: {error}")
    return Item(name, tuple(arguments))


def _words(column: str, action: argparse.Action, cell: str, base: Path) -> list[str]:
    """The words of a command line for a cell.

    Raises:
        ValueError: a flag is neither true nor false, or a quote is open.
    """
    option = f"--{column.replace('_', '-')}"
    if action.nargs == 0:
        if cell.lower() not in _FLAGS:
            raise ValueError(f"{column} is {cell!r}; it must be true or false")
        return [option] if _FLAGS[cell.lower()] else []
    several = action.nargs == "+" or isinstance(action, argparse._AppendAction)
    values = shlex.split(cell) if several else [cell]
    values = [str(base.absolute() / value) if column in INPUTS else value for value in values]
    return [option, *values] if action.nargs == "+" else [f"{option}={value}" for value in values]


def _check(arguments: list[str]) -> None:
    """Refuse what the command would refuse before its work.

    Raises:
        ValueError: with the reason.
    """
    with redirect_stderr(io.StringIO()) as said:
        try:
            parsed = _parser().parse_args(arguments)
        except SystemExit as stop:
            raise ValueError(reason(said.getvalue())) from stop
    for option, path in inputs_of(parsed, *INPUTS):
        if not path.exists():
            raise ValueError(f"{option} {str(path)!r} does not exist")


def reason(said: str) -> str:
    """The error in what a command has said."""
    lines = [line.split(": ", 2)[-1] for line in said.splitlines() if not line.startswith("vipaint: notice: ")]
    return lines[-1] if lines else ""

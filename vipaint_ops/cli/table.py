"""The rows of a batch: a CSV or Parquet table, or the pictures of a folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


class Row(NamedTuple):
    """The cells of an item.

    Attributes:
        place: where it stands, for messages.
        cells: text of each column that is not empty, by name with underscores.
    """

    place: str
    cells: dict[str, str]


def read_rows(source: Path, masks: Path | None) -> list[Row]:
    """Read a table or a folder.

    Args:
        source: a ``.csv`` or ``.parquet`` file, or a folder of pictures.
        masks: for a folder: the folder with a mask for each picture, of the same name up to the suffix.

    Raises:
        InputError: it cannot be read, has no rows, or has columns that are no names.
    """
    if source.is_dir():
        rows = _read_folder(source, masks)
    elif masks is not None:
        raise InputError(f"--masks {str(masks)!r} is for a folder of pictures; in a table, use the column mask")
    elif not source.is_file():
        raise InputError(f"{str(source)!r} is neither a table (.csv, .parquet) nor a folder of pictures")
    elif source.suffix.lower() == ".parquet":
        rows = _read_parquet(source)
    elif source.suffix.lower() == ".csv":
        rows = _read_csv(source)
    else:
        raise InputError(f"table {str(source)!r} must be a .csv or a .parquet file")
    if not rows:
        kind = f"pictures ({', '.join(PICTURES)})" if source.is_dir() else "rows"
        raise InputError(f"{str(source)!r} has no {kind}")
    return rows


def _read_folder(folder: Path, masks: Path | None) -> list[Row]:
    if masks is not None and not masks.is_dir():
        raise InputError(f"--masks {str(masks)!r} is no folder")
    of = {path.stem: str(path.absolute()) for path in _pictures(masks)} if masks else {}
    rows = []
    for path in _pictures(folder):
        cells = {"image": str(path.absolute())}
        if masks:
            # A name that does not exist is refused with the item.
            cells["mask"] = of.get(path.stem, str(masks.absolute() / path.name))
        rows.append(Row(path.name, cells))
    return rows


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def _read_csv(path: Path) -> list[Row]:
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = _columns(path, next(lines, []))
            for cells in lines:
                if not any(cells):
                    continue
                if len(cells) != len(names):
                    raise InputError(
                        f"table {str(path)!r}: line {lines.line_num} has {len(cells)} cells and the header {len(names)}"
                    )
                rows.append(_row(f"line {lines.line_num}", dict(zip(names, cells, strict=True))))
    except UnicodeDecodeError as error:
        raise InputError(f"table {str(path)!r} is no UTF-8 text: save it as CSV UTF-8") from error
    except csv.Error as error:
        raise InputError(f"table {str(path)!r}: line {lines.line_num}: {error}") from error
    return rows


def _read_parquet(path: Path) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise InputError(
            "package 'pyarrow' is missing, which reads Parquet: run pip install '.[parquet]' in the folder of this "
            "project, or save the table as CSV"
        ) from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"table {str(path)!r} cannot be read as Parquet: {error}") from error
    names = _columns(path, table.column_names)
    cells = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return [_row(f"row {i}", dict(zip(names, map(_text, row), strict=True))) for i, row in enumerate(cells, 1)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    # Tables store whole numbers as floats where a column has empty cells.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _row(place: str, cells: dict[str, str]) -> Row:
    stripped = {name: cell.strip() for name, cell in cells.items()}
    return Row(place, {name: cell for name, cell in stripped.items() if cell})


def _columns(path: Path, header: list[str]) -> list[str]:
    names = [name.strip().replace("-", "_") for name in header]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"table {str(path)!r} has the column {repeated[0]!r} twice")
    return names

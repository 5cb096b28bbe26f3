"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """Columns of equal width; the first ``words`` are text, the others are figures and end at the right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]

    def laid_out(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(laid_out, [header, *lines]))

"""Lines for the user, on streams that may be closed, full, or of another encoding."""

from __future__ import annotations

import os
from typing import TextIO


def say(message: object, stream: TextIO | None) -> None:
    """Print a message in one line. What the stream cannot show is escaped; a stream that fails is left alone."""
    show(" ".join(str(message).split()), stream)


def show(text: str, stream: TextIO | None) -> None:
    """Print a text of several lines, in the same way."""
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        # Otherwise the interpreter fails at its end, when it flushes the stream again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

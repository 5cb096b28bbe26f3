"""Signals that end a run: an exception while it works, nothing once its results move into place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal has ended the run.

    Attributes:
        status: the exit status that shells give to it.
        left: what the run leaves behind, in words.
    """

    left = "nothing was written"

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` at SIGINT, SIGTERM and SIGHUP, except at those that the caller ignores (``nohup``)."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if main}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Hold signals back to the end of imports, in which Python can swallow an exception."""
    numbers = [number for number in SIGNALS if signal.getsignal(number) is _raise]
    came: list[int] = []
    for number in numbers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, _raise)
    if came:
        raise Stopped(came[0])


def finish() -> None:
    """Ignore the signals from here to the end of :func:`stoppable`."""
    for number in SIGNALS:
        if signal.getsignal(number) is _raise:
            signal.signal(number, signal.SIG_IGN)


def _raise(number: int, _: FrameType | None) -> NoReturn:
    raise Stopped(number)

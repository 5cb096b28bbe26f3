"""Processes of this machine that run the items of a batch."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import wait
from typing import NamedTuple, Protocol

import torch
from tqdm import tqdm

from ..errors import InputError
from .claim import claimed
from .items import reason
from .kept import keep_models
from .made import differences, is_finished
from .output import ResultFolder
from .stop import stoppable

_FAULT = 70
_NOTICE = "vipaint: notice: "


class Outcome(NamedTuple):
    """What has become of an item.

    Attributes:
        status: the exit status of its command: 0 done, 2 failed; any other one is worth another attempt.
        reason: of a failure.
        notices: what the command said.
        seconds: time that it took.
        ran: whether it has run. An item that is finished already does not.
    """

    status: int
    reason: str
    notices: list[str]
    seconds: float
    ran: bool


class Worker(Protocol):
    """Runs one item after the other, with the model loaded once."""

    def start(self) -> Future[int]:
        """Start a process, instead of an earlier one that has ended. The result comes when it is ready."""

    def submit(self, arguments: tuple[str, ...]) -> Future[Outcome]:
        """Run an item. The future raises an exception if the process ends."""

    def stop(self) -> None:
        """End the process, and the item that it runs."""

    def join(self) -> None:
        """Wait for its end."""


class LocalWorker:
    """A process of its own, so that its end touches the item that it runs and no other.

    Args:
        threads: of torch on the CPU. Pixels may depend on it, and never on the number of workers.
        gpu: the one that its process sees; empty: all of them.
    """

    def __init__(self, threads: int, gpu: str):
        self._arguments = threads, gpu
        self._pool: ProcessPoolExecutor | None = None
        self._ready: Future[int] | None = None
        self._running: Future[Outcome] | None = None

    def start(self) -> Future[int]:
        """See :class:`Worker`. The result is the number of the process."""
        self.stop()
        self.join()
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_enter, initargs=self._arguments
        )
        with _blocked():
            self._ready = self._pool.submit(os.getpid)
        return self._ready

    def submit(self, arguments: tuple[str, ...]) -> Future[Outcome]:
        """See :class:`Worker`."""
        assert self._pool is not None
        try:
            self._running = self._pool.submit(run_item, arguments)
        except BrokenExecutor as error:  # the process has ended between two items
            self._running = Future()
            self._running.set_exception(error)
        return self._running

    def stop(self) -> None:
        """See :class:`Worker`. The item's run takes back what it has written."""
        if self._ready is not None and self._running is not None and not self._running.done():
            for process in multiprocessing.active_children():
                if process.pid == self._ready.result():
                    process.terminate()

    def join(self) -> None:
        """See :class:`Worker`."""
        if self._pool is not None:
            self._pool.shutdown()


@contextmanager
def _blocked() -> Iterator[None]:
    """A process that is started here never gets the signals of the terminal: its driver answers them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _enter(threads: int, gpu: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    prepare(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def prepare(threads: int) -> None:
    """Make a worker of this process."""
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process leaves behind
    keep_models()


def run_item(arguments: tuple[str, ...]) -> Outcome:
    """Run a command line in this process, if its results are not there yet."""
    from .main import main
    from .parser import build_parser

    start = time.perf_counter()
    options = build_parser().parse_args(arguments)
    place = ResultFolder(options)
    if (place.folder / place.claim).is_dir():
        # Of a run that was killed: its claim puts back what it was moving, and then refuses what is complete.
        with suppress(InputError), stoppable(), claimed(place, 0):
            pass
    if is_finished(options):
        return Outcome(0, "", [], time.perf_counter() - start, False)
    changed = "" if options.overwrite else differences(options)
    if changed:
        problem = f"its folder has results of other settings ({changed}): give --overwrite, or another name"
        return Outcome(2, problem, [], time.perf_counter() - start, False)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        try:
            status = main(arguments)
        except Exception as error:  # a fault of the program or the machine must not end the batch
            status = _FAULT
            print(f"vipaint: error: {type(error).__name__}: {' '.join(str(error).split())[:300]}", file=said)
    lines = said.getvalue().splitlines()
    notices = [line.removeprefix(_NOTICE) for line in lines if line.startswith(_NOTICE)]
    return Outcome(status, reason(said.getvalue()) if status else "", notices, time.perf_counter() - start, True)


def gpus() -> list[str]:
    """The GPUs of this machine, as the variable CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return given.split(",")[:count] if given else [str(number) for number in range(count)]

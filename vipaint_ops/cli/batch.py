"""``vipaint batch``: the items of a table on workers, resumable."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import InputError
from .claim import claimed
from .items import Item, read_items
from .manifest import NAME, Manifest
from .on_ray import RayWorker, connect
from .output import check_writable
from .say import say
from .stop import Stopped, finish
from .workers import LocalWorker, Outcome, Worker, gpus

LOST = Outcome(70, "its worker was killed, or ran out of memory", [], 0.0, True)
"""Of an item whose worker has ended."""

Report = Callable[[Item, Outcome, int], None]
"""Takes an item, what has become of it, and the number of attempts."""


class _BatchFolder:
    """The folder ``--out`` of a batch, which one batch has at a time."""

    claim = ".vipaint-batch"

    def __init__(self, options: argparse.Namespace):
        self.folder = Path(options.out)
        self.inputs: list[tuple[str, Path]] = []

    def replaced(self) -> list[str]:
        """See :class:`~vipaint_ops.cli.output.Output`."""
        return []


def batch(options: argparse.Namespace) -> int:
    """Run the items; returns 1 if some have failed.

    Raises:
        InputError: the table cannot be used, or no worker can start.
    """
    output = _BatchFolder(options)
    check_writable(output)
    items, workers = read_items(options), _workers(options)
    with claimed(output, 0):
        manifest, counts = Manifest(output.folder), Counter[bool]()
        bar = tqdm(total=len(items), unit="item", disable=None)

        def report(item: Item, outcome: Outcome, attempts: int) -> None:
            manifest.add(item, outcome, attempts)
            counts[outcome.status == 0] += 1
            bar.update()
            if outcome.status:
                with bar.external_write_mode(sys.stderr):
                    say(f"vipaint: failed: {item.name}: {outcome.reason}", sys.stderr)

        try:
            with bar:
                for item in items:
                    if item.refusal:
                        report(item, Outcome(2, item.refusal, [], 0.0, False), 0)
                run_items([item for item in items if not item.refusal], workers, options.retries, report)
        except Stopped as stopped:
            stopped.left = f"{counts[True]} of {len(items)} items are done; run the same command again to go on"
            raise
        manifest.sort(items)
    say(f"{counts[True]} of {len(items)} items are done; see {output.folder / NAME}", sys.stdout)
    return int(counts[False] > 0)


def _workers(options: argparse.Namespace) -> Sequence[Worker]:
    if options.ray is None:
        visible = gpus()
        count = options.workers or len(visible) or 1
        shared = [visible[number % len(visible)] if count > 1 and visible else "" for number in range(count)]
        return [LocalWorker(options.threads, gpu) for gpu in shared]
    resources = connect(options.ray)
    with_gpu = int(resources.get("GPU", 0))
    count = options.workers or with_gpu or int(resources.get("CPU", 1)) // options.threads or 1
    share = 1 / math.ceil(count / with_gpu) if with_gpu else 0
    return [RayWorker(options.threads, share) for _ in range(count)]


def run_items(items: list[Item], workers: Sequence[Worker], retries: int, report: Report) -> None:
    """Give every worker one item at a time, until all have an outcome.

    An item whose worker has ended, or that has failed by a fault of the program, gets a new worker up to ``retries``
    times.

    Raises:
        InputError: no worker can start.
    """
    waiting, attempts = deque(items), Counter[str]()
    running: dict[Future[Any], tuple[Worker, Item | None]] = {}
    problem: BaseException | None = None
    try:
        for worker in workers[: len(items)]:
            running[worker.start()] = worker, None
        while waiting or any(item for _, item in running.values()):
            if not running:
                raise InputError(f"no worker can start: {problem}")
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, item = running.pop(future)
                problem = future.exception()
                if item is None:
                    usable = problem is None
                    if not usable:
                        continue
                else:
                    outcome = future.result() if problem is None else LOST
                    attempts[item.name] += outcome.ran
                    usable = outcome.status in (0, 2)
                    if usable or attempts[item.name] > retries:
                        report(item, outcome, attempts[item.name])
                    else:
                        waiting.append(item)
                if waiting and usable:
                    following = waiting.popleft()
                    running[worker.submit(following.arguments)] = worker, following
                elif waiting:
                    running[worker.start()] = worker, None
    finally:
        finish()
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()

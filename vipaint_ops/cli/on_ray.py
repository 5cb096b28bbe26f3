"""Workers on a Ray cluster, for the items of a batch."""

from __future__ import annotations

import logging
import os
import socket
from concurrent.futures import Future
from typing import Any

from ..errors import InputError
from .workers import Outcome, prepare, run_item


class RayWorker:
    """An actor of a Ray cluster. Its machine has the same files under the same paths as this one.

    Args:
        cpus: CPUs and threads of torch that the actor takes.
        gpus: part of a GPU that it takes.
    """

    def __init__(self, cpus: int, gpus: float):
        self._cpus, self._gpus = cpus, gpus
        self._actor: Any = None

    def start(self) -> Future[int]:
        """See :class:`~vipaint_ops.cli.workers.Worker`. The result comes when the cluster has a place for the actor."""
        import ray

        self.stop()
        kind = ray.remote(_Actor).options(num_cpus=self._cpus, num_gpus=self._gpus)
        self._actor = kind.remote(os.getcwd(), self._cpus)
        ready: Future[int] = self._actor.process.remote().future()
        return ready

    def submit(self, arguments: tuple[str, ...]) -> Future[Outcome]:
        """See :class:`~vipaint_ops.cli.workers.Worker`."""
        outcome: Future[Outcome] = self._actor.run.remote(arguments).future()
        return outcome

    def stop(self) -> None:
        """See :class:`~vipaint_ops.cli.workers.Worker`. The next run takes back what the item has moved."""
        import ray

        if self._actor is not None:
            ray.kill(self._actor)

    def join(self) -> None:
        """See :class:`~vipaint_ops.cli.workers.Worker`."""


class _Actor:
    def __init__(self, folder: str, threads: int):
        os.chdir(folder)
        prepare(threads)

    def process(self) -> int:
        return os.getpid()

    def run(self, arguments: tuple[str, ...]) -> Outcome:
        return run_item(arguments)


_SECONDS = 10
"""Until an address counts as one where nothing answers. Ray itself waits for minutes."""


def connect(address: str) -> dict[str, float]:
    """Join the cluster, and return its resources.

    Args:
        address: of the cluster. Empty: that of the variable RAY_ADDRESS, the one that runs on this machine, or a new
            one on this machine for the time of the batch.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    if address not in ("", "auto", "local"):
        _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send statistics to its makers
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            "package 'ray' is missing, which --ray uses: run pip install '.[ray]' in the folder of this project"
        ) from error
    try:
        ray.init(
            address or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--ray {address!r}: no cluster to join: {' '.join(str(error).split())[:300]}") from error
    resources: dict[str, float] = ray.cluster_resources()
    return resources


def _check_address(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and int(port) < 2**16):
        raise InputError(f"--ray {address!r} is no address: give HOST:PORT, ray://HOST:PORT, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except OSError as error:
        raise InputError(f"--ray {address!r}: nothing answers there ({error})") from error

"""The console command ``vipaint``: its errors and exit status."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Sequence

from ..errors import InputError, missing_package
from .parser import build_parser
from .say import say
from .stop import Stopped, held, stoppable

_PACKAGES = ("PIL", "diffusers", "matplotlib", "tqdm")
_MEMORY = (
    "out of memory: lower --batch-size, add --checkpointing (fit), use --dtype bfloat16, "
    "a smaller picture, or --device cpu"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0: the results are in their place. 1: those of some items of a batch are not. 2: an error of the input or the
    system. 128 and the number of the signal if one has stopped it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
    """
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # it warns that a full disk cannot hold its cache
    try:
        with warnings.catch_warnings(), stoppable():
            with held():
                options = build_parser().parse_args(arguments)
                _check_packages()
                from .commands import COMMANDS
            warnings.showwarning = _notice
            return COMMANDS[options.command](options) or 0
    except InputError as error:
        return _say("error", error, status=2)
    except KeyboardInterrupt as error:
        return _say("interrupted", getattr(error, "left", Stopped.left), status=getattr(error, "status", 130))
    except ModuleNotFoundError as error:
        return _say("error", missing_package(error), status=2)
    except OSError as error:
        return _say("error", f"{error}: check the free space of the disk and the permissions of the folder", status=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return _say("error", _MEMORY, status=2)


def _check_packages() -> None:
    """Fails at once, not after a run whose sheet needs the package."""
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(name=name)


def _notice(message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object) -> None:
    if "vipaint_ops" in filename:
        _say("notice", message)


def _say(kind: str, message: object, status: int = 0) -> int:
    say(f"vipaint: {kind}: {message}", sys.stderr)
    return status

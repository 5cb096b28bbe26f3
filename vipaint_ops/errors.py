"""The one exception users are meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """An input cannot be used; the message names it, its value and the remedy."""


def missing_package(error: ModuleNotFoundError) -> InputError:
    """The error for an optional package that is not installed."""
    return InputError(f"package {error.name!r} is missing: run pip install '.[cli]' in the folder of this project")


@contextmanager
def optional_packages() -> Iterator[None]:
    """For imports of packages that an installation without extras lacks.

    Raises:
        InputError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_package(error) from error

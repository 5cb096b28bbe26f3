"""The one exception users are meant to read."""


class InputError(ValueError):
    """An input cannot be used; the message names it, its value and the remedy."""


def missing_package(error: ModuleNotFoundError) -> InputError:
    """The error for an optional package that is not installed."""
    return InputError(f"package {error.name!r} is missing: run pip install '.[cli]' in the folder of this project")

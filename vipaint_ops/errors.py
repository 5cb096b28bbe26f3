"""The one exception users are meant to read."""


class InputError(ValueError):
    """An input cannot be used; the message names it, its value and the remedy."""

"""The model and the device that the options name."""

from __future__ import annotations

import argparse
import re
from functools import partial

import torch

from ..errors import InputError
from ..priors.diffusers import DiffusersPrior, from_pipeline
from ..priors.embedded import is_embedded, load_embedded_prior
from ..priors.pipelines import load_pipeline
from .kept import once


def device_of(name: str) -> torch.device:
    """The device of that name.

    Raises:
        InputError: it is not on this machine.
    """
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    words = re.fullmatch(r"(cpu|cuda|mps)(:([0-9]|[1-9][0-9]{1,3}))?", name)
    if words is None or int(words[3] or 0) >= present[words[1]]:
        choices = ", ".join(kind for kind, count in present.items() if count)
        raise InputError(f"--device {name!r} is not on this machine; choose auto or one of {choices}")
    return torch.device(name)


def uses_embedded(options: argparse.Namespace) -> bool:
    """Whether the model is of the embedded kind, which takes no text.

    Raises:
        InputError: it does, and a text is given.
    """
    if options.prior is not None and not is_embedded(options.prior):
        return False
    if options.prompt or options.negative_prompt or options.cfg != 1:
        raise InputError("the embedded model takes no text: leave out the prompts and --cfg, or use --prior")
    return True


def load_prior(options: argparse.Namespace, device: torch.device) -> DiffusersPrior:
    """The model of the option ``--prior``."""
    dtype = getattr(torch, options.dtype)
    if uses_embedded(options):
        return once(load_embedded_prior, options.prior, device, dtype)
    from diffusers.utils import logging
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return from_pipeline(
        options.prior,
        options.prompt,
        options.negative_prompt,
        options.cfg,
        device=device,
        dtype=dtype,
        config=options.prior_config,
        load=partial(once, load_pipeline),
    )

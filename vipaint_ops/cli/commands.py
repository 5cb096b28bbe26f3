"""The subcommands of ``vipaint``: check the input, load the model, fit, sample, write the results."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..images import masks
from ..images.pictures import centre_square, load_image, load_mask
from ..inference.corrections import CORRECTIONS
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from ..presets import PRESETS, Preset
from ..priors.diffusers import DiffusersPrior, from_pipeline
from ..priors.embedded import EMBEDDED_SIZE, is_embedded, load_embedded_prior
from ..priors.pipelines import load_pipeline
from ..restoration import stream
from ..vipaint import FitConfig, HierarchicalPosterior, RefineConfig, fit_posterior, sample_posterior
from .batch import batch
from .claim import claimed
from .models import once
from .output import PosteriorFile, ResultFolder, check_writable
from .results import least_size, results
from .say import say
from .task import NOT_FINITE, Task

DEMO_SCENE = Path(__file__).parents[1] / "assets" / "demo_scene.png"


def demo(options: argparse.Namespace) -> None:
    """Fit and sample a scene of the package, and compare with the truth."""
    options.image = options.truth = DEMO_SCENE
    if options.mask in masks.NAMES:
        generator = torch.Generator().manual_seed(options.seed)
        mask = masks.by_name(options.mask, *load_image(DEMO_SCENE).shape[2:], generator=generator)
    elif Path(options.mask).is_file():
        mask = load_mask(options.mask)
    else:
        raise InputError(f"--mask {options.mask!r} is neither a file nor one of {', '.join(masks.NAMES)}")
    _fit_and_sample(options, mask)


def inpaint(options: argparse.Namespace) -> None:
    """Fit and sample."""
    _fit_and_sample(options, load_mask(options.mask, options.invert_mask))


def fit(options: argparse.Namespace) -> None:
    """Fit and save the posterior."""
    output = PosteriorFile(options)
    check_writable(output)
    config, device = _fit_config(options), _device(options.device)
    task = _task(options, load_mask(options.mask, options.invert_mask))
    with claimed(output, 0) as write:
        prior, observation = task.observe(_prior(options, device), options.noise_std)
        posterior = _fit(task, prior, observation, config, options.seed)
        write({output.path.name: posterior.serialised()})
    say(f"wrote {output.path}", sys.stdout)


def sample(options: argparse.Namespace) -> None:
    """Sample from a saved posterior of the same picture, mask and model."""
    output = ResultFolder(options)
    check_writable(output)
    config, device = _refine_config(options), _device(options.device)
    posterior = HierarchicalPosterior.load(options.posterior)
    task = _task(options, load_mask(options.mask, options.invert_mask))
    with claimed(output, least_size(task, options.samples)) as write:
        prior, observation = task.observe(_prior(options, device), options.noise_std or _fitted_noise(posterior))
        posterior.check(prior)
        posterior.check_observation(observation)
        result = _sample(task, prior, observation, posterior, config, options)
        write(results(options, task, prior, observation, posterior, result, {"refine": _record(config)}))
    _say_where(options)


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "demo": demo,
    "inpaint": inpaint,
    "fit": fit,
    "sample": sample,
    "batch": batch,
}


def _fit_and_sample(options: argparse.Namespace, mask: Tensor) -> None:
    output = ResultFolder(options)
    check_writable(output)
    device, fit_config, refine_config = _device(options.device), _fit_config(options), _refine_config(options)
    task = _task(options, mask)
    with claimed(output, least_size(task, options.samples)) as write:
        prior, observation = task.observe(_prior(options, device), options.noise_std)
        posterior = _fit(task, prior, observation, fit_config, options.seed)
        result = _sample(task, prior, observation, posterior, refine_config, options)
        configs = {"fit": dataclasses.asdict(fit_config), "refine": _record(refine_config)}
        write(results(options, task, prior, observation, posterior, result, configs))
    _say_where(options)


def _say_where(options: argparse.Namespace) -> None:
    say(f"wrote {options.samples} samples to {options.out}; see {Path(options.out) / 'sheet.png'}", sys.stdout)


def _task(options: argparse.Namespace, mask: Tensor) -> Task:
    """Read and check all pictures, before a network is loaded."""
    picture = load_image(options.image)
    size = "x".join(str(side) for side in picture.shape[2:])
    mask = masks.fit_mask(mask, *picture.shape[2:])
    truth = load_image(options.truth) if options.truth else None
    if truth is not None and truth.shape != picture.shape:
        raise InputError(f"--truth is {truth.shape[2]}x{truth.shape[3]} and the picture {size}: give one of that size")
    if not _uses_embedded(options):
        return Task(picture, mask, truth)
    if options.prompt or options.negative_prompt or options.cfg != 1:
        raise InputError("the embedded model takes no text: leave out the prompts and --cfg, or use --prior")
    if picture.shape[2:] != (EMBEDDED_SIZE, EMBEDDED_SIZE):
        warnings.warn(
            f"the embedded model paints {EMBEDDED_SIZE}x{EMBEDDED_SIZE} pixels: the central square of the {size} "
            "picture is resized to that size (--prior takes other models)",
            stacklevel=1,
        )
        mask = masks.fit_mask(centre_square(mask, EMBEDDED_SIZE) > 1 - 1e-6, EMBEDDED_SIZE, EMBEDDED_SIZE)
        picture = centre_square(picture, EMBEDDED_SIZE)
        truth = None if truth is None else centre_square(truth, EMBEDDED_SIZE)
    return Task(picture, mask, truth)


def _device(name: str) -> torch.device:
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    words = re.fullmatch(r"(cpu|cuda|mps)(:([0-9]|[1-9][0-9]{1,3}))?", name)
    if words is None or int(words[3] or 0) >= present[words[1]]:
        choices = ", ".join(kind for kind, count in present.items() if count)
        raise InputError(f"--device {name!r} is not on this machine; choose auto or one of {choices}")
    return torch.device(name)


def _fit_config(options: argparse.Namespace) -> FitConfig:
    given = _given(options, "iterations", "keypoints")
    return dataclasses.replace(_preset(options).fit, checkpointing=options.checkpointing, **given)


def _refine_config(options: argparse.Namespace) -> RefineConfig:
    given = _given(options, "steps")
    if options.guidance is not None:
        given |= {"guidance": CORRECTIONS[options.guidance], "chain": "guided"}
        if options.guidance != "kalman":
            given["decoder"] = "exact"
    given |= {"batch_size": options.batch_size, "particles": options.particles}
    return dataclasses.replace(_preset(options).refine, **given)


def _record(config: RefineConfig) -> dict[str, Any]:
    return dataclasses.asdict(config) | {"guidance": str(config.guidance)}


def _preset(options: argparse.Namespace) -> Preset:
    return PRESETS[options.preset.replace("-", " ")]


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _uses_embedded(options: argparse.Namespace) -> bool:
    return options.prior is None or is_embedded(options.prior)


def _prior(options: argparse.Namespace, device: torch.device) -> DiffusersPrior:
    dtype = getattr(torch, options.dtype)
    if _uses_embedded(options):
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


def _fitted_noise(posterior: HierarchicalPosterior) -> float:
    try:
        return float(posterior.metadata["noise_std"])
    except (KeyError, ValueError) as error:
        raise InputError("the posterior has no readable noise level in its metadata: give --noise-std") from error


def _fit(
    task: Task, prior: DiffusersPrior, observation: Observation, config: FitConfig, seed: int
) -> HierarchicalPosterior:
    with task.stage("fit") as callback:
        posterior = fit_posterior(prior, observation, config, generator=stream(seed, 0), callback=callback)
    _check_finite(posterior.means)
    return posterior


def _sample(
    task: Task,
    prior: DiffusersPrior,
    observation: Observation,
    posterior: HierarchicalPosterior,
    config: RefineConfig,
    options: argparse.Namespace,
) -> SampleResult:
    generator = stream(options.seed, 1)
    with task.stage("sample") as callback:
        result = sample_posterior(
            prior, observation, posterior, options.samples, config, generator=generator, callback=callback
        )
    _check_finite(result.images)
    return result


def _check_finite(tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise InputError(NOT_FINITE)

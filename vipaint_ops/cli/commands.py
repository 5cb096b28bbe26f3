"""The subcommands of ``vipaint`` that restore: check the input, load the model, fit, sample, write the results."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..images import masks
from ..images.pictures import centre_square, load_image
from ..inference.corrections import CORRECTIONS
from ..inference.results import SampleResult
from ..measurement.observation import Observation
from ..presets import PRESETS
from ..priors.diffusers import DiffusersPrior
from ..priors.embedded import EMBEDDED_SIZE
from ..restoration import METHODS, VIPAINT, for_picture, restore, sampling_settings, stream
from ..vipaint import FitConfig, HierarchicalPosterior, fit_posterior
from .batch import batch
from .claim import claimed
from .degradations import degradation, known_pixels, likelihood, read_mask
from .evaluate import compare, degrade
from .info import info
from .methods import methods
from .models import device_of, load_prior, uses_embedded
from .output import PosteriorFile, ResultFolder, check_writable
from .results import Restored, least_size, results
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
        mask = read_mask(options)
    else:
        raise InputError(f"--mask {options.mask!r} is neither a file nor one of {', '.join(masks.NAMES)}")
    _restore(options, lambda: _task(options, load_image(DEMO_SCENE), mask))


def restore_picture(options: argparse.Namespace) -> None:
    """Sample a degraded picture: from a fit to it, or from saved posteriors, one a window."""
    _restore(options, lambda: _read_task(options))


def deblur(options: argparse.Namespace) -> None:
    """Fit and sample a blurred picture."""
    if options.kernel is None and options.blur is None:
        options.blur = "gaussian"
    restore_picture(options)


def fit(options: argparse.Namespace) -> None:
    """Fit and save the posterior."""
    output = PosteriorFile(options)
    check_writable(output)
    config, device = _fit_config(options), device_of(options.device)
    task = _read_task(options)
    with claimed(output, 0) as write:
        prior = load_prior(options, device)
        (observation,) = task.observations(None, _noise_std(options.noise_std, task, prior))
        write({output.path.name: _fit(options, task, prior, observation, config).serialised()})
    say(f"wrote {output.path}", sys.stdout)


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "demo": demo,
    "inpaint": restore_picture,
    "deblur": deblur,
    "upscale": restore_picture,
    "fit": fit,
    "sample": restore_picture,
    "degrade": degrade,
    "compare": compare,
    "batch": batch,
    "methods": methods,
    "info": info,
}


def _restore(options: argparse.Namespace, read: Callable[[], Task]) -> None:
    """Fit, unless there are posteriors, sample and write. Pictures are read last of all input."""
    output = ResultFolder(options)
    check_writable(output)
    device, settings = device_of(options.device), _settings(options)
    config = sampling_settings(options.method, _preset(options), settings)
    fits = options.method == VIPAINT and options.command != "sample"
    fit_config = _fit_config(options) if fits else None
    saved = [HierarchicalPosterior.load(path) for path in options.posterior] if options.command == "sample" else []
    task = read()
    if options.method in METHODS:
        METHODS[options.method].sample.check(task.observations(None, 1.0)[0])
    with claimed(output, least_size(task, options.samples)) as write:
        prior = load_prior(options, device)
        windows = task.windows(prior, options.crop)
        given = _fitted_noise(saved[0]) if options.noise_std is None else options.noise_std
        observations = task.observations(windows, _noise_std(given, task, prior))
        if saved and len(saved) != len(observations):
            raise InputError(f"--posterior has {len(saved)} files for {len(observations)} parts of the picture")
        restored = []
        for position, observation in enumerate(observations):
            posterior = saved[position] if saved else None
            if fit_config is not None:
                posterior = _fit(options, task, prior, observation, fit_config)
            result = _sample(options, task, prior, observation, posterior, settings)
            window = None if windows is None else windows[position]
            restored.append(Restored(observation, window, posterior, result))
        configs = {"refine" if options.method == VIPAINT else options.method: _record(config)}
        configs |= {} if fit_config is None else {"fit": dataclasses.asdict(fit_config)}
        write(results(options, task, prior, restored, configs))
    sheet = "" if options.no_plots else f"; see {Path(options.out) / 'sheet.png'}"
    say(f"wrote {options.samples} samples to {options.out}{sheet}", sys.stdout)


def _read_task(options: argparse.Namespace) -> Task:
    picture = load_image(options.image)
    return _task(options, picture, known_pixels(options, *picture.shape[2:]))


def _task(options: argparse.Namespace, picture: Tensor, mask: Tensor | None) -> Task:
    """Check all pictures, before a network is loaded."""
    operator = degradation(options, mask)
    height, width = operator.picture_size((picture.shape[2], picture.shape[3]))
    truth = load_image(options.truth) if options.truth else None
    if truth is not None and truth.shape[2:] != (height, width):
        raise InputError(
            f"--truth is {truth.shape[2]}x{truth.shape[3]} and the picture {height}x{width}: give one of that size"
        )
    task = Task(picture, operator, likelihood(options), mask, truth)
    square = (EMBEDDED_SIZE, EMBEDDED_SIZE)
    if uses_embedded(options) and task.pasted is not None and not options.crop and (height, width) != square:
        warnings.warn(
            f"the embedded model paints {EMBEDDED_SIZE}x{EMBEDDED_SIZE} pixels: the central square of the "
            f"{height}x{width} picture is resized to that size (--crop restores windows, --prior takes other models)",
            stacklevel=1,
        )
        known = masks.fit_mask(centre_square(task.pasted, EMBEDDED_SIZE) > 1 - 1e-6, *square)
        task.picture, task.mask = centre_square(picture, EMBEDDED_SIZE), known
        task.operator = degradation(options, known)
        task.truth = None if truth is None else centre_square(truth, EMBEDDED_SIZE)
    return task


def _noise_std(given: float | str, task: Task, prior: DiffusersPrior) -> float:
    if given != "auto":
        return float(given)
    estimate = task.noise_std(prior)
    say(f"noise-std {estimate:.3f}", sys.stdout)
    return estimate


def _fit_config(options: argparse.Namespace) -> FitConfig:
    given = _given(options, "iterations", "keypoints")
    return dataclasses.replace(PRESETS[_preset(options)].fit, checkpointing=options.checkpointing, **given)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The changes to the settings of the method."""
    given = _given(options, "steps", "particles") | {"batch_size": options.batch_size}
    if options.guidance is not None:
        given |= {"guidance": CORRECTIONS[options.guidance], "chain": "guided"}
        if options.guidance != "kalman":
            given["decoder"] = "exact"
    plain = sampling_settings(options.method, _preset(options), {})
    for name, value in options.set or ():
        if name in given:
            raise InputError(f"--set {name}: the setting has an option of its own, and is given there")
        given[name] = _plain_setting(plain, name, value)
    return given


def _plain_setting(config: Any, name: str, value: Any) -> Any:
    """The value of ``--set``, for a setting that is a number, a word, or true or false."""
    known = {field.name: field for field in dataclasses.fields(config)}
    kinds = {name: type(getattr(config, name)) for name in known if known[name].metadata}
    kinds |= {name: bool for name in known if isinstance(getattr(config, name), bool)}
    if name not in kinds:
        raise InputError(f"--set {name!r}: choose one of {', '.join(kinds)}")
    if kinds[name] is bool and not isinstance(value, bool):
        raise InputError(f"--set {name}: {value!r} is neither true nor false")
    return value


def _record(config: Any) -> dict[str, Any]:
    record = dataclasses.asdict(config)
    return record | ({"guidance": str(config.guidance)} if "guidance" in record else {})


def _preset(options: argparse.Namespace) -> str:
    return str(options.preset).replace("-", " ")


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _fitted_noise(posterior: HierarchicalPosterior) -> float:
    try:
        return float(posterior.metadata["noise_std"])
    except (KeyError, ValueError) as error:
        raise InputError("the posterior has no readable noise level in its metadata: give --noise-std") from error


def _fit(
    options: argparse.Namespace, task: Task, prior: DiffusersPrior, observation: Observation, config: FitConfig
) -> HierarchicalPosterior:
    sized, padded = for_picture(prior, observation)
    with task.stage("fit") as callback:
        posterior = fit_posterior(sized, padded, config, generator=stream(options.seed, 0), callback=callback)
    _check_finite(posterior.means)
    return posterior


def _sample(
    options: argparse.Namespace,
    task: Task,
    prior: DiffusersPrior,
    observation: Observation,
    posterior: HierarchicalPosterior | None,
    settings: dict[str, Any],
) -> SampleResult:
    with task.stage("sample") as callback:
        result = restore(
            prior,
            observation,
            options.samples,
            preset=_preset(options),
            method=options.method,
            posterior=posterior,
            seed=options.seed,
            first=options.first,
            callback=callback,
            **settings,
        )
    _check_finite(result.images)
    return result


def _check_finite(tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise InputError(NOT_FINITE)

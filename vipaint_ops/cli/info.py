"""``vipaint info``: what a checkpoint is, and what a run with it takes."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..evaluation.cost import PLAIN, PLAIN_STEPS, Costs, Row, forward_memory, peak_memory, run_tflop, trace
from ..evaluation.gradients import gradient_error
from ..presets import PRESETS, Preset
from ..priors.embedded import EMBEDDED_PRIOR
from ..priors.inspection import Checkpoint, inspected
from ..restoration import METHODS, Method
from .models import device_of, load_prior
from .say import show
from .tables import table

_WRONG = 0.02
"""Relative error from which a gradient is called wrong."""
_SCHEDULES = {"vp": "variance preserving", "flow": "rectified flow, shift"}


def info(options: argparse.Namespace) -> None:
    """Print what a checkpoint is, and the cost of a run."""
    checkpoint = inspected(options.checkpoint or EMBEDDED_PRIOR, options.prior_config)
    dtype = getattr(torch, options.dtype) if options.dtype else checkpoint.dtype or torch.float32
    checkpoint.to(dtype)
    height, width = options.size or (side * checkpoint.autoencoder.picture_factor for side in checkpoint.denoiser.side)
    latent = checkpoint.denoiser.latent_sides(*_padded(checkpoint, height, width))
    lines = [f"{name:<12} {value}" for name, value in _description(checkpoint, latent).items()]
    if options.check_gradients:
        lines.append(f"{'gradients':<12} {_gradients(options)}")
    show("\n".join(lines), sys.stdout)
    costs = _costs(checkpoint, latent)
    guided = checkpoint.denoiser.usually_guided
    show(
        f"\n{options.samples} samples of {height}x{width} pixels, networks in {_name(dtype)}, "
        f"{'with' if guided else 'without'} classifier-free guidance:\n" + _run_table(checkpoint, costs, options),
        sys.stdout,
    )


def _padded(checkpoint: Checkpoint, height: int, width: int) -> tuple[int, int]:
    multiple = checkpoint.picture_multiple
    return math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple


def _description(checkpoint: Checkpoint, latent: tuple[int, int]) -> dict[str, str]:
    denoiser, autoencoder, training = checkpoint.denoiser, checkpoint.autoencoder, checkpoint.training
    factor = autoencoder.picture_factor
    height, width = (side * factor for side in denoiser.side)
    schedule = training.schedule_for(latent[0] * latent[1] // denoiser.multiple**2)
    kind, _, numbers = schedule.description.partition(" ")
    return {
        "model": checkpoint.pipeline,
        "denoiser": f"{type(denoiser.network).__name__}, {_millions(denoiser.network)} parameters",
        "autoencoder": f"{type(autoencoder.network).__name__}, {_millions(autoencoder.network)} parameters, "
        f"{denoiser.channels} latent channels, one cell for {factor}x{factor} pixels",
        "weights": _name(checkpoint.dtype) if checkpoint.dtype else "of an unknown type, taken as float32",
        "pictures": f"made for {height}x{width} pixels; sides are padded to multiples of {checkpoint.picture_multiple}",
        "prediction": training.prediction_type,
        "schedule": f"{_SCHEDULES[kind]} {numbers}"
        if kind == "flow"
        else f"{_SCHEDULES[kind]}, {training.steps} steps",
        "text": "needed" if denoiser.takes_text else "none",
    }


def _millions(network: nn.Module) -> str:
    return f"{sum(weight.numel() for weight in network.parameters()) / 1e6:,.1f} million"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gradients(options: argparse.Namespace) -> str:
    """The errors of the gradients of both networks, in float32."""
    options.prior, options.dtype = options.checkpoint, "float32"
    device = device_of(options.device)
    prior = load_prior(options, device)
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(1)).to(device)
    half = torch.tensor([0.5], device=device)
    found = (
        f"denoiser {_judged(lambda x: prior.denoise(x, half), z)}",
        f"decoder {_judged(prior.decode, z)}",
    )
    return ", ".join(found)


def _judged(function: Callable[[Tensor], Tensor], x: Tensor) -> str:
    try:
        error = gradient_error(function, x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as reason:
        return f"none ({' '.join(str(reason).split())[:100]})"
    return f"{'right' if error <= _WRONG else 'wrong'} (error {error:.1%})"


def _costs(checkpoint: Checkpoint, latent: tuple[int, int]) -> Costs:
    """Costs of a row of each network."""
    denoiser, autoencoder = checkpoint.denoiser, checkpoint.autoencoder
    for part in (denoiser, autoencoder):
        part.network.requires_grad_(False).eval()

    def blank(*shape: int) -> Tensor:
        return torch.zeros(shape, device="meta", dtype=denoiser.network.dtype)

    text = {name: blank(*shape) for name, shape in denoiser.text_shapes().items()}
    timestep = torch.zeros(1, device="meta")
    height, width = (side * autoencoder.picture_factor for side in latent)

    def row(function: Callable[[Tensor], Tensor], network: nn.Module, *shape: int) -> Row:
        return trace(function, blank(1, *shape), [*network.parameters(), *network.buffers()])

    return Costs(
        row(lambda z: denoiser(z, timestep, text), denoiser.network, denoiser.channels, *latent),
        row(autoencoder.decode, autoencoder.network, autoencoder.channels, *latent),
        row(autoencoder.encode, autoencoder.network, 3, height, width),
    )


def _run_table(checkpoint: Checkpoint, costs: Costs, options: argparse.Namespace) -> str:
    guided, samples = checkpoint.denoiser.usually_guided, options.samples
    networks = (checkpoint.denoiser.network, checkpoint.autoencoder.network)
    weights = sum(tensor.nbytes for network in networks for tensor in (*network.parameters(), *network.buffers()))
    plain = run_tflop(PLAIN, samples, costs, guided)

    def line(name: str, paid: float, memory: float) -> list[str]:
        return [name, _rounded(paid), f"{paid / plain:.1f}", _rounded(memory / 2**30)]

    lines = [line(f"plain, {PLAIN_STEPS} steps", plain, forward_memory(weights, costs, samples, guided))]
    for name, method in _chosen(options).items():
        rows, together = method.rows, method.rows_together(samples)
        if rows.gradients:
            memory = peak_memory(weights, costs, together, guided, rows.gradients)
        else:
            memory = forward_memory(weights, costs, together, guided)
        lines.append(line(name, run_tflop(rows, samples, costs, guided), memory))
    return table(["", "TFLOP", "÷ plain", "GiB"], lines)


def _rounded(value: float) -> str:
    """To three digits."""
    return f"{float(f'{value:.3g}'):,g}"


def _chosen(options: argparse.Namespace) -> dict[str, Preset | Method]:
    """The presets and methods of the table, by their name for the command line."""
    presets: dict[str, Preset | Method] = {f"--preset {name.replace(' ', '-')}": p for name, p in PRESETS.items()}
    methods: dict[str, Preset | Method] = {f"--method {name}": method for name, method in METHODS.items()}
    if options.preset:
        return {f"--preset {options.preset}": presets[f"--preset {options.preset}"]}
    if options.method:
        return {f"--method {options.method}": methods[f"--method {options.method}"]}
    return presets | methods

"""Train the embedded prior: a KL autoencoder (f4), then a convolutional v-prediction UNet on its latents.

    python -m tools.train_prior autoencoder --minutes 35 --work build/prior
    python -m tools.train_prior denoiser    --minutes 50 --work build/prior
    python -m tools.train_prior export      --work build/prior --out vipaint_ops/assets/embedded_prior.safetensors

    python -m tools.train_prior unpack      --work build/prior     # what is shipped, to train it further with --resume

Each stage writes a checkpoint every few minutes; learning rates follow a cosine in elapsed time. With --resume a
network starts from the average saved last, with a fresh optimiser. With --scenes streets the pictures are those of
:mod:`tools.streets`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tools import scenes, streets
from vipaint_ops.diffusion.schedule import NoiseSchedule

TRAIN_SEED, HELD_OUT_SEED = 1, 2
TRAIN_SCENES = 40_000
GENERATORS = {"houses": scenes, "streets": streets}
BETAS = {"start": 0.0015, "end": 0.0195, "steps": 1000}

AUTOENCODER = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 64,
    "scaling_factor": 1.0,
}
DENOISER = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 16,
    "block_out_channels": [64, 96, 128],
    "down_block_types": ["DownBlock2D"] * 3,
    "up_block_types": ["UpBlock2D"] * 3,
    "layers_per_block": 1,
    "add_attention": False,
    "norm_num_groups": 32,
}


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float):
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        weight = 1 - min(self.decay, self.steps / (self.steps + 10))
        for mean, value in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(value, weight)


def descend(loss: Tensor, model: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> None:
    """One clipped gradient step, followed by the average."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    average.update(model)


class Clock:
    """Cosine learning rate over a budget of wall-clock minutes, with a short warm-up."""

    def __init__(self, minutes: float, warm_up: float = 0.02, hold: float = 0.0):
        self.start, self.seconds, self.warm_up, self.hold = time.time(), 60 * minutes, warm_up, hold

    @property
    def progress(self) -> float:
        return (time.time() - self.start) / self.seconds

    def factor(self) -> float:
        p = self.progress
        if p < self.warm_up:
            return p / self.warm_up
        return 0.5 * (1 + math.cos(math.pi * min(max(p - self.hold, 0) / (1 - self.hold), 1.0)))


def to_unit(images: np.ndarray) -> Tensor:
    """Images in [0, 1] to the library's [-1, 1]."""
    return torch.from_numpy(np.asarray(images, dtype=np.float32)) * 2 - 1


def gradient_l1(a: Tensor, b: Tensor) -> Tensor:
    across = (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
    return across + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()


@torch.no_grad()
def reconstruction_psnr(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """PSNR in dB of each image after encoding and decoding."""
    out = torch.cat([autoencoder.decode(autoencoder.encode(x).latent_dist.mode()).sample for x in images.split(32)])
    return 10 * torch.log10(4 / (out.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3)))


def train_autoencoder(options: argparse.Namespace, seed: int = 0, batch: int = 16) -> None:
    """L1 + gradient L1 + a whisper of KL, exponential average of the weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(TRAIN_SEED)
    generator, saved = GENERATORS[options.scenes], options.work / "autoencoder.safetensors"
    pool = (generator.render(generator.draw_uniforms(options.count // 2, rng)) * 255).round().astype(np.uint8)
    held_out = to_unit(generator.sample_scenes(128, HELD_OUT_SEED)[0])
    model = AutoencoderKL(**AUTOENCODER)
    if options.resume:
        model.load_state_dict(load_file(saved))
    average = Average(model, 0.999)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    clock, step = Clock(options.minutes), 0
    while clock.progress < 1:
        for group in optimiser.param_groups:
            group["lr"] = options.rate * clock.factor() + 1e-6
        x = to_unit(pool[rng.integers(len(pool), size=batch)] / np.float32(255))
        latent = model.encode(x).latent_dist
        out = model.decode(latent.sample()).sample
        kl = latent.kl().mean() / latent.mean[0].numel()
        loss = (out - x).abs().mean() + 0.5 * gradient_l1(out, x) + 1e-4 * kl
        descend(loss, model, optimiser, average)
        step += 1
        if step % 100 == 0 or clock.progress >= 1:
            psnr = reconstruction_psnr(average.module, held_out)
            print(f"{step} {clock.progress:.3f} loss {loss.item():.4f} psnr {psnr.mean():.2f} dB", flush=True)
            save_file(average.module.state_dict(), saved)


def whiten(autoencoder: AutoencoderKL, latents: Tensor) -> None:
    """Fold unit variance and zero mean per latent channel into the 1x1 convolutions around the latent, exactly."""
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    channels = len(mean)
    to_latent, from_latent = autoencoder.quant_conv, autoencoder.post_quant_conv
    with torch.no_grad():
        to_latent.weight[:channels] /= std[:, None, None, None]
        to_latent.bias[:channels] = (to_latent.bias[:channels] - mean) / std
        to_latent.bias[channels:] -= 2 * std.log()
        from_latent.bias += from_latent.weight[:, :, 0, 0] @ mean
        from_latent.weight *= std[None, :, None, None]


@torch.no_grad()
def encode_scenes(autoencoder: AutoencoderKL, kind: str, count: int, seed: int) -> Tensor:
    """Latents of ``count`` scenes, ``[count, 4, 16, 16]``; the scenes of a seed do not depend on the count."""
    generator = GENERATORS[kind]
    u = generator.draw_uniforms(count, np.random.default_rng(seed))
    return torch.cat(
        [autoencoder.encode(to_unit(generator.render(u[i : i + 64]))).latent_dist.mode() for i in range(0, count, 64)]
    )


def load_autoencoder(options: argparse.Namespace) -> AutoencoderKL:
    """The trained autoencoder with whitened latents."""
    model = AutoencoderKL(**AUTOENCODER).eval().requires_grad_(False)
    model.load_state_dict(load_file(options.work / "autoencoder.safetensors"))
    whiten(model, encode_scenes(model, options.scenes, 2048, TRAIN_SEED))
    return model


def noisy(latents: Tensor, t: Tensor, noise: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """z_t and the target v = alpha eps - sigma z_0 at times ``t`` (``[batch]``)."""
    alpha, sigma = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
    return alpha * latents + sigma * noise, alpha * noise - sigma * latents


@torch.no_grad()
def validation_loss(model: UNet2DModel, latents: Tensor, schedule: NoiseSchedule) -> list[float]:
    """v-MSE on held-out latents with fixed noise, by quarter of time from clean to noise."""
    t = torch.linspace(0.5, len(latents) - 0.5, len(latents)) / len(latents)
    z, target = noisy(latents, t, torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)), schedule)
    error = (model(z, t * (BETAS["steps"] - 1)).sample - target).square().mean(dim=(1, 2, 3))
    return [quarter.mean().item() for quarter in error.chunk(4)]


def train_denoiser(options: argparse.Namespace, seed: int = 0, batch: int = 32) -> None:
    """v-prediction with stratified times, exponential average of the weights."""
    torch.manual_seed(seed)
    schedule = NoiseSchedule.scaled_linear(**BETAS)
    autoencoder, saved = load_autoencoder(options), options.work / "denoiser.safetensors"
    latents = encode_scenes(autoencoder, options.scenes, options.count, TRAIN_SEED)
    held_out = encode_scenes(autoencoder, options.scenes, 256, HELD_OUT_SEED)
    print(f"latents {tuple(latents.shape)} std {latents.std(dim=(0, 2, 3)).tolist()}", flush=True)
    model = UNet2DModel(**DENOISER)
    if options.resume:
        model.load_state_dict(load_file(saved))
    average = Average(model, 0.9995)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    clock, step = Clock(options.minutes, hold=0.3), 0
    while clock.progress < 1:
        for group in optimiser.param_groups:
            group["lr"] = options.rate * clock.factor() + 1e-6
        x = latents[torch.randint(len(latents), (batch,))]
        t = (torch.arange(batch) + torch.rand(())) / batch
        z, target = noisy(x, t, torch.randn_like(x), schedule)
        loss = F.mse_loss(model(z, t * (BETAS["steps"] - 1)).sample, target)
        descend(loss, model, optimiser, average)
        step += 1
        if step % 1000 == 0 or clock.progress >= 1:
            quarters = " ".join(f"{q:.4f}" for q in validation_loss(average.module, held_out, schedule))
            print(f"{step} {clock.progress:.3f} loss {loss.item():.4f} val {quarters}", flush=True)
            save_file(average.module.state_dict(), saved)


def export(options: argparse.Namespace) -> None:
    """Both networks as one half-precision safetensors file that carries its own configuration."""
    out = options.out
    tensors = {f"autoencoder.{k}": v for k, v in load_autoencoder(options).state_dict().items()}
    tensors |= {f"denoiser.{k}": v for k, v in load_file(options.work / "denoiser.safetensors").items()}
    metadata = {
        "format": "vipaint-embedded-1",
        "autoencoder": json.dumps(AUTOENCODER),
        "denoiser": json.dumps(DENOISER),
        "prediction_type": "v_prediction",
        "schedule": json.dumps(BETAS),
        "license": "Apache-2.0",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in tensors.items()}, out, metadata)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


def unpack(options: argparse.Namespace) -> None:
    """The inverse of :func:`export`, to go on training from what is shipped; whitening again changes nothing."""
    tensors = {k: v.float() for k, v in load_file(options.out).items()}
    for name in ("autoencoder", "denoiser"):
        part = {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}
        save_file(part, options.work / f"{name}.safetensors")


STAGES = {"autoencoder": train_autoencoder, "denoiser": train_denoiser, "export": export, "unpack": unpack}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--resume", action="store_true", help="start from the network saved last")
    parser.add_argument("--rate", type=float, help="peak learning rate (default 0.002 autoencoder, 0.001 denoiser)")
    parser.add_argument("--scenes", default="houses", choices=GENERATORS, help="training pictures (default houses)")
    parser.add_argument("--count", type=int, default=TRAIN_SCENES, help=f"pictures (default {TRAIN_SCENES})")
    parser.add_argument("--work", type=Path, default=Path("build/prior"))
    parser.add_argument("--out", type=Path, default=Path("vipaint_ops/assets/embedded_prior.safetensors"))
    options = parser.parse_args(arguments)
    options.rate = options.rate or {"autoencoder": 2e-3}.get(options.stage, 1e-3)
    options.work.mkdir(parents=True, exist_ok=True)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()

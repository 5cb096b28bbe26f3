"""Memory and time of Stable Diffusion 1.5 at full size inside ComfyUI, with random weights, on the CPU.

    COMFYUI_PATH=~/comfy/ComfyUI python -m benchmarks.host_memory    # about 10 minutes on 2 cores

The tasks are a fit of five iterations with one sample at 64 pixels, then one gradient through the denoiser at 256 and
512 pixels, with and without block checkpointing. Each task runs in its own process of ComfyUI's Python. The table has
the resident memory before the task and the peak above it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory import resident, with_peak

ROOT = Path(__file__).parents[1]
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_linear_in_transformer": False,
}
AUTOENCODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Memory before ``work``, the peak above it during ``work``, in MiB, and seconds."""
    before, start = resident(), time.time()
    _, extra = with_peak(work)
    return {"before": before, "extra": extra, "seconds": time.time() - start}


def inside_comfyui(comfyui: Path, task: str, dtype_name: str, side: int, checkpointing: str) -> dict[str, float]:
    """The measurements of one task, with ComfyUI's modules; for a child process."""
    os.chdir(comfyui)
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import importlib.util

    import comfy.samplers
    import torch

    spec = importlib.util.spec_from_file_location(
        "vipaint", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules["vipaint"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["vipaint"])
    from vipaint.nodes.host.prior import with_host_prior
    from vipaint.nodes.observe.inpaint import ObserveInpaint
    from vipaint.nodes.posterior import FitPosterior, SamplePosterior

    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(_model(getattr(torch, dtype_name)))
        guider.set_conds([[torch.randn(1, 77, 768), {}]], [[torch.randn(1, 77, 768), {}]])
        vae = _vae()
        if task == "gradient":

            def gradient(prior) -> dict[str, float]:
                time = torch.tensor([0.5])
                z = torch.randn(1, *prior.latent_shape)
                forward = measured(lambda: prior.denoise(z, time))
                with torch.enable_grad():
                    z.requires_grad_()
                    whole = measured(lambda: torch.autograd.grad(prior.denoise(z, time).sum(), z))
                return whole | {"forward": forward["extra"]}

            return with_host_prior(guider, vae, (side, side), gradient, rows=1, checkpointing=checkpointing)
        mask = torch.zeros(1, side, side)
        mask[:, :, side // 2 :] = 1
        observation = ObserveInpaint.execute(torch.rand(1, side, side, 3), mask, 0.05).args[0]

        def fit_and_sample() -> None:
            rates = {"mean_rate": 0.0, "log_std_rate": 0.0, "gate_rate": 0.0}
            posterior = FitPosterior.execute(
                guider,
                vae,
                observation,
                seed=0,
                preset="fast",
                keypoints="",
                iterations=5,
                samples=1,
                **rates,
                checkpointing=checkpointing,
            ).args[0]
            SamplePosterior.execute(
                posterior,
                guider,
                vae,
                observation,
                num_samples=1,
                seed=0,
                steps=4,
                guidance="kalman",
                batch_size=1,
                first_sample=0,
                checkpointing=checkpointing,
            )

        return measured(fit_and_sample)


def _fill(module) -> None:
    """Fill with random weights, scaled for finite activations."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.7 / parameter[0].numel() ** 0.5)
        else:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)


def _model(dtype):
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    device = comfy.model_management.get_torch_device()
    config = comfy.supported_models.SD15(dict(UNET))
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device)
    _fill(model)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def _vae():
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    network = AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4)
    _fill(network)
    config = {"params": {"ddconfig": AUTOENCODER, "embed_dim": 4}}
    return comfy.sd.VAE(sd=network.state_dict(), config=config)


def child(python: str, comfyui: Path, *task: str) -> dict[str, float]:
    command = [python, "-m", "benchmarks.host_memory", "--inside", str(comfyui), *task]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        comfyui, task, dtype, side, checkpointing = arguments.inside
        print("\n" + json.dumps(inside_comfyui(Path(comfyui), task, dtype, int(side), checkpointing)))
        return
    comfyui = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    python = os.environ.get("COMFYUI_PYTHON") or str(comfyui / ".venv/bin/python")
    if not (comfyui / "main.py").is_file():
        print(f"no ComfyUI at {comfyui}: set COMFYUI_PATH to its folder")
        return
    print("| task | dtype | picture | checkpointing | before, MiB | peak above | forward alone | for backward | s |")
    print("|---|---|---:|---|---:|---:|---:|---:|---:|")
    for task, dtype, side, checkpointing in (
        ("fit and sample", "float32", 64, "off"),
        ("gradient", "float32", 256, "off"),
        ("gradient", "float32", 256, "on"),
        ("gradient", "bfloat16", 512, "off"),
        ("gradient", "bfloat16", 512, "on"),
    ):
        found = child(python, comfyui, task, dtype, str(side), checkpointing)
        forward = found.get("forward", math.nan)
        numbers = [found["before"], found["extra"], forward, found["extra"] - forward, found["seconds"]]
        print(f"| {task} | {dtype} | {side} | {checkpointing} | " + " | ".join(f"{n:.0f}" for n in numbers), flush=True)


if __name__ == "__main__":
    main()

"""One task of benchmarks/host_memory.py, in a process of ComfyUI's Python: Stable Diffusion 1.5 with random weights.

python -m benchmarks.inside_comfyui COMFYUI TASK DTYPE SIDE CHECKPOINTING
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import resident, with_peak

ROOT = Path(__file__).parents[1]
FIT_SIDE = 64
"""Pixels of the picture of a fit; larger ones are for single gradients."""
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


def load_pack(comfyui: Path) -> None:
    """Import ComfyUI for the CPU, and this pack under the name ``vipaint``."""
    os.chdir(comfyui)
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location(
        "vipaint", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules["vipaint"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["vipaint"])


def network_tasks(guider: Any, vae: Any, side: int) -> dict[str, dict[str, float]]:
    """The gradient through denoiser and decoder, with ``checkpointing`` off and on, and the decoder alone.

    The check of the gradient before a run is left out: it takes longer than the tasks.
    """
    from vipaint.nodes.host.conditions import Part
    from vipaint.nodes.host.prior import HostPrior, with_host_prior

    HostPrior.check = lambda self: False

    def decode(prior) -> dict[str, float]:
        z = torch.randn(1, *prior.latent_shape)
        return measured(lambda: prior.decode(z))

    def gradient(prior) -> dict[str, float]:
        z, times = torch.randn(1, *prior.latent_shape), torch.tensor([0.5])
        with torch.enable_grad():
            z.requires_grad_()
            return measured(lambda: torch.autograd.grad(prior.decode(prior.denoise(z, times)).sum(), z))

    tasks = {"decode": (decode, "off"), "gradient on": (gradient, "on"), "gradient off": (gradient, "off")}
    whole = Part((side, side), (side, side))
    return {
        name: with_host_prior(guider, vae, whole, work, rows=1, checkpointing=checkpointing)
        for name, (work, checkpointing) in tasks.items()
    }


def fit_task(guider: Any, vae: Any, side: int) -> dict[str, dict[str, float]]:
    """A fit of five iterations with one walk, and one sample."""
    from vipaint.nodes.observe.inpaint import ObserveInpaint
    from vipaint.nodes.posterior import FitPosterior, SamplePosterior

    mask = torch.zeros(1, side, side)
    mask[:, :, side // 2 :] = 1
    observation = ObserveInpaint.execute(torch.rand(1, side, side, 3), mask, 0.05).args[0]
    common = {"guider": guider, "vae": vae, "observation": observation, "seed": 0, "checkpointing": "off"}

    def fit_and_sample() -> None:
        rates = {"mean_rate": 0.0, "log_std_rate": 0.0, "gate_rate": 0.0}
        fit = FitPosterior.execute(**common, **rates, preset="fast", keypoints="", iterations=5, samples=1)
        chain = {"num_samples": 1, "steps": 4, "guidance": "kalman", "batch_size": 1, "first_sample": 0}
        SamplePosterior.execute(**common, **chain, posterior=fit.args[0])

    return {"fit and sample": measured(fit_and_sample)}


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


def _vae(dtype):
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    network = AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4)
    _fill(network)
    config = {"params": {"ddconfig": AUTOENCODER, "embed_dim": 4}}
    return comfy.sd.VAE(sd=network.state_dict(), config=config, dtype=dtype)


def main() -> None:
    comfyui, dtype, side = Path(sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3])
    load_pack(comfyui)
    import comfy.samplers

    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(_model(dtype))
        guider.set_conds([[torch.randn(1, 77, 768), {}]], [[torch.randn(1, 77, 768), {}]])
        guider.set_cfg(3.0)
        tasks = fit_task if side == FIT_SIDE else network_tasks
        print("\n" + json.dumps(tasks(guider, _vae(dtype), side)))


if __name__ == "__main__":
    main()

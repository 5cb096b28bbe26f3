"""One task of benchmarks/host_memory.py, in a process of ComfyUI's Python: Stable Diffusion 1.5 with random weights.

python -m benchmarks.inside_comfyui COMFYUI TASK DTYPE SIDE CHECKPOINTING
"""

from __future__ import annotations

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
    """The measurements of one task, with ComfyUI's modules."""
    os.chdir(comfyui)
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import importlib.util

    import comfy.samplers

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
        guider.set_cfg(3.0)
        vae = _vae(getattr(torch, dtype_name))
        if task != "fit and sample":

            def run(prior) -> dict[str, float]:
                time, z = torch.tensor([0.5]), torch.randn(1, *prior.latent_shape)
                if task == "decode":
                    return measured(lambda: prior.decode(z))
                with torch.enable_grad():
                    z.requires_grad_()
                    return measured(lambda: torch.autograd.grad(prior.decode(prior.denoise(z, time)).sum(), z))

            return with_host_prior(guider, vae, (side, side), run, rows=1, checkpointing=checkpointing)
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


def _vae(dtype):
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    network = AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4)
    _fill(network)
    config = {"params": {"ddconfig": AUTOENCODER, "embed_dim": 4}}
    return comfy.sd.VAE(sd=network.state_dict(), config=config, dtype=dtype)


def main() -> None:
    comfyui, task, dtype, side, checkpointing = sys.argv[1:]
    found = inside_comfyui(Path(comfyui), task, dtype, int(side), checkpointing)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()

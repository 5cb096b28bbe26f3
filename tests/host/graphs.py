"""The prompts that the tests share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.host.comfy_client import Graph, Link, Node

EMBEDDED = "embedded prior (64x64 scenes)"
FIT = {
    "seed": 0,
    "preset": "fast",
    "keypoints": "",
    "iterations": 3,
    "samples": 0,
    "mean_rate": 0.0,
    "log_std_rate": 0.0,
    "gate_rate": 0.0,
    "checkpointing": "auto",
}
SAMPLE = {
    "num_samples": 2,
    "seed": 0,
    "steps": 4,
    "guidance": "kalman",
    "batch_size": 4,
    "first_sample": 0,
    "checkpointing": "auto",
}
INPAINT = {
    "seed": 0,
    "cfg": 1.0,
    "num_samples": 2,
    "preset": "fast",
    "noise_level": 0.05,
    "feather": 0,
    "colour_match": False,
}


@dataclass(frozen=True)
class Tiny:
    """A tiny model in a graph, with the channels of its latents and the settings of its text."""

    model: Link
    channels: int
    text: dict[str, Any]


def tiny(graph: Graph, name: str) -> Tiny:
    """One of tiny_checkpoints.py's models by the end of its file's name, or "built" and a family of TestTinyModel."""
    if name.startswith("built "):
        model = graph.add("TestTinyModel", family=name.removeprefix("built "), seed=0)
    elif name in ("flux", "wan"):
        model = graph.add("UNETLoader", unet_name=f"tiny_{name}.safetensors", weight_dtype="default")
    else:
        model = graph.add("CheckpointLoaderSimple", ckpt_name=f"tiny_{name}.safetensors")
    width = 768 if name.startswith("sd15") else 4096 if name == "wan" else 64
    masked = name in ("built qwen", "built z-image")
    text = {"width": width, "pooled": 0 if "sd15" in name else 32, "attention_mask": masked}
    return Tiny(model[0], 4 if "sd15" in name or "unet" in name else 16, text)


def conditioning(graph: Graph, tiny: Tiny, seed: int = 0) -> Link:
    """Random text for a tiny model."""
    return graph.add("TestConditioning", length=8, seed=seed, **tiny.text)[0]


def guider(graph: Graph, tiny: Tiny, model: Link | None = None, cfg: float = 2.0) -> Link:
    """A guider over a tiny model, or over ``model`` made of it."""
    positive, negative = (conditioning(graph, tiny, seed) for seed in (0, 1))
    return graph.add("CFGGuider", model=model or tiny.model, positive=positive, negative=negative, cfg=cfg)[0]


def ksampler(
    graph: Graph,
    model: Link,
    positive: Link,
    negative: Link,
    channels: int,
    cfg: float = 2.0,
    steps: int = 2,
    size: int = 8,
    nonce: int = 0,
) -> Node:
    """ComfyUI's own sampler from noise of seed 1; another ``nonce`` runs it again."""
    latent = graph.add("TestLatent", channels=channels, height=size, width=size, batch=1, nonce=nonce)
    return graph.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent[0],
        seed=1,
        steps=steps,
        cfg=cfg,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )


def tiny_ksampler(graph: Graph, name: str, steps: int = 2, nonce: int = 0) -> Node:
    """ComfyUI's own sampler on a tiny model."""
    model = tiny(graph, name)
    positive, negative = (conditioning(graph, model, seed) for seed in (0, 1))
    return ksampler(graph, model.model, positive, negative, model.channels, steps=steps, nonce=nonce)


def with_hole(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Pixels that LoadImage reads with ``hole`` (boolean, ``[height, width]``) as its mask."""
    return np.dstack([pixels, np.where(hole, 0, 255).astype(np.uint8)])


def right_half(pixels: np.ndarray) -> np.ndarray:
    """The right half of a picture as a hole."""
    hole = np.zeros(pixels.shape[:2], dtype=bool)
    hole[:, pixels.shape[1] // 2 :] = True
    return hole


@dataclass(frozen=True)
class Restoration:
    """The nodes of one restoration of a picture with the embedded prior, from loading to saving."""

    loader: Node
    label: Link
    guider: Link
    image: Node
    observation: Link
    fit: Node
    sample: Node
    shown: Node
    images: Node
    latents: Node


def embedded_prior(graph: Graph) -> tuple[Node, Link]:
    """The loader of the embedded prior, and its conditioning without a class."""
    loader = graph.add("VIPaintLoadLDMCheckpoint", ckpt_name=EMBEDDED)
    return loader, graph.add("VIPaintLDMClassLabel", model=loader[0], label=-1)[0]


def fit(graph: Graph, guider: Link, vae: Link, observation: Link, **settings: Any) -> Node:
    """A short fit."""
    inputs = {"guider": guider, "vae": vae, "observation": observation}
    return graph.add("VIPaintFitPosterior", **inputs, **(FIT | settings))


def sample(graph: Graph, posterior: Link, guider: Link, vae: Link, observation: Link, **settings: Any) -> Node:
    """A short refinement of two samples."""
    inputs = {"posterior": posterior, "guider": guider, "vae": vae, "observation": observation}
    return graph.add("VIPaintSamplePosterior", **inputs, **(SAMPLE | settings))


def restoration(
    graph: Graph, picture: str, fit_settings: dict[str, Any] | None = None, **sample_settings: Any
) -> Restoration:
    """Restore the file ``picture`` of the input folder, whose transparent part is the hole."""
    loader, label = embedded_prior(graph)
    guided = graph.add("CFGGuider", model=loader[0], positive=label, negative=label, cfg=1.0)[0]
    image = graph.add("LoadImage", image=picture)
    observed = graph.add("VIPaintObserveInpaint", image=image[0], mask=image[1], noise_level=0.05)[0]
    fitted = fit(graph, guided, loader[1], observed, **(fit_settings or {}))
    sampled = sample(graph, fitted[0], guided, loader[1], observed, **sample_settings)
    composited = graph.add(
        "VIPaintCompositeObserved", images=sampled[1], original=image[0], mask=image[1], feather=0, colour_match=False
    )
    shown = graph.add("SaveImage", images=composited[0], filename_prefix="restored")
    images = graph.add("TestSaveTensor", image=sampled[1])
    latents = graph.add("TestSaveTensor", latent=sampled[0])
    return Restoration(loader, label, guided, image, observed, fitted, sampled, shown, images, latents)


def inpaint(graph: Graph, picture: str, **settings: Any) -> tuple[Node, Node]:
    """The same with the all-in-one node; it, and the node that saves its pictures."""
    loader, label = embedded_prior(graph)
    image = graph.add("LoadImage", image=picture)
    node = graph.add(
        "VIPaintInpaint",
        model=loader[0],
        positive=label,
        negative=label,
        vae=loader[1],
        image=image[0],
        mask=image[1],
        **(INPAINT | settings),
    )
    return node, graph.add("SaveImage", images=node[0], filename_prefix="inpainted")

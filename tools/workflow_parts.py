"""Parts of several example workflows."""

from __future__ import annotations

from typing import NamedTuple

from tools.workflow_graph import Node, Output, Workflow

EMBEDDED = "embedded prior (64x64 scenes)"


class EmbeddedScene(NamedTuple):
    """The embedded prior, a scene with a mask, its observation, and the guider."""

    model: Node
    scene: Node
    observation: Node
    guider: Node


def embedded_model(flow: Workflow) -> tuple[Node, Node]:
    """The embedded prior and its empty conditioning."""
    model = flow.add("VIPaintLoadLDMCheckpoint", ckpt_name=EMBEDDED)
    return model, flow.add("VIPaintLDMClassLabel", model=model["model"])


def embedded_guider(flow: Workflow, model: Node, label: Node) -> Node:
    """The embedded prior without guidance."""
    conditions = {"positive": label["conditioning"], "negative": label["conditioning"]}
    return flow.add("CFGGuider", model=model["model"], **conditions, cfg=1.0)


def embedded_scene(flow: Workflow) -> EmbeddedScene:
    """The groups *Model and image* and *Observation*."""
    flow.group("Model and image")
    model, label = embedded_model(flow)
    scene = flow.add("VIPaintDemoScene")
    enlarged = enlarge(flow, scene["image"])
    flow.group("Observation")
    guider = embedded_guider(flow, model, label)
    observation = flow.add("VIPaintObserveInpaint", image=scene["image"], mask=scene["mask"], noise_level=0.02)
    flow.add("PreviewImage", title="Original", images=enlarged["IMAGE"])
    return EmbeddedScene(model, scene, observation, guider)


def add_fit(flow: Workflow, given: EmbeddedScene) -> Node:
    """A fit in its own group."""
    flow.group("Fit")
    return flow.add(
        "VIPaintFitPosterior",
        guider=given.guider["GUIDER"],
        vae=given.model["vae"],
        observation=given.observation["observation"],
    )


def add_samples(flow: Workflow, fit: Node, given: EmbeddedScene, seed: int, muted: bool = False) -> None:
    """Samples of a fit, composited, enlarged and saved."""
    samples = flow.add(
        "VIPaintSamplePosterior",
        posterior=fit["posterior"],
        guider=given.guider["GUIDER"],
        vae=given.model["vae"],
        observation=given.observation["observation"],
        seed=seed,
        muted=muted,
    )
    flow.column()
    composited = flow.add(
        "VIPaintCompositeObserved",
        images=samples["images"],
        original=given.scene["image"],
        mask=given.scene["mask"],
        muted=muted,
    )
    enlarged = enlarge(flow, composited["composited"], muted)
    flow.column()
    flow.add("SaveImage", images=enlarged["IMAGE"], filename_prefix="vipaint/scene", muted=muted)


def enlarge(flow: Workflow, image: Output, muted: bool = False) -> Node:
    """A small image, enlarged for display."""
    return flow.add(
        "ImageScale",
        title="Enlarge for display",
        image=image,
        upscale_method="nearest-exact",
        width=256,
        height=256,
        crop="disabled",
        muted=muted,
    )


def sd15(flow: Workflow) -> Node:
    """Stable Diffusion 1.5."""
    name = "v1-5-pruned-emaonly-fp16.safetensors"
    address = f"https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{name}"
    return flow.add("CheckpointLoaderSimple", ckpt_name=name, download=address)


def sdxl(flow: Workflow) -> Node:
    """SDXL."""
    name = "sd_xl_base_1.0.safetensors"
    address = f"https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{name}"
    return flow.add("CheckpointLoaderSimple", ckpt_name=name, download=address)


def upscaled_by_model(flow: Workflow, image: Output) -> Node:
    """An image upscaled by a model."""
    flow.group("Upscale")
    upscaler = flow.add(
        "UpscaleModelLoader",
        model_name="RealESRGAN_x4plus.safetensors",
        download="https://huggingface.co/Comfy-Org/Real-ESRGAN_repackaged/resolve/main/RealESRGAN_x4plus.safetensors",
    )
    flow.column()
    return flow.add("ImageUpscaleWithModel", upscale_model=upscaler["UPSCALE_MODEL"], image=image)


def picture_and_prompts(flow: Workflow, clip: Output) -> tuple[Node, Node, Node]:
    """An image and two prompts."""
    picture = flow.add("LoadImage", image="example.png")
    flow.column()
    positive = flow.add("CLIPTextEncode", title="Prompt", clip=clip, text="a photograph, sharp")
    negative = flow.add("CLIPTextEncode", title="Negative prompt", clip=clip, text="blurry, watermark, text")
    return picture, positive, negative


def prompted(flow: Workflow, checkpoint: Node) -> tuple[Output, Output, Node, Output, Output]:
    """Model, VAE, image and both conditions of a checkpoint."""
    picture, positive, negative = picture_and_prompts(flow, checkpoint["CLIP"])
    return checkpoint["MODEL"], checkpoint["VAE"], picture, positive["CONDITIONING"], negative["CONDITIONING"]

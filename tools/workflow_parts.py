"""Parts of several example workflows."""

from __future__ import annotations

from typing import NamedTuple

from tools.workflow_graph import Node, Output, Workflow

EMBEDDED = "embedded prior (64x64 scenes)"
_CUP, _RACCOON = "cup (remove the spoon)", "raccoon (remove the blade of grass)"


class Example(NamedTuple):
    """A setting of *Example Photograph*, and a prompt for it."""

    photograph: str
    size: int
    prompt: str


class Models(NamedTuple):
    """The outputs of loaders."""

    model: Output
    clip: Output
    vae: Output


class Prompted(NamedTuple):
    """What a restoration of a photograph needs."""

    model: Output
    vae: Output
    image: Output
    mask: Output
    positive: Output
    negative: Output | None

    def inputs(self) -> dict[str, Output]:
        """Those of a node for one task, but for the mask."""
        given = {"model": self.model, "positive": self.positive, "vae": self.vae, "image": self.image}
        return given if self.negative is None else given | {"negative": self.negative}


def cup(size: int = 512) -> Example:
    """The example for models of 512 pixels."""
    return Example(_CUP, size, "a photograph of a cup of espresso on a red saucer on a wooden table, sharp")


def raccoon(size: int = 1024) -> Example:
    """The example for models of 1024 pixels."""
    return Example(_RACCOON, size, "a photograph of a raccoon among green leaves, sharp")


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


def add_samples(flow: Workflow, fit: Node, given: EmbeddedScene, seed: int, muted: bool = False) -> Node:
    """Samples of a fit, composited, enlarged and saved. Returns the node that composites."""
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
    return composited


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


def sd15(flow: Workflow) -> Models:
    """Stable Diffusion 1.5."""
    name = "v1-5-pruned-emaonly-fp16.safetensors"
    return checkpoint(flow, name, f"https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{name}")


def sdxl(flow: Workflow) -> Models:
    """SDXL."""
    name = "sd_xl_base_1.0.safetensors"
    return checkpoint(
        flow, name, f"https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{name}"
    )


def checkpoint(flow: Workflow, name: str, address: str) -> Models:
    """All models of a checkpoint file."""
    loader = flow.add("CheckpointLoaderSimple", ckpt_name=name, downloads=[address])
    return Models(loader["MODEL"], loader["CLIP"], loader["VAE"])


def upscaled_by_model(flow: Workflow, image: Output) -> Node:
    """An image upscaled by a model."""
    flow.group("Upscale")
    name = "RealESRGAN_x4plus.safetensors"
    address = f"https://huggingface.co/Comfy-Org/Real-ESRGAN_repackaged/resolve/main/{name}"
    upscaler = flow.add("UpscaleModelLoader", model_name=name, downloads=[address])
    flow.column()
    return flow.add("ImageUpscaleWithModel", upscale_model=upscaler["UPSCALE_MODEL"], image=image)


def prompted(flow: Workflow, models: Models, example: Example, negative: bool = True) -> Prompted:
    """A photograph and its prompts: the user's, muted, the example that stands in for it, and texts."""
    own = flow.add("LoadImage", title="Your photograph (muted)", image="example.png", muted=True)
    flow.column()
    picture = flow.add(
        "VIPaintExamplePhotograph",
        photograph=example.photograph,
        size=example.size,
        own_image=own["IMAGE"],
        own_mask=own["MASK"],
    )
    prompt = _prompt(flow, models.clip, "Prompt", example.prompt)
    unwanted = _prompt(flow, models.clip, "Negative prompt", "blurry, watermark, text") if negative else None
    return Prompted(models.model, models.vae, picture["image"], picture["mask"], prompt, unwanted)


def guided(flow: Workflow, given: Prompted, muted: bool = False) -> Output:
    """The model with both prompts, as a GUIDER."""
    conditions = {"positive": given.positive, "negative": given.negative}
    return flow.add("CFGGuider", model=given.model, **conditions, cfg=3.0, muted=muted)["GUIDER"]


def _prompt(flow: Workflow, clip: Output, title: str, text: str) -> Output:
    return flow.add("CLIPTextEncode", title=title, clip=clip, text=text)["CONDITIONING"]


def cost(*, balanced: float, fast: float) -> str:
    """The cost of a run with the default preset, for the note of a workflow."""
    return (
        f"**Cost**: four samples cost as much as {balanced:g} plain generations of four images in 28 steps; with "
        f"*preset* fast, {fast:g}. Counted, not timed."
    )


def took(seconds: int) -> str:
    """The cost of a run on the embedded prior, for the note of a workflow."""
    return f"**Cost**: about {seconds} s on one core of a CPU, measured."


OWN_PHOTOGRAPH = (
    "For your own photograph: select the muted *Your photograph*, press **Ctrl+M**, load the image, right-click the "
    "node, *Open in MaskEditor*, and paint the mask."
)
OWN_PHOTOGRAPH_WHOLE = (
    "For your own photograph: select the muted *Your photograph*, press **Ctrl+M**, and load the image."
)
SD15_COST = cost(balanced=6.5, fast=3)
SDXL_COST = cost(balanced=5.3, fast=2.6)

"""Example workflows for blurred, small and damaged images."""

from __future__ import annotations

from tools.workflow_graph import Node, Output, Workflow
from tools.workflow_parts import (
    OWN_PHOTOGRAPH_WHOLE,
    SD15_COST,
    SDXL_COST,
    Prompted,
    cup,
    embedded_guider,
    embedded_model,
    enlarge,
    guided,
    prompted,
    raccoon,
    sd15,
    sdxl,
    took,
    upscaled_by_model,
)

_BLUR_STD = 3.0
"""In pixels, of the blur that is put on the examples. It is the default of *VIPaint Deblur*."""


def embedded_deblur(flow: Workflow) -> None:
    """A blurred scene, restored and compared with the original."""
    flow.group("Read me")
    flow.note(
        "# Blur, restore, compare\n\n"
        "Press **Run**. No download is needed. A scene is blurred and made noisy. VIPaint draws four samples, which "
        "are compared with the original.\n\n"
        "- *Kernel Preview* shows the kernel of the blur.\n"
        "- *residual / noise* near 1: the sample agrees with the blurred image to within its noise.\n"
        "- For another blur, replace *Observe: Gaussian Blur* by *Observe: Motion Blur*.\n\n"
        f"{took(50)}"
    )
    model, label, scene = _clean_scene(flow)
    flow.group("Degrade")
    blur = flow.add("VIPaintObserveGaussianBlur", image=scene["image"], kernel_size=25, std=2.0)
    kernel = flow.add("VIPaintKernelPreview", observation=blur["observation"])
    flow.add("PreviewImage", title="Kernel", images=kernel["kernel"])
    _restored_and_compared(flow, model, label, scene, blur["observation"])


def embedded_super_resolve(flow: Workflow) -> None:
    """A scene of 16 pixels, upscaled four times in one node."""
    flow.group("Read me")
    flow.note(
        "# Super-resolution in one node\n\n"
        "Press **Run**. A scene is downscaled four times, then upscaled to four samples that are consistent with the "
        "small image. Change the **seed** for new samples.\n\n"
        f"{took(35)}"
    )
    model, label, scene = _clean_scene(flow)
    flow.group("Downscale")
    size = {"upscale_method": "area", "width": 16, "height": 16, "crop": "disabled"}
    reduced = flow.add("ImageScale", title="Image of the small size", image=scene["image"], **size)
    smaller = flow.add("VIPaintObserveSuperResolution", image=reduced["IMAGE"])
    given = flow.add("VIPaintDegradeImage", image=scene["image"], observation=smaller["observation"])
    flow.column()
    seen = enlarge(flow, given["degraded"])
    flow.add("PreviewImage", title="Degraded image", images=seen["IMAGE"])
    flow.group("Restore")
    conditions = {"positive": label["conditioning"], "negative": label["conditioning"]}
    restored = flow.add(
        "VIPaintSuperResolve", model=model["model"], **conditions, vae=model["vae"], image=given["degraded"]
    )
    flow.group("Compare")
    compared = flow.add(
        "VIPaintCompare",
        images=restored["images"],
        original=scene["image"],
        observation=given["degraded_observation"],
    )
    flow.add("SaveImage", images=compared["sheet"], filename_prefix="vipaint/super_resolved")


def old_photo(flow: Workflow) -> None:
    """Blur, scratches and noise at once: a chain of observations."""
    flow.group("Read me")
    flow.note(
        "# An old photograph: blurred, scratched and noisy\n\n"
        "Press **Run**. The scene is blurred by camera shake, then scratched. *Observe: Chain* combines both, and "
        "VIPaint restores the image in one run.\n\n"
        "For your own photograph: load it in place of the degraded scene, paint the scratches as mask, and estimate "
        "the blur. Remove *Compare*, which needs an original.\n\n"
        f"{took(45)}"
    )
    model, label, scene = _clean_scene(flow)
    flow.group("Degrade")
    shake = flow.add(
        "VIPaintObserveMotionBlur", image=scene["image"], kind="camera shake", kernel_size=9, noise_level=0.05
    )
    mask = flow.add("VIPaintMakeMask", width=64, height=64, kind="brush strokes", share=0.15)
    cells = flow.add("VIPaintMaskToLatentGrid", mask=mask["mask"], vae=model["vae"])
    flow.column()
    scratches = flow.add("VIPaintObserveInpaint", image=scene["image"], mask=cells["latent_grid"])
    chain = flow.add("VIPaintObserveChain", first=shake["observation"], then=scratches["observation"])
    _restored_and_compared(flow, model, label, scene, chain["observation"])


def sd15_deblur(flow: Workflow) -> None:
    """A photograph and the kernel of its blur, with Stable Diffusion 1.5: in one node, and step by step."""
    _read_me_of_blur(
        flow,
        "Stable Diffusion 1.5",
        "With an image of the kernel (a point of light in the photograph, on black), load it in the second *Load "
        "Image* and un-mute the group *With a kernel* (select its nodes, Ctrl+M). Image size: about 512 pixels per "
        "side.",
        SD15_COST,
    )
    given = _blurred(flow, prompted(flow, sd15(flow), cup()))
    flow.group("Deblur")
    restored = flow.add("VIPaintDeblur", **given.inputs(), std=_BLUR_STD, cfg=3.0)
    flow.add("SaveImage", images=restored["images"], filename_prefix="vipaint/deblurred")
    flow.group("With a kernel (muted)", below=True)
    kernel = flow.add("LoadImage", title="Kernel", image="example.png", muted=True)
    observation = flow.add("VIPaintObserveKernel", image=given.image, kernel=kernel["IMAGE"], muted=True)
    guider = guided(flow, given, muted=True)
    flow.column()
    inputs = {"guider": guider, "vae": given.vae, "observation": observation["observation"]}
    posterior = flow.add("VIPaintFitPosterior", **inputs, muted=True)
    flow.column()
    samples = flow.add("VIPaintSamplePosterior", posterior=posterior["posterior"], **inputs, muted=True)
    flow.add("SaveImage", images=samples["images"], filename_prefix="vipaint/deblurred", muted=True)


def sdxl_deblur(flow: Workflow) -> None:
    """A blurred photograph with SDXL, in one node."""
    _read_me_of_blur(
        flow,
        "SDXL",
        "Too strong a blur gives rings, too weak a blur leaves the image soft. *Estimate Noise Level* sets the noise "
        "level, including the VAE's reconstruction error. Image size: about 1024 pixels per side.",
        SDXL_COST,
    )
    given = _blurred(flow, prompted(flow, sdxl(flow), raccoon()))
    _restored(flow, given, "VIPaintDeblur", "vipaint/deblurred", vae=given.vae)


def sdxl_super_resolve(flow: Workflow) -> None:
    """Super-resolution with SDXL, in one node."""
    flow.group("Read me")
    flow.note(
        "# Super-resolution with SDXL\n\n"
        "1. Select your model.\n"
        "2. Press **Run** for four samples that are consistent with the small example. It is upscaled by **factor**, "
        "four times by default. *Estimate Noise Level* sets the noise level.\n"
        "3. Describe the image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH_WHOLE} It should have about 256 pixels per side.\n\n"
        f"{SDXL_COST}"
    )
    flow.group("Model, image, prompt")
    given = prompted(flow, sdxl(flow), raccoon(256))
    _restored(flow, given, "VIPaintSuperResolve", "vipaint/super_resolved")


def embedded_restore_upscale(flow: Workflow) -> None:
    """A blurred scene, restored, then enlarged by ComfyUI's own node."""
    flow.group("Read me")
    flow.note(
        "# Restore, then upscale\n\n"
        "Press **Run**. No download is needed. VIPaint restores a blurred, noisy scene with its known blur. ComfyUI's "
        "*Upscale Image* then enlarges the result. In the reverse order, the blur would be enlarged too.\n\n"
        f"{took(50)}"
    )
    model, label, scene = _clean_scene(flow)
    flow.group("Degrade")
    blur = flow.add("VIPaintObserveGaussianBlur", image=scene["image"], kernel_size=13, std=1.5)
    degraded = flow.add("VIPaintDegradeImage", image=scene["image"], observation=blur["observation"])
    flow.column()
    seen = enlarge(flow, degraded["degraded"])
    flow.add("PreviewImage", title="Degraded image", images=seen["IMAGE"])
    flow.group("Restore")
    conditions = {"positive": label["conditioning"], "negative": label["conditioning"]}
    restored = flow.add(
        "VIPaintDeblur",
        model=model["model"],
        **conditions,
        vae=model["vae"],
        image=degraded["degraded"],
        kernel_size=13,
        std=1.5,
    )
    flow.group("Upscale")
    size = {"upscale_method": "lanczos", "width": 256, "height": 256, "crop": "disabled"}
    large = flow.add("ImageScale", image=restored["images"], **size)
    flow.add("SaveImage", images=large["IMAGE"], filename_prefix="vipaint/restored_upscaled")


def sd15_restore_upscale(flow: Workflow) -> None:
    """A blurred photograph, restored with Stable Diffusion 1.5, then enlarged by an upscaling model."""
    flow.group("Read me")
    flow.note(
        "# Restore, then upscale, with Stable Diffusion 1.5\n\n"
        "1. Select your models.\n"
        "2. Press **Run**. The example is blurred, restored, and every sample upscaled four times.\n"
        "3. Describe the image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH_WHOLE} Bypass *Blur of the example* (Ctrl+B). Set the blur in *Observe: Gaussian Blur*, or "
        "use another *Observe* node. *Estimate Noise Level* sets its noise level. *Robust Likelihood* (muted) allows a "
        "few outlier pixels, at a cost. Image size: about 512 pixels per side.\n\n"
        f"{SD15_COST} The upscaler is not counted."
    )
    flow.group("Model, image, prompt")
    given = _blurred(flow, prompted(flow, sd15(flow), cup()))
    flow.group("Observation")
    noise = flow.add("VIPaintEstimateNoiseLevel", image=given.image, vae=given.vae)
    blur = flow.add("VIPaintObserveGaussianBlur", image=given.image, std=_BLUR_STD, noise_level=noise["noise_level"])
    flow.add("VIPaintRobustLikelihood", observation=blur["observation"], muted=True)
    inputs = {"guider": guided(flow, given), "vae": given.vae, "observation": blur["observation"]}
    flow.group("Restore")
    posterior = flow.add("VIPaintFitPosterior", **inputs)
    flow.column()
    restored = flow.add("VIPaintSamplePosterior", posterior=posterior["posterior"], **inputs)
    large = upscaled_by_model(flow, restored["images"])
    flow.add("SaveImage", images=large["IMAGE"], filename_prefix="vipaint/restored_upscaled")


def _read_me_of_blur(flow: Workflow, model: str, advice: str, cost: str) -> None:
    """The note, and the group that begins with the models."""
    flow.group("Read me")
    flow.note(
        f"# Deblurring with {model}\n\n"
        "1. Select your model.\n"
        "2. Press **Run**. The example is blurred, then restored.\n"
        "3. Describe the image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH_WHOLE} Bypass *Blur of the example* (Ctrl+B). Set the blur in *VIPaint Deblur*: out of focus "
        "(*gaussian*, std in pixels) or motion (*motion*, length and direction).\n\n"
        f"{advice}\n\n"
        f"{cost}"
    )
    flow.group("Model, image, prompt")


def _blurred(flow: Workflow, given: Prompted) -> Prompted:
    """The photograph, blurred."""
    radius = 30
    blurred = flow.add(
        "ImageBlur",
        title="Blur of the example",
        image=given.image,
        blur_radius=radius,
        sigma=_BLUR_STD / radius,  # ComfyUI measures it in radii
    )
    return given._replace(image=blurred["IMAGE"])


def _restored(flow: Workflow, given: Prompted, node: str, prefix: str, **of_noise: Output) -> None:
    flow.group("Restore")
    noise = flow.add("VIPaintEstimateNoiseLevel", image=given.image, **of_noise)
    flow.column()
    restored = flow.add(node, **given.inputs(), cfg=3.0, noise_level=noise["noise_level"])
    flow.add("SaveImage", images=restored["images"], filename_prefix=prefix)


def _clean_scene(flow: Workflow) -> tuple[Node, Node, Node]:
    flow.group("Model and image")
    model, label = embedded_model(flow)
    return model, label, flow.add("VIPaintDemoScene")


def _restored_and_compared(flow: Workflow, model: Node, label: Node, scene: Node, observation: Output) -> None:
    degraded = flow.add("VIPaintDegradeImage", image=scene["image"], observation=observation)
    flow.column()
    seen = enlarge(flow, degraded["degraded"])
    flow.add("PreviewImage", title="Degraded image", images=seen["IMAGE"])
    guider = embedded_guider(flow, model, label)
    given = {"guider": guider["GUIDER"], "vae": model["vae"], "observation": degraded["degraded_observation"]}
    flow.group("Restore")
    posterior = flow.add("VIPaintFitPosterior", **given)
    flow.column()
    samples = flow.add("VIPaintSamplePosterior", posterior=posterior["posterior"], **given)
    flow.group("Compare")
    compared = flow.add(
        "VIPaintCompare",
        images=samples["images"],
        original=scene["image"],
        observation=degraded["degraded_observation"],
    )
    flow.add("SaveImage", images=compared["sheet"], filename_prefix="vipaint/compared")


DEGRADED = (
    embedded_deblur,
    embedded_super_resolve,
    old_photo,
    sd15_deblur,
    sdxl_deblur,
    sdxl_super_resolve,
    embedded_restore_upscale,
    sd15_restore_upscale,
)

"""Example workflows for the sampling methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.workflow_graph import Node, Output, Workflow
from tools.workflow_parts import (
    OWN_PHOTOGRAPH,
    OWN_PHOTOGRAPH_WHOLE,
    Prompted,
    cup,
    embedded_guider,
    embedded_model,
    embedded_scene,
    enlarge,
    guided,
    prompted,
    sd15,
    took,
)


@dataclass(frozen=True)
class _Given:
    """Inputs of a sampler."""

    model: Output
    vae: Output
    guider: Output
    observation: Output


STEP_SIZE = 0.2
"""For CoPaint with the embedded prior: in so few steps, the published 0.02 does not reach the known pixels."""

_COPAINT_COST = (
    "**Cost**: as much as 27 plain generations of as many images in 28 steps; a sample of *VIPaint Inpaint* costs 3 to "
    "6.5. Counted, not timed."
)
FOUR: dict[str, tuple[str, dict[str, Any]]] = {
    "CoPaint": ("VIPaintCoPaintSampler", {"preset": "fast"}),
    "DPS": ("VIPaintDPSSampler", {}),
    "RePaint": ("VIPaintRePaintSampler", {"travel_visits": 3}),
    "Blended": ("VIPaintBlendedSampler", {}),
}
OTHERS = {
    "PiGDM": ("VIPaintPiGDMSampler", {}),
    "Kalman": ("VIPaintKalmanSampler", {}),
    "PSLD": ("VIPaintPSLDSampler", {}),
    "ReSample": ("VIPaintReSampleSampler", {"preset": "inpainting"}),
    "RED-diff": ("VIPaintREDDiffSampler", {}),
    "DDNM": ("VIPaintDDNMSampler", {}),
    "DInG": ("VIPaintDInGSampler", {}),
    "LanPaint": ("VIPaintLanPaintSampler", {}),
    "LATINO": ("VIPaintLATINOSampler", {}),
}


def embedded_copaint_inpaint(flow: Workflow) -> None:
    """CoPaint as a sampler, on the embedded prior."""
    flow.group("Read me")
    flow.note(
        "# CoPaint as a sampler\n\n"
        "Press **Run**. No download is needed. *CoPaint Sampler* connects to the core node *SamplerCustomAdvanced*, "
        "like any sampler. For another method, replace this node.\n\n"
        "- **Steps** are set in *BasicScheduler*, the number of **samples** in *Empty Latent for Observation*.\n"
        "- *step_size* is ten times the published one, for few steps with a small model. A step that increases the "
        "loss is shortened.\n"
        "- The help page (select the node, press **?**) compares all methods and their cost.\n\n"
        f"{took(135)}"
    )
    model, scene, observation, guider = embedded_scene(flow)
    given = _Given(model["model"], model["vae"], guider["GUIDER"], observation["observation"])
    flow.group("CoPaint")
    method = _method(flow, given, "VIPaintCoPaintSampler", preset="fast", step_size=STEP_SIZE)
    _composited(flow, _sampled(flow, given, method, steps=50, samples=4), scene["image"], scene["mask"])


def embedded_copaint_outpaint(flow: Workflow) -> None:
    """Outpainting by CoPaint with time travel, on the embedded prior."""
    flow.group("Read me")
    flow.note(
        "# Outpainting with CoPaint-TT\n\n"
        "Press **Run**. The centre of a scene is known, and the rest is drawn four times. *time travel* repeats every "
        "ten steps, for better joins.\n\n"
        "Change **border** in *Make Mask* for a larger or smaller known part.\n\n"
        "**Cost**: about three times that of *embedded_copaint_inpaint*, measured at 135 s on one core of a CPU."
    )
    flow.group("Model and image")
    model, label = embedded_model(flow)
    scene = flow.add("VIPaintDemoScene")
    mask = flow.add("VIPaintMakeMask", width=64, height=64, kind="outpaint border", border=16)
    flow.group("Observation")
    guider = embedded_guider(flow, model, label)
    observation = flow.add("VIPaintObserveInpaint", image=scene["image"], mask=mask["mask"], noise_level=0.02)
    given = _Given(model["model"], model["vae"], guider["GUIDER"], observation["observation"])
    flow.group("CoPaint-TT")
    method = _method(flow, given, "VIPaintCoPaintSampler", preset="time travel", step_size=STEP_SIZE)
    _composited(flow, _sampled(flow, given, method, steps=40, samples=4), scene["image"], mask["mask"])


def embedded_copaint_super_resolve(flow: Workflow) -> None:
    """A scene of 16 pixels, upscaled four times by CoPaint."""
    flow.group("Read me")
    flow.note(
        "# Super-resolution with CoPaint\n\n"
        "Press **Run**. A scene is downscaled four times, then upscaled to four samples that are compared with the "
        "original. *residual / noise* near 1: the sample agrees with the small image to within its noise. If it is far "
        "above 1, try another seed.\n\n"
        f"{took(165)}"
    )
    flow.group("Model and image")
    model, label = embedded_model(flow)
    scene = flow.add("VIPaintDemoScene")
    flow.group("Downscale")
    size = {"upscale_method": "area", "width": 16, "height": 16, "crop": "disabled"}
    reduced = flow.add("ImageScale", title="Image of the small size", image=scene["image"], **size)
    smaller = flow.add("VIPaintObserveSuperResolution", image=reduced["IMAGE"], kind="average", noise_level=0.02)
    small = flow.add("VIPaintDegradeImage", image=scene["image"], observation=smaller["observation"])
    flow.column()
    seen = enlarge(flow, small["degraded"])
    flow.add("PreviewImage", title="Degraded image", images=seen["IMAGE"])
    guider = embedded_guider(flow, model, label)
    given = _Given(model["model"], model["vae"], guider["GUIDER"], small["degraded_observation"])
    flow.group("CoPaint")
    method = _method(flow, given, "VIPaintCoPaintSampler", preset="fast", step_size=STEP_SIZE)
    _compared(flow, given, [_sampled(flow, given, method, steps=100, samples=4)], scene["image"])


def sd15_copaint_inpaint(flow: Workflow) -> None:
    """CoPaint with Stable Diffusion 1.5."""
    flow.group("Read me")
    flow.note(
        "# Inpainting with CoPaint and Stable Diffusion 1.5\n\n"
        "1. Select your model.\n"
        "2. Press **Run**: two samples of the example without the masked object.\n"
        "3. Describe the **whole** image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH} Image size: 512 to 768 pixels per side.\n\n"
        "To save memory: *batch_size* 1 and *checkpointing* on. For models without gradients, replace *CoPaint "
        "Sampler* by *DInG Sampler*.\n\n"
        f"{_COPAINT_COST}"
    )
    flow.group("Model, image, prompt")
    photograph = prompted(flow, sd15(flow), cup())
    given = _observed(flow, photograph)
    flow.group("CoPaint")
    method = _method(flow, given, "VIPaintCoPaintSampler", preset="fast")
    sampled = _sampled(flow, given, method, steps=100, samples=2)
    _composited(flow, sampled, photograph.image, photograph.mask, small=False)


def sd15_copaint_outpaint(flow: Workflow) -> None:
    """Outpainting by CoPaint with time travel, with Stable Diffusion 1.5."""
    flow.group("Read me")
    flow.note(
        "# Outpainting with CoPaint-TT and Stable Diffusion 1.5\n\n"
        "1. Select your model.\n"
        "2. Press **Run**: the example grows to both sides. Time travel takes twice as long as CoPaint and gives "
        "better joins.\n"
        "3. Set the borders in *Pad Image for Outpainting*; keep *feathering* at 0.\n"
        "4. Describe the **whole** image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH_WHOLE} Image size: 384 to 512 pixels per side.\n\n"
        "**Cost**: the published 250 steps cost as much as 277 plain generations of as many images in 28 steps, the "
        "100 steps of this graph two fifths of that. Counted, not timed."
    )
    flow.group("Model, image, prompt")
    photograph = prompted(flow, sd15(flow), cup(384))
    padded = flow.add("ImagePadForOutpaint", image=photograph.image, left=128, top=0, right=128, bottom=0, feathering=0)
    photograph = photograph._replace(image=padded["IMAGE"], mask=padded["MASK"])
    given = _observed(flow, photograph)
    flow.group("CoPaint-TT")
    method = _method(flow, given, "VIPaintCoPaintSampler", preset="time travel")
    sampled = _sampled(flow, given, method, steps=100, samples=2)
    _composited(flow, sampled, photograph.image, photograph.mask, small=False)


def sd15_copaint_super_resolve(flow: Workflow) -> None:
    """Super-resolution by CoPaint, with Stable Diffusion 1.5."""
    flow.group("Read me")
    flow.note(
        "# Super-resolution with CoPaint and Stable Diffusion 1.5\n\n"
        "1. Select your model.\n"
        "2. Press **Run**: the small example is upscaled four times.\n"
        "3. Describe the image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH_WHOLE} It should have about 128 pixels per side.\n\n"
        "*kind* is the downscaling method: bicubic as in image editors, average as in sensors.\n\n"
        f"{_COPAINT_COST}"
    )
    flow.group("Model, image, prompt")
    photograph = prompted(flow, sd15(flow), cup(128))
    flow.group("Observation")
    observation = flow.add("VIPaintObserveSuperResolution", image=photograph.image)
    given = _Given(photograph.model, photograph.vae, guided(flow, photograph), observation["observation"])
    flow.group("CoPaint")
    method = _method(flow, given, "VIPaintCoPaintSampler", preset="fast")
    restored = _sampled(flow, given, method, steps=100, samples=2)
    flow.add("SaveImage", images=restored, filename_prefix="vipaint/super_resolved")


def sd15_methods(flow: Workflow) -> None:
    """Four methods on one photograph, with Stable Diffusion 1.5."""
    flow.group("Read me")
    flow.note(
        "# Comparison of methods with Stable Diffusion 1.5\n\n"
        "1. Select your model.\n"
        "2. Press **Run**. Four methods restore what the mask hides, from the same noise in the same 100 steps. "
        "*Compare* shows the samples with their metrics and the original.\n"
        "3. Describe the image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH} Image size: 512 pixels per side.\n\n"
        "**Cost**: CoPaint costs as much as 27 plain generations of one image in 28 steps, DPS about 18, RePaint about "
        "11, Blended about 4. Counted, not timed."
    )
    flow.group("Model, image, prompt")
    photograph = prompted(flow, sd15(flow), cup())
    _side_by_side(flow, _observed(flow, photograph), photograph.image)


def _observed(flow: Workflow, photograph: Prompted) -> _Given:
    flow.group("Observation")
    observation = flow.add("VIPaintObserveInpaint", image=photograph.image, mask=photograph.mask)
    return _Given(photograph.model, photograph.vae, guided(flow, photograph), observation["observation"])


def _method(flow: Workflow, given: _Given, name: str, **settings: Any) -> Node:
    return flow.add(name, observation=given.observation, vae=given.vae, **settings)


def _sampled(flow: Workflow, given: _Given, method: Node, steps: int, samples: int) -> Output:
    """Decoded samples of one method."""
    start = _start(flow, given, steps, samples)
    flow.column()
    return _run(flow, given, method, start)


def _start(flow: Workflow, given: _Given, steps: int, samples: int) -> dict[str, Output]:
    sigmas = flow.add("BasicScheduler", model=given.model, scheduler="simple", steps=steps, denoise=1.0)
    noise = flow.add("RandomNoise", noise_seed=0)
    latent = flow.add("VIPaintEmptyLatent", observation=given.observation, vae=given.vae, num_samples=samples)
    return {"sigmas": sigmas["SIGMAS"], "noise": noise["NOISE"], "latent_image": latent["latent"]}


def _run(flow: Workflow, given: _Given, method: Node, start: dict[str, Output]) -> Output:
    sampled = flow.add("SamplerCustomAdvanced", guider=given.guider, sampler=method["sampler"], **start)
    decoded = flow.add("VAEDecode", samples=sampled["output"], vae=given.vae)["IMAGE"]
    return flow.add("VIPaintCropToObservation", images=decoded, observation=given.observation)["cropped"]


def _composited(flow: Workflow, images: Output, original: Output, mask: Output, small: bool = True) -> None:
    composited = flow.add("VIPaintCompositeObserved", images=images, original=original, mask=mask)["composited"]
    if small:
        composited = enlarge(flow, composited)["IMAGE"]
    flow.column()
    flow.add("SaveImage", images=composited, filename_prefix="vipaint/copaint")


def _side_by_side(flow: Workflow, given: _Given, original: Output) -> None:
    """One sample of each of four methods, and their sheet."""
    flow.group("Four methods")
    start = _start(flow, given, steps=100, samples=1)
    results = []
    for name, settings in FOUR.values():
        flow.column()
        results.append(_run(flow, given, _method(flow, given, name, **settings), start))
    _compared(flow, given, results, original, "\n".join(FOUR))


def _compared(flow: Workflow, given: _Given, results: Sequence[Output], original: Output, names: str = "") -> None:
    flow.column()
    images = results[0]
    for more in results[1:]:
        images = flow.add("ImageBatch", image1=images, image2=more)["IMAGE"]
    compared = flow.add("VIPaintCompare", images=images, original=original, observation=given.observation, names=names)
    flow.column()
    flow.add("SaveImage", images=compared["sheet"], filename_prefix="vipaint/methods")


SAMPLERS = (
    embedded_copaint_inpaint,
    embedded_copaint_outpaint,
    embedded_copaint_super_resolve,
    sd15_copaint_inpaint,
    sd15_copaint_outpaint,
    sd15_copaint_super_resolve,
    sd15_methods,
)

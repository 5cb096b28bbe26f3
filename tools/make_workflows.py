"""Writes the example workflows: ``python -m tools.make_workflows`` regenerates ``workflows/*.json``.

Slots, their order and widget values come from the schema snapshots in ``tests/nodes``, so that workflows agree with
the nodes. Each function is a workflow, or a part of several.
"""

from __future__ import annotations

import json
from pathlib import Path

from tools.degraded_workflows import DEGRADED
from tools.sampler_workflows import SAMPLERS
from tools.schema_snapshot import CORE_SNAPSHOT, SNAPSHOT
from tools.workflow_graph import Node, Output, Workflow
from tools.workflow_parts import (
    add_fit,
    add_samples,
    embedded_scene,
    picture_and_prompts,
    prompted,
    sd15,
    sdxl,
    upscaled_by_model,
)

WORKFLOWS = Path(__file__).parent.parent / "workflows"


def embedded_inpaint(flow: Workflow) -> None:
    """Inpainting with one node per step, on the embedded prior."""
    flow.group("Read me")
    flow.note(
        "# Four samples for half an image\n\n"
        "Press **Run**. No download is needed. The right half of a 64-pixel scene is masked. VIPaint fits a posterior "
        "with the embedded prior and draws four samples.\n\n"
        "- **seed** of *Sample Posterior*: new samples of the same fit.\n"
        "- **hole** of *Demo Scene*: another mask.\n"
        "- The curves show a fit with *iterations* above 0. The keypoint preview shows denoised predictions of four "
        "draws at each noise level.\n\n"
        "The embedded prior supports only such scenes. For photographs, use a Stable Diffusion workflow."
    )
    given = embedded_scene(flow)
    fit = add_fit(flow, given)
    flow.add("PreviewImage", title="Curves of the fit", images=fit["loss_plot"])
    flow.add("PreviewImage", title="Keypoint preview", images=fit["keypoint_preview"])
    flow.group("Samples")
    add_samples(flow, fit, given, seed=0)


def fit_once_sample_many(flow: Workflow) -> None:
    """One fit, saved; samples with several seeds, before and after loading it."""
    flow.group("Read me")
    flow.note(
        "# Fit once, sample many times\n\n"
        "1. Press **Run**. The posterior is fitted once and saved to `output/vipaint`. Two nodes draw samples with "
        "different seeds.\n"
        "2. Change a seed and run again. Only its samples are drawn; the fit is cached.\n"
        "3. After a restart: press **R** and select the file in *Load Posterior*. Un-mute the group *Load a fit* "
        "(select its nodes, Ctrl+M). Mute *Fit*, *Samples* and *More samples*.\n\n"
        "A posterior is valid for its image, mask and model only."
    )
    given = embedded_scene(flow)
    fit = add_fit(flow, given)
    flow.add("VIPaintSavePosterior", posterior=fit["posterior"])
    flow.group("Samples")
    add_samples(flow, fit, given, seed=1)
    flow.group("More samples", below=True)
    add_samples(flow, fit, given, seed=2)
    flow.group("Load a fit (muted)", below=True)
    loaded = flow.add("VIPaintLoadPosterior", file="output: vipaint/posterior_00001_.safetensors", muted=True)
    add_samples(flow, loaded, given, seed=3, muted=True)


def sd15_inpaint(flow: Workflow) -> None:
    """Stable Diffusion 1.5 with a prompt, in one node."""
    _read_me(flow, "Stable Diffusion 1.5", "Image size: 512 to 768 pixels per side.")
    flow.group("Model, image, prompt")
    _save(flow, _inpaint(flow, *prompted(flow, sd15(flow))))


def sdxl_inpaint(flow: Workflow) -> None:
    """SDXL with a prompt, in one node."""
    _read_me(flow, "SDXL", "Image size: about 1024 pixels per side. Several times the memory of SD 1.5.")
    flow.group("Model, image, prompt")
    _save(flow, _inpaint(flow, *prompted(flow, sdxl(flow))))


def sd35_inpaint(flow: Workflow) -> None:
    """Stable Diffusion 3.5 with a prompt, in one node."""
    _read_me(
        flow,
        "Stable Diffusion 3.5",
        "Image size: about 1024 pixels per side. Quantised weights work too; if the "
        "gradient of a model is missing, use the *preset* fast.",
    )
    flow.group("Model, image, prompt")
    name = "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
    checkpoint = flow.add(
        "CheckpointLoaderSimple",
        ckpt_name=name,
        download=f"https://huggingface.co/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/{name}",
    )
    _save(flow, _inpaint(flow, *prompted(flow, checkpoint)))


def lora_controlnet(flow: Workflow) -> None:
    """Inpainting with a LoRA and a ControlNet."""
    _read_me(
        flow,
        "a LoRA and a ControlNet",
        "The second image is a white-on-black line drawing of the whole image, with the same aspect ratio. LoRAs and "
        "ControlNets apply as for KSampler.",
    )
    flow.group("Model, image, prompt")
    checkpoint = sd15(flow)
    lora = flow.add(
        "LoraLoader",
        lora_name="MoXinV1.safetensors",
        download="https://civitai.com/api/download/models/14856?type=Model&format=SafeTensor&size=full&fp=fp16",
        model=checkpoint["MODEL"],
        clip=checkpoint["CLIP"],
        strength_model=0.8,
        strength_clip=0.8,
    )
    picture, positive, negative = picture_and_prompts(flow, lora["CLIP"])
    flow.group("ControlNet")
    name = "control_v11p_sd15_scribble_fp16.safetensors"
    control = flow.add(
        "ControlNetLoader",
        control_net_name=name,
        download=f"https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{name}",
    )
    drawing = flow.add("LoadImage", title="Line drawing", image="example.png")
    flow.column()
    controlled = flow.add(
        "ControlNetApplyAdvanced",
        positive=positive["CONDITIONING"],
        negative=negative["CONDITIONING"],
        control_net=control["CONTROL_NET"],
        image=drawing["IMAGE"],
        vae=checkpoint["VAE"],
        strength=0.8,
        start_percent=0.0,
        end_percent=1.0,
    )
    _save(
        flow,
        _inpaint(flow, lora["MODEL"], checkpoint["VAE"], picture, controlled["positive"], controlled["negative"]),
    )


def upscale_after(flow: Workflow) -> None:
    """Inpainting, then an upscaler."""
    _read_me(flow, "an upscaler", "Every sample is upscaled four times after inpainting.")
    flow.group("Model, image, prompt")
    inpaint = _inpaint(flow, *prompted(flow, sd15(flow)))
    enlarged = upscaled_by_model(flow, inpaint["images"])
    flow.add("SaveImage", images=enlarged["IMAGE"], filename_prefix="vipaint/upscaled")


def large_photograph(flow: Workflow) -> None:
    """Crop around the masked areas of a large picture, restore, stitch."""
    _read_me(flow, "Stable Diffusion 1.5", "Image size: any. Each window costs what an image of 512 pixels costs.")
    flow.group("Model, image, prompt")
    model, vae, picture, positive, negative = prompted(flow, sd15(flow))
    flow.group("Crop")
    crop = flow.add("VIPaintCropForInpaint", image=picture["IMAGE"], mask=picture["MASK"])
    inpaint = _inpaint(flow, model, vae, crop, positive, negative, ("cropped_image", "cropped_mask"))
    flow.group("Stitch")
    stitched = flow.add("VIPaintStitch", stitch=crop["stitch"], images=inpaint["images"])
    flow.group("Result")
    flow.add("SaveImage", images=stitched["stitched"], filename_prefix="vipaint/photograph")


def _read_me(flow: Workflow, model: str, advice: str) -> None:
    flow.group("Read me")
    flow.note(
        f"# Inpainting with {model}\n\n"
        "1. Select your models.\n"
        "2. Load an image in *Load Image*, right-click it, *Open in MaskEditor*, and paint the mask.\n"
        "3. Describe the **whole** image in the prompt.\n"
        "4. Press **Run**. The node fits a posterior, then draws samples.\n"
        "5. Change the **seed** for new samples of the same fit.\n\n"
        f"{advice}\n\n"
        "To save memory or time: *preset* fast, a smaller image, cfg 1."
    )


def _inpaint(
    flow: Workflow,
    model: Output,
    vae: Output,
    picture: Node,
    positive: Output,
    negative: Output,
    outputs: tuple[str, str] = ("IMAGE", "MASK"),
) -> Node:
    """The all-in-one node, with image and mask from ``outputs`` of ``picture``."""
    flow.group("Inpaint")
    return flow.add(
        "VIPaintInpaint",
        model=model,
        positive=positive,
        negative=negative,
        vae=vae,
        image=picture[outputs[0]],
        mask=picture[outputs[1]],
        cfg=3.0,
    )


def _save(flow: Workflow, inpaint: Node) -> None:
    flow.group("Result")
    flow.add("SaveImage", images=inpaint["images"], filename_prefix="vipaint/inpaint")


ALL = (
    embedded_inpaint,
    fit_once_sample_many,
    sd15_inpaint,
    sdxl_inpaint,
    sd35_inpaint,
    lora_controlnet,
    upscale_after,
    large_photograph,
    *DEGRADED,
    *SAMPLERS,
)


def main() -> None:
    """Write every workflow."""
    schemas = json.loads(SNAPSHOT.read_text()) | json.loads(CORE_SNAPSHOT.read_text())
    for build in ALL:
        flow = Workflow(schemas)
        build(flow)
        (WORKFLOWS / f"{build.__name__}.json").write_text(json.dumps(flow.as_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()

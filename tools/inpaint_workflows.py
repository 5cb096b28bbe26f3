"""Example workflows of *VIPaint Inpaint*, for photographs."""

from __future__ import annotations

from tools.workflow_graph import Node, Output, Workflow
from tools.workflow_parts import (
    OWN_PHOTOGRAPH,
    OWN_PHOTOGRAPH_WHOLE,
    SD15_COST,
    SDXL_COST,
    Models,
    Prompted,
    checkpoint,
    cost,
    cup,
    prompted,
    raccoon,
    sd15,
    sdxl,
    upscaled_by_model,
)

_UNCOUNTED = (
    "**Cost**: not counted for this model. Of SD 3.5 and Flux, four samples cost as much as 4 to 5 plain generations "
    "of four images in 28 steps; with *preset* fast, 2.5."
)
_SAVING = "To save memory or time: *preset* fast, a smaller image, cfg 1."
_DISTILLED = "The model is distilled to run without guidance: keep **cfg** at 1. It takes no negative prompt."
_PARTS = "https://huggingface.co/Comfy-Org/{}/resolve/main/split_files/{}/{}"


def sd15_inpaint(flow: Workflow) -> None:
    """Stable Diffusion 1.5 with a prompt, in one node."""
    _read_me(flow, "Stable Diffusion 1.5", "Image size: 512 to 768 pixels per side.", SD15_COST)
    _save(flow, _inpaint(flow, prompted(flow, sd15(flow), cup())))


def sdxl_inpaint(flow: Workflow) -> None:
    """SDXL with a prompt, in one node."""
    _read_me(flow, "SDXL", "Image size: about 1024 pixels per side. Several times the memory of SD 1.5.", SDXL_COST)
    _save(flow, _inpaint(flow, prompted(flow, sdxl(flow), raccoon())))


def sd35_inpaint(flow: Workflow) -> None:
    """Stable Diffusion 3.5 with a prompt, in one node."""
    _read_me(
        flow,
        "Stable Diffusion 3.5",
        "Image size: about 1024 pixels per side. Quantised weights work too; if the gradient of a model is missing, "
        "use the *preset* fast.",
        cost(balanced=4.1, fast=2.5),
    )
    name = "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
    models = checkpoint(flow, name, f"https://huggingface.co/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/{name}")
    _save(flow, _inpaint(flow, prompted(flow, models, raccoon())))


def sd15_inpainting_model(flow: Workflow) -> None:
    """A checkpoint of Stable Diffusion 1.5 that was trained for inpainting, with nine input channels."""
    _read_me(
        flow,
        "the inpainting checkpoint of SD 1.5",
        "The model sees the masked image in its input channels: *InpaintModelConditioning* connects it. Keep "
        "*noise_mask* off; VIPaint has the mask. Image size: 512 to 768 pixels per side.",
        SD15_COST,
    )
    name = "sd-v1-5-inpainting.safetensors"
    models = checkpoint(flow, name, f"https://huggingface.co/webui/stable-diffusion-inpainting/resolve/main/{name}")
    given = prompted(flow, models, cup())
    flow.group("Input channels")
    conditions = flow.add(
        "InpaintModelConditioning",
        positive=given.positive,
        negative=given.negative,
        vae=given.vae,
        pixels=given.image,
        mask=given.mask,
        noise_mask=False,
    )
    _save(flow, _inpaint(flow, given._replace(positive=conditions["positive"], negative=conditions["negative"])))


def sd15_outpaint(flow: Workflow) -> None:
    """An image that grows on all sides, with Stable Diffusion 1.5."""
    flow.group("Read me")
    flow.note(
        "# Outpainting with Stable Diffusion 1.5\n\n"
        "1. Select your model.\n"
        "2. Press **Run**. The example grows by 64 pixels on each side, in four different ways.\n"
        "3. Set the borders in *Pad Image for Outpainting*. Keep **feathering** at 0: grey parts of a mask are hidden "
        "whole, so it would hide known pixels.\n"
        "4. Describe the **whole** image in the prompt, with what lies outside the photograph.\n"
        "5. Change the **seed** for new samples of the same fit.\n\n"
        f"{OWN_PHOTOGRAPH_WHOLE}\n\n"
        "Borders of up to a half of the photograph's side. The result should have 512 to 768 pixels per side.\n\n"
        f"{SD15_COST}"
    )
    flow.group("Model, image, prompt")
    given = prompted(flow, sd15(flow), cup(384))
    flow.group("Border")
    sides = dict.fromkeys(("left", "top", "right", "bottom"), 64)
    padded = flow.add("ImagePadForOutpaint", image=given.image, **sides, feathering=0)
    _save(flow, _inpaint(flow, given._replace(image=padded["IMAGE"], mask=padded["MASK"])))


def flux_inpaint(flow: Workflow) -> None:
    """Flux dev with a prompt."""
    _read_me(
        flow,
        "Flux dev",
        f"{_DISTILLED} *FluxGuidance* says how closely the prompt is followed.\n\n"
        "Image size: about 1024 pixels per side. Quantised weights work too.",
        cost(balanced=4.9, fast=2.6),
    )
    name = "flux1-dev.safetensors"
    model = _diffusion_model(flow, name, f"https://huggingface.co/Comfy-Org/flux1-dev/resolve/main/{name}")
    encoders = ("clip_l.safetensors", "t5xxl_fp16.safetensors")
    folder = "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main"
    clip = flow.add(
        "DualCLIPLoader",
        clip_name1=encoders[0],
        clip_name2=encoders[1],
        type="flux",
        device="default",
        downloads=[f"{folder}/{encoder}" for encoder in encoders],
    )
    vae = _vae(flow, "ae.safetensors", "Lumina_Image_2.0_Repackaged")
    given = prompted(flow, Models(model, clip["CLIP"], vae), raccoon(), negative=False)
    flow.column()
    guided = flow.add("FluxGuidance", conditioning=given.positive, guidance=3.5)
    _save(flow, _inpaint(flow, given._replace(positive=guided["CONDITIONING"]), cfg=1.0))


def qwen_image_inpaint(flow: Workflow) -> None:
    """Qwen-Image with a prompt."""
    _read_me(flow, "Qwen-Image", "Image size: about 1328 pixels per side.", _UNCOUNTED)
    repository = "Qwen-Image_ComfyUI"
    name = "qwen_image_fp8_e4m3fn.safetensors"
    model = _diffusion_model(flow, name, _PARTS.format(repository, "diffusion_models", name))
    clip = _text_encoder(flow, "qwen_2.5_vl_7b_fp8_scaled.safetensors", repository, "qwen_image")
    vae = _vae(flow, "qwen_image_vae.safetensors", repository)
    given = prompted(flow, Models(model, clip, vae), raccoon(1328))
    _save(flow, _inpaint(flow, _shifted(flow, given, "ModelSamplingAuraFlow", 3.1)))


def z_image_inpaint(flow: Workflow) -> None:
    """Z-Image Turbo with a prompt."""
    _read_me(
        flow,
        "Z-Image Turbo",
        f"{_DISTILLED} Image size: about 1024 pixels per side. Z-Image needs a newer ComfyUI than this pack does.",
        f"{_UNCOUNTED} Plain generations of this model have 8 steps: relative to those, it is 3.5 times as much.",
    )
    repository = "z_image_turbo"
    name = "z_image_turbo_bf16.safetensors"
    model = _diffusion_model(flow, name, _PARTS.format(repository, "diffusion_models", name))
    clip = _text_encoder(flow, "qwen_3_4b.safetensors", repository, "lumina2")
    vae = _vae(flow, "ae.safetensors", repository)
    given = prompted(flow, Models(model, clip, vae), raccoon(), negative=False)
    _save(flow, _inpaint(flow, _shifted(flow, given, "ModelSamplingAuraFlow", 3.0), cfg=1.0))


def wan_inpaint(flow: Workflow) -> None:
    """Wan 2.1, a model of videos, for one image."""
    _read_me(
        flow,
        "Wan 2.1",
        "A model of videos, used for one frame. Image size: about 832 x 624 pixels for the model of 1.3 billion "
        "parameters. Wan 2.2 14B has a model for high and one for low noise, which this graph does not join; its 5B "
        "model has another VAE.",
        _UNCOUNTED,
    )
    repository = "Wan_2.1_ComfyUI_repackaged"
    name = "wan2.1_t2v_1.3B_fp16.safetensors"
    model = _diffusion_model(flow, name, _PARTS.format(repository, "diffusion_models", name))
    clip = _text_encoder(flow, "umt5_xxl_fp8_e4m3fn_scaled.safetensors", repository, "wan")
    vae = _vae(flow, "wan_2.1_vae.safetensors", repository)
    given = prompted(flow, Models(model, clip, vae), raccoon(832))
    _save(flow, _inpaint(flow, _shifted(flow, given, "ModelSamplingSD3", 8.0)))


def lora_controlnet(flow: Workflow) -> None:
    """Inpainting with a LoRA and a ControlNet."""
    _read_me(
        flow,
        "a LoRA and a ControlNet",
        "LoRAs and ControlNets apply as for KSampler. Here *Canny* draws the lines of the example, so that the lines "
        "of the spoon guide what fills the mask. For a drawing of your own (white on black, of the whole image, with "
        "the same aspect ratio), load it and connect it to *image* of *Apply ControlNet*.",
        f"{SD15_COST} The ControlNet is not counted.",
    )
    models = sd15(flow)
    lora = flow.add(
        "LoraLoader",
        lora_name="MoXinV1.safetensors",
        downloads=["https://civitai.com/api/download/models/14856?type=Model&format=SafeTensor&size=full&fp=fp16"],
        model=models.model,
        clip=models.clip,
        strength_model=0.8,
        strength_clip=0.8,
    )
    given = prompted(flow, Models(lora["MODEL"], lora["CLIP"], models.vae), cup())
    flow.group("ControlNet")
    name = "control_v11p_sd15_scribble_fp16.safetensors"
    control = flow.add(
        "ControlNetLoader",
        control_net_name=name,
        downloads=[f"https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{name}"],
    )
    drawing = flow.add("Canny", image=given.image, low_threshold=0.2, high_threshold=0.5)
    flow.column()
    controlled = flow.add(
        "ControlNetApplyAdvanced",
        positive=given.positive,
        negative=given.negative,
        control_net=control["CONTROL_NET"],
        image=drawing["IMAGE"],
        vae=given.vae,
        strength=0.8,
        start_percent=0.0,
        end_percent=1.0,
    )
    _save(flow, _inpaint(flow, given._replace(positive=controlled["positive"], negative=controlled["negative"])))


def upscale_after(flow: Workflow) -> None:
    """Inpainting, then an upscaler."""
    _read_me(
        flow,
        "an upscaler",
        "Every sample is upscaled four times after inpainting.",
        f"{SD15_COST} The upscaler is not counted.",
    )
    inpaint = _inpaint(flow, prompted(flow, sd15(flow), cup()))
    enlarged = upscaled_by_model(flow, inpaint["images"])
    flow.add("SaveImage", images=enlarged["IMAGE"], filename_prefix="vipaint/upscaled")


def large_photograph(flow: Workflow) -> None:
    """Crop around the masked areas of a large picture, restore, stitch."""
    _read_me(
        flow,
        "windows of a large photograph",
        "Image size: any. A window around each masked area is restored with Stable Diffusion 1.5 and stitched back.",
        f"{SD15_COST} Each window costs what an image of 512 pixels costs.",
    )
    given = prompted(flow, sd15(flow), raccoon(2048))
    flow.group("Crop")
    crop = flow.add("VIPaintCropForInpaint", image=given.image, mask=given.mask)
    inpaint = _inpaint(flow, given._replace(image=crop["cropped_image"], mask=crop["cropped_mask"]))
    flow.group("Stitch")
    stitched = flow.add("VIPaintStitch", stitch=crop["stitch"], images=inpaint["images"])
    flow.group("Result")
    flow.add("SaveImage", images=stitched["stitched"], filename_prefix="vipaint/photograph")


def _read_me(flow: Workflow, model: str, advice: str, cost: str) -> None:
    """The note, and the group that begins with the models."""
    flow.group("Read me")
    flow.note(
        f"# Inpainting with {model}\n\n"
        "1. Select your models.\n"
        "2. Press **Run**. The node fits a posterior to the example photograph, then draws samples without the masked "
        "object.\n"
        "3. Change the **seed** for new samples of the same fit.\n"
        "4. Describe the **whole** image in the prompt.\n\n"
        f"{OWN_PHOTOGRAPH}\n\n"
        f"{advice}\n\n"
        f"{_SAVING}\n\n"
        f"{cost}"
    )
    flow.group("Model, image, prompt")


def _diffusion_model(flow: Workflow, name: str, address: str) -> Output:
    return flow.add("UNETLoader", unet_name=name, weight_dtype="default", downloads=[address])["MODEL"]


def _text_encoder(flow: Workflow, name: str, repository: str, kind: str) -> Output:
    address = _PARTS.format(repository, "text_encoders", name)
    return flow.add("CLIPLoader", clip_name=name, type=kind, device="default", downloads=[address])["CLIP"]


def _vae(flow: Workflow, name: str, repository: str) -> Output:
    return flow.add("VAELoader", vae_name=name, downloads=[_PARTS.format(repository, "vae", name)])["VAE"]


def _shifted(flow: Workflow, given: Prompted, node: str, shift: float) -> Prompted:
    """The model with the noise levels of ComfyUI's own template for it."""
    flow.column()
    return given._replace(model=flow.add(node, model=given.model, shift=shift)["MODEL"])


def _inpaint(flow: Workflow, given: Prompted, cfg: float = 3.0) -> Node:
    flow.group("Inpaint")
    return flow.add("VIPaintInpaint", **given.inputs(), mask=given.mask, cfg=cfg)


def _save(flow: Workflow, inpaint: Node) -> None:
    flow.group("Result")
    flow.add("SaveImage", images=inpaint["images"], filename_prefix="vipaint/inpaint")


INPAINT = (
    sd15_inpaint,
    sdxl_inpaint,
    sd35_inpaint,
    sd15_inpainting_model,
    sd15_outpaint,
    flux_inpaint,
    qwen_image_inpaint,
    z_image_inpaint,
    wan_inpaint,
    lora_controlnet,
    upscale_after,
    large_photograph,
)

"""Writes the example workflows: ``python -m tools.make_workflows`` makes ``workflows/*.json`` anew.

Slots, their order and widget values come from the schema snapshots in ``tests/nodes``, so that a workflow cannot
disagree with the nodes. Each of its functions is a workflow, or a part that several of them share.
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
    """Every step as a node of its own, on the model that is shipped."""
    flow.group("Read me")
    flow.note(
        "# Four completions of half a scene\n\n"
        "Press **Run**: nothing needs to be downloaded. The right half of a 64-pixel scene is hidden, a small model "
        "that comes with VIPaint fits what could be there, and draws four different completions.\n\n"
        "- Change the **seed of Sample Posterior** for four others: the fit is not repeated.\n"
        "- Change **hole** for another mask.\n"
        "- The curves fall while the fit improves; the other preview shows what the model expects of four draws at "
        "each noise level of the fit.\n\n"
        "The shipped model only knows such scenes. For photographs, open one of the workflows for Stable Diffusion."
    )
    model, scene, observation, guider = embedded_scene(flow)
    fit = add_fit(flow, model, observation, guider)
    flow.add("PreviewImage", title="Curves of the fit", images=fit["loss_plot"])
    flow.add("PreviewImage", title="What the model expects", images=fit["keypoint_preview"])
    flow.group("Draw samples")
    add_samples(flow, fit, model, observation, guider, scene, seed=0)


def fit_once_sample_many(flow: Workflow) -> None:
    """One fit, saved; samples of it with several seeds, now and after loading it again."""
    flow.group("Read me")
    flow.note(
        "# Fit once, sample as often as you like\n\n"
        "1. Press **Run**. The posterior is fitted once and saved to `output/vipaint`; two nodes draw samples of it "
        "with different seeds.\n"
        "2. Change a seed and run again: only those samples are drawn, the fit is kept.\n"
        "3. After a restart of ComfyUI: press **R** and choose the saved file in *Load Posterior*. Un-mute the group "
        "*Another day* (select its nodes, Ctrl+M), and mute *Fit once*, *Draw samples* and *Draw others* in the same "
        "way.\n\n"
        "A posterior belongs to its picture, mask and model. With others it is refused."
    )
    model, scene, observation, guider = embedded_scene(flow)
    fit = add_fit(flow, model, observation, guider)
    flow.add("VIPaintSavePosterior", posterior=fit["posterior"])
    flow.group("Draw samples")
    add_samples(flow, fit, model, observation, guider, scene, seed=1)
    flow.group("Draw others", below=True)
    add_samples(flow, fit, model, observation, guider, scene, seed=2)
    flow.group("Another day (muted)", below=True)
    loaded = flow.add("VIPaintLoadPosterior", file="output: vipaint/posterior_00001_.safetensors", muted=True)
    add_samples(flow, loaded, model, observation, guider, scene, seed=3, muted=True)


def sd15_inpaint(flow: Workflow) -> None:
    """Stable Diffusion 1.5 with a prompt, in one node."""
    _read_me(flow, "Stable Diffusion 1.5", "512 to 768 pixels a side suit this model.")
    flow.group("Model, picture, prompt")
    _save(flow, _inpaint(flow, *prompted(flow, sd15(flow))))


def sdxl_inpaint(flow: Workflow) -> None:
    """SDXL with a prompt, in one node."""
    _read_me(flow, "SDXL", "About 1024 pixels a side suit this model. It takes several times the memory of SD 1.5.")
    flow.group("Model, picture, prompt")
    _save(flow, _inpaint(flow, *prompted(flow, sdxl(flow))))


def sd35_inpaint(flow: Workflow) -> None:
    """Stable Diffusion 3.5 with a prompt, in one node."""
    _read_me(
        flow,
        "Stable Diffusion 3.5",
        "About 1024 pixels a side suit this model. Take one whose diffusion weights are fp16 or bf16: quantised "
        "kernels (GGUF, nvfp4, fp8 *fast*) have no gradients. The fp8 in the name of this file is a text encoder's.",
    )
    flow.group("Model, picture, prompt")
    name = "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
    checkpoint = flow.add(
        "CheckpointLoaderSimple",
        ckpt_name=name,
        download=f"https://huggingface.co/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/{name}",
    )
    _save(flow, _inpaint(flow, *prompted(flow, checkpoint)))


def lora_controlnet(flow: Workflow) -> None:
    """A LoRA and a ControlNet in front of the node."""
    _read_me(
        flow,
        "a LoRA and a ControlNet",
        "The second picture is a white-on-black line drawing, of the same shape as the first, of what the whole should "
        "show. LoRAs and ControlNets in front of VIPaint apply as they do in front of KSampler.",
    )
    flow.group("Model, picture, prompt")
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
    """An upscaler behind the node."""
    _read_me(flow, "an upscaler behind", "Every completion is enlarged four times after the hole was filled.")
    flow.group("Model, picture, prompt")
    inpaint = _inpaint(flow, *prompted(flow, sd15(flow)))
    enlarged = upscaled_by_model(flow, inpaint["images"])
    flow.add("SaveImage", images=enlarged["IMAGE"], filename_prefix="vipaint/upscaled")


def _read_me(flow: Workflow, model: str, advice: str) -> None:
    flow.group("Read me")
    flow.note(
        f"# Inpainting with {model}\n\n"
        "1. Choose your models.\n"
        "2. Load your picture in *Load Image*, right-click it, *Open in MaskEditor*, and paint the hole.\n"
        "3. Describe the **whole** picture in the upper prompt.\n"
        "4. Press **Run**. The node first fits what could be in the hole, then draws the samples.\n"
        "5. Change the **seed** for other samples of the same fit.\n\n"
        f"{advice}\n\n"
        "Short of memory or time: *preset* fast, a smaller picture, cfg 1."
    )


def _inpaint(flow: Workflow, model: Output, vae: Output, picture: Node, positive: Output, negative: Output) -> Node:
    flow.group("Inpaint")
    return flow.add(
        "VIPaintInpaint",
        model=model,
        positive=positive,
        negative=negative,
        vae=vae,
        image=picture["IMAGE"],
        mask=picture["MASK"],
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

"""Draws the thumbnails of the template browser.

    python -m tools.make_thumbnails --url http://127.0.0.1:8188 [NAME ...]

Templates of the embedded prior are run in that ComfyUI, and show what went in and three samples. Templates for
photographs show the input of their first run, the mask tinted, and their task: their models are not here.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from tools.make_workflows import ALL, WORKFLOWS
from tools.schema_snapshot import CORE_SNAPSHOT, SNAPSHOT
from tools.workflow_prompt import Prompt, as_prompt

EXAMPLES = WORKFLOWS.parent / "nodes" / "examples"
SIDE, STRIP, TILE = 480, 72, 200
"""Of the square picture, of the words below it, and of one of four pictures."""
LARGEST = 38_000
"""Bytes of a file."""
_BACKGROUND, _WORDS, _SMALL_WORDS, _TINT = "#1f2430", "#ffffff", "#aab4c8", "#ff3fa4"
_GREY, _FACTOR = 0x808080, 4

_EMBEDDED = {
    "embedded_inpaint": "inpaint half an image",
    "fit_once_sample_many": "fit once, sample many",
    "embedded_deblur": "deblur, compare",
    "embedded_super_resolve": "super-resolution, 4 times",
    "old_photo": "blur and scratches at once",
    "embedded_restore_upscale": "restore, then upscale",
    "embedded_copaint_inpaint": "CoPaint · inpaint",
    "embedded_copaint_outpaint": "CoPaint-TT · outpaint",
    "embedded_copaint_super_resolve": "CoPaint · 4 times larger",
    "embedded_methods": "thirteen methods",
}
_PHOTOGRAPHS = {
    "sd15_inpaint": "SD 1.5 · inpaint",
    "sdxl_inpaint": "SDXL · inpaint",
    "sd35_inpaint": "SD 3.5 · inpaint",
    "sd15_inpainting_model": "SD 1.5 inpainting model",
    "sd15_outpaint": "SD 1.5 · outpaint",
    "flux_inpaint": "Flux · inpaint",
    "qwen_image_inpaint": "Qwen-Image · inpaint",
    "z_image_inpaint": "Z-Image · inpaint",
    "wan_inpaint": "Wan · inpaint one frame",
    "lora_controlnet": "LoRA + ControlNet · inpaint",
    "upscale_after": "SD 1.5 · inpaint, upscale",
    "large_photograph": "large photograph · inpaint",
    "sd15_deblur": "SD 1.5 · deblur",
    "sdxl_deblur": "SDXL · deblur",
    "sdxl_super_resolve": "SDXL · 4 times larger",
    "sd15_restore_upscale": "SD 1.5 · deblur, upscale",
    "sd15_copaint_inpaint": "SD 1.5 · CoPaint inpaint",
    "sd15_copaint_outpaint": "SD 1.5 · CoPaint outpaint",
    "sd15_copaint_super_resolve": "SD 1.5 · CoPaint, 4 times larger",
    "sd15_methods": "SD 1.5 · four methods",
}


def thumbnail_of_run(prompt: Prompt, url: str, words: str) -> Image.Image:
    """What goes into a template of the embedded prior, and three of its samples."""
    before, after = _seen(prompt), _samples(prompt)
    prompt |= {
        "before": {"class_type": "PreviewImage", "inputs": {"images": before}},
        "after": {"class_type": "PreviewImage", "inputs": {"images": after}},
    }
    outputs = _run(prompt, url)
    given, *samples = (outputs["before"] + outputs["after"])[:4]
    canvas = _canvas(words, "input and three samples" if len(samples) == 3 else "input and samples")
    for place, picture in enumerate([given, *samples]):
        x, y = (SIDE // 2 - TILE - 2 + place % 2 * (TILE + 4), 2 + place // 2 * (TILE + 4))
        canvas.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (x, y))
    return canvas


def _seen(prompt: Prompt) -> list[Any]:
    """The degraded picture: that of Degrade Image, or the picture with its mask in grey."""
    if degraded := _first(prompt, "VIPaintDegradeImage"):
        return [degraded, 0]
    observed = prompt[_first(prompt, "VIPaintObserveInpaint")]["inputs"]
    size = {"width": 64, "height": 64, "batch_size": 1, "color": _GREY}
    prompt["grey"] = {"class_type": "EmptyImage", "inputs": size}
    pictures = {"destination": observed["image"], "source": ["grey", 0], "mask": observed["mask"]}
    prompt["masked"] = {
        "class_type": "ImageCompositeMasked",
        "inputs": pictures | {"x": 0, "y": 0, "resize_source": False},
    }
    return ["masked", 0]


def _samples(prompt: Prompt) -> list[Any]:
    """What the template saves, or compares where it saves a sheet."""
    if compared := _first(prompt, "VIPaintCompare"):
        return prompt[compared]["inputs"]["images"]
    return prompt[_first(prompt, "SaveImage")]["inputs"]["images"]


def _first(prompt: Prompt, *kinds: str) -> str:
    """The id of a node of these types, or an empty one."""
    return next((id for id, node in prompt.items() if node["class_type"] in kinds), "")


def _run(prompt: Prompt, url: str) -> dict[str, list[Image.Image]]:
    """The pictures that each node shows."""
    request = Request(f"{url}/prompt", json.dumps({"prompt": prompt}).encode(), {"Content-Type": "application/json"})
    number, started = json.load(urlopen(request))["prompt_id"], time.monotonic()
    while not (history := json.load(urlopen(f"{url}/history/{number}"))):
        time.sleep(0.5)
    print(f"  {time.monotonic() - started:.0f} s")
    return {
        node: [Image.open(io.BytesIO(urlopen(f"{url}/view?{urlencode(image)}").read())) for image in shown["images"]]
        for node, shown in history[number]["outputs"].items()
        if "images" in shown
    }


def thumbnail_of_input(prompt: Prompt, words: str) -> Image.Image:
    """The example photograph of a template as its first run sees it; a small one in a frame of its result's size."""
    picture, canvas = _first_input(prompt), _canvas(words, "input of the first run")
    area = (SIDE, SIDE - STRIP)
    if _first(prompt, "VIPaintSuperResolve", "VIPaintObserveSuperResolution"):
        result = ImageOps.contain(picture, (SIDE - 20, SIDE - STRIP - 20)).size
        picture = picture.resize((result[0] // _FACTOR, result[1] // _FACTOR))
        corner = [(SIDE - result[0]) // 2, (SIDE - STRIP - result[1]) // 2]
        ImageDraw.Draw(canvas).rectangle([*corner, corner[0] + result[0], corner[1] + result[1]], outline=_SMALL_WORDS)
    elif _first(prompt, "ImagePadForOutpaint"):
        picture = ImageOps.contain(picture, area)
    else:
        picture = ImageOps.fit(picture, area)
    canvas.paste(picture, ((SIDE - picture.width) // 2, (SIDE - STRIP - picture.height) // 2))
    return canvas


def _first_input(prompt: Prompt) -> Image.Image:
    """The example, blurred, padded or masked as the template does it."""
    example = prompt[_first(prompt, "VIPaintExamplePhotograph")]["inputs"]
    file = EXAMPLES / example["photograph"].partition(" ")[0]
    picture = Image.open(file.with_suffix(".jpg"))
    scale = max(picture.size) / example["size"]
    if blur := _first(prompt, "ImageBlur"):
        radius = prompt[blur]["inputs"]["sigma"] * prompt[blur]["inputs"]["blur_radius"]
        return picture.filter(ImageFilter.GaussianBlur(scale * radius))
    if border := _first(prompt, "ImagePadForOutpaint"):
        sides = (round(scale * prompt[border]["inputs"][side]) for side in ("left", "top", "right", "bottom"))
        return ImageOps.expand(picture, tuple(sides), fill=_TINT)
    if _first(prompt, "VIPaintSuperResolve", "VIPaintObserveSuperResolution"):
        return picture
    tinted = Image.blend(picture, Image.new("RGB", picture.size, _TINT), 0.7)
    return Image.composite(tinted, picture, Image.open(f"{file}_mask.png").convert("L"))


def _canvas(words: str, small_words: str) -> Image.Image:
    canvas = Image.new("RGB", (SIDE, SIDE), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    middle = SIDE // 2
    draw.text((middle, SIDE - STRIP + 24), words, _WORDS, ImageFont.load_default(30), anchor="mm")
    draw.text((middle, SIDE - 18), small_words, _SMALL_WORDS, ImageFont.load_default(18), anchor="mm")
    return canvas


def _save(thumbnail: Image.Image, path: Path) -> None:
    for quality in range(90, 20, -5):
        thumbnail.save(path, quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= LARGEST:
            return


def main() -> None:
    """Draw the named thumbnails, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8188", help="of the running ComfyUI (default: %(default)s)")
    parser.add_argument("names", nargs="*", default=[build.__name__ for build in ALL], metavar="NAME")
    options = parser.parse_args()
    schemas = json.loads(SNAPSHOT.read_text()) | json.loads(CORE_SNAPSHOT.read_text())
    for name in options.names:
        print(name)
        prompt = as_prompt(json.loads((WORKFLOWS / f"{name}.json").read_text()), schemas)
        if name in _EMBEDDED:
            thumbnail = thumbnail_of_run(prompt, options.url, _EMBEDDED[name])
        else:
            thumbnail = thumbnail_of_input(prompt, _PHOTOGRAPHS[name])
        _save(thumbnail, WORKFLOWS / f"{name}.jpg")


if __name__ == "__main__":
    main()

"""The templates for photographs, run as they are opened, on tiny models in place of those that they name."""

import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.host.comfy_client import Graph, Node
from tests.host.graphs import right_half, with_hole
from tools.make_workflows import WORKFLOWS
from tools.schema_snapshot import CORE_SNAPSHOT, SNAPSHOT
from tools.workflow_prompt import NOTE, as_prompt

SCHEMAS = json.loads(SNAPSHOT.read_text()) | json.loads(CORE_SNAPSHOT.read_text())
SIDE = 64
SETTINGS: dict[str, dict[str, Any]] = {
    "ImagePadForOutpaint": dict.fromkeys(("left", "top", "right", "bottom"), 8),
    "VIPaintInpaint": {"num_samples": 1, "preset": "fast"},
}
"""In place of the templates', for speed."""


class Stand(NamedTuple):
    """A tiny model that stands in for a family: nodes in place of its loaders, and the shape of its text."""

    loaders: dict[str, tuple[str, dict[str, Any]]]
    text: dict[str, Any]


def _checkpoint(name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    return {"CheckpointLoaderSimple": ("CheckpointLoaderSimple", {"ckpt_name": f"tiny_{name}.safetensors"})}


def _parts(model: tuple[str, dict[str, Any]], vae: tuple[str, dict[str, Any]]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {"UNETLoader": model, "VAELoader": vae}


_SD15_TEXT = {"width": 768, "pooled": 0, "attention_mask": False}
_TEXT = {"width": 64, "pooled": 32, "attention_mask": False}
_FILE = ("VAELoader", {"vae_name": "tiny_taesd_16.safetensors"})
_VIDEO = ("TestTinyVideoVAE", {"seed": 0})
STANDS = {
    "sd15": Stand(_checkpoint("sd15"), _SD15_TEXT),
    "sd15_inpainting_model": Stand(_checkpoint("sd15_inpaint"), _SD15_TEXT),
    "flux": Stand(
        _parts(("UNETLoader", {"unet_name": "tiny_flux.safetensors", "weight_dtype": "default"}), _FILE), _TEXT
    ),
    "qwen_image": Stand(
        _parts(("TestTinyModel", {"family": "qwen", "seed": 0}), _VIDEO), _TEXT | {"attention_mask": True}
    ),
    "z_image": Stand(
        _parts(("TestTinyModel", {"family": "z-image", "seed": 0}), _FILE), _TEXT | {"attention_mask": True}
    ),
    "wan": Stand(
        _parts(("UNETLoader", {"unet_name": "tiny_wan.safetensors", "weight_dtype": "default"}), _VIDEO),
        _TEXT | {"width": 4096},
    ),
}


def opened(name: str) -> tuple[Graph, dict[str, Node]]:
    """The prompt that the browser makes of a template, and its nodes by type."""
    graph = Graph()
    graph.prompt = as_prompt(json.loads((WORKFLOWS / f"{name}.json").read_text()), SCHEMAS)
    return graph, {node["class_type"]: Node(id) for id, node in graph.prompt.items()}


def on_tiny_models(graph: Graph, name: str) -> None:
    """Replace models, texts and costly settings of a template's prompt."""
    stand = STANDS[max((family for family in STANDS if name.startswith(family)), key=len)]
    for id, node in list(graph.prompt.items()):
        kind, inputs = node["class_type"], node["inputs"]
        if kind in stand.loaders:
            graph.prompt[id] = dict(zip(("class_type", "inputs"), stand.loaders[kind], strict=True))
        elif kind == "CLIPTextEncode":
            seed = int(inputs["text"].startswith("blurry"))
            graph.prompt[id] = {"class_type": "TestConditioning", "inputs": {"length": 8, "seed": seed} | stand.text}
        elif kind in ("CLIPLoader", "DualCLIPLoader"):
            del graph.prompt[id]
        else:
            inputs |= SETTINGS.get(kind, {})


def restored(client, name: str, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a template of VIPaint Inpaint saves, and the image and mask that went into it; 8-bit."""
    graph, nodes = opened(name)
    on_tiny_models(graph, name)
    graph.prompt[nodes["VIPaintExamplePhotograph"].id]["inputs"]["size"] = size
    given = graph.prompt[nodes["VIPaintInpaint"].id]["inputs"]
    image, mask = Node("image"), Node("mask")
    graph.prompt |= {
        "as image": {"class_type": "MaskToImage", "inputs": {"mask": given["mask"]}},
        mask.id: {"class_type": "PreviewImage", "inputs": {"images": ["as image", 0]}},
        image.id: {"class_type": "PreviewImage", "inputs": {"images": given["image"]}},
    }
    run = client.run(graph)
    return tuple(client.images(run, node) for node in (nodes["SaveImage"], image, mask))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("sd15_inpaint", SIDE),
        ("sd15_inpainting_model", SIDE),
        ("sd15_outpaint", SIDE - 16),
        ("flux_inpaint", SIDE),
        ("qwen_image_inpaint", SIDE),
        ("z_image_inpaint", SIDE),
        ("wan_inpaint", SIDE),
    ],
)
def test_a_first_run_fills_the_mask_of_the_example_and_nothing_else(client, name, size):
    if client.version() < (0, 33) and name.startswith(("flux", "qwen", "z_image", "wan")):
        pytest.skip("its tiny models need a newer ComfyUI")
    (restoration,), (image,), (mask,) = restored(client, name, size)
    hidden = mask[..., 0] == 255
    assert restoration.shape == image.shape
    assert 0 < hidden.mean() < 1
    assert (restoration[~hidden] == image[~hidden]).all()
    assert (restoration[hidden] != image[hidden]).any()


def test_every_node_of_the_templates_is_in_this_comfyui(client):
    flows = [json.loads(path.read_text()) for path in WORKFLOWS.glob("*.json")]
    used = {node["type"] for flow in flows for node in flow["nodes"]} - {NOTE}
    assert used <= set(client.object_info())


def example(client, **inputs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of Example Photograph, 8-bit."""
    graph = Graph()
    own = {}
    if "file" in inputs:
        loaded = graph.add("LoadImage", image=inputs.pop("file"))
        own = {"own_image": loaded[0], "own_mask": loaded[1]}
    node = graph.add("VIPaintExamplePhotograph", **inputs, **own)
    image = graph.add("PreviewImage", images=node[0])
    mask = graph.add("PreviewImage", images=graph.add("MaskToImage", mask=node[1])[0])
    run = client.run(graph)
    return client.images(run, image)[0], client.images(run, mask)[0, ..., 0]


@pytest.mark.parametrize(
    ("photograph", "size", "shape"),
    [
        ("cup (remove the spoon)", 512, (512, 512)),
        ("cup (remove the spoon)", 128, (128, 128)),
        ("raccoon (remove the blade of grass)", 1024, (768, 1024)),
        ("raccoon (remove the blade of grass)", 2048, (1536, 2048)),
    ],
)
def test_an_example_has_the_size_asked_for_and_a_small_mask_of_black_and_white(client, photograph, size, shape):
    image, mask = example(client, photograph=photograph, size=size)
    assert image.shape[:2] == mask.shape == shape
    assert set(np.unique(mask)) == {0, 255}
    assert 0.01 < (mask == 255).mean() < 0.15


def test_the_users_photograph_and_mask_pass_unchanged(client, scene):
    hole = right_half(scene)
    file = client.put_image("own_photograph.png", with_hole(scene, hole))
    image, mask = example(client, photograph="cup (remove the spoon)", size=512, file=file)
    assert (image == scene).all()
    assert ((mask == 255) == hole).all()

"""Conditions that lie on the picture, where the picture is padded or cropped: what the model sees of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.host.comfy_client import Graph
from tests.host.graphs import conditioning, tiny, with_hole


@pytest.fixture
def given(client):
    """A tiny model, and a picture of 72x104 pixels with a hole at 48-64 x 56-80, white there and black elsewhere."""
    graph = Graph()
    hole = np.zeros((72, 104), dtype=bool)
    hole[48:64, 56:80] = True
    white = np.repeat(hole[..., None] * np.uint8(255), 3, 2)
    image = graph.add("LoadImage", image=client.put_image("hinted.png", with_hole(white, hole)))
    plain = graph.add("LoadImage", image=client.put_image("hint.png", white))
    return SimpleNamespace(client=client, graph=graph, image=image, hint=plain[0])


def controlled(given, hint=None):
    """Model, VAE and conditions with a ControlNet on the hint."""
    model = tiny(given.graph, "sd15_middle")
    positive, negative = (conditioning(given.graph, model, seed) for seed in (0, 1))
    loaded = given.graph.add("ControlNetLoader", control_net_name="tiny_sd15.safetensors")
    applied = given.graph.add(
        "ControlNetApplyAdvanced",
        positive=positive,
        negative=negative,
        control_net=loaded[0],
        image=hint or given.hint,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    return model.model, [model.model[0], 2], applied[0], applied[1]


def inpainting(given):
    """A model of nine channels, with the conditions of its kind."""
    model = tiny(given.graph, "sd15_inpaint")
    vae = [model.model[0], 2]
    made = given.graph.add(
        "InpaintModelConditioning",
        positive=conditioning(given.graph, model, 0),
        negative=conditioning(given.graph, model, 1),
        vae=vae,
        pixels=given.image[0],
        mask=given.image[1],
        noise_mask=False,
    )
    return model.model, vae, made[0], made[1]


def seen(given, model, vae, positive, negative, image, mask, output: int):
    """What the model sees for the observation of an image and a mask, ``[height, width]`` of the first channel."""
    observed = given.graph.add("VIPaintObserveInpaint", image=image, mask=mask, noise_level=0.05)
    guider = given.graph.add("CFGGuider", model=model, positive=positive, negative=negative, cfg=2.0)
    found = given.graph.add("TestPackSeen", guider=guider[0], vae=vae, observation=observed[0])
    saved = given.graph.add("TestSaveTensor", image=found[output])
    return given.client.tensor(given.client.run(given.graph), saved)[0, ..., 0].numpy()


def box(plane: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is white."""
    rows, columns = np.nonzero(plane > 0.5)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


@pytest.mark.parametrize("enlarged", [1, 2])
def test_a_hint_stays_in_its_place_where_the_picture_is_padded(given, enlarged):
    hint = given.hint
    if enlarged > 1:
        size = {"width": 208, "height": 144, "upscale_method": "nearest-exact", "crop": "disabled"}
        hint = given.graph.add("ImageScale", image=hint, **size)[0]
    plane = seen(given, *controlled(given, hint), given.image[0], given.image[1], output=0)
    assert plane.shape == (80, 112)
    assert box(plane) == (48, 64, 56, 80)


def test_the_mask_of_an_inpainting_model_stays_in_its_place_where_the_picture_is_padded(given):
    mask = seen(given, *inpainting(given), given.image[0], given.image[1], output=1)
    assert mask.shape == (10, 14)
    assert box(mask) == (6, 8, 7, 10)
    assert set(np.unique(mask)) == {0, 1}


def cropped(given, model, vae, positive, negative):
    """The same conditions in the one window around the hole, of 64 pixels for 48."""
    crop = given.graph.add(
        "VIPaintCropForInpaint",
        image=given.image[0],
        mask=given.image[1],
        size=64,
        context=0.5,
        enlarge=2.0,
        positive=positive,
        negative=negative,
        vae=vae,
    )
    return (model, vae, crop[3], crop[4]), crop


@pytest.mark.parametrize(("kind", "output", "cell"), [(controlled, 0, 1), (inpainting, 1, 8)])
def test_conditions_are_cropped_with_the_picture(given, kind, output, cell):
    """The window is 24-72 x 44-92, enlarged by 4/3: the hole is at 32-53 x 16-48."""
    conditions, crop = cropped(given, *kind(given))
    plane = seen(given, *conditions, crop[0], crop[1], output=output)
    assert plane.shape == (64 // cell, 64 // cell)
    assert box(plane) == pytest.approx([edge / cell for edge in (32, 53.3, 16, 48)], abs=1)


def test_the_picture_of_an_inpainting_model_is_encoded_again_in_a_window(client, scene):
    """What the model sees of a window is what InpaintModelConditioning makes of the cropped picture."""
    graph, hole = Graph(), np.zeros((128, 128), dtype=bool)
    hole[70:86, 50:66] = True
    picture = with_hole(np.kron(scene, np.ones((2, 2, 1), np.uint8)), hole)
    image = graph.add("LoadImage", image=client.put_image("large.png", picture))
    given = SimpleNamespace(client=client, graph=graph, image=image)
    model, vae, positive, negative = inpainting(given)
    (_, _, positive, negative), crop = cropped(given, model, vae, positive, negative)
    given.image = crop
    of_window = inpainting(given)
    found, expected = [], []
    for conditions, channels in (((model, vae, positive, negative), found), (of_window, expected)):
        observed = graph.add("VIPaintObserveInpaint", image=crop[0], mask=crop[1], noise_level=0.05)
        guider = graph.add("CFGGuider", model=conditions[0], positive=conditions[2], negative=conditions[3], cfg=2.0)
        node = graph.add("TestPackSeen", guider=guider[0], vae=conditions[1], observation=observed[0])
        channels.append(graph.add("TestSaveTensor", image=node[1]))
    run = client.run(graph)
    moved, made = (client.tensor(run, channels[0])[0].numpy() for channels in (found, expected))
    assert np.corrcoef(moved[..., 1:].ravel(), made[..., 1:].ravel())[0, 1] > 0.9


def test_one_hint_for_a_crop_of_two_pictures(given):
    """Conditions are cropped for every window of every picture."""
    batch = given.graph.add("RepeatImageBatch", image=given.image[0], amount=2)
    _, _, positive, negative = controlled(given)
    crop = given.graph.add(
        "VIPaintCropForInpaint",
        image=batch[0],
        mask=given.image[1],
        size=64,
        context=0.5,
        enlarge=2.0,
        positive=positive,
        negative=negative,
    )
    shown = [given.graph.add("PreviewAny", source=crop[output]) for output in (0, 2, 3)]
    run = given.client.run(given.graph)
    assert [len(run.outputs[node.id]["text"]) for node in shown] == [2, 2, 2]

"""Crop, restore and stitch in ComfyUI: a small hole in a large picture."""

from __future__ import annotations

import numpy as np
import pytest

from tests.host.comfy_client import Graph, HostError, Node
from tests.host.graphs import INPAINT, embedded_prior, inpaint, with_hole

CROP = {"size": 64, "context": 0.5, "enlarge": 2.0}
ONE, TWO = [(140, 200, 20, 20)], [(10, 20, 20, 20), (270, 370, 30, 20)]


@pytest.fixture(scope="module")
def photograph(scene):
    """A scene enlarged to 400x300, 8-bit."""
    return np.kron(scene, np.ones((5, 7, 1), np.uint8))[:300, :400]


def holes(boxes) -> np.ndarray:
    hidden = np.zeros((300, 400), dtype=bool)
    for top, left, height, width in boxes:
        hidden[top : top + height, left : left + width] = True
    return hidden


def cropped(graph: Graph, client, photograph: np.ndarray, boxes, name: str) -> tuple[Node, Node]:
    """The loaded photograph, and its windows."""
    picture = client.put_image(name, with_hole(photograph, holes(boxes)))
    image = graph.add("LoadImage", image=picture)
    return image, graph.add("VIPaintCropForInpaint", image=image[0], mask=image[1], **CROP)


def inpainted(graph: Graph, crop: Node, **settings) -> Node:
    loader, label = embedded_prior(graph)
    model = {"model": loader[0], "positive": label, "negative": label, "vae": loader[1]}
    return graph.add("VIPaintInpaint", **model, image=crop[0], mask=crop[1], **(INPAINT | settings))


def saved(graph: Graph, crop: Node, images, feather: int = 0) -> Node:
    stitched = graph.add("VIPaintStitch", stitch=crop[2], images=images, feather=feather)
    return graph.add("SaveImage", images=stitched[0], filename_prefix="stitched")


@pytest.mark.parametrize("boxes", [ONE, TWO], ids=["one hole", "two holes"])
def test_holes_are_filled_and_all_else_is_kept_bit_for_bit(client, photograph, boxes):
    graph = Graph()
    _, crop = cropped(graph, client, photograph, boxes, f"photo_{len(boxes)}.png")
    shown = saved(graph, crop, inpainted(graph, crop)[0])
    windows = graph.add("SaveImage", images=crop[0], filename_prefix="windows")
    run = client.run(graph)
    assert client.images(run, windows).shape == (len(boxes), 64, 64, 3)
    stitched = client.images(run, shown).astype(int)
    assert stitched.shape == (2, 300, 400, 3)
    assert (stitched == photograph)[:, ~holes(boxes)].all()
    for box in boxes:
        hole = holes([box])
        grey = np.abs(stitched[:, hole] - 127).max(-1)
        assert (grey > 8).mean() > 0.5
        assert np.abs(stitched[0] - stitched[1])[hole].mean() > 1


def test_a_list_of_windows_gives_the_latents_of_each(client, photograph):
    graph = Graph()
    _, crop = cropped(graph, client, photograph, TWO, "latents.png")
    node = inpainted(graph, crop, num_samples=1)
    shown = graph.add("PreviewAny", source=node[1])
    run = client.run(graph)
    assert len(run.outputs[shown.id]["text"]) == len(TWO)


def test_windows_that_do_not_arrive_are_named(client, photograph):
    graph = Graph()
    _, crop = cropped(graph, client, photograph, TWO, "lost.png")
    one = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0)
    saved(graph, crop, one[0])
    with pytest.raises(HostError, match="images are a list of 1 and Crop for Inpainting made 2 windows"):
        client.run(graph)


def inpainted_whole(graph: Graph, client, photograph: np.ndarray, boxes, name: str, **settings) -> Node:
    picture = client.put_image(name, with_hole(photograph, holes(boxes)))
    return inpaint(graph, picture, **settings)[1]


def test_inpaint_crops_a_large_picture_by_itself(client, photograph):
    """One window of 64x64 instead of 400x300 pixels: the same as by the two nodes."""
    graph = Graph()
    _, crop = cropped(graph, client, photograph, TWO, "by_hand.png")
    by_hand = saved(graph, crop, inpainted(graph, crop)[0])
    by_itself = inpainted_whole(graph, client, photograph, TWO, "by_itself.png")
    run = client.run(graph)
    pictures = client.images(run, by_itself).astype(int)
    assert (pictures == photograph)[:, ~holes(TWO)].all()
    assert np.abs(pictures - client.images(run, by_hand)).max() <= 1


def test_a_new_seed_of_a_cropped_picture_does_not_fit_again(client, photograph):
    parts = []
    for seed in (0, 1):
        graph = Graph()
        inpainted_whole(graph, client, photograph, ONE, "seeds.png", seed=seed)
        parts.append(set(client.run(graph).progress()))
    assert len(parts[0]) == 2
    assert len(parts[1]) == 1


def test_sizes_of_models(client):
    graph = Graph()
    sd15 = graph.add("CheckpointLoaderSimple", ckpt_name="tiny_sd15.safetensors")
    sizes = [graph.add("VIPaintModelSize", model=model[0]) for model in (embedded_prior(graph)[0], sd15)]
    shown = [graph.add("PreviewAny", source=size[0]) for size in sizes]
    run = client.run(graph)
    assert [int(run.outputs[node.id]["text"][0]) for node in shown] == [64, 512]


def test_inpaint_crops_conditions_with_the_picture(client, photograph):
    """An area on the left of the hole: it is no condition of the window, which takes the rest."""
    graph = Graph()
    picture = client.put_image("areas.png", with_hole(photograph, holes(ONE)))
    node, shown = inpaint(graph, picture, num_samples=1)
    inputs = graph.prompt[node.id]["inputs"]
    label = inputs["positive"]
    area = graph.add("ConditioningSetArea", conditioning=label, width=64, height=64, x=0, y=0, strength=1.0)
    both = graph.add("ConditioningCombine", conditioning_1=area[0], conditioning_2=label)
    inputs["positive"] = both[0]
    plain = inpaint(graph, picture, num_samples=1)[1]
    run = client.run(graph)
    assert (client.images(run, shown) == client.images(run, plain)).all()

"""Batches and lists of pictures in ComfyUI: a result for each, the same as of the picture alone."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
import torch

from tests.host.comfy_client import Graph, HostError, Link, Node
from tests.host.graphs import INPAINT, embedded_prior, fit, sample
from tests.host.test_samplers import SHORT, defaults

WAYS = ("all-in-one", "fit and sample", "sampler")
RESTORE = {name: INPAINT[name] for name in ("seed", "cfg", "preset", "noise_level")} | {"num_samples": 1}
COMPOSITE = {"feather": 0, "colour_match": False}
DEGRADED = {
    "gaussian": ("VIPaintDeblur", {"blur": "gaussian", "kernel_size": 9, "std": 1.0, "angle": 0.0}, 1),
    "super-resolution": ("VIPaintSuperResolve", {"factor": 2, "kind": "average"}, 2),
}
MOTION = {"kind": "camera shake", "kernel_size": 9, "angle": 0.0, "intensity": 0.5, "seed": 3}
OBSERVE = {
    "VIPaintObserveGaussianBlur": {"kernel_size": 9, "std": 1.0},
    "VIPaintObserveMotionBlur": MOTION,
    "VIPaintObserveSuperResolution": {"factor": 2, "kind": "bicubic"},
}


@pytest.fixture(scope="module")
def pictures(scene):
    """Two pictures of 32x32."""
    return [scene[::2, ::2], scene[::-2, ::-2]]


@pytest.fixture(scope="module")
def holes():
    """Two masks, boolean."""
    hidden = np.zeros((2, 32, 32), dtype=bool)
    hidden[0, 8:24, 10:22] = hidden[1, :, 20:] = True
    return hidden


def images(graph: Graph, client, pictures) -> Link:
    """An IMAGE of all pictures, which have equal sides."""
    first, *others = (
        graph.add("LoadImage", image=client.put_image(f"batch_{zlib.crc32(picture.tobytes()):x}.png", picture))[0]
        for picture in pictures
    )
    for other in others:
        first = graph.add("ImageBatch", image1=first, image2=other)[0]
    return first


def masks(graph: Graph, client, holes) -> Link:
    """A MASK of all holes."""
    grey = [np.repeat(255 * hole[..., None].astype(np.uint8), 3, -1) for hole in holes]
    return graph.add("ImageToMask", image=images(graph, client, grey), channel="red")[0]


def one_by_one(graph: Graph, batch: Link) -> Link:
    """The images of a batch as a list."""
    return graph.add("RebatchImages", images=batch, batch_size=1)[0]


def save(graph: Graph, **link: Link) -> Node:
    return graph.add("TestSaveTensor", **link)


def restored(graph: Graph, client, way: str, image: Link, mask: Link, noise_level: float | Link = 0.05) -> list[Node]:
    """The nodes that save composited pictures and latents of an inpainting."""
    loader, label = embedded_prior(graph)
    conditions = {"positive": label, "negative": label}
    if way == "all-in-one":
        node = graph.add(
            "VIPaintInpaint",
            model=loader[0],
            **conditions,
            vae=loader[1],
            image=image,
            mask=mask,
            **(INPAINT | {"num_samples": 1, "noise_level": noise_level}),
        )
        return [save(graph, image=node[0]), save(graph, latent=node[1])]
    guider = graph.add("CFGGuider", model=loader[0], **conditions, cfg=1.0)[0]
    seen = graph.add("VIPaintObserveInpaint", image=image, mask=mask, noise_level=noise_level)[0]
    if way == "sampler":
        latents = sampled(graph, client, loader, guider, seen)
        decoded = graph.add("VAEDecode", samples=latents, vae=loader[1])[0]
        decoded = graph.add("VIPaintCropToObservation", images=decoded, observation=seen)[0]
    else:
        fitted = fit(graph, guider, loader[1], seen)
        drawn = sample(graph, fitted[0], guider, loader[1], seen)
        latents, decoded = drawn[0], drawn[1]
    composited = graph.add("VIPaintCompositeObserved", images=decoded, original=image, mask=mask, **COMPOSITE)
    return [save(graph, image=composited[0]), save(graph, latent=latents)]


def sampled(graph: Graph, client, loader: Node, guider: Link, seen: Link) -> Link:
    """Latents of two samples by DInG."""
    name = "VIPaintDInGSampler"
    sampler = graph.add(name, observation=seen, vae=loader[1], **(defaults(client, name) | SHORT[name]))
    return graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=0)[0],
        guider=guider,
        sampler=sampler[0],
        sigmas=graph.add("BasicScheduler", model=loader[0], scheduler="simple", steps=3, denoise=1.0)[0],
        latent_image=graph.add("VIPaintEmptyLatent", observation=seen, vae=loader[1], num_samples=2)[0],
    )[0]


def together_and_alone(client, work, count: int = 2) -> list[list[torch.Tensor]]:
    """What the nodes of ``work(graph, which)`` save for all items; each equals that of its item alone."""
    graph = Graph()
    together, *alone = (work(graph, which) for which in ([*range(count)], *([k] for k in range(count))))
    run = client.run(graph)
    found = [client.tensors(run, node) for node in together]
    for kind, results in enumerate(found):
        assert len(results) == count
        for result, nodes in zip(results, alone, strict=True):
            (expected,) = client.tensors(run, nodes[kind])
            assert torch.equal(result, expected)
        assert not torch.equal(*results[:2])
    return found


@pytest.mark.parametrize("each", [False, True], ids=["one mask", "a mask each"])
@pytest.mark.parametrize("way", WAYS)
def test_every_picture_of_a_batch_is_inpainted_as_alone(client, pictures, holes, way, each):
    def work(graph, which):
        chosen = holes[which] if each else holes[:1]
        image = images(graph, client, [pictures[k] for k in which])
        return restored(graph, client, way, image, masks(graph, client, chosen))

    filled, latents = together_and_alone(client, work)
    for k, picture in enumerate(pictures):
        assert filled[k].shape[1:] == (32, 32, 3)
        assert latents[k].shape == (len(filled[k]), 4, 8, 8)
        kept = torch.from_numpy(~holes[k if each else 0])
        original = torch.from_numpy(picture.copy()) / 255.0
        assert (filled[k] == original)[:, kept].all()


def test_every_large_picture_of_a_batch_is_cropped_as_alone(client, scene):
    """The second one has two windows."""
    large = [np.kron(part, np.ones((3, 3, 1), np.uint8)) for part in (scene, scene[::-1])]
    hidden = np.zeros((2, 192, 192), dtype=bool)
    hidden[:, 8:24, 8:24] = hidden[1, 168:184, 168:184] = True

    def work(graph, which):
        image = images(graph, client, [large[k] for k in which])
        return restored(graph, client, "all-in-one", image, masks(graph, client, hidden[which]))[:1]

    (filled,) = together_and_alone(client, work)
    for k, picture in enumerate(large):
        original = torch.from_numpy(picture.copy()) / 255.0
        assert (filled[k] == original)[:, torch.from_numpy(~hidden[k])].all()


@pytest.mark.parametrize("kind", DEGRADED)
def test_every_picture_of_a_batch_is_restored_as_alone(client, pictures, kind):
    node, settings, factor = DEGRADED[kind]

    def work(graph, which):
        loader, label = embedded_prior(graph)
        image = images(graph, client, [pictures[k][::2, ::2] for k in which])
        models = {"model": loader[0], "positive": label, "negative": label, "vae": loader[1]}
        made = graph.add(node, **models, image=image, **RESTORE, **settings)
        return [save(graph, image=made[0]), save(graph, latent=made[1])]

    found, _ = together_and_alone(client, work)
    assert all(batch.shape == (1, 16 * factor, 16 * factor, 3) for batch in found)


def test_a_list_of_pictures_and_masks_is_the_same_as_a_batch(client, pictures, holes):
    graph = Graph()
    image, mask = images(graph, client, pictures), masks(graph, client, holes)
    shown = one_by_one(graph, graph.add("MaskToImage", mask=mask)[0])
    listed = one_by_one(graph, image), graph.add("ImageToMask", image=shown, channel="red")[0]
    batch, list_ = (restored(graph, client, "sampler", *links) for links in ((image, mask), listed))
    run = client.run(graph)
    for node, other in zip(batch, list_, strict=True):
        found, expected = client.tensors(run, other), client.tensors(run, node)
        assert len(found) == len(expected) == 2
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("node", OBSERVE)
def test_every_picture_of_a_batch_is_degraded_as_alone(client, pictures, node):
    def work(graph, which):
        image = images(graph, client, [pictures[k] for k in which])
        seen = graph.add(node, image=image, noise_level=0.1, **OBSERVE[node])[0]
        robust = graph.add("VIPaintRobustLikelihood", observation=seen, degrees=4.0)[0]
        return [
            save(graph, image=graph.add("VIPaintDegradeImage", image=image, observation=link, seed=5)[0])
            for link in (seen, robust)
        ]

    together_and_alone(client, work)


def test_every_picture_has_its_own_kernel_or_shares_one(client, pictures):
    kernels = [np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)]
    kernels[0][2], kernels[1][:, 2] = 255, 255

    def work(graph, which):
        image, *spots = (
            images(graph, client, [chosen[k] for k in which]) for chosen in (pictures, kernels, kernels[:1] * 2)
        )
        made = []
        for spot in spots:
            seen = graph.add("VIPaintObserveKernel", image=image, kernel=spot, noise_level=0.05)[0]
            made.append(graph.add("VIPaintDegradeImage", image=image, observation=seen, seed=5)[0])
        return [save(graph, image=link) for link in made]

    own, shared = together_and_alone(client, work)
    assert torch.equal(own[0], shared[0])
    assert not torch.equal(own[1], shared[1])


def compared(graph: Graph, images: Link, original: Link, **links: Link) -> tuple[Node, Node]:
    """The nodes that show the tables of Compare, and save its sheets."""
    node = graph.add("VIPaintCompare", images=images, original=original, **links)
    return graph.add("PreviewAny", source=node[0]), save(graph, image=node[1])


def test_samples_of_every_picture_are_compared_with_their_original(client, pictures):
    """Shifts by 10 and by 20 of 255 levels are 28.13 and 22.11 dB."""
    graph = Graph()
    middle = [np.clip(picture, 30, 225) for picture in pictures]
    shifted = images(graph, client, [picture + np.uint8(10 * k) for k, picture in enumerate(middle, 1)])
    text, sheet = compared(graph, one_by_one(graph, shifted), images(graph, client, middle))
    alone = [
        compared(graph, *(images(graph, client, [p]) for p in (picture + np.uint8(10 * k), picture)))[1]
        for k, picture in enumerate(middle, 1)
    ]
    run = client.run(graph)
    tables = run.outputs[text.id]["text"]
    assert [re.search(r"^1 +([\d.]+)", table, re.MULTILINE)[1] for table in tables] == ["28.13", "22.11"]
    on_the_node = run.texts()[graph.prompt[text.id]["inputs"]["source"][0]]
    assert on_the_node == "\n\n".join(f"Image {k} of 2\n{table}" for k, table in enumerate(tables, 1))
    assert all(map(torch.equal, client.tensors(run, sheet), (client.tensor(run, node) for node in alone)))


def test_the_noise_of_every_picture_is_its_own(client, holes):
    """Its level leads to the observation of that picture, by the small nodes and through an all-in-one node."""
    smooth = np.linspace(60, 190, 32)[:, None] + np.zeros((32, 32, 3))
    draw = np.random.default_rng(0).standard_normal(smooth.shape)
    noisy = [(smooth + 127.5 * level * draw).clip(0, 255).round().astype(np.uint8) for level in (0.02, 0.1)]

    def work(graph, which):
        image = images(graph, client, [noisy[k] for k in which])
        level = graph.add("VIPaintEstimateNoiseLevel", image=image)[0]
        seen = graph.add("VIPaintObserveGaussianBlur", image=image, kernel_size=3, std=0.5, noise_level=level)[0]
        degraded = graph.add("VIPaintDegradeImage", image=image, observation=seen, seed=0)
        mask = masks(graph, client, holes[:1])
        return [save(graph, image=degraded[0]), *restored(graph, client, "all-in-one", image, mask, level)]

    degraded, *_ = together_and_alone(client, work)
    assert degraded[1].std() > degraded[0].std()


def test_a_posterior_of_every_picture_is_saved(client, pictures, holes):
    graph = Graph()
    loader, label = embedded_prior(graph)
    guider = graph.add("CFGGuider", model=loader[0], positive=label, negative=label, cfg=1.0)[0]
    image, mask = images(graph, client, pictures), masks(graph, client, holes)
    seen = graph.add("VIPaintObserveInpaint", image=image, mask=mask, noise_level=0.05)[0]
    fitted = fit(graph, guider, loader[1], seen)
    saved = graph.add("VIPaintSavePosterior", posterior=fitted[0], filename_prefix="vipaint/each")
    run = client.run(graph)
    files = [client.base / "output" / file for file in run.outputs[saved.id]["text"]]
    assert len({path.read_bytes() for path in files}) == 2
    lines = run.texts()[fitted.id].split("\n")
    assert [line.split(": rows")[0] for line in lines] == ["Item 1: Fit", "Item 2: Fit"]


def test_masks_of_a_batch_are_expanded_to_the_latent_grid(client, holes):
    def work(graph, which):
        loader, _ = embedded_prior(graph)
        grid = graph.add("VIPaintMaskToLatentGrid", mask=masks(graph, client, holes[which]), vae=loader[1])
        return save(graph, image=graph.add("MaskToImage", mask=grid[0])[0])

    graph = Graph()
    nodes = [work(graph, which) for which in ([0, 1], [0], [1])]
    run = client.run(graph)
    together, *alone = (client.tensor(run, node) for node in nodes)
    assert torch.equal(together, torch.cat(alone))


def refusal(client, graph: Graph, link: Link) -> str:
    """The message with which a prompt that needs an IMAGE ends."""
    save(graph, image=link)
    with pytest.raises(HostError) as caught:
        client.run(graph)
    return str(caught.value)


@pytest.mark.parametrize(("count", "number"), [(1, 2), (3, 2), (2, 3)])
def test_another_number_of_masks_is_refused(client, pictures, holes, count, number):
    graph = Graph()
    image = images(graph, client, (pictures * 2)[:count])
    nodes = restored(graph, client, "all-in-one", image, masks(graph, client, np.concatenate([holes] * 2)[:number]))
    message = refusal(client, graph, graph.prompt[nodes[0].id]["inputs"]["image"])
    assert f"mask has {number} items and image {count}: connect one for all, or one for each" in message


def test_a_mask_without_a_hole_is_named(client, pictures, holes):
    graph = Graph()
    mask = masks(graph, client, [holes[0], np.zeros_like(holes[1])])
    nodes = restored(graph, client, "all-in-one", images(graph, client, pictures), mask)
    message = refusal(client, graph, graph.prompt[nodes[0].id]["inputs"]["image"])
    assert "image 2 of 2: mask has no hole" in message


@pytest.mark.parametrize("node", ["VIPaintCompositeObserved", "VIPaintCompare"])
def test_one_batch_of_samples_with_several_originals_is_refused(client, pictures, holes, node):
    graph = Graph()
    both = images(graph, client, pictures)
    extra = {"mask": masks(graph, client, holes), **COMPOSITE} if node == "VIPaintCompositeObserved" else {}
    made = graph.add(node, images=both, original=both, **extra)
    message = refusal(client, graph, made[0] if extra else made[1])
    assert node in message
    assert "original has 2 items and images 1" in message


def test_settings_of_a_list_give_a_result_each_of_one_picture(client, pictures, holes):
    """As the host does it for other nodes."""
    graph = Graph()
    both = images(graph, client, pictures)
    level = graph.add("VIPaintEstimateNoiseLevel", image=both)[0]
    image = images(graph, client, pictures[:1])
    seen = graph.add("VIPaintObserveInpaint", image=image, mask=masks(graph, client, holes[:1]), noise_level=level)[0]
    made = save(graph, image=graph.add("VIPaintDegradeImage", image=image, observation=seen, seed=0)[0])
    assert len(client.tensors(client.run(graph), made)) == 2

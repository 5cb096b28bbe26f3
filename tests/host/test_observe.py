"""Observations, degradations, masks and comparison through ComfyUI; restorations of what was blurred or made small."""

import itertools
import re

import numpy as np
import pytest
import torch

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import INPAINT, embedded_prior, fit, sample

_names = itertools.count()
KINDS = [
    "box",
    "random boxes",
    "half plane",
    "brush strokes",
    "outpaint border",
    "every k-th pixel",
    "random pixels",
]
HIDDEN = {"half plane": 0.5, "outpaint border": 1 - 44 * 28 / (64 * 48), "every k-th pixel": 15 / 16}
MASK = {"width": 64, "height": 48, "share": 0.3, "angle": 90.0, "border": 10, "step": 4, "seed": 1}
MOTION = {"kind": "straight", "kernel_size": 15, "angle": 30.0, "intensity": 0.5, "seed": 5}
BLURS = {
    "gaussian": ("VIPaintObserveGaussianBlur", {"kernel_size": 25, "std": 2.0}),
    "straight": ("VIPaintObserveMotionBlur", MOTION),
    "shake": ("VIPaintObserveMotionBlur", MOTION | {"kind": "camera shake", "kernel_size": 31}),
}
RESTORE = {name: INPAINT[name] for name in ("seed", "cfg", "num_samples", "preset", "noise_level")}
DEBLUR = {"blur": "gaussian", "kernel_size": 25, "std": 1.5, "angle": 0.0}


def load(client, graph, pixels):
    """The IMAGE of 8-bit pixels, under a name that no prompt used before."""
    return graph.add("LoadImage", image=client.put_image(f"observed_{next(_names)}.png", pixels))[0]


def blurred(graph, image, kind, noise_level=0.05):
    """An observation through one of the blurs."""
    node, settings = BLURS[kind]
    return graph.add(node, image=image, noise_level=noise_level, **settings)[0]


def small(graph, image, factor=4, kind="bicubic", noise_level=0.05):
    """An observation of a small picture."""
    return graph.add(
        "VIPaintObserveSuperResolution",
        image=image,
        factor=factor,
        kind=kind,
        noise_level=noise_level,
    )[0]


def masked(graph, image, noise_level=0.05, **settings):
    """An observation with a hole of a made mask."""
    mask = graph.add("VIPaintMakeMask", **(MASK | {"kind": "box", "height": 64} | settings))
    return graph.add("VIPaintObserveInpaint", image=image, mask=mask[0], noise_level=noise_level)[0]


def degraded(client, image, observe, seed=0):
    """The pictures of Degrade Image for an observation that ``observe(graph, image)`` makes."""
    graph = Graph()
    picture = load(client, graph, image)
    node = graph.add("VIPaintDegradeImage", image=picture, observation=observe(graph, picture), seed=seed)
    saved = graph.add("TestSaveTensor", image=node[0])
    return client.tensor(client.run(graph), saved)


def refusal(client, graph, link, kind="image"):
    """The message with which a prompt that needs ``link`` ends."""
    if kind == "observation":
        link = graph.add("VIPaintKernelPreview", observation=link)[0]
    graph.add("TestSaveTensor", image=link)
    with pytest.raises(HostError) as caught:
        client.run(graph)
    return str(caught.value)


@pytest.fixture(scope="module")
def grey():
    """A picture without structure."""
    return np.full((64, 64, 3), 128, np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_binary_seeded_and_as_covered_as_they_say(client, kind):
    graph = Graph()
    saved, text = [], []
    for seed in (1, 1, 2):
        mask = graph.add("VIPaintMakeMask", **(MASK | {"kind": kind, "seed": seed}))
        saved.append(graph.add("TestSaveTensor", image=graph.add("MaskToImage", mask=mask[0])[0]))
        text.append(graph.add("PreviewAny", source=mask[1]))
    run = client.run(graph)
    first, again, other = (client.tensor(run, node) for node in saved)
    assert first.shape == (1, 48, 64, 3)
    assert set(first.unique().tolist()) == {0, 1}
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (kind in ("box", *HIDDEN))
    share = first.mean().item()
    assert share == pytest.approx(HIDDEN.get(kind, 0.3), abs=0.02)
    hidden = round(share * 64 * 48)
    assert run.outputs[text[0].id]["text"] == [f"{100 * share:.1f} % hidden ({hidden} of 3072 pixels)"]


@pytest.mark.parametrize(("kind", "words"), [("outpaint border", "border is 24"), ("every k-th pixel", "step is 50")])
def test_masks_of_everything_are_refused(client, kind, words):
    graph = Graph()
    mask = graph.add("VIPaintMakeMask", **(MASK | {"kind": kind, "border": 24, "step": 50}))
    message = refusal(client, graph, graph.add("MaskToImage", mask=mask[0])[0])
    assert "VIPaintMakeMask" in message
    assert words in message


def test_a_mask_on_the_latent_grid_is_the_hole_of_whole_cells(client):
    graph = Graph()
    mask = graph.add("VIPaintMakeMask", **(MASK | {"kind": "random pixels", "share": 0.05}))
    loader, _ = embedded_prior(graph)
    grid = graph.add("VIPaintMaskToLatentGrid", mask=mask[0], vae=loader[1])
    saved = [graph.add("TestSaveTensor", image=graph.add("MaskToImage", mask=m[0])[0]) for m in (mask, grid)]
    run = client.run(graph)
    fine, coarse = (client.tensor(run, node)[0, :, :, 0] for node in saved)
    cells = fine.view(12, 4, 16, 4).amax((1, 3))
    assert torch.equal(coarse, cells.repeat_interleave(4, 0).repeat_interleave(4, 1))


@pytest.mark.parametrize("kind", BLURS)
def test_a_blur_keeps_the_size_and_the_grey_and_adds_its_noise(client, grey, kind):
    noisy = degraded(client, grey, lambda graph, image: blurred(graph, image, kind, 0.1))
    assert noisy.shape == (1, 64, 64, 3)
    assert noisy.mean().item() == pytest.approx(128 / 255, abs=0.003)
    # 0.1 between -1 and 1 is 0.05 between 0 and 1.
    assert noisy.std().item() == pytest.approx(0.05, rel=0.03)


def test_noise_is_seeded(client, grey):
    first, again, other = (degraded(client, grey, masked, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_hidden_part_of_a_degraded_picture_is_empty(client, scene):
    noisy = degraded(client, scene, masked)
    hole = (noisy == 0.5).all(-1)
    assert hole.float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", ["bicubic", "average"])
def test_a_picture_is_made_smaller_by_the_factor(client, scene, kind):
    little = degraded(client, scene, lambda graph, image: small(graph, image, 4, kind, 0.001))
    blocks = torch.from_numpy(scene / 255.0).view(16, 4, 16, 4, 3).mean((1, 3))
    assert little.shape == (1, 16, 16, 3)
    tolerance = 0.005 if kind == "average" else 0.1
    assert (little[0] - blocks).square().mean().sqrt() < tolerance


def test_a_chain_does_both_in_order(client, scene):
    def chain(graph, image):
        links = {"first": blurred(graph, image, "gaussian"), "then": small(graph, image, 2, noise_level=0.001)}
        return graph.add("VIPaintObserveChain", **links)[0]

    both = degraded(client, scene, chain)
    quiet = degraded(client, scene, lambda graph, image: blurred(graph, image, "gaussian", 0.001))
    halved = quiet.view(1, 32, 2, 32, 2, 3).mean((2, 4))
    assert both.shape == (1, 32, 32, 3)
    assert (both - halved).square().mean().sqrt() < 0.02


def test_the_kernel_is_shown_enlarged_with_a_white_peak(client, scene):
    graph = Graph()
    image = load(client, graph, scene)
    observations = [blurred(graph, image, "gaussian"), blurred(graph, image, "shake"), small(graph, image)]
    observations.append(graph.add("VIPaintObserveChain", first=observations[0], then=observations[2])[0])
    shown = [graph.add("VIPaintKernelPreview", observation=link) for link in observations]
    saved = [graph.add("TestSaveTensor", image=node[0]) for node in shown]
    run = client.run(graph)
    gaussian, shake, *others = (client.tensor(run, node) for node in saved)
    assert gaussian.shape == (1, 250, 250, 3)
    assert shake.shape == (1, 248, 248, 3)
    assert all(torch.allclose(gaussian, gaussian.flip(side), atol=1e-5) for side in (1, 2))
    for kernel in (gaussian, shake, *others):
        assert kernel.max() == 1
        assert kernel.min() >= 0
        assert kernel.median() < 0.2


def test_a_picture_of_a_kernel_blurs_as_it_shows(client, scene):
    spot = np.zeros((9, 9, 3), np.uint8)
    spot[4, 6:] = 100

    def own(graph, image):
        return graph.add("VIPaintObserveKernel", image=image, kernel=load(client, graph, spot), noise_level=0.001)[0]

    # The true convolution with a kernel of three equal entries, two to four pixels to the right of its middle.
    expected = sum(torch.from_numpy(np.roll(scene / 255.0, shift, 1)) for shift in (2, 3, 4)) / 3
    error = (degraded(client, scene, own)[0] - expected)[:, 8:-8]
    assert error.abs().max() < 0.005


@pytest.mark.parametrize(
    ("spot", "words"),
    [(np.full((8, 9, 3), 9), "kernel"), (np.zeros((9, 9, 3)), "kernel is zero"), (np.full((129, 3, 3), 9), "kernel")],
    ids=["even", "black", "larger than the picture"],
)
def test_a_kernel_that_cannot_be_is_refused(client, scene, spot, words):
    graph = Graph()
    image, kernel = load(client, graph, scene), load(client, graph, spot.astype(np.uint8))
    link = graph.add("VIPaintObserveKernel", image=image, kernel=kernel, noise_level=0.05)[0]
    message = refusal(client, graph, link, "observation")
    assert "VIPaintObserveKernel" in message
    assert words in message


@pytest.mark.parametrize(
    ("kernel_size", "words"),
    [(61, "kernel is 61x61, larger than the picture of 16x16"), (8, "kernel_size is 8; it must be odd")],
)
def test_a_blur_that_cannot_be_is_refused(client, scene, kernel_size, words):
    graph = Graph()
    image = load(client, graph, scene[:16, :16])
    settings = {"kernel_size": kernel_size, "std": 3.0, "noise_level": 0.05}
    link = graph.add("VIPaintObserveGaussianBlur", image=image, **settings)[0]
    message = refusal(client, graph, link, "observation")
    assert "VIPaintObserveGaussianBlur" in message
    assert words in message


def test_a_factor_that_does_not_divide_is_refused(client, scene):
    graph = Graph()
    image = load(client, graph, scene[:50])
    link = graph.add("VIPaintDegradeImage", image=image, observation=small(graph, image), seed=0)[0]
    message = refusal(client, graph, link)
    assert "VIPaintDegradeImage" in message
    assert "50x64" in message


def test_degradations_that_do_not_follow_each_other_are_refused(client, scene):
    graph = Graph()
    image = load(client, graph, scene)
    link = graph.add("VIPaintObserveChain", first=masked(graph, image), then=small(graph, image))[0]
    message = refusal(client, graph, link, "observation")
    assert "VIPaintObserveChain" in message
    assert "first" in message
    assert "256x256" in message


def test_a_mask_of_another_picture_degrades_nothing(client, scene):
    graph = Graph()
    observation = masked(graph, load(client, graph, scene))
    link = graph.add("VIPaintDegradeImage", image=load(client, graph, scene[:32]), observation=observation, seed=0)[0]
    message = refusal(client, graph, link)
    assert "VIPaintDegradeImage" in message
    assert "picture is 32x64" in message


def compare(client, graph, images, original, observation=None):
    """The table and the sheet of Compare."""
    links = {"images": images, "original": original} | ({"observation": observation} if observation else {})
    node = graph.add("VIPaintCompare", **links)
    text, sheet = graph.add("PreviewAny", source=node[0]), graph.add("TestSaveTensor", image=node[1])
    run = client.run(graph)
    return run.outputs[text.id]["text"][0], client.tensor(run, sheet)


def rows(table):
    """The numbers of a table by the name of the row."""
    lines = (re.split("  +", line) for line in table.split("\n\n")[0].split("\n")[1:])
    return {name: [float(number) for number in numbers] for name, *numbers in lines}


def test_compare_says_how_near_and_how_different(client, scene):
    graph = Graph()
    # A shift by 10 of 255 levels is 28.13 dB; the two are 20 levels apart, 40 / 255 between -1 and 1.
    middle = np.clip(scene.astype(int), 20, 235)
    lighter, darker, original = (load(client, graph, (middle + step).astype(np.uint8)) for step in (10, -10, 0))
    batch = graph.add("ImageBatch", image1=lighter, image2=darker)[0]
    text, sheet = compare(client, graph, batch, original)
    numbers = rows(text)
    assert list(numbers) == ["1", "2", "average of all"]
    assert numbers["1"][0] == numbers["2"][0] == pytest.approx(28.13, abs=0.01)
    assert 0.8 < numbers["1"][1] <= 1
    assert numbers["average of all"][0] > 60
    assert "diversity 0.157" in text
    assert sheet.shape[0] == 1
    assert sheet.shape[2] > 3 * 192


def test_compare_measures_the_residual_in_units_of_the_noise(client, scene):
    graph = Graph()
    image = load(client, graph, scene)
    node = graph.add("VIPaintDegradeImage", image=image, observation=blurred(graph, image, "gaussian"), seed=0)
    text, _ = compare(client, graph, image, image, node[1])
    assert rows(text) == {"1": [np.inf, 1.0, pytest.approx(1, abs=0.03)]}
    assert "diversity" not in text


def test_compare_refuses_other_sizes(client, scene):
    graph = Graph()
    image, part = load(client, graph, scene), load(client, graph, scene[:32])
    message = refusal(client, graph, graph.add("VIPaintCompare", images=image, original=part)[1])
    assert "VIPaintCompare" in message
    assert "images are 64x64 and original 32x64" in message


def test_compare_refuses_the_observation_of_another_picture(client, scene):
    graph = Graph()
    image = load(client, graph, scene)
    link = graph.add("VIPaintCompare", images=image, original=image, observation=small(graph, image))[1]
    message = refusal(client, graph, link)
    assert "VIPaintCompare" in message
    assert "observation is of an image of 256x256" in message


RESTORED = {
    "gaussian": lambda graph, image: blurred(graph, image, "gaussian"),
    "straight": lambda graph, image: blurred(graph, image, "straight"),
    "super-resolution": small,
    "blur, then hole": lambda graph, image: graph.add(
        "VIPaintObserveChain", first=blurred(graph, image, "gaussian"), then=masked(graph, image)
    )[0],
}


@pytest.mark.parametrize("kind", RESTORED)
def test_what_was_degraded_is_restored(client, scene, kind):
    graph = Graph()
    image = load(client, graph, scene)
    node = graph.add("VIPaintDegradeImage", image=image, observation=RESTORED[kind](graph, image), seed=0)
    loader, label = embedded_prior(graph)
    guided = graph.add("CFGGuider", model=loader[0], positive=label, negative=label, cfg=1.0)[0]
    fitted = fit(graph, guided, loader[1], node[1])
    sampled = sample(graph, fitted[0], guided, loader[1], node[1], steps=8)
    text, _ = compare(client, graph, sampled[1], image, node[1])
    numbers = rows(text)
    print(text)
    for row in ("1", "2"):
        psnr, _, residual = numbers[row]
        assert 0.8 < residual < 1.6
        assert psnr > 15
    assert float(re.search(r"diversity ([\d.]+)", text)[1]) > 0.01


def all_in_one(client, node, picture, seed, kernel=None, **settings):
    """The pictures of an all-in-one node, and its run."""
    graph = Graph()
    loader, label = embedded_prior(graph)
    links = {"model": loader[0], "positive": label, "negative": label, "vae": loader[1]}
    image = graph.add("LoadImage", image=picture)[0]
    if kernel is not None:
        settings["kernel"] = graph.add("LoadImage", image=client.put_image("spot.png", kernel))[0]
    restored = graph.add(node, image=image, **links, **(RESTORE | {"seed": seed} | settings))
    saved = graph.add("TestSaveTensor", image=restored[0])
    run = client.run(graph)
    return client.tensor(run, saved), run


@pytest.mark.parametrize(
    ("node", "settings", "side"),
    [
        ("VIPaintDeblur", DEBLUR, 32),
        ("VIPaintDeblur", DEBLUR | {"blur": "motion", "kernel_size": 9}, 32),
        ("VIPaintDeblur", DEBLUR | {"kernel": np.full((5, 5, 3), 9, np.uint8)}, 32),
        ("VIPaintSuperResolve", {"factor": 2, "kind": "average"}, 64),
    ],
    ids=["gaussian", "motion", "kernel", "small"],
)
def test_all_in_one_fits_once_for_all_seeds(client, scene, node, settings, side):
    picture = client.put_image(f"whole_{next(_names)}.png", scene[::2, ::2])
    (first, run), (second, again) = (all_in_one(client, node, picture, s, **settings) for s in (0, 1))
    assert first.shape == second.shape == (2, side, side, 3)
    assert (first - second).abs().mean() > 0.003
    # The parts that reported progress: fit and sampling at first, sampling alone with the other seed.
    assert len(run.progress()) == 2
    assert len(again.progress()) == 1
    assert set(again.progress()) < set(run.progress())


def test_sides_that_the_model_does_not_take_come_back_as_they_were(client, scene):
    picture = client.put_image(f"whole_{next(_names)}.png", scene[:30, :27])
    images, _ = all_in_one(client, "VIPaintDeblur", picture, 0, **DEBLUR)
    assert images.shape == (2, 30, 27, 3)
    picture = client.put_image(f"whole_{next(_names)}.png", scene[:15, :13])
    images, _ = all_in_one(client, "VIPaintSuperResolve", picture, 0, factor=2, kind="average")
    assert images.shape == (2, 30, 26, 3)

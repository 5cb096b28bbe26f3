"""The nodes as their user meets them: fresh widgets, the search, texts on the nodes, errors, and what is optional."""

import re

import numpy as np
import pytest
import torch

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import INPAINT, conditioning, embedded_prior, fit, guider, inpaint, right_half, tiny, with_hole

MASK = {"width": 64, "height": 64, "share": 0.3, "angle": 0.0, "border": 8, "step": 4, "seed": 0}
BEFORE_A_FIT = (
    "VIPaintFitPosterior",
    "VIPaintMakeMask",
    "VIPaintDemoScene",
    "VIPaintObserveMotionBlur",
    "VIPaintDegradeImage",
)
ALL_IN_ONE = ("VIPaintInpaint", "VIPaintDeblur", "VIPaintSuperResolve")
PAPERS = {"CoPaint", "DDNM", "DInG", "DPS", "LanPaint", "LATINO", "PiGDM", "PSLD", "RED-diff", "RePaint", "ReSample"}
OWN_WORDS = ("vipaint", "observe", "observation", "posterior")
WANTED = {
    "VIPaintInpaint": ("remove object", "object removal", "fill", "restore", "old photo", "outpaint"),
    "VIPaintDeblur": ("unblur", "sharpen", "restore", "old photo"),
    "VIPaintSuperResolve": ("enlarge", "upscale", "restore", "old photo"),
}


@pytest.fixture(scope="module")
def nodes(client):
    """Schemas of the pack's nodes."""
    return {name: node for name, node in client.object_info().items() if node["category"].split("/")[0] == "VIPaint"}


@pytest.fixture(scope="module")
def is_new(client):
    """Whether the host has rules for fresh seeds, and search aliases."""
    return client.version() >= (0, 33)


@pytest.fixture(scope="module")
def picture(client, scene):
    return client.put_image("first_use.png", with_hole(scene, right_half(scene)))


def widget(node, name):
    return node["input"]["required"][name][1]


def test_fresh_seeds_before_a_fit_are_fixed_and_those_of_samples_are_not(nodes, is_new):
    fixed = "fixed" if is_new else True
    assert {widget(nodes[name], "seed")["control_after_generate"] for name in BEFORE_A_FIT} == {fixed}
    for name in ("VIPaintSamplePosterior", *ALL_IN_ONE):
        assert widget(nodes[name], "seed")["control_after_generate"] is True


def fitted(graph, name, **settings):
    """A fit to a picture that is observed by the node ``name``."""
    loader, label = embedded_prior(graph)
    scene = graph.add("VIPaintDemoScene", **({"hole": "half", "seed": 0} | (settings if "hole" in settings else {})))
    if name == "VIPaintObserveMotionBlur":
        shared = {"kernel_size": 9, "angle": 0.0, "intensity": 0.5, "noise_level": 0.05}
        observed = graph.add(name, image=scene[0], **shared, **settings)
    else:
        mask = scene[1] if "hole" in settings else graph.add(name, **(MASK | settings))[0]
        observed = graph.add("VIPaintObserveInpaint", image=scene[0], mask=mask, noise_level=0.05)
    guided = graph.add("CFGGuider", model=loader[0], positive=label, negative=label, cfg=1.0)[0]
    node = fit(graph, guided, loader[1], observed[0], iterations=0)
    graph.add("PreviewAny", source=node[3])
    return node


@pytest.mark.parametrize(
    ("name", "choice", "has_chance"),
    [
        *(("VIPaintMakeMask", {"kind": kind}, False) for kind in ("box", "half plane", "outpaint border")),
        ("VIPaintMakeMask", {"kind": "every k-th pixel"}, False),
        *(("VIPaintMakeMask", {"kind": kind}, True) for kind in ("random boxes", "brush strokes", "random pixels")),
        ("VIPaintDemoScene", {"hole": "box"}, False),
        ("VIPaintDemoScene", {"hole": "random"}, True),
        ("VIPaintObserveMotionBlur", {"kind": "straight"}, False),
        ("VIPaintObserveMotionBlur", {"kind": "camera shake"}, True),
    ],
)
def test_a_seed_repeats_the_fit_only_where_it_has_an_effect(client, name, choice, has_chance):
    runs = []
    for seed in (1, 2):
        graph = Graph()
        node = fitted(graph, name, **choice, seed=seed)
        runs.append(node.id in client.run(graph).executed() - {None})
    assert runs == [True, has_chance]


def test_a_linked_seed_is_left_alone(client):
    graph = Graph()
    seed = graph.add("PrimitiveInt", value=3)
    fitted(graph, "VIPaintMakeMask", kind="random boxes", seed=seed[0])
    client.run(graph)


def test_every_node_has_aliases_and_the_words_of_an_artist_lead_to_them(nodes, is_new):
    aliases = {name: node.get("search_aliases") or [] for name, node in nodes.items()}
    if not is_new:
        assert not any(aliases.values())
        return
    assert all(aliases[name] for name, node in nodes.items() if node["category"] != "VIPaint/internal")
    for name, words in WANTED.items():
        assert set(words) <= set(aliases[name])


def test_names_say_whose_they_are_except_for_samplers_with_the_name_of_a_paper(nodes):
    names = [node["display_name"] for node in nodes.values()]
    assert len(set(names)) == len(names)
    generic = [name for name in names if not any(word in name.lower() for word in OWN_WORDS)]
    assert {name.removesuffix(" Sampler") for name in generic} == PAPERS


def test_reports_and_tables_are_on_their_nodes_and_in_the_history(client, scene):
    graph = Graph()
    node = fitted(graph, "VIPaintMakeMask", kind="box", seed=7)
    image = graph.add("LoadImage", image=client.put_image("shown.png", scene))[0]
    compared = graph.add("VIPaintCompare", images=image, original=image)
    table = graph.add("PreviewAny", source=compared[0])
    noise = graph.add("VIPaintEstimateNoiseLevel", image=image)
    graph.add("PreviewAny", source=noise[1])
    run = client.run(graph)
    mask = next(key for key, value in graph.prompt.items() if value["class_type"] == "VIPaintMakeMask")
    shown = run.texts()
    for key, words in ((mask, "% hidden"), (node.id, "Fit: .*rows of the networks"), (noise.id, "noise_level 0")):
        assert re.search(words, shown[key])
        assert run.outputs[key]["text"] == [shown[key]]
    assert shown[compared.id] == run.outputs[table.id]["text"][0]


def test_an_all_in_one_node_shows_the_notices_and_reports_of_its_parts(client, scene):
    graph = Graph()
    hole = np.kron(right_half(scene), np.ones((2, 2), bool))
    large = client.put_image("large_mask.png", with_hole(np.kron(scene, np.ones((2, 2, 1), np.uint8)), hole))
    node, _ = inpaint(graph, client.put_image("small.png", scene), num_samples=1)
    mask = graph.add("LoadImage", image=large)
    graph.prompt[node.id]["inputs"]["mask"] = mask[1]
    lines = client.run(graph).texts()[node.id].split("\n")
    assert [line.split(" ")[0] for line in lines] == ["Cost", "Notice:", "Fit:", "Sampling:"]
    assert "128x128" in lines[1]


def test_texts_of_another_run_are_not_repeated(client, picture):
    for seed in (11, 12):
        graph = Graph()
        node, _ = inpaint(graph, picture, num_samples=1, seed=seed)
        lines = client.run(graph).texts()[node.id].split("\n")
    assert [line.split(" ")[0] for line in lines] == ["Cost", "Sampling:"]


def test_an_error_is_shown_without_a_module_path(client, scene):
    graph = Graph()
    inpaint(graph, client.put_image("no_hole.png", scene))
    entry = client.wait(client.queue(graph))
    (data,) = (data for kind, data in entry["status"]["messages"] if kind == "execution_error")
    assert data["exception_type"] == "InputError"
    assert data["exception_message"].startswith("mask has no hole")


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [("float16", "in float16: start ComfyUI with --fp32-vae"), ("float32", "in float32: its file is damaged")],
)
@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_a_vae_that_makes_nan_is_named_with_the_remedy(client, picture, dtype, advice, preset):
    graph = Graph()
    model = tiny(graph, "sd15")
    image = graph.add("LoadImage", image=picture)
    vae = graph.add("TestTinyVAE", seed=0, nan_in=dtype)
    observed = graph.add("VIPaintObserveInpaint", image=image[0], mask=image[1], noise_level=0.05)
    node = fit(graph, guider(graph, model), vae[0], observed[0], preset=preset)
    graph.add("PreviewAny", source=node[3])
    with pytest.raises(HostError, match=f"vae gives NaN or infinite values {advice}"):
        client.run(graph)


def test_the_noise_level_names_such_a_vae_too(client, picture):
    graph = Graph()
    image = graph.add("LoadImage", image=picture)
    vae = graph.add("TestTinyVAE", seed=0, nan_in="float16")
    node = graph.add("VIPaintEstimateNoiseLevel", image=image[0], vae=vae[0])
    graph.add("PreviewAny", source=node[1])
    with pytest.raises(HostError, match="start ComfyUI with --fp32-vae"):
        client.run(graph)


@pytest.mark.parametrize(
    ("preset", "named", "not_named"),
    [("fast", "fp8 or GGUF", "gradients|checkpointing"), ("published v1", "checkpointing.*without gradients", "GGUF")],
)
def test_what_is_advised_when_memory_is_exhausted_can_lower_it(client, picture, preset, named, not_named):
    graph = Graph()
    model = tiny(graph, "sd15")
    spoilt = graph.add("TestSpoiltModel", model=model.model, defect="out of memory at once")[0]
    image = graph.add("LoadImage", image=picture)
    observed = graph.add("VIPaintObserveInpaint", image=image[0], mask=image[1], noise_level=0.05)
    vae = graph.add("TestTinyVAE", seed=0)
    node = fit(graph, guider(graph, model, spoilt), vae[0], observed[0], preset=preset, iterations=-1)
    graph.add("PreviewAny", source=node[3])
    with pytest.raises(HostError) as refused:
        client.run(graph)
    assert re.search(f"out of memory.*{named}.*crop the image", str(refused.value))
    assert not re.search(not_named, str(refused.value))


def test_a_fresh_all_in_one_node_follows_its_prompt_and_needs_no_negative(nodes):
    for name in ALL_IN_ONE:
        assert widget(nodes[name], "cfg")["default"] == 3.0
        assert "negative" in nodes[name]["input"]["optional"]


def test_without_a_negative_prompt_the_positive_one_set_to_zero_takes_its_place(client, picture):
    graph = Graph()
    model = tiny(graph, "sd15")
    positive = conditioning(graph, model)
    zero = graph.add("ConditioningZeroOut", conditioning=positive)[0]
    image = graph.add("LoadImage", image=picture)
    vae = graph.add("TestTinyVAE", seed=0)[0]
    shared = {"model": model.model, "positive": positive, "vae": vae, "image": image[0], "mask": image[1]}
    settings = INPAINT | {"cfg": 3.0, "num_samples": 1}
    saved = [
        graph.add("TestSaveTensor", latent=graph.add("VIPaintInpaint", **shared, **settings, **negative)[1])
        for negative in ({}, {"negative": zero}, {"negative": positive})
    ]
    run = client.run(graph)
    without, given, other = (client.tensor(run, node) for node in saved)
    assert torch.equal(without, given)
    assert not torch.equal(without, other)

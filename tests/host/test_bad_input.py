"""What users get wrong, through ComfyUI: a message that names it, and nothing left behind."""

import itertools

import numpy as np
import pytest

from tests.host.comfy_client import Graph, HostError, Interrupted
from tests.host.graphs import guider, inpaint, restoration, right_half, sample, tiny, with_hole

_names = itertools.count()


def put(client, pixels):
    """Write an input picture under a new name."""
    return client.put_image(f"bad_{next(_names)}.png", pixels)


def refusal(client, graph):
    """The message with which a prompt ends."""
    with pytest.raises(HostError) as caught:
        client.run(graph)
    return str(caught.value)


def relink(graph, node, name, link):
    """Connect another output to an input of a node already in the graph."""
    graph.prompt[node.id]["inputs"][name] = link


@pytest.fixture
def picture(client, scene):
    """The name of the scene without its right half."""
    return client.put_image("good.png", with_hole(scene, right_half(scene)))


def observe(graph, picture, mask=None):
    """An observation of a picture, with the mask of another if given, and something that needs it."""
    nodes = restoration(graph, picture)
    if mask is not None:
        other = graph.add("LoadImage", image=mask)
        graph.prompt[nodes.observation[0]]["inputs"]["mask"] = other[1]
    return nodes


def test_mask_of_another_aspect(client, scene, picture):
    graph, wide = Graph(), np.concatenate([scene, scene], axis=1)
    observe(graph, picture, mask=put(client, with_hole(wide, right_half(wide))))
    message = refusal(client, graph)
    assert "VIPaintObserveInpaint" in message
    assert "mask is 64x128 and the picture 64x64" in message


def test_no_mask_for_a_picture_of_64_pixels(client, scene):
    graph = Graph()
    observe(graph, put(client, scene))
    assert "mask has no hole" in refusal(client, graph)


def test_no_mask_for_another_picture_gives_the_hosts_empty_one(client, scene):
    graph = Graph()
    observe(graph, put(client, np.concatenate([scene, scene], axis=1)))
    message = refusal(client, graph)
    assert "mask has no hole" in message
    assert "64x64" in message


def test_mask_that_leaves_nothing_observed(client, scene):
    graph = Graph()
    observe(graph, put(client, with_hole(scene, np.ones((64, 64), dtype=bool))))
    assert "mask covers the whole image" in refusal(client, graph)


def test_all_in_one_names_the_input_too(client, scene):
    graph = Graph()
    inpaint(graph, put(client, scene))
    assert "mask has no hole" in refusal(client, graph)


@pytest.mark.parametrize(("defect", "words"), [("nan", "NaN"), ("out of range", "values from")])
def test_spoilt_picture(client, picture, defect, words):
    graph = Graph()
    nodes = observe(graph, picture)
    spoilt = graph.add("TestBadImage", image=nodes.image[0], defect=defect)
    graph.prompt[nodes.observation[0]]["inputs"]["image"] = spoilt[0]
    message = refusal(client, graph)
    assert "VIPaintObserveInpaint" in message
    assert "image" in message
    assert words in message


def test_vae_of_another_model(client, picture):
    graph = Graph()
    nodes = restoration(graph, picture)
    relink(graph, nodes.fit, "vae", graph.add("VAELoader", vae_name="tiny_taesd_16.safetensors")[0])
    message = refusal(client, graph)
    assert "VIPaintFitPosterior" in message
    assert "vae has latents of 16 channels" in message


@pytest.mark.parametrize("keypoints", ["0.4, 0.55", "0.5, 0.5", "1.5, 0.4", "0.5, -0.1", "nan", "early, late"])
def test_keypoints_that_are_no_decreasing_times(client, picture, keypoints):
    graph = Graph()
    restoration(graph, picture, {"keypoints": keypoints})
    message = refusal(client, graph)
    assert "VIPaintFitPosterior" in message
    assert "keypoints" in message


@pytest.mark.parametrize(
    ("name", "value"), [("iterations", -2), ("samples", 65), ("mean_rate", -0.1), ("preset", "best")]
)
def test_fit_settings_out_of_range(client, picture, name, value):
    graph = Graph()
    restoration(graph, picture, {name: value})
    message = refusal(client, graph)
    assert "VIPaintFitPosterior" in message
    assert name in message


@pytest.mark.parametrize(
    ("name", "value"), [("num_samples", 0), ("steps", -1), ("batch_size", -1), ("guidance", "none"), ("particles", 0)]
)
def test_sample_settings_out_of_range(client, picture, name, value):
    graph = Graph()
    restoration(graph, picture, **{name: value})
    message = refusal(client, graph)
    assert "VIPaintSamplePosterior" in message
    assert name in message


def test_particles_need_kalman_guidance(client, picture):
    graph = Graph()
    restoration(graph, picture, guidance="dps", particles=2)
    message = refusal(client, graph)
    assert "VIPaintSamplePosterior" in message
    assert "particles need kalman guidance" in message


def test_posterior_of_another_observation(client, scene, picture):
    graph = Graph()
    nodes = restoration(graph, picture)
    other = graph.add("LoadImage", image=put(client, with_hole(scene[:32, :32], right_half(scene[:32, :32]))))
    observed = graph.add("VIPaintObserveInpaint", image=other[0], mask=other[1], noise_level=0.05)
    relink(graph, nodes.sample, "observation", observed[0])
    message = refusal(client, graph)
    assert "VIPaintSamplePosterior" in message
    assert "observation is not the one" in message


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_posterior_of_another_model(client, picture, name):
    graph = Graph()
    nodes = restoration(graph, picture)
    model = tiny(graph, name)
    relink(graph, nodes.sample, "guider", guider(graph, model))
    relink(graph, nodes.sample, "vae", [model.model[0], 2])
    message = refusal(client, graph)
    assert "VIPaintSamplePosterior" in message
    assert "the posterior was fitted for" in message


def test_pictures_of_another_size_to_composite(client, picture):
    graph = Graph()
    nodes = restoration(graph, picture)
    composite = graph.prompt[graph.prompt[nodes.shown.id]["inputs"]["images"][0]]["inputs"]
    size = {"width": 96, "height": 96}
    larger = graph.add("ImageScale", image=nodes.image[0], upscale_method="bilinear", crop="disabled", **size)
    composite["images"] = larger[0]
    message = refusal(client, graph)
    assert "VIPaintCompositeObserved" in message
    assert "images are 96x96 and original 64x64" in message


def replace_all(content):
    return b"this is not a posterior"


def cut_off(content):
    return content[: len(content) // 2]


def lie_about_size(content):
    return b"\xff" * 8 + content[8:]


def load_posterior(client, picture, file):
    """Samples from a file of the output folder."""
    graph = Graph()
    nodes = restoration(graph, picture)
    loaded = graph.add("VIPaintLoadPosterior", file=f"output: {file}")
    resampled = sample(graph, loaded[0], nodes.guider, nodes.loader[1], nodes.observation)
    graph.add("TestSaveTensor", latent=resampled[0])
    return graph


@pytest.mark.parametrize("spoil", [replace_all, cut_off, lie_about_size])
def test_corrupt_posterior_file(client, picture, spoil):
    graph = Graph()
    nodes = restoration(graph, picture)
    saved = graph.add("VIPaintSavePosterior", posterior=nodes.fit[0], filename_prefix="vipaint/spoilt")
    file = client.run(graph).outputs[saved.id]["text"][0]
    path = client.base / "output" / file
    path.write_bytes(spoil(path.read_bytes()))
    message = refusal(client, load_posterior(client, picture, file))
    assert "VIPaintLoadPosterior" in message
    assert path.name in message
    assert "not a readable posterior" in message


def test_another_kind_of_file_for_a_posterior(client, picture):
    graph = Graph()
    nodes = restoration(graph, picture)
    file = client.run(graph).outputs[nodes.latents.id]["files"][0]
    message = refusal(client, load_posterior(client, picture, file))
    assert "VIPaintLoadPosterior" in message
    assert f"{file} is not a VIPaint posterior" in message


@pytest.mark.parametrize("during", ["fit", "sample"])
def test_interrupt_leaves_nothing_behind(client, scene, picture, during):
    def state(nonce):
        graph = Graph()
        nodes = restoration(graph, picture)
        reported = graph.add("TestModelState", model=nodes.loader[0], vae=nodes.loader[1], nonce=nonce)
        run = client.run(graph)
        return client.report(run, reported), client.tensor(run, nodes.latents)

    before, latents = state(next(_names))
    graph = Graph()
    again = put(client, with_hole(scene, right_half(scene)))
    nodes = restoration(graph, again, {"iterations": 1000} if during == "fit" else {}, steps=1000)
    prompt = client.queue(graph)
    client.wait_for_progress(prompt, getattr(nodes, during), steps=2)
    client.interrupt()
    with pytest.raises(Interrupted, match="FitPosterior" if during == "fit" else "SamplePosterior"):
        client.result(prompt, timeout=30)
    after, _ = state(next(_names))
    assert after == before

    graph = Graph()
    nodes = restoration(graph, again)
    assert (client.tensor(client.run(graph), nodes.latents) == latents).all()


@pytest.mark.parametrize("prefix", ["../../../escaped", "a" * 300, "\0"], ids=["outside", "long", "null"])
def test_a_place_that_takes_no_posterior_is_named(client, picture, prefix):
    graph = Graph()
    nodes = restoration(graph, picture)
    graph.add("VIPaintSavePosterior", posterior=nodes.fit[0], filename_prefix=prefix)
    message = refusal(client, graph)
    assert "VIPaintSavePosterior" in message
    assert "InputError" in message
    assert "filename_prefix" in message

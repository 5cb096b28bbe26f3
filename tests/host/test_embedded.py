"""The embedded prior's workflow in ComfyUI: what comes out, what is kept, what is left behind.

ComfyUI forgets what the latest prompt did not use, so tests that share a fit stand together, first.
"""

import itertools
import re

import numpy as np
import pytest
import torch

from tests.host.comfy_client import Graph
from tests.host.graphs import embedded_prior, inpaint, ksampler, restoration, right_half, sample, with_hole

_names = itertools.count()


@pytest.fixture
def picture(client, scene):
    """The scene without its right half, under a name that no prompt used before: so nothing comes from the cache."""
    return client.put_image(f"scene_{next(_names)}.png", with_hole(scene, right_half(scene)))


@pytest.fixture(scope="module")
def fitted_picture(client, scene):
    """The same under a name that tests share, so that they share its fit."""
    return client.put_image("fitted.png", with_hole(scene, right_half(scene)))


def restore(client, picture, fit_settings=None, **sample_settings):
    """The latents and pictures of a restoration, in full precision."""
    graph = Graph()
    nodes = restoration(graph, picture, fit_settings, **sample_settings)
    run = client.run(graph)
    return client.tensor(run, nodes.latents), client.tensor(run, nodes.images)


def test_restorations_keep_what_is_known_and_differ_in_the_hole(client, scene, fitted_picture):
    graph = Graph()
    nodes = restoration(graph, fitted_picture)
    run = client.run(graph)
    restored = client.images(run, nodes.shown).astype(int)
    hole = right_half(scene)
    assert restored.shape == (2, 64, 64, 3)
    assert np.abs(restored - scene)[:, ~hole].max() <= 1
    assert np.abs(restored[0] - restored[1])[hole].mean() > 2
    assert client.tensor(run, nodes.latents).shape[0] == 2


def test_the_known_part_is_followed_before_it_is_pasted_back(client, scene, fitted_picture):
    _, images = restore(client, fitted_picture)
    known = torch.from_numpy(~right_half(scene))
    error = (images - torch.from_numpy(scene / 255.0))[:, known].square().mean().sqrt()
    assert error < 0.1, f"root mean square error {error:.3f} in the known half"


def test_an_item_of_a_batch_is_the_same_alone(client, fitted_picture):
    batch, _ = restore(client, fitted_picture, num_samples=3)
    for k in range(3):
        alone, _ = restore(client, fitted_picture, num_samples=1, first_sample=k)
        torch.testing.assert_close(alone[0], batch[k], rtol=0, atol=1e-3)
    by_twos, _ = restore(client, fitted_picture, num_samples=3, batch_size=2)
    torch.testing.assert_close(by_twos, batch, rtol=0, atol=1e-3)


def test_samples_are_asked_whether_they_explain_what_is_known(client, fitted_picture):
    """Two steps are too few for one chain to do, and a sample takes up to three."""
    graph = Graph()
    nodes = restoration(graph, fitted_picture, num_samples=1, steps=2)
    shown = graph.add("PreviewAny", source=nodes.sample[2])
    text = client.run(graph).outputs[shown.id]["text"][0]
    forward = int(re.search(r"denoiser (\d+) forward", text)[1])
    one_chain = 1 + 2  # a prediction of the walk, and the steps
    assert one_chain < forward <= 3 * one_chain


def test_particles_say_what_became_of_them(client, fitted_picture):
    """The observation of half a picture has too many measurements for weights, which the report says."""
    graph = Graph()
    nodes = restoration(graph, fitted_picture, num_samples=3, particles=4, batch_size=1)
    shown = graph.add("PreviewAny", source=nodes.sample[2])
    run = client.run(graph)
    assert client.tensor(run, nodes.latents).shape[0] == 3
    text = run.outputs[shown.id]["text"][0]
    assert "1 x 4 particles" in text
    assert "too many measurements for weights" in text


def two_pixels_known(scene):
    """All of a picture but two pixels as a hole: six measurements, few enough for weights."""
    hole = np.ones(scene.shape[:2], dtype=bool)
    hole[[5, 45], [10, 32]] = False
    return with_hole(scene, hole)


def test_layouts_are_fitted_weighed_and_sampled(client, fitted_picture):
    """Alone and all in one; the report says how many are kept, and the known half is met."""
    graph = Graph()
    layouts = {"preset": "layouts", "iterations": 5, "components": 3}
    nodes = restoration(graph, fitted_picture, layouts, num_samples=3, batch_size=2, guidance="ding, layouts")
    shown = graph.add("PreviewAny", source=nodes.fit[3])
    _, saved = inpaint(graph, fitted_picture, preset="layouts", num_samples=2)
    run = client.run(graph)
    text = run.outputs[shown.id]["text"][0]
    assert re.match(r"3 components, [123] of 3 layouts kept", text)
    assert re.search(r"denoiser \d+ forward 15 backward", text)
    latents = client.tensor(run, nodes.latents)
    assert latents.isfinite().all()
    assert not torch.allclose(latents[0], latents[1], atol=0.1)
    assert len(client.images(run, saved)) == 2


def test_several_posteriors_say_how_they_came_by_their_weights(client, scene, fitted_picture):
    """A few measurements weigh them, half a picture does not; samples take turns among them."""
    few = client.put_image("two_pixels.png", two_pixels_known(scene))
    for picture, words in ((few, "1 x 3 particles"), (fitted_picture, "not weighed")):
        graph = Graph()
        several = {"preset": "several", "iterations": 0, "components": 3}
        nodes = restoration(graph, picture, several, num_samples=3, batch_size=2)
        shown = graph.add("PreviewAny", source=nodes.fit[3])
        run = client.run(graph)
        text = run.outputs[shown.id]["text"][0]
        assert text.startswith("3 components, ")
        assert words in text
        latents = client.tensor(run, nodes.latents)
        assert latents.isfinite().all()
        assert torch.pdist(latents.flatten(1)).min() > 1
    alone, _ = restore(client, fitted_picture, several, num_samples=1, first_sample=2)
    torch.testing.assert_close(alone[0], latents[2], rtol=0, atol=1e-3)


def test_without_particles_the_report_is_the_cost(client, fitted_picture):
    graph = Graph()
    nodes = restoration(graph, fitted_picture)
    shown = graph.add("PreviewAny", source=nodes.sample[2])
    text = client.run(graph).outputs[shown.id]["text"][0]
    assert text.startswith("2 samples; rows of the networks: denoiser ")
    assert re.fullmatch(r".* decoder \d+ forward \d+ backward, encoder \d+ forward 0 backward; [\d.]+ s", text)


def test_another_seed_of_sampling_does_not_fit_again(client, fitted_picture):
    restore(client, fitted_picture)
    graph = Graph()
    nodes = restoration(graph, fitted_picture, seed=2)
    run = client.run(graph)
    assert nodes.fit.id in run.cached()
    assert nodes.fit.id not in run.executed()
    assert nodes.sample.id in run.executed()


def test_a_saved_posterior_gives_the_same_samples(client, fitted_picture):
    graph = Graph()
    nodes = restoration(graph, fitted_picture)
    saved = graph.add("VIPaintSavePosterior", posterior=nodes.fit[0], filename_prefix="vipaint/kept")
    run = client.run(graph)
    latents = client.tensor(run, nodes.latents)
    file = run.outputs[saved.id]["text"][0]
    assert (client.base / "output" / file).is_file()

    options = client.object_info()["VIPaintLoadPosterior"]["input"]["required"]["file"]
    choices = options[0] if isinstance(options[0], list) else options[1]["options"]
    name = next(choice for choice in choices if choice.endswith(file))
    graph = Graph()
    nodes = restoration(graph, fitted_picture)
    loaded = graph.add("VIPaintLoadPosterior", file=name)
    resampled = sample(graph, loaded[0], nodes.guider, nodes.loader[1], nodes.observation)
    kept = graph.add("TestSaveTensor", latent=resampled[0])
    assert torch.equal(client.tensor(client.run(graph), kept), latents)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(client, picture, fitted_picture):
    latents, images = restore(client, fitted_picture)
    _, others = restore(client, fitted_picture, seed=1)
    assert (others - images).abs().mean() > 0.005
    again, images_again = restore(client, picture)
    assert torch.equal(latents, again)
    assert torch.equal(images, images_again)


def test_weights_in_a_reused_buffer_give_the_same_samples(client, fitted_picture):
    expected, _ = restore(client, fitted_picture)
    graph = Graph()
    nodes = restoration(graph, fitted_picture)
    reused = graph.add("TestReusedWeightBuffer", model=nodes.loader[0], vae=nodes.loader[1])
    graph.prompt[nodes.guider[0]]["inputs"]["model"] = reused[0]
    for node in (nodes.fit, nodes.sample):
        graph.prompt[node.id]["inputs"]["vae"] = reused[1]
    latents = client.tensor(client.run(graph), nodes.latents)
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-3)


def test_all_in_one_fits_once_for_all_seeds(client, scene, picture):
    runs, pictures = [], []
    for seed in (0, 1):
        graph = Graph()
        node, shown = inpaint(graph, picture, seed=seed)
        runs.append(client.run(graph))
        pictures.append(client.images(runs[-1], shown).astype(int))
        assert node.id in runs[-1].executed()
    hole = right_half(scene)
    assert all(np.abs(batch - scene)[:, ~hole].max() <= 1 for batch in pictures)
    assert np.abs(pictures[0] - pictures[1])[:, hole].mean() > 2
    # The parts that reported progress: fit and sampling at first, sampling alone with the other seed.
    assert len(runs[0].progress()) == 2
    assert len(runs[1].progress()) == 1
    assert set(runs[1].progress()) < set(runs[0].progress())


def test_presets_differ_in_their_steps(client, picture):
    runs = []
    for preset in ("fast", "balanced", "quality"):
        graph = Graph()
        inpaint(graph, picture, preset=preset, num_samples=1)
        runs.append(max(client.run(graph).progress().values()))
    assert runs[0] < runs[1] < runs[2]


def test_fit_and_sample_show_progress_and_previews(client, picture):
    graph = Graph()
    nodes = restoration(graph, picture, {"iterations": 4}, steps=5)
    run = client.run(graph)
    assert run.progress()[nodes.fit.id] >= 4
    assert run.progress()[nodes.sample.id] >= 5
    assert run.previews() >= 9


def test_sides_that_the_model_does_not_take_are_padded_and_cropped_back(client, scene):
    cut = scene[:58, :61]
    graph = Graph()
    picture = client.put_image("cut.png", with_hole(cut, right_half(cut)))
    nodes = restoration(graph, picture)
    run = client.run(graph)
    restored = client.images(run, nodes.shown).astype(int)
    assert restored.shape == (2, 58, 61, 3)
    assert np.abs(restored - cut)[:, ~right_half(cut)].max() <= 1


def test_a_mask_of_another_size_and_the_same_shape_is_resized(client, scene):
    large = np.kron(scene, np.ones((2, 2, 1), np.uint8))
    graph = Graph()
    nodes = restoration(graph, client.put_image("plain.png", scene))
    mask = graph.add("LoadImage", image=client.put_image("large.png", with_hole(large, right_half(large))))
    for part in graph.prompt.values():
        if "mask" in part["inputs"]:
            part["inputs"]["mask"] = mask[1]
    restored = client.images(client.run(graph), nodes.shown).astype(int)
    assert np.abs(restored - scene)[:, ~right_half(scene)].max() <= 1


def test_the_hosts_own_sampler_gives_the_same_before_and_after_a_fit(client, picture):
    def sampled(nonce):
        graph = Graph()
        loader, label = embedded_prior(graph)
        sampler = ksampler(graph, loader[0], label, label, 4, cfg=1.0, steps=4, size=16, nonce=nonce)
        saved = graph.add("TestSaveTensor", latent=sampler[0])
        state = graph.add("TestModelState", model=loader[0], vae=loader[1], nonce=nonce)
        run = client.run(graph)
        assert sampler.id in run.executed()
        return client.tensor(run, saved), client.report(run, state), loader.id in run.executed()

    before, state_before, _ = sampled(100)
    restore(client, picture)
    after, state_after, loaded_again = sampled(101)
    assert torch.equal(before, after)
    assert not loaded_again
    assert state_after | {"requires_grad": 0} == state_before | {"requires_grad": 0}
    assert state_after["patched_forwards"] == state_after["gradients"] == 0


def test_memory_does_not_grow_from_run_to_run(server, client, scene):
    resident = []
    for run in range(5):
        picture = client.put_image(f"again_{run}.png", with_hole(scene, right_half(scene)))
        restore(client, picture, {"iterations": 1}, steps=2)
        resident.append(server.resident_bytes())
    print("resident MB after each run:", [round(r / 1e6) for r in resident])
    assert resident[4] - resident[1] < 40e6

"""Every sampling method in ComfyUI's own SamplerCustomAdvanced."""

import functools
import itertools

import numpy as np
import pytest
import torch

from tests.host.comfy_client import Graph, HostError, Interrupted
from tests.host.graphs import conditioning, embedded_prior, ksampler, right_half, tiny, with_hole

SHORT = {
    "VIPaintCoPaintSampler": {"gradient_steps": 1},
    "VIPaintDPSSampler": {},
    "VIPaintPSLDSampler": {},
    "VIPaintReSampleSampler": {"every": 1, "pixel_iterations": 10, "latent_iterations": 3},
    "VIPaintREDDiffSampler": {},
    "VIPaintRePaintSampler": {"travel_length": 1, "travel_visits": 2},
    "VIPaintBlendedSampler": {},
    "VIPaintDDNMSampler": {},
    "VIPaintDInGSampler": {"refreshes": 1},
    "VIPaintLanPaintSampler": {"inner_steps": 2},
    "VIPaintLATINOSampler": {"ode_steps": 2},
    "VIPaintPiGDMSampler": {},
    "VIPaintKalmanSampler": {"solver_iterations": 2, "spread_iterations": 1},
}
REPLACING = ["VIPaintRePaintSampler", "VIPaintBlendedSampler", "VIPaintDInGSampler", "VIPaintLanPaintSampler"]
WITHOUT_GRADIENT = ["VIPaintREDDiffSampler", "VIPaintDDNMSampler", "VIPaintLATINOSampler", *REPLACING]
_numbers = itertools.count()


@functools.cache
def defaults(client, node):
    """The widgets of a node, as they are."""
    schema = client.object_info()[node]["input"]["required"]
    return {name: facts[0]["default"] for name, (_, *facts) in schema.items() if facts and "default" in facts[0]}


class Sampling:
    """Restorations of one picture in a graph, with the embedded prior or a tiny model of both graph and VAE."""

    def __init__(self, client, pixels, model=None, hole="sampled.png"):
        self.client, self.graph = client, Graph()
        if model is None:
            loader, self.positive = embedded_prior(self.graph)
            self.model, self.vae, self.negative, self.channels = loader[0], loader[1], self.positive, 4
        else:
            loaded = tiny(self.graph, model)
            self.model, self.vae, self.channels = loaded.model, [loaded.model[0], 2], loaded.channels
            self.positive, self.negative = (conditioning(self.graph, loaded, seed) for seed in (0, 1))
        self.image = self.graph.add("LoadImage", image=client.put_image(hole, pixels))
        self.observation = self.graph.add(
            "VIPaintObserveInpaint", image=self.image[0], mask=self.image[1], noise_level=0.05
        )[0]

    def latent(self, count=2):
        return self.graph.add("VIPaintEmptyLatent", observation=self.observation, vae=self.vae, num_samples=count)[0]

    def sigmas(self, steps=2, denoise=1.0):
        return self.graph.add("BasicScheduler", model=self.model, scheduler="simple", steps=steps, denoise=denoise)[0]

    def method(self, name, **settings):
        values = defaults(self.client, name) | SHORT[name] | settings
        return self.graph.add(name, observation=self.observation, vae=self.vae, **values)[0]

    def run(self, sampler, latent=None, sigmas=None, seed=0, cfg=1.0):
        """SamplerCustomAdvanced."""
        conditions = {"positive": self.positive, "negative": self.negative}
        guider = self.graph.add("CFGGuider", model=self.model, **conditions, cfg=cfg)
        noise = self.graph.add("RandomNoise", noise_seed=seed)
        return self.graph.add(
            "SamplerCustomAdvanced",
            noise=noise[0],
            guider=guider[0],
            sampler=sampler,
            sigmas=sigmas or self.sigmas(),
            latent_image=latent or self.latent(),
        )

    def composited(self, decoded):
        """The node that puts the known pixels back."""
        image, mask = self.image[0], self.image[1]
        settings = {"feather": 0, "colour_match": False}
        return self.graph.add("VIPaintCompositeObserved", images=decoded[0], original=image, mask=mask, **settings)

    def kept(self, sampled):
        """The node that saves latents."""
        return self.graph.add("TestSaveTensor", latent=sampled[0])

    def latents(self, *sampled):
        """What each of these nodes made."""
        saved = [self.kept(node) for node in sampled]
        run = self.client.run(self.graph)
        return [self.client.tensor(run, node) for node in saved]

    def refusal(self, sampled):
        """The message with which the prompt ends."""
        self.kept(sampled)
        with pytest.raises(HostError) as caught:
            self.client.run(self.graph)
        return str(caught.value)


@pytest.fixture
def sampling(client, scene):
    return functools.partial(Sampling, client, with_hole(scene, right_half(scene)))


@pytest.mark.parametrize("method", SHORT)
def test_runs_on_the_embedded_prior_and_keeps_what_is_known(sampling, client, scene, method):
    given = sampling()
    sampled = given.run(given.method(method), sigmas=given.sigmas(steps=4))
    latents, denoised = given.kept(sampled), given.graph.add("TestSaveTensor", latent=sampled[1])
    decoded = given.graph.add("VAEDecode", samples=sampled[0], vae=given.vae)
    composited = given.composited(decoded)
    shown = given.graph.add("SaveImage", images=composited[0], filename_prefix="sampled")
    run = client.run(given.graph)
    latents, denoised = client.tensor(run, latents), client.tensor(run, denoised)
    assert latents.shape == (2, 4, 16, 16)
    assert (latents[0] - latents[1]).abs().mean() > 0.01
    torch.testing.assert_close(denoised, latents, rtol=0, atol=1e-4)
    pictures = client.images(run, shown).astype(int)
    assert np.abs(pictures - scene)[:, ~right_half(scene)].max() <= 1
    assert run.progress()[sampled.id] >= 4
    assert run.previews() >= 4


@pytest.mark.parametrize("method", SHORT)
def test_seeds_and_batches(sampling, method):
    given = sampling()
    pair, sigmas = given.latent(), given.sigmas()
    second = given.graph.add("LatentFromBatch", samples=pair, batch_index=1, length=1)[0]
    batch, again, by_ones, alone, other = given.latents(
        given.run(given.method(method), pair, sigmas),
        given.run(given.method(method, batch_size=9), pair, sigmas),
        given.run(given.method(method, batch_size=1), pair, sigmas),
        given.run(given.method(method, first_sample=1), second, sigmas),
        given.run(given.method(method), pair, sigmas, seed=1),
    )
    assert torch.equal(again, batch)
    torch.testing.assert_close(by_ones, batch, rtol=0, atol=1e-3)
    torch.testing.assert_close(alone, batch[1:], rtol=0, atol=1e-3)
    assert (other - batch).abs().mean() > 0.01


@pytest.mark.parametrize("model", ["sd15", "sd3"])
def test_runs_on_other_models(sampling, model):
    given = sampling(model)
    latent, sigmas = given.latent(), given.sigmas()
    for latents in given.latents(*(given.run(given.method(name), latent, sigmas, cfg=2.0) for name in SHORT)):
        assert latents.shape == (2, given.channels, 8, 8)
        assert latents.isfinite().all()
        assert not torch.equal(latents[0], latents[1])


@pytest.mark.parametrize("model", [None, "sd15", "sd3"])
def test_without_known_latents_blended_is_the_hosts_euler(client, scene, model):
    # One pixel of 64 x 64 is known, and so no latent, but it is an observation; DDIM is Euler's method.
    hole = np.ones((64, 64), dtype=bool)
    hole[0, 0] = False
    given = Sampling(client, with_hole(scene, hole), model, "one_pixel.png")
    latent = given.graph.add("VAEEncode", pixels=given.image[0], vae=given.vae)
    pair = given.graph.add("RepeatLatentBatch", samples=latent[0], amount=2)[0]
    euler = given.graph.add("KSamplerSelect", sampler_name="euler")
    sigmas = given.sigmas(steps=4, denoise=0.7)
    ours, theirs = given.latents(
        *(given.run(s, pair, sigmas, cfg=2.0) for s in (given.method("VIPaintBlendedSampler"), euler[0]))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3 * theirs.std().item())


@pytest.mark.parametrize("method", WITHOUT_GRADIENT)
def test_methods_without_gradients_ask_for_none(sampling, method):
    given = sampling("sd15")
    given.model = given.graph.add("TestSpoiltModel", model=given.model, defect="out of memory")[0]
    (latents,) = given.latents(given.run(given.method(method)))
    assert latents.isfinite().all()


def test_the_others_refuse_a_model_without(sampling):
    given = sampling("sd15")
    given.model = given.graph.add("TestSpoiltModel", model=given.model, defect="no gradient")[0]
    message = given.refusal(given.run(given.method("VIPaintDPSSampler")))
    assert "cannot be differentiated" in message


@pytest.mark.parametrize("method", ["VIPaintBlendedSampler", "VIPaintDPSSampler"])
def test_weight_hooks_that_differ_between_conditions(sampling, method):
    given = sampling("sd15")
    plain = given.latents(given.run(given.method(method), cfg=2.0)) if method in WITHOUT_GRADIENT else None
    hooks = given.graph.add("CreateHookLora", lora_name="tiny_sd15.safetensors", strength_model=1.0, strength_clip=0.0)
    given.positive = given.graph.add(
        "ConditioningSetProperties", cond_NEW=given.positive, strength=1.0, set_cond_area="default", hooks=hooks[0]
    )[0]
    sampled = given.run(given.method(method), cfg=2.0)
    if plain is None:
        assert "conditions with different weight hooks" in given.refusal(sampled)
    else:
        assert not torch.allclose(given.latents(sampled)[0], plain[0], atol=1e-3)


def test_a_controlnet_applies(sampling):
    given = sampling("sd15_middle")
    latent, sigmas = given.latent(1), given.sigmas()
    methods = ("VIPaintBlendedSampler", "VIPaintDPSSampler")
    plain = [given.run(given.method(method), latent, sigmas, cfg=2.0) for method in methods]
    network = given.graph.add("ControlNetLoader", control_net_name="tiny_sd15.safetensors")
    applied = given.graph.add(
        "ControlNetApplyAdvanced",
        positive=given.positive,
        negative=given.negative,
        control_net=network[0],
        image=given.image[0],
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    given.positive, given.negative = applied[0], applied[1]
    controlled = [given.run(given.method(method), latent, sigmas, cfg=2.0) for method in methods]
    latents = given.latents(*plain, *controlled)
    for without, with_control in zip(latents[:2], latents[2:], strict=True):
        assert not torch.allclose(without, with_control, atol=1e-3)


@pytest.mark.parametrize("method", ["VIPaintCoPaintSampler", "VIPaintREDDiffSampler", "VIPaintBlendedSampler"])
def test_the_hosts_own_sampler_gives_the_same_before_and_after(sampling, client, method):
    def stock(nonce):
        given = sampling()
        conditions = (given.positive, given.negative)
        sampled = ksampler(given.graph, given.model, *conditions, 4, cfg=1.0, size=16, nonce=nonce)
        saved = given.kept(sampled)
        state = given.graph.add("TestModelState", model=given.model, vae=given.vae, nonce=nonce)
        run = client.run(given.graph)
        assert sampled.id in run.executed()
        return client.tensor(run, saved), client.report(run, state)

    before, state_before = stock(1000 + next(_numbers))
    given = sampling()
    given.latents(given.run(given.method(method), seed=next(_numbers)))
    after, state_after = stock(1000 + next(_numbers))
    assert torch.equal(before, after)
    assert state_after | {"requires_grad": 0} == state_before | {"requires_grad": 0}
    assert state_after["patched_forwards"] == state_after["gradients"] == 0


def test_an_interrupt_leaves_nothing_behind(sampling, client):
    def state():
        given = sampling()
        reported = given.graph.add("TestModelState", model=given.model, vae=given.vae, nonce=next(_numbers))
        return client.report(client.run(given.graph), reported)

    before, given = state(), sampling()
    sampled = given.run(given.method("VIPaintCoPaintSampler"), sigmas=given.sigmas(steps=900))
    given.kept(sampled)
    prompt = client.queue(given.graph)
    client.wait_for_progress(prompt, sampled, steps=2)
    client.interrupt()
    with pytest.raises(Interrupted, match="SamplerCustomAdvanced"):
        client.result(prompt, timeout=30)
    assert state() | {"requires_grad": 0} == before | {"requires_grad": 0}


def test_two_methods_on_one_sheet(sampling, client):
    given = sampling()
    latent, graph = given.latent(1), given.graph
    images = [
        graph.add("VAEDecode", samples=given.run(given.method(name), latent)[0], vae=given.vae)[0] for name in REPLACING
    ]
    both = graph.add("ImageBatch", image1=images[0], image2=images[1])
    compared = graph.add("VIPaintCompare", images=both[0], original=given.image[0], names="RePaint\nBlended")
    text, sheet = graph.add("PreviewAny", source=compared[0]), graph.add("TestSaveTensor", image=compared[1])
    run = client.run(graph)
    assert [line.split("  ")[0] for line in run.outputs[text.id]["text"][0].splitlines()[1:3]] == [
        "1 RePaint",
        "2 Blended",
    ]
    assert client.tensor(run, sheet).shape[0] == 1


def test_sides_that_the_model_does_not_take(client, scene):
    cut = scene[:58, :61]
    given = Sampling(client, with_hole(cut, right_half(cut)), hole="sampled_cut.png")
    (latents,) = given.latents(given.run(given.method("VIPaintBlendedSampler")))
    assert latents.shape == (2, 4, 16, 16)


def test_sigmas_that_do_not_end_at_0(sampling):
    given = sampling()
    high = given.graph.add("SplitSigmas", sigmas=given.sigmas(steps=4), step=2)
    message = given.refusal(given.run(given.method("VIPaintBlendedSampler"), sigmas=high[0]))
    assert "SamplerCustomAdvanced" in message
    assert "sigmas end at" in message


def test_latent_of_another_size(sampling):
    given = sampling()
    small = given.graph.add("TestLatent", channels=4, height=8, width=12, batch=1, nonce=0)
    message = given.refusal(given.run(given.method("VIPaintBlendedSampler"), small[0]))
    assert "latent_image is one of 48 x 32 pixels" in message
    assert "set width 64 and height 64" in message


def test_latent_with_a_noise_mask(sampling):
    given = sampling()
    masked = given.graph.add("SetLatentNoiseMask", samples=given.latent(), mask=given.image[1])
    assert "noise mask" in given.refusal(given.run(given.method("VIPaintBlendedSampler"), masked[0]))


def test_latent_that_is_not_empty_where_nothing_begins_from_it(sampling):
    given = sampling()
    encoded = given.graph.add("VAEEncode", pixels=given.image[0], vae=given.vae)
    message = given.refusal(given.run(given.method("VIPaintREDDiffSampler"), encoded[0]))
    assert "latent_image is not empty" in message


@pytest.mark.parametrize("method", REPLACING)
def test_replacement_of_what_is_no_selection_of_pixels(sampling, method):
    given = sampling()
    given.observation = given.graph.add(
        "VIPaintObserveGaussianBlur", image=given.image[0], kernel_size=9, std=1.0, noise_level=0.05
    )[0]
    message = given.refusal(given.run(given.method(method)))
    assert "needs an Inpainting observation" in message
    assert method in message


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("VIPaintCoPaintSampler", "preset", "best"),
        ("VIPaintREDDiffSampler", "variant", "W"),
        ("VIPaintRePaintSampler", "travel_visits", 0),
        ("VIPaintCoPaintSampler", "gradient_steps", 0),
    ],
)
def test_settings_out_of_range(sampling, method, name, value):
    given = sampling()
    message = given.refusal(given.run(given.method(method, **{name: value})))
    assert method in message
    assert name in message

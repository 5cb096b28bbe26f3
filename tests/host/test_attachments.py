"""What users attach to a model and its conditions: gradients through the pack against finite differences."""

import pytest
import torch

from tests.host.comfy_client import Graph, HostError
from tests.host.graphs import conditioning, ksampler, tiny

SETTINGS = {"height": 64, "width": 64, "t": 0.5, "checkpointing": "off", "step": 0.003, "batch": 1}


class Attached:
    """A tiny model of the SD1.5 layout with its conditions; tests change one of them, and measure."""

    def __init__(self, client, scene, name="sd15"):
        self.client, self.graph = client, Graph()
        self.tiny = tiny(self.graph, name)
        self.model, self.vae = self.tiny.model, [self.tiny.model[0], 2]
        self.positive, self.negative = (conditioning(self.graph, self.tiny, seed) for seed in (0, 1))
        self.image = self.graph.add("LoadImage", image=client.put_image("scene.png", scene))[0]

    def saved_latents(self):
        """A node that saves what ComfyUI's own sampler makes of it all."""
        sampler = ksampler(self.graph, self.model, self.positive, self.negative, self.tiny.channels)
        return self.graph.add("TestSaveTensor", latent=sampler[0])

    def compare(self, **settings):
        """Gradient and finite difference of the denoiser, through the pack."""
        guider = self.graph.add("CFGGuider", model=self.model, positive=self.positive, negative=self.negative, cfg=2.0)
        node = self.graph.add("TestPackGradient", guider=guider[0], vae=self.vae, **(SETTINGS | settings))
        found = self.client.report(self.client.run(self.graph), node)["denoiser"]
        return found["automatic"], found["finite_difference"]

    def lora(self, name="tiny_sd15", strength=1.0):
        lora = {"lora_name": f"{name}.safetensors", "strength_model": strength}
        self.model = self.graph.add("LoraLoaderModelOnly", model=self.model, **lora)[0]

    def controlnet(self):
        loaded = self.graph.add("ControlNetLoader", control_net_name="tiny_sd15.safetensors")
        applied = self.graph.add(
            "ControlNetApplyAdvanced",
            positive=self.positive,
            negative=self.negative,
            control_net=loaded[0],
            image=self.image,
            strength=1.0,
            start_percent=0.0,
            end_percent=1.0,
        )
        self.positive, self.negative = applied[0], applied[1]

    def rescaled_guidance(self):
        self.model = self.graph.add("RescaleCFG", model=self.model, multiplier=0.7)[0]

    def velocity(self):
        self.model = self.graph.add("ModelSamplingDiscrete", model=self.model, sampling="v_prediction", zsnr=True)[0]

    def inpaint_conditions(self):
        loaded = self.graph.add("LoadImageMask", image="scene.png", channel="red")
        made = self.graph.add(
            "InpaintModelConditioning",
            positive=self.positive,
            negative=self.negative,
            vae=self.vae,
            pixels=self.image,
            mask=loaded[0],
            noise_mask=True,
        )
        self.positive, self.negative = made[0], made[1]

    def masked_condition(self):
        loaded = self.graph.add("LoadImageMask", image="scene.png", channel="red")
        masked = self.graph.add(
            "ConditioningSetMask", conditioning=self.positive, mask=loaded[0], strength=0.8, set_cond_area="default"
        )
        # One condition alone would be divided by its own mask.
        other = conditioning(self.graph, self.tiny, seed=2)
        both = self.graph.add("ConditioningCombine", conditioning_1=masked[0], conditioning_2=other)
        self.positive = both[0]

    def hook(self, condition):
        hooks = self.graph.add(
            "CreateHookLora", lora_name="tiny_sd15.safetensors", strength_model=1.0, strength_clip=0.0
        )
        return self.graph.add(
            "ConditioningSetProperties", cond_NEW=condition, strength=1.0, set_cond_area="default", hooks=hooks[0]
        )[0]


@pytest.fixture
def attached(client, scene):
    return lambda name="sd15": Attached(client, scene, name)


CASES = {
    "lora": "sd15",
    "controlnet": "sd15_middle",
    "rescaled_guidance": "sd15",
    "velocity": "sd15",
    "inpaint_conditions": "sd15_inpaint",
    "masked_condition": "sd15",
}


@pytest.mark.parametrize("checkpointing", ["off", "on"])
@pytest.mark.parametrize("attachment", CASES)
def test_gradient_with(attached, attachment, checkpointing):
    subject = attached(CASES[attachment])
    getattr(subject, attachment)()
    automatic, difference = subject.compare(checkpointing=checkpointing)
    assert automatic == pytest.approx(difference, rel=0.01)


@pytest.mark.parametrize("attachment", CASES)
def test_it_is_not_ignored(client, attached, attachment):
    subject = attached(CASES[attachment])
    plain = subject.saved_latents()
    getattr(subject, attachment)()
    changed = subject.saved_latents()
    run = client.run(subject.graph)
    assert not torch.allclose(client.tensor(run, plain), client.tensor(run, changed), atol=1e-3)


def test_all_at_once(attached):
    subject = attached("sd15_middle")
    for attachment in (subject.lora, subject.controlnet, subject.masked_condition):
        attachment()
    automatic, difference = subject.compare(batch=2, checkpointing="on")
    assert automatic == pytest.approx(difference, rel=0.01)


def test_weight_hooks_that_differ_between_conditions_are_refused(attached):
    subject = attached()
    subject.positive = subject.hook(subject.positive)
    with pytest.raises(HostError, match="conditions with different weight hooks"):
        subject.compare()


def test_loras_of_the_same_keys_are_told_apart(client, attached):
    subject = attached()
    plain, reported = subject.model, []
    for lora in ({}, {"name": "tiny_sd15_other"}, {"strength": 0.5}, {}):
        subject.model = plain
        subject.lora(**lora)
        reported.append(subject.graph.add("TestFingerprint", model=subject.model))
    run = client.run(subject.graph)
    first, other, weaker, again = (client.report(run, node)["fingerprint"] for node in reported)
    assert first == again
    assert len({first, other, weaker}) == 3

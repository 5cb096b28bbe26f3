"""One call for every method: the samples of the steps that it stands for, and clear refusals."""

import dataclasses

import pytest
import torch

import vipaint_ops
from tests.ops.conftest import scene
from vipaint_ops import (
    METHODS,
    PRESETS,
    InputError,
    Observation,
    fit_posterior,
    load_embedded_prior,
    operators,
    restore,
    sample_posterior,
)
from vipaint_ops.restoration import stream


@pytest.fixture(scope="module")
def prior(embedded_file):
    return load_embedded_prior(embedded_file)


def half_hidden(height, width):
    """A picture whose right half is hidden."""
    mask = (torch.arange(width) < width // 2).float().expand(1, 1, height, width)
    return Observation(mask * scene(height, width), operators.Inpainting(mask), noise_std=0.05)


@pytest.fixture
def observation():
    return half_hidden(64, 64)


def test_vipaint_is_the_fit_and_the_refinement_of_its_preset(prior, observation):
    found = restore(prior, observation, 2, preset="fast", seed=3, steps=4)
    fast = PRESETS["fast"]
    posterior = fit_posterior(prior, observation, fast.fit, generator=stream(3, 0))
    refine = dataclasses.replace(fast.refine, steps=4)
    expected = sample_posterior(prior, observation, posterior, 2, refine, generator=stream(3, 1))
    assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize("method", ["ding", "repaint"])
def test_another_method_is_its_sampler(prior, observation, method):
    found = restore(prior, observation, 2, method=method, seed=1, steps=3)
    chosen = METHODS[method]
    expected = chosen.sample(prior, observation, 2, chosen.config(steps=3), generator=stream(1, 1))
    assert torch.equal(found.images, expected.images)


def test_every_sampler_of_the_library_is_a_method():
    named = {name for name in vipaint_ops.samplers.__all__ if name.islower()}
    assert {method.sample.__name__ for method in METHODS.values()} == named
    assert {method.config.__name__ for method in METHODS.values()} == set(vipaint_ops.samplers.__all__) - named


def test_a_picture_of_any_size_comes_back_in_its_size(prior):
    assert restore(prior, half_hidden(61, 67), 1, method="ding", steps=2).images.shape == (1, 3, 61, 67)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "best"}, "preset is 'best'; choose one of balanced, fast"),
        ({"method": "magic"}, "method is 'magic'; choose one of vipaint, blended"),
        ({"method": "ding", "guidance": 1}, "setting is 'guidance'; choose one of steps"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(prior, observation, given, message):
    with pytest.raises(InputError, match=message):
        restore(prior, observation, 1, **given)


def test_a_saved_fit_and_parts_of_a_seeds_samples_are_those_of_one_call(prior, observation):
    fast = PRESETS["fast"]
    posterior = fit_posterior(prior, observation, fast.fit, generator=stream(3, 0))
    whole = restore(prior, observation, 3, preset="fast", posterior=posterior, seed=3, steps=4)
    assert torch.equal(whole.images, restore(prior, observation, 3, preset="fast", seed=3, steps=4).images)
    parts = [
        restore(prior, observation, count, preset="fast", posterior=posterior, seed=3, first=first, steps=4).images
        for first, count in ((0, 1), (1, 2))
    ]
    torch.testing.assert_close(torch.cat(parts), whole.images, atol=1e-4, rtol=0)


def test_a_posterior_is_refused_by_methods_without_one(prior, observation):
    posterior = fit_posterior(prior, observation, PRESETS["fast"].fit, generator=stream(3, 0))
    with pytest.raises(InputError, match="posterior is given, and method 'ding' has none"):
        restore(prior, observation, 1, method="ding", posterior=posterior)

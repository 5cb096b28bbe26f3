"""Every configuration checks its numbers: finite, in range, of the right kind."""

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops.gaussian_chain import gaussian, partly_seen, unfitted
from vipaint_ops import (
    FitConfig,
    InputError,
    Observation,
    RefineConfig,
    fit_posterior,
    operators,
    sample_posterior,
    samplers,
)
from vipaint_ops.inference.corrections import DPS, CatchUp, Kalman, PseudoInverse
from vipaint_ops.settings import Range

CONFIGS = [
    FitConfig,
    RefineConfig,
    Kalman,
    CatchUp,
    PseudoInverse,
    DPS,
    *(getattr(samplers, name) for name in samplers.__all__ if name.endswith("Config")),
]
NUMBERS = [(config, field) for config in CONFIGS for field in fields(config) if "range" in field.metadata]
NUMBERS_IDS = [f"{config.__name__}.{field.name}" for config, field in NUMBERS]
UNCHECKED = {"keypoints", "keypoint_ratios", "betas", "times", "checkpointing", "objective", "chain", "perceptual"}

every_number = pytest.mark.parametrize(("config", "field"), NUMBERS, ids=NUMBERS_IDS)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_of_a_configuration_has_a_range(config):
    loose = {field.name for field in fields(config) if not {"range", "options"} & set(field.metadata)}
    assert loose <= UNCHECKED | {"guidance", "correction", "catch_up", "follows_signal", "noisy", "perceptual_weight"}


@every_number
@given(value=st.one_of(st.integers(-(10**6), 10**6), st.floats(width=32), st.booleans(), st.text(max_size=3)))
def test_a_value_is_kept_or_refused_with_its_name(config, field, value):
    allowed = field.metadata["range"]
    number = isinstance(value, int if allowed.whole else (int, float)) and not isinstance(value, bool)
    if number and value in allowed:
        assert getattr(config(**{field.name: value}), field.name) == value
    else:
        with pytest.raises(InputError, match=f"^{field.name} is "):
            config(**{field.name: value})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("config", [FitConfig, RefineConfig])
def test_a_perceptual_weight_is_finite_and_not_negative(config, wrong):
    with pytest.raises(InputError, match="perceptual_weight is"):
        config(perceptual_weight=wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keypoints": (0.5, math.nan)},
        {"keypoints": ()},
        {"keypoint_ratios": (math.inf, 1.0)},
        {"keypoint_ratios": (2.0, math.nan)},
        {"betas": (0.9, 1.0)},
        {"betas": (math.nan, 0.9)},
        {"objective": "other"},
    ],
)
def test_a_fit_refuses_what_is_no_setting(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        FitConfig(**wrong)


def test_guidance_is_a_correction():
    with pytest.raises(InputError, match=r"guidance is 'dps'; give a correction, such as Kalman\(\)"):
        RefineConfig(guidance="dps")


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        (Range(0, open=True), "positive"),
        (Range(1), "at least 1"),
        (Range(0, 1, open=True), "above 0 and at most 1"),
        (Range(0, 1), "at least 0 and at most 1"),
    ],
)
def test_a_range_in_words(allowed, text):
    assert str(allowed) == text


def test_a_fit_and_samples_need_gradients():
    prior, observation = gaussian(), partly_seen()
    generator = torch.Generator().manual_seed(0)
    q = unfitted(prior)
    with torch.inference_mode():
        made_there = type(observation)(observation.y.clone(), observation.operator, observation.noise_std)
        with pytest.raises(InputError, match="inference_mode"):
            fit_posterior(prior, observation, generator=generator)
        with pytest.raises(InputError, match="inference_mode"):
            sample_posterior(prior, observation, q, 1, generator=generator)
    with pytest.raises(InputError, match=r"y\.clone"):
        fit_posterior(prior, made_there, generator=generator)


@pytest.mark.parametrize("name", [name for name in samplers.__all__ if not name.endswith("Config")])
def test_samplers_without_gradients_run_in_inference_mode_and_the_others_refuse(name):
    mask = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.float64)
    y = mask * torch.ones(1, 1, 2, 4, dtype=torch.float64)
    observation, prior = Observation(y, operators.Inpainting(mask), 0.3), gaussian(shape=(1, 2, 4))
    method, generator = getattr(samplers, name), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        if name in ("blended", "ddnm", "ding", "lanpaint", "latino", "repaint"):
            assert method(prior, observation, 1, generator=generator).images.isfinite().all()
        else:
            with pytest.raises(InputError, match="inference_mode"):
                method(prior, observation, 1, generator=generator)


def test_a_posterior_of_another_observation_is_refused():
    prior = gaussian()
    config = FitConfig(iterations=0, start_chains=2, start_steps=2)
    generator = torch.Generator().manual_seed(0)
    q = fit_posterior(prior, partly_seen(), config, generator=generator)
    sample_posterior(prior, partly_seen(), q, 1, RefineConfig(steps=2), generator=generator)
    other = partly_seen()
    other.y = other.y + 0.1
    with pytest.raises(InputError, match="not the one of the fit"):
        sample_posterior(prior, other, q, 1, RefineConfig(steps=2), generator=generator)

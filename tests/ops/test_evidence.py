"""What a mask hides is never looked at, whole, by any method, under any soft mask."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.gaussian_chain import DOUBLE, gaussian
from tests.ops.test_samplers import ALL, SHAPE
from vipaint_ops import FitConfig, Observation, RefineConfig, fit_posterior, operators, sample_posterior
from vipaint_ops.evaluation.metrics import consistency
from vipaint_ops.images.masks import composite, fit_mask, match_colours, without_shift
from vipaint_ops.operators.inpainting import KNOWN_FROM, evidence

SHORT = FitConfig(iterations=2, samples=2, start_chains=2, start_steps=2, bound_every=0)
REFINED = {
    "guided": (SHORT, RefineConfig(steps=3)),
    "ding": (SHORT, RefineConfig(steps=3, chain="ding")),
    "published_v1": (replace(FitConfig.published_v1(), iterations=2), replace(RefineConfig.published_v1(), steps=10)),
    "published_v2": (replace(FitConfig.published_v2(), iterations=2), replace(RefineConfig.published_v2(), steps=10)),
}
FILLS = {"white": 1.0, "black": -1.0, "noise": None}


@st.composite
def soft_masks(draw) -> torch.Tensor:
    """Masks of the library with known, hidden and grey pixels."""
    grey = st.one_of(st.just(0.0), st.floats(0.0, KNOWN_FROM - 1e-6), st.floats(-0.3, 0.0), st.just(0.00389))
    known = st.floats(KNOWN_FROM, 1.1)
    values = draw(st.lists(st.one_of(grey, known), min_size=8, max_size=8))
    values[:2] = [draw(known), draw(grey)]
    return torch.tensor(values, dtype=DOUBLE).view(SHAPE[1:])


def picture(mask: torch.Tensor, fill: float | None, seed: int) -> torch.Tensor:
    """The same known pixels for every ``fill`` of what the mask hides."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(1, *SHAPE, generator=generator, dtype=DOUBLE)
    hidden = torch.rand(1, *SHAPE, generator=generator, dtype=DOUBLE) if fill is None else fill
    return torch.where(evidence(mask) > 0, known, hidden)


def observations(mask: torch.Tensor, seed: int) -> list[Observation]:
    """Of pictures that differ under the mask, as measured by the operator and as they are."""
    operator = operators.Inpainting(mask)
    pictures = [picture(mask, fill, seed) for fill in FILLS.values()]
    return [Observation(y, operator, 0.3) for x in pictures for y in (operator(x), x)]


def all_equal(tensors: list[torch.Tensor]) -> bool:
    return all(torch.equal(tensors[0], other) for other in tensors[1:])


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=2)
@given(soft_masks(), st.integers(0, 2**31))
def test_no_sampler_looks_under_a_mask(name, mask, seed):
    function, config = ALL[name]
    prior, generator = gaussian(shape=SHAPE), torch.Generator()
    results = [
        function(prior, observation, 2, config, generator=generator.manual_seed(seed)).latents
        for observation in observations(mask, seed)
    ]
    assert all_equal(results)


@pytest.mark.parametrize("name", REFINED)
@settings(max_examples=2)
@given(soft_masks(), st.integers(0, 2**31))
def test_no_fit_or_refinement_looks_under_a_mask(name, mask, seed):
    fit, refine = REFINED[name]
    prior, generator, results = gaussian(shape=SHAPE), torch.Generator(), []
    for observation in observations(mask, seed):
        posterior = fit_posterior(prior, observation, fit, generator=generator.manual_seed(seed))
        drawn = sample_posterior(prior, observation, posterior, 2, refine, generator=generator.manual_seed(seed))
        results.append(drawn.latents)
    assert all_equal(results)


@settings(max_examples=20)
@given(soft_masks(), st.integers(0, 2**31))
def test_no_figure_or_composite_looks_under_a_mask(mask, seed):
    samples = torch.rand(2, *SHAPE, dtype=DOUBLE)
    known = fit_mask(mask, *SHAPE[1:]).double()
    pictures = [picture(mask, fill, seed) for fill in FILLS.values()]
    for function in (composite, match_colours, without_shift, lambda *given: composite(*given, feather=1)):
        assert all_equal([function(samples, x, known) for x in pictures])
    assert all_equal([consistency(samples, observation) for observation in observations(mask, seed)])
    assert torch.equal(composite(samples, pictures[0], known), torch.where(known > 0, pictures[0], samples))

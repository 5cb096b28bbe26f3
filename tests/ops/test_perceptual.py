"""The perceptual term, with a stand-in for the distance: no pretrained weights are at hand."""

import dataclasses

import pytest
import torch

from tests.ops.conftest import SmallFit
from tests.ops.test_corrections import BentPrior, draw, streams
from vipaint_ops import FitConfig, NoiseSchedule, Observation, RefineConfig, fit_posterior, operators, sample_posterior
from vipaint_ops.diffusion.prior import CountedPrior
from vipaint_ops.diffusion.schedule import Level
from vipaint_ops.errors import InputError
from vipaint_ops.inference.perceptual import PerceptualTerm
from vipaint_ops.priors.analytic import GaussianMixturePrior
from vipaint_ops.vipaint.objective import log_likelihood

DOUBLE = torch.float64
SHAPE = (3, 4, 4)


def edges(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A stand-in: how far differences of neighbours differ."""
    return (x - y).diff(dim=-1).square().flatten(1).mean(1)


def observe(operator: operators.Operator | None = None) -> Observation:
    mask = torch.ones(4, 4, dtype=DOUBLE)
    mask[:, 2:] = 0
    operator = operator or operators.Inpainting(mask)
    return Observation(operator(draw(1, *SHAPE, seed=3)), operator, 0.3)


def prior() -> GaussianMixturePrior:
    one, mean = torch.ones(1, dtype=DOUBLE), draw(1, *SHAPE, seed=2)
    return BentPrior(one, mean, torch.eye(48, dtype=DOUBLE)[None], NoiseSchedule.scaled_linear(0.0015, 0.0195))


def test_the_term_compares_what_is_measured():
    observation, x = observe(), draw(2, *SHAPE, seed=4)
    expected = 5 * edges(observation.operator(x), observation.y)
    torch.testing.assert_close(PerceptualTerm(observation, 5.0, edges)(x), expected)


def test_it_is_taken_off_the_likelihood():
    observation, z0, level = observe(), draw(2, *SHAPE, seed=4), Level(0.8, 0.6)
    counted, term = CountedPrior(prior()), PerceptualTerm(observe(), 5.0, edges)
    plain = log_likelihood(counted, observation, z0, level, streams(2))
    added = log_likelihood(counted, observation, z0, level, streams(2), term)
    torch.testing.assert_close(plain - added, term(counted.decode(z0)))


@pytest.mark.parametrize("kind", ["bound", "published_v1", "published_v2"])
def test_a_fit_and_a_refinement_take_it(kind):
    """With weight 0 nothing changes, with another the results do; the published refinements have a term too."""
    fits = {"bound": SmallFit, "published_v1": FitConfig.published_v1, "published_v2": FitConfig.published_v2}
    refines = {"published_v1": RefineConfig.published_v1, "published_v2": RefineConfig.published_v2}

    def run(**settings):
        fit = dataclasses.replace(fits[kind](), iterations=2, **settings)
        generator = torch.Generator().manual_seed(0)
        posterior = fit_posterior(prior(), observe(), fit, generator=generator)
        if kind not in refines:
            return posterior.means, posterior.means
        refine = dataclasses.replace(refines[kind](), steps=3, **settings)
        return posterior.means, sample_posterior(prior(), observe(), posterior, 1, refine, generator=generator).images

    plain, zero, added = run(), run(perceptual=edges), run(perceptual=edges, perceptual_weight=50.0)
    for without, nothing, more in zip(plain, zero, added, strict=True):
        assert torch.equal(without, nothing)
        assert not torch.allclose(without, more)


def test_the_guided_chain_has_no_term_for_it():
    with pytest.raises(InputError, match="chain 'guided' has no term"):
        RefineConfig(perceptual_weight=1.0, perceptual=edges)


@pytest.mark.parametrize("config", [FitConfig, lambda **s: dataclasses.replace(RefineConfig.published_v1(), **s)])
@pytest.mark.parametrize(
    ("weight", "message"), [(-1.0, "0 or more"), (float("nan"), "0 or more"), (1.0, "pip install lpips")]
)
def test_what_cannot_be_used_is_refused_before_anything_is_loaded(config, weight, message, monkeypatch):
    monkeypatch.setattr("vipaint_ops.inference.perceptual.find_spec", lambda name: None)
    with pytest.raises(InputError, match=message):
        config(perceptual_weight=weight)


def test_measurements_that_are_no_colour_pictures_are_refused():
    with pytest.raises(InputError, match="colour pictures"):
        PerceptualTerm(observe(operators.Grey()), 1.0, edges)

"""Moments of samples, and the choice of those that differ most."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vipaint_ops import InputError
from vipaint_ops.evaluation.spread import most_different, spread


def samples(count, seed=0):
    return torch.randn(count, 3, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(images, count):
    return [choice.sample for choice in most_different(images, count)]


def test_moments_of_gaussian_samples_are_those_of_the_law():
    mean, std = samples(1, 1), samples(1, 2).abs()[:, :1] + 0.1
    found = spread(mean + std * samples(40_000))
    assert torch.allclose(found.mean, mean, atol=0.04)
    assert torch.allclose(found.std, std, rtol=0.02)


def test_the_spread_of_equal_samples_is_nought_and_of_one_is_refused():
    assert spread(samples(1).expand(4, -1, -1, -1)).std.abs().max() < 1e-12
    with pytest.raises(InputError, match="one sample"):
        spread(samples(1))


@given(st.integers(3, 7), st.integers(0, 5))
def test_all_samples_in_any_order_are_chosen_once(count, seed):
    images = samples(count, seed)
    order = numbers(images, count)
    assert sorted(order) == list(range(count))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert [int(shuffled[k]) for k in numbers(images[shuffled], count)] == order


@given(st.integers(3, 7), st.integers(0, 20))
def test_the_least_distance_of_the_chosen_is_at_least_half_of_the_best(count, seed):
    """Gonzalez's bound for the points after the first."""
    images = samples(count, seed).flatten(1)
    distances = torch.cdist(images, images)

    def least(chosen):
        return min(float(distances[i, j]) for i, j in itertools.combinations(chosen, 2))

    found = least(numbers(images.view(count, 3, 5, 4), 3))
    assert found >= max(map(least, itertools.combinations(range(count), 3))) / 2


def test_distances_are_those_to_the_nearest_before():
    images = samples(6)
    pixels = images.flatten(1)
    before = []
    for number, distance in most_different(images, 6):
        others = before or [k for k in range(6) if k != number]
        found = torch.stack([(pixels[number] - pixels[k]).square().mean().sqrt() for k in others])
        assert distance == pytest.approx((found.min() if before else found.mean()).item())
        before.append(number)


def test_copies_are_chosen_last():
    images = torch.cat([samples(1), samples(1), samples(2, 3)])
    assert sorted(numbers(images, 3)) in ([0, 2, 3], [1, 2, 3])


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_out_of_range_is_refused(count):
    with pytest.raises(InputError, match=f"count is {count}"):
        most_different(samples(3), count)

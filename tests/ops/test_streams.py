"""Every sample owns its random numbers: the same in any batch, unlike any other's."""

import pytest
import torch

from vipaint_ops.diffusion.streams import NoiseStreams

LIKE = torch.zeros(4, 3, 5, 7)


@pytest.mark.parametrize("row", range(4))
def test_a_row_alone_equals_that_row_in_a_batch(row):
    batch, alone = NoiseStreams(11, range(4)), NoiseStreams(11, [row])
    for _ in range(3):
        assert torch.equal(batch.normal(LIKE)[row], alone.normal(LIKE[:1])[0])


def test_rows_keep_their_streams_when_draws_of_different_shapes_follow_each_other():
    batch, alone = NoiseStreams(5, range(4)), NoiseStreams(5, [2])
    for shape in ((3,), (2, 2), (33,)):
        assert torch.equal(batch.normal(torch.zeros(4, *shape))[2], alone.normal(torch.zeros(1, *shape))[0])


def test_a_seed_repeats_and_a_stream_moves_on():
    first, second = NoiseStreams(3, [0]), NoiseStreams(3, [0])
    draw = first.normal(LIKE[:1])
    assert torch.equal(draw, second.normal(LIKE[:1]))
    assert not torch.equal(draw, first.normal(LIKE[:1]))


def test_streams_of_neighbouring_rows_and_seeds_are_uncorrelated():
    like = torch.zeros(8, 10_000, dtype=torch.float64)
    draws = torch.cat([NoiseStreams(seed, range(8)).normal(like) for seed in range(4)])
    correlations = torch.corrcoef(draws) - torch.eye(len(draws), dtype=torch.float64)
    assert correlations.abs().max() < 5 / 10_000**0.5


def test_all_bits_of_the_seed_count():
    """torch's CPU generator reads 32 of them, so streams must not be made by adding up seeds and rows."""
    like = torch.zeros(1, 8)
    seeds = [seed + offset for seed in (0, 7) for offset in (0, 1, 2**32, 2**40, 2**61, 0x9E3779B97F4A7C15 % 2**62)]
    draws = {tuple(NoiseStreams(seed, [row]).normal(like)[0].tolist()) for seed in seeds for row in range(50)}
    assert len(draws) == len(seeds) * 50


def test_normal_noise_is_normal():
    draws = NoiseStreams(0, range(4)).normal(torch.zeros(4, 50_000, dtype=torch.float64))
    standard_error = 1 / draws.numel() ** 0.5
    assert draws.mean().abs() < 5 * standard_error
    assert (draws.var() - 1).abs() < 5 * 2**0.5 * standard_error
    assert ((draws**4).mean() - 3).abs() < 5 * 96**0.5 * standard_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_takes_the_dtype_of_what_it_is_added_to(dtype):
    streams = NoiseStreams(0, range(4))
    assert streams.rows == 4
    assert streams.normal(LIKE.to(dtype)).dtype == dtype


def test_seed_from_a_generator_is_a_function_of_its_state():
    seeds = [NoiseStreams.seed_from(torch.Generator().manual_seed(k)) for k in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    generator = torch.Generator().manual_seed(0)
    assert NoiseStreams.seed_from(generator) != NoiseStreams.seed_from(generator)

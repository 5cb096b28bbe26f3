"""Masks: the hidden pixels, errors, and the pixels that compositing keeps."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vipaint_ops.errors import InputError
from vipaint_ops.images import masks


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_binary_mask(mask: torch.Tensor, height: int, width: int) -> None:
    assert mask.shape == (1, 1, height, width)
    assert mask.is_floating_point()
    assert ((mask == 0) | (mask == 1)).all()


def test_half_plane_hides_the_side_its_angle_points_to():
    quarters = {angle: masks.half_plane(6, 8, angle)[0, 0] for angle in (0, 90, 180, 270)}
    assert quarters[0][:, :4].all()
    assert not quarters[0][:, 4:].any()
    assert quarters[90][3:].all()
    assert not quarters[90][:3].any()
    assert torch.equal(quarters[180], quarters[0].flip(1))
    assert torch.equal(quarters[270], quarters[90].flip(0))


@given(st.floats(-360, 720), st.integers(2, 20).map(lambda k: 2 * k))
@settings(max_examples=60, deadline=None)
def test_opposite_half_planes_hide_every_pixel_off_the_line_exactly_once(angle, size):
    one, other = masks.half_plane(size, size, angle), masks.half_plane(size, size, angle + 180)
    assert torch.equal(other, one.flip(2, 3))
    on_the_line = (one + other) == 2
    assert ((one + other)[~on_the_line] == 1).all()
    assert on_the_line.float().mean() <= 1 / size
    assert_binary_mask(one, size, size)


@pytest.mark.parametrize("size, hidden", [(6, 36), ((4, 2), 8), ((10, 11), 110)])
def test_box_is_central_and_of_its_size(size, hidden):
    mask = masks.box(10, 12, size)
    assert (1 - mask).sum() == hidden
    if hidden != 110:
        assert torch.equal(mask, mask.flip(2, 3))


@pytest.mark.parametrize("size", [0, -3, 13, (12, 12)])
def test_box_refuses_to_hide_nothing_or_everything(size):
    with pytest.raises(InputError, match="box size is"):
        masks.box(12, 12, size)


@pytest.mark.parametrize("hole", [(0.3, 0.7), (0.2, 0.21), (0.9, 0.95)])
def test_random_boxes_hide_a_share_within_the_range(hole):
    for seed in range(20):
        mask = masks.random_boxes(48, 64, hole, generator=seeded(seed))
        assert_binary_mask(mask, 48, 64)
        assert hole[0] <= 1 - mask.mean().item() <= hole[1] + 1e-6


def test_random_boxes_are_even_over_the_range_and_seeded():
    shares = [1 - masks.random_boxes(32, 32, generator=seeded(s)).mean().item() for s in range(300)]
    assert min(shares) < 0.36
    assert max(shares) > 0.64
    assert abs(sum(shares) / 300 - 0.5) < 0.06
    assert torch.equal(*(masks.random_boxes(32, 32, generator=seeded(7)) for _ in range(2)))


@pytest.mark.parametrize("hole", [(0.7, 0.3), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5001)])
def test_random_boxes_refuse_a_range_they_cannot_meet(hole):
    with pytest.raises(InputError, match="hole is"):
        masks.random_boxes(16, 16, hole, generator=seeded())


def test_random_pixels_keep_the_share_to_the_pixel():
    mask = masks.random_pixels(20, 30, 0.08, generator=seeded())
    assert_binary_mask(mask, 20, 30)
    assert mask.sum() == 48
    with pytest.raises(InputError, match="keep is"):
        masks.random_pixels(20, 30, 0.0001, generator=seeded())


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0, 1), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_brush_strokes_hide_the_share_to_the_pixel(height, width, share, seed):
    count = round(share * height * width)
    if not 0 < count < height * width:
        with pytest.raises(InputError, match="share is"):
            masks.brush_strokes(height, width, share, generator=seeded(seed))
        return
    mask = masks.brush_strokes(height, width, share, generator=seeded(seed))
    assert_binary_mask(mask, height, width)
    assert (1 - mask).sum() == count
    assert torch.equal(mask, masks.brush_strokes(height, width, share, generator=seeded(seed)))


def test_brush_strokes_are_strokes_and_not_speckle():
    for seed in range(10):
        hole = 1 - masks.brush_strokes(128, 128, 0.3, generator=seeded(seed))
        core = 1 - torch.nn.functional.max_pool2d(1 - hole, 5, 1, padding=2)
        opened = torch.nn.functional.max_pool2d(core, 5, 1, padding=2)
        assert opened.sum() > 0.9 * hole.sum()


def test_an_outpaint_border_is_as_wide_on_all_sides():
    mask = masks.outpaint_border(10, 16, 3)
    assert_binary_mask(mask, 10, 16)
    assert mask[..., 3:-3, 3:-3].all()
    assert mask.sum() == 4 * 10


@pytest.mark.parametrize("border", [0, -1, 5, 8])
def test_a_border_of_nothing_or_of_everything_is_refused(border):
    with pytest.raises(InputError, match=f"border is {border}"):
        masks.outpaint_border(10, 16, border)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_every_kth_pixel_observes_one_of_every_whole_block(height, width, step):
    if step > min(height, width):
        with pytest.raises(InputError, match=f"step is {step}"):
            masks.every_kth_pixel(height, width, step)
        return
    mask = masks.every_kth_pixel(height, width, step)
    assert_binary_mask(mask, height, width)
    blocks = torch.nn.functional.avg_pool2d(mask, step) * step**2
    assert torch.allclose(blocks, torch.ones_like(blocks))
    assert torch.equal(mask[..., step:, :], mask[..., :-step, :])
    assert torch.equal(mask[..., step:], mask[..., :-step])


def test_every_kth_pixel_refuses_to_observe_all():
    with pytest.raises(InputError, match="step is 1"):
        masks.every_kth_pixel(8, 8, 1)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_the_latent_grid_is_the_least_observed_pixel_of_each_cell(height, width, factor, seed):
    mask = torch.rand(2, 1, height, width, generator=seeded(seed))
    grid = masks.latent_grid(mask, factor)
    assert grid.shape == mask.shape
    assert (grid <= mask + 1e-6).all()
    for top in range(0, height, factor):
        for left in range(0, width, factor):
            cell = (..., slice(top, top + factor), slice(left, left + factor))
            least = mask[cell].flatten(1).min(1).values.view(2, 1, 1, 1)
            assert torch.allclose(grid[cell], least.expand_as(grid[cell]))


def test_the_latent_grid_of_a_latent_grid_is_the_same():
    grid = masks.latent_grid(masks.brush_strokes(60, 44, 0.2, generator=seeded()), 8)
    assert torch.equal(masks.latent_grid(grid, 8), grid)


@pytest.mark.parametrize("name", masks.NAMES)
def test_every_named_mask_has_a_hole_and_an_observation(name):
    mask = masks.by_name(name, 24, 40, generator=seeded())
    assert torch.equal(masks.fit_mask(mask, 24, 40), mask)


def test_the_error_for_an_unknown_name_lists_the_names():
    with pytest.raises(InputError, match="'hole' is unknown; choose one of half, box, random, pixels"):
        masks.by_name("hole", 24, 40, generator=seeded())


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (1, 1, 64, 64)])
def test_fit_mask_takes_every_shape_of_one_mask_silently_when_it_fits(shape):
    mask = masks.half_plane(64, 64).reshape(shape).bool()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(masks.fit_mask(mask, 64, 64), masks.half_plane(64, 64))


def test_fit_mask_resizes_with_notice_when_the_aspect_agrees():
    with pytest.warns(UserWarning, match="resized from 128x192 to the picture's 64x96"):
        fitted = masks.fit_mask(masks.half_plane(128, 192), 64, 96)
    assert torch.equal(fitted, masks.half_plane(64, 96))


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (127, 127)])
def test_a_pixel_is_hidden_if_any_part_of_it_is(size):
    mask = torch.ones(128, 128)
    mask[3, 5] = mask[77, :] = 0
    with pytest.warns(UserWarning, match="resized"):
        fitted = masks.fit_mask(mask, *size)[0, 0]

    def covers(at, side):
        """Pixels of a side that cover a part of the pixel ``at`` of 128."""
        return [k for k in range(side) if k * 128 < (at + 1) * side and at * side < (k + 1) * 128]

    assert not fitted[covers(3, size[0])][:, covers(5, size[1])].any()
    assert not fitted[covers(77, size[0])].any()
    assert fitted.mean() > 0.95 - 2 / size[0]


@pytest.mark.parametrize("hidden", [0.0, 1 / 255, 3 / 255, -0.12])
def test_the_noise_of_a_jpeg_hides_nothing(hidden):
    mask = torch.full((8, 8), 1 - hidden)
    mask[2, 2] = 0.3
    fitted = masks.fit_mask(mask, 8, 8)
    assert fitted.sum() == 63
    assert fitted[0, 0, 2, 2] == 0


@pytest.mark.parametrize("hidden", [5 / 255, 0.3, 0.7, 0.99611, 1.23])
def test_any_grey_is_hidden_whole(hidden):
    mask = torch.ones(8, 8)
    mask[2, 2] = 1 - hidden
    assert torch.equal(masks.fit_mask(mask, 8, 8), masks.fit_mask(mask > 0.999, 8, 8))


def test_a_flat_sample_is_not_blown_up_and_contrast_changes_little():
    known = masks.half_plane(16, 16)
    flat, picture = torch.full((1, 3, 16, 16), 0.2), torch.rand(1, 3, 16, 16)
    assert masks.match_colours(flat, picture, known).abs().max() < 1.5
    lively = torch.where(known > 0, 0.01 * picture, picture)
    matched = masks.match_colours(lively, torch.where(known > 0, 0.001 * picture, picture), known)
    assert matched[..., 8:].std() > 0.7 * lively[..., 8:].std()


def test_a_shift_of_the_autoencoder_is_taken_off_the_hole():
    known, picture = masks.half_plane(16, 16), 2 * torch.rand(1, 3, 16, 16) - 1
    shift = torch.tensor([0.05, -0.03, 0.01]).reshape(1, 3, 1, 1)
    truth = 2 * torch.rand(4, 3, 16, 16) - 1
    truth = torch.where(known > 0, picture, truth)
    assert torch.allclose(masks.without_shift(truth + shift, picture, known), truth, atol=1e-6)
    assert torch.equal(masks.without_shift(truth, picture, known), truth)


def test_a_shift_that_is_no_autoencoders_is_left():
    """Samples that miss the known pixels are not tinted by more than eight levels."""
    known, picture = masks.half_plane(16, 16), torch.rand(1, 3, 16, 16)
    moved = masks.without_shift(picture - 1, picture, known)
    assert torch.allclose(moved, picture - 1 + masks.MOST_SHIFT, atol=1e-6)


@pytest.mark.parametrize(
    "mask, size, message",
    [
        (masks.half_plane(32, 48), (64, 64), "aspects differ"),
        (torch.zeros(64, 64), (512, 768), "no hole.*ComfyUI"),
        (torch.ones(1, 64, 64), (512, 512), "no hole.*ComfyUI"),
        (torch.ones(64, 64), (64, 64), "no hole .it is 1"),
        (torch.zeros(64, 64), (64, 64), "observes nothing"),
        (torch.full((8, 8), math.nan), (8, 8), "NaN"),
        (255 * masks.half_plane(8, 8), (8, 8), "divided by 255"),
        (-masks.half_plane(8, 8), (8, 8), "from -1 to"),
        (torch.ones(2, 1, 8, 8), (8, 8), r"shape \(2, 1, 8, 8\)"),
        (torch.ones(8), (8, 8), "shape"),
    ],
)
def test_fit_mask_refuses_with_one_clear_message(mask, size, message):
    with pytest.raises(InputError, match=message):
        masks.fit_mask(mask, *size)


@pytest.mark.parametrize("feather", [0, 1, 5])
def test_composite_keeps_observed_pixels_bit_for_bit_and_never_reads_the_hole(feather):
    images, picture = (torch.randn(n, 3, 24, 24, generator=seeded(n)) for n in (4, 1))
    mask = masks.random_boxes(24, 24, generator=seeded())
    hidden = (mask == 0).expand_as(picture)
    unreadable = torch.where(hidden, math.nan, picture)
    result = masks.composite(images, unreadable, mask, feather)
    assert torch.equal(result[~hidden.expand_as(result)], picture.expand_as(result)[~hidden.expand_as(result)])
    assert result.isfinite().all()
    if feather == 0:
        assert torch.equal(result[hidden.expand_as(result)], images[hidden.expand_as(result)])


def test_composite_blends_by_a_soft_mask():
    images, picture = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    mask = torch.tensor([[[[0.0, 0.25], [0.5, 1.0]]]])
    assert torch.equal(masks.composite(images, picture, mask), mask)


def test_feather_fades_a_seam_of_colour_into_the_hole_and_ends_there():
    picture, images = torch.full((1, 1, 8, 40), 0.6), torch.zeros(1, 1, 8, 40)
    row = masks.composite(images, picture, masks.half_plane(8, 40), feather=6)[0, 0, 4]
    steps = row.diff()
    assert (steps[19:26] < 0).all()
    assert steps.abs().max() <= 0.6 * 2 / 13 + 1e-6
    assert (row[:20] == 0.6).all()
    assert (row[26:] == 0).all()

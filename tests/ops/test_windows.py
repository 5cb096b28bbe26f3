"""Windows around holes: where they lie, what goes into them, and what comes back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vipaint_ops.errors import InputError
from vipaint_ops.images.windows import Window, WindowConfig, crop, find_windows, stitch, whole_window

NATIVE = WindowConfig(size=32, context=0.5, enlarge=1, multiple=8)


@st.composite
def holes(draw: st.DrawFn, smallest: int = 20, longest: int = 60) -> Tensor:
    """Masks with one to five boxes up to a length as holes, anywhere; ``smallest`` is the least side of the picture."""
    height, width = draw(st.integers(smallest, 150)), draw(st.integers(smallest, 150))
    mask = torch.ones(1, 1, height, width)
    for _ in range(draw(st.integers(1, 5))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[..., top : top + draw(st.integers(1, longest)), left : left + draw(st.integers(1, longest))] = 0
    assume(mask.any())
    return mask


CONFIGS = st.builds(
    WindowConfig,
    size=st.sampled_from([16, 32, 64]),
    context=st.floats(0.1, 2),
    enlarge=st.floats(1, 4),
    multiple=st.sampled_from([1, 8, 16]),
)


def noise(mask: Tensor, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, *mask.shape[2:], generator=generator) * 2 - 1


def hole(mask: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    mask[..., top : top + height, left : left + width] = 0
    return mask


def cropped(images: Tensor, mask: Tensor, config: WindowConfig) -> tuple[list[Window], list[tuple[Tensor, Tensor]]]:
    """The windows that observe something, as large masks of small pictures may leave nothing."""
    windows = find_windows(mask, config)
    try:
        return windows, [crop(images, mask, window) for window in windows]
    except InputError:
        assume(False)
        raise


@given(holes(), CONFIGS)
@settings(max_examples=60)
def test_every_hidden_pixel_belongs_to_one_window_inside_the_picture(mask, config):
    owners = torch.zeros_like(mask)
    for window in find_windows(mask, config):
        assert window.top >= 0 <= window.left
        assert window.top + window.height <= mask.shape[2]
        assert window.left + window.width <= mask.shape[3]
        window.of(owners).add_(window.own)
    assert torch.equal(owners, 1 - mask)


@given(holes(), CONFIGS)
@settings(max_examples=60)
def test_a_window_costs_at_most_what_the_models_size_costs(mask, config):
    for window in find_windows(mask, config):
        assert window.rows % config.multiple == 0 == window.columns % config.multiple
        assert window.rows * window.columns <= max(config.size, config.multiple) ** 2
        assert window.rows <= max(config.enlarge * window.height, config.multiple)


@given(holes(), CONFIGS)
@settings(max_examples=60)
def test_holes_have_context_on_every_side_that_the_picture_has(mask, config):
    for window in find_windows(mask, config):
        rows, columns = window.own[0, 0].nonzero().unbind(1)
        extent = max(int(x.max() - x.min()) + 1 for x in (rows, columns))
        wanted = int(config.context * extent)
        for places, start, length, whole in (
            (rows, window.top, window.height, mask.shape[2]),
            (columns, window.left, window.width, mask.shape[3]),
        ):
            before, after = int(places.min()), length - 1 - int(places.max())
            assert before >= min(wanted, start + before)
            assert after >= min(wanted, whole - start - length + after)


@given(holes(), CONFIGS)
@settings(max_examples=40)
def test_close_holes_share_a_window(mask, config):
    owners = torch.zeros_like(mask)
    for number, window in enumerate(find_windows(mask, config), 1):
        window.of(owners).add_(number * window.own)
    near = max(config.size // 16, 1)
    largest = F.max_pool2d(owners, near, stride=1)
    smallest = -F.max_pool2d(-torch.where(mask == 0, owners, torch.inf), near, stride=1)
    assert ((largest == smallest) | (largest == 0)).all()


@given(holes(), CONFIGS, st.sampled_from([-1.0, 1.0, torch.nan, torch.inf]), st.integers(0, 6))
@settings(max_examples=60)
def test_what_lies_under_the_mask_is_never_looked_at(mask, config, paint, feather):
    picture = noise(mask)
    painted = torch.where(mask == 0, paint, picture)
    windows, clean = cropped(picture, mask, config)
    _, dirty = cropped(painted, mask, config)
    for (pixels, shrunk), (others, same) in zip(clean, dirty, strict=True):
        assert torch.equal(pixels, others)
        assert torch.equal(shrunk, same)
    restored = [noise(shrunk) for _, shrunk in clean]
    stitched = stitch(picture, mask, windows, restored, feather)
    assert torch.equal(stitch(painted, mask, windows, restored, feather), stitched)


@given(holes(), CONFIGS)
@settings(max_examples=60)
def test_what_a_window_shows_is_the_resized_picture(mask, config):
    """The evidence is right up to the edge of the hole: nothing of the hole, nor of what stands for it, mixes in."""
    picture = noise(mask)
    windows, crops = cropped(picture, mask, config)
    for window, (pixels, shrunk) in zip(windows, crops, strict=True):
        part, size = window.of(picture), (window.rows, window.columns)
        mode = "bicubic" if window.rows >= window.height and window.columns >= window.width else "bilinear"
        shown = part * window.of(mask)
        resized = F.interpolate(part, size, mode=mode, antialias=True).clamp(shown.min(), shown.max())
        known = shrunk.bool().expand_as(pixels)
        torch.testing.assert_close(pixels[known], resized[known], rtol=0, atol=1e-5)
        assert not pixels[~known].any()


@given(holes(), CONFIGS)
@settings(max_examples=60)
def test_a_resized_pixel_is_hidden_if_any_part_of_it_is(mask, config):
    windows, crops = cropped(noise(mask), mask, config)
    for window, (_, shrunk) in zip(windows, crops, strict=True):
        hidden = F.adaptive_max_pool2d(1 - window.of(mask), shrunk.shape[2:])
        assert (shrunk[hidden == 1] == 0).all()


@given(holes(), CONFIGS, st.integers(0, 9))
@settings(max_examples=60)
def test_known_pixels_beyond_the_feather_are_kept_bit_for_bit(mask, config, feather):
    picture = noise(mask)
    windows, crops = cropped(picture, mask, config)
    stitched = stitch(picture, mask, windows, [noise(shrunk) + 4 for _, shrunk in crops], feather)
    near = F.max_pool2d(1 - mask, 2 * feather + 1, stride=1, padding=feather)
    kept = (near == 0).expand_as(picture)
    assert torch.equal(stitched[kept], picture[kept])
    assert (stitched[(mask == 0).expand_as(picture)] >= 3).all()


@given(holes(smallest=32, longest=8), st.integers(0, 9))
@settings(max_examples=60)
def test_unchanged_windows_at_their_own_size_give_the_picture_back(mask, feather):
    picture = noise(mask)
    windows = find_windows(mask, NATIVE)
    parts = [window.of(picture) for window in windows]
    assume(all((window.rows, window.columns) == (window.height, window.width) for window in windows))
    assert torch.equal(stitch(picture, mask, windows, parts, feather), picture)
    for window, part in zip(windows, parts, strict=True):
        pixels, shrunk = crop(picture, mask, window)
        assert torch.equal(shrunk, window.of(mask))
        assert torch.equal(pixels, part * shrunk)


def test_an_item_of_a_batch_is_the_same_alone():
    mask = hole(hole(torch.ones(1, 1, 90, 120), 5, 5, 10, 12), 60, 80, 30, 40)
    picture = noise(mask, batch=3)
    windows = find_windows(mask, WindowConfig(size=32, multiple=8))
    crops = [crop(picture, mask, window)[0] for window in windows]
    restored = [noise(pixels, batch=3, seed=number) for number, pixels in enumerate(crops)]
    batch = stitch(picture, mask, windows, restored, 4)
    for k in range(3):
        alone = stitch(picture[k : k + 1], mask, windows, [images[k : k + 1] for images in restored], 4)
        assert torch.equal(alone[0], batch[k])
    samples = stitch(picture[:1], mask, windows, restored, 4)
    assert torch.equal(samples[0], batch[0])
    assert len(samples) == 3


def test_a_small_hole_in_a_photograph_costs_one_window_of_the_models_size():
    mask = hole(torch.ones(1, 1, 3000, 4000), 1400, 2000, 100, 100)
    (window,) = find_windows(mask, WindowConfig(size=512))
    assert (window.rows, window.columns) == (512, 512)
    assert (window.top, window.left, window.height, window.width) == (1322, 1922, 256, 256)


def test_a_hole_at_the_border_moves_its_window_inside():
    mask = hole(torch.ones(1, 1, 300, 400), 290, 0, 10, 20)
    (window,) = find_windows(mask, NATIVE)
    assert (window.top, window.left, window.height, window.width) == (260, 0, 40, 40)


def test_a_hole_larger_than_the_model_is_restored_whole_and_smaller():
    mask = hole(torch.ones(1, 1, 400, 400), 100, 100, 150, 100)
    (window,) = find_windows(mask, NATIVE)
    assert (window.height, window.width, window.rows, window.columns) == (300, 300, 32, 32)


def test_a_window_that_the_picture_limits_keeps_its_aspect():
    mask = hole(torch.ones(1, 1, 300, 400), 10, 10, 280, 380)
    (window,) = find_windows(mask, WindowConfig(size=512, multiple=8))
    assert (window.height, window.width) == (300, 400)
    assert window.rows / window.columns == pytest.approx(3 / 4, rel=0.02)
    assert 0.9 < window.rows * window.columns / 512**2 <= 1


def test_holes_share_a_window_only_where_that_costs_no_resolution():
    apart = hole(hole(torch.ones(1, 1, 300, 400), 20, 20, 10, 10), 200, 300, 10, 10)
    assert len(find_windows(apart, NATIVE)) == 2
    beside = hole(hole(torch.ones(1, 1, 300, 400), 20, 20, 4, 4), 24, 30, 4, 4)
    assert len(find_windows(beside, NATIVE)) == 1
    inside = hole(hole(torch.ones(1, 1, 300, 400), 20, 20, 200, 200), 240, 260, 4, 4)
    assert len(find_windows(inside, NATIVE)) == 1  # the window around the large hole is the whole height already


def test_constant_pictures_are_stitched_without_a_seam():
    mask = hole(torch.ones(1, 1, 120, 160), 40, 50, 30, 30)
    picture = torch.full((1, 3, 120, 160), 0.3)
    windows = find_windows(mask, WindowConfig(size=64, multiple=8))
    restored = [torch.full((1, 3, window.rows, window.columns), 0.3) for window in windows]
    torch.testing.assert_close(stitch(picture, mask, windows, restored, 5), picture, rtol=0, atol=1e-6)


def test_the_feather_falls_from_the_window_to_the_picture():
    mask = hole(torch.ones(1, 1, 60, 60), 20, 20, 20, 20)
    windows = find_windows(mask, NATIVE)
    restored = [torch.ones(1, 1, window.rows, window.columns) for window in windows]
    row = stitch(torch.zeros(1, 1, 60, 60), mask, windows, restored, 6)[0, 0, 30, :21]
    assert (row[:14] == 0).all()
    assert row[20] == 1
    assert (row[14:].diff() >= 0).all()
    assert ((row[14:20] > 0) & (row[14:20] <= 1)).all()


def test_an_upscaled_window_is_brought_back():
    mask = hole(torch.ones(1, 1, 200, 200), 50, 50, 80, 80)
    windows = find_windows(mask, NATIVE)
    (window,) = windows
    ramp = torch.linspace(0, 1, 200).expand(1, 1, 200, 200)
    upscaled = F.interpolate(window.of(ramp), (4 * window.rows, 4 * window.columns), mode="area")
    stitched = stitch(ramp * mask, mask, windows, [upscaled])
    torch.testing.assert_close(stitched, ramp, rtol=0, atol=0.01)


def test_what_does_not_fit_is_refused():
    mask = hole(torch.ones(1, 1, 60, 60), 20, 20, 20, 20)
    windows, picture = find_windows(mask, NATIVE), noise(mask)
    with pytest.raises(InputError, match="0 batches for 1 windows"):
        stitch(picture, mask, windows, [])
    with pytest.raises(InputError, match="32x48 and the window was cropped to 32x32"):
        stitch(picture, mask, windows, [torch.zeros(1, 3, 32, 48)])
    with pytest.raises(InputError, match="batches of 3 for a picture batch of 2"):
        stitch(picture.expand(2, 3, 60, 60), mask, windows, [torch.zeros(3, 3, 32, 32)])
    almost_all = hole(torch.ones(1, 1, 400, 400), 0, 1, 400, 399)
    with pytest.raises(InputError, match="observes nothing in the window of 400x400"):
        crop(noise(almost_all), almost_all, find_windows(almost_all, NATIVE)[0])
    with pytest.raises(InputError, match="size is 10000000000000; it must be at least 16 and at most 16384"):
        WindowConfig(size=10**13)
    with pytest.raises(InputError, match="context is -1"):
        WindowConfig(context=-1)


@given(holes())
@settings(max_examples=20)
def test_the_whole_picture_is_a_window_too(mask):
    picture = noise(mask)
    window = whole_window(mask)
    pixels, shrunk = crop(picture, mask, window)
    assert torch.equal(shrunk, mask)
    assert torch.equal(pixels, picture * mask)
    assert torch.equal(stitch(pixels, mask, [window], [picture]), picture)

"""The judge of scenes against scenes whose attributes are known, and the sampler of true completions."""

from functools import cache

import numpy as np
import pytest
import torch
from kornia.filters import gaussian_blur2d

from tools import scene_checker, scenes, streets

COUNT = 500


@cache
def rendered() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    images, u = scenes.sample_scenes(COUNT, seed=11)
    return images, scenes.attributes(u)


@cache
def degraded() -> np.ndarray:
    blurred = gaussian_blur2d(torch.from_numpy(rendered()[0]), (7, 7), (0.7, 0.7))
    noise = torch.randn(blurred.shape, generator=torch.Generator().manual_seed(3))
    return (blurred + 0.02 * noise).clamp(0, 1).numpy()


def chimeras() -> np.ndarray:
    images, _ = rendered()
    return np.concatenate([images[..., :32], np.roll(images, 1, axis=0)[..., 32:]], axis=3)


def sun_found(images: np.ndarray) -> np.ndarray:
    _, known = rendered()
    sun = scene_checker.find_sun(images)
    x = (scenes.SIZE - 1) / 2 + np.where(known["sun_side"] == "right", 1, -1) * known["sun_offset"]
    near = np.hypot(sun.x - x, sun.y - known["sun_row"]) < 1
    return sun.present & (sun.side == known["sun_side"]) & near


def test_rendered_scenes_are_symmetric_and_chimeras_are_not():
    for measure in (scene_checker.symmetry_error, scene_checker.edge_agreement):
        assert measure(rendered()[0]).max() < 1e-6
        assert measure(chimeras()).mean() > 0.15


def test_symmetry_error_is_the_mean_difference_to_the_mirror_image_below_the_sun():
    images = np.full((1, 3, 64, 64), 0.5)
    images[..., : scenes.SUN_FREE_ROW, :9] = 1
    images[..., scenes.SUN_FREE_ROW :, :32] += 0.3
    assert scene_checker.symmetry_error(images) == pytest.approx(0.3)
    assert scene_checker.edge_agreement(images) == pytest.approx(0.3)


def test_sun_is_found_where_it_stands():
    assert sun_found(rendered()[0]).mean() > 0.995
    assert sun_found(degraded()).mean() > 0.98


def test_suns_are_counted_in_each_half():
    images, known = rendered()
    on_the_right = known["sun_side"] == "right"
    one = np.stack([~on_the_right, on_the_right], axis=1)
    for pictures in (images, degraded()):
        assert (scene_checker.count_suns(pictures) == one).all(axis=1).mean() > 0.98

    sunny = np.where(on_the_right[:, None, None, None], images, images[..., ::-1])[..., 32:]
    dark = np.where(on_the_right[:, None, None, None], images[..., ::-1], images)[..., 32:]
    for left, right, count in ((sunny, sunny, (1, 1)), (dark, dark, (0, 0)), (dark, sunny, (0, 1))):
        joined = np.concatenate([left[..., ::-1], right], axis=3)
        assert (scene_checker.count_suns(joined) == count).all(axis=1).mean() > 0.98
        assert (scene_checker.find_sun(joined).present == (sum(count) > 0)).mean() > 0.98


def with_attributes(u: np.ndarray, **values: float) -> np.ndarray:
    """A copy of scenes ``u`` with some of their uniforms set."""
    u = u.copy()
    for name, value in values.items():
        u[:, scenes.ATTRIBUTES.index(name)] = value
    return u


def test_two_suns_in_one_half_are_two():
    u = scenes.draw_uniforms(60, np.random.default_rng(4))
    near, far = (scenes.render(with_attributes(u, sun_side=0.9, sun_offset=x, sun_row=0.5)) for x in (0.05, 0.95))
    both = np.concatenate([near[..., :51], far[..., 51:]], axis=3)
    assert (scene_checker.count_suns(both) == (0, 2)).all(axis=1).mean() > 0.95


@pytest.mark.parametrize("pictures, share", [(lambda: rendered()[0], 0.99), (degraded, 0.96)], ids=["exact", "blur"])
def test_horizon_is_within_a_pixel_at_either_edge(pictures, share):
    _, known = rendered()
    images = pictures()
    error = scene_checker.horizon(images) - known["horizon"][:, None]
    assert (np.abs(error) <= 1).mean() > share
    assert np.abs(error).max() < 3
    assert np.abs(error.mean()) < 0.15
    assert (scene_checker.horizon_mismatch(images) <= 1).mean() > share


def test_horizon_mismatch_measures_halves_that_do_not_fit():
    _, known = rendered()
    expected = np.abs(known["horizon"] - np.roll(known["horizon"], 1))
    measured = scene_checker.horizon_mismatch(chimeras())
    assert (np.abs(measured - expected) <= 1.5).mean() > 0.97


def test_palette_error_is_small_under_one_light_and_large_under_a_wrong_one():
    images, _ = rendered()
    assert scene_checker.palette_error(images).max() < 0.005
    assert scene_checker.palette_error(degraded()).max() < 0.015
    swapped = scene_checker.palette_error(images[:, [1, 2, 0]])
    assert np.percentile(swapped, 5) > 0.03


def test_check_returns_every_measure_and_takes_torch_and_numpy_alike():
    images = rendered()[0][:20]
    report, from_torch = scene_checker.check(images), scene_checker.check(torch.from_numpy(images))
    assert all(len(values) == 20 for values in report.values())
    assert all(np.array_equal(report[name], from_torch[name]) for name in report)
    assert np.array_equal(report["horizon_mismatch"], scene_checker.horizon_mismatch(images))
    assert np.array_equal(report["suns_left"] + report["suns_right"], report["sun_present"].astype(int))


def half_hidden(count: int, **sun: float) -> tuple[np.ndarray, np.ndarray]:
    """Scenes with the sun as given, and a mask that shows their left half."""
    visible = np.zeros((64, 64), dtype=bool)
    visible[:, :32] = True
    return with_attributes(scenes.draw_uniforms(count, np.random.default_rng(5)), **sun), visible


def test_completions_agree_where_seen_and_differ_where_hidden():
    u, visible = half_hidden(4, sun_side=0.8)
    drawn = scenes.sample_agreeing(u, visible, chains=6, seed=0, steps=60, tolerance=0.02)
    assert drawn.shape == (4, 6, scenes.DIMENSION)
    assert ((drawn >= 0) & (drawn < 1)).all()
    truth, completions = scenes.render(u), scenes.render(drawn.reshape(24, -1)).reshape(4, 6, 3, 64, 64)
    gap = np.abs(completions - truth[:, None])
    assert gap[..., visible].max() <= 0.02
    assert (gap[..., ~visible].max(axis=(2, 3)) > 0.1).any(axis=1).all()
    # The sun is the only thing hidden: below it the hidden half is the mirror image of the seen one.
    assert scene_checker.symmetry_error(completions.reshape(24, 3, 64, 64)).max() < 1e-6


def test_a_hidden_sun_is_uniform_over_its_range_and_stays_hidden():
    start = 0.02
    u, visible = half_hidden(2, sun_side=0.8, sun_offset=start)
    drawn = scenes.sample_agreeing(u, visible, chains=30, seed=1, steps=75).reshape(60, -1)
    column = {name: drawn[:, scenes.ATTRIBUTES.index(name)] for name in ("sun_side", "sun_offset", "sun_row")}
    assert (column["sun_side"] >= 0.5).all()
    moved = np.sort(column["sun_offset"][column["sun_offset"] != start])
    assert len(moved) >= 25
    # Kolmogorov-Smirnov, at a level of about one in a thousand.
    steps = np.arange(len(moved) + 1) / len(moved)
    distance = max((steps[1:] - moved).max(), (moved - steps[:-1]).max())
    assert distance < 1.95 / np.sqrt(len(moved))


def test_a_seen_sun_leaves_no_freedom_to_it():
    u, visible = half_hidden(3, sun_side=0.2)
    drawn = scenes.sample_agreeing(u, visible, chains=4, seed=2, steps=40).reshape(12, -1)
    images = scenes.render(drawn)
    truth = scenes.attributes(np.repeat(u, 4, axis=0))
    sun = scene_checker.find_sun(images)
    assert (sun.side == "left").all()
    assert (scene_checker.count_suns(images) == (1, 0)).all()
    assert np.abs(scenes.attributes(drawn)["sun_offset"] - truth["sun_offset"]).max() < 0.2


def test_a_street_with_one_house_hidden_has_completions_that_repeat_the_other_one_and_some_that_do_not():
    u, (_, visible) = streets.draw_uniforms(1, np.random.default_rng(7)), half_hidden(1)
    drawn = scenes.sample_agreeing(u, visible, chains=12, seed=0, steps=90, render=streets.render)[0]
    truth, completions = streets.render(u)[0], streets.render(drawn)
    assert np.abs(completions - truth)[..., visible].max() <= 0.02
    houses = completions[:, :, 16:]
    apart = np.abs(houses[..., :32] - houses[..., 32:]).max(axis=(1, 2, 3))
    assert 0 < (apart < 1e-6).sum() < 12

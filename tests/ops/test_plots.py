"""The drawn pictures: every pixel of every tile, labels, and curves."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vipaint_ops.errors import InputError
from vipaint_ops.evaluation import plots
from vipaint_ops.images import masks


def picture(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> torch.Tensor:
    return 2 * torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed)) - 1


def eight_bit(image: torch.Tensor, scale: int) -> np.ndarray:
    pixels = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()
    return np.kron(pixels, np.ones((scale, scale, 1), dtype=np.uint8))


def contains(sheet: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Top left corners of ``tile`` in ``sheet``, pixel for pixel."""
    height, width = tile.shape[:2]
    candidates = np.argwhere((sheet[: 1 - height, : 1 - width] == tile[0, 0]).all(axis=-1))
    return [(r, c) for r, c in candidates.tolist() if np.array_equal(sheet[r : r + height, c : c + width], tile)]


def history(length: int) -> list[dict[str, float]]:
    return [
        {"loss": 0.0, "likelihood": 1e6 * 0.2**i - 50, "transitions": 3.0 + i, "top": 1.0}
        | ({"top_kl": 5.0 - 0.1 * i, "bound": 40.0 + i} if i % 10 == 0 else {})
        for i in range(length)
    ]


def test_every_picture_is_in_its_row_and_column_pixel_for_pixel():
    tiles = [picture(seed) for seed in range(5)]
    sheet = plots.contact_sheet([(f"sample {i}", tile) for i, tile in enumerate(tiles)], columns=2, scale=4)
    assert sheet.dtype == np.uint8
    assert sheet.ndim == 3
    assert sheet.shape[2] == 3
    places = [contains(sheet, eight_bit(tile, 4)) for tile in tiles]
    assert all(len(place) == 1 for place in places)
    rows, columns = zip(*(place[0] for place in places), strict=True)
    assert rows[0] == rows[1] < rows[2] == rows[3] < rows[4]
    assert columns[0] == columns[2] == columns[4] < columns[1] == columns[3]


def test_a_batch_of_one_a_grey_picture_and_values_out_of_range_are_drawn():
    grey, batch, wild = picture(1, channels=1), picture(2)[None], 3 * picture(3)
    sheet = plots.contact_sheet([("a", grey), ("b", batch), ("c", wild)], columns=3, scale=2)
    for tile in (grey, batch[0], wild.clamp(-1, 1)):
        assert contains(sheet, eight_bit(tile, 2))


def test_small_pictures_are_enlarged_and_large_ones_are_not():
    for side, scale in ((16, 12), (64, 3), (200, 1)):
        tile = picture(0, side, side)
        assert contains(plots.contact_sheet([("a", tile)], columns=1), eight_bit(tile, scale))


def test_labels_and_title_leave_ink_above_their_picture():
    bare, labelled, titled = (
        plots.contact_sheet([(label, picture(0))], columns=1, scale=8, title=title)
        for label, title in (("", ""), ("observed", ""), ("observed", "Title"))
    )
    assert bare.shape == labelled.shape
    ((top, _),) = contains(labelled, eight_bit(picture(0), 8))
    assert (bare[:top] == 255).all()
    assert (labelled[:top] < 128).any()
    assert titled.shape[0] > labelled.shape[0]
    assert (titled[: titled.shape[0] - labelled.shape[0] + 10] < 128).any()


def test_a_label_is_text_and_no_formula():
    items = [("cost $5 and \\frac $x", picture(0))]
    assert (plots.contact_sheet(items, columns=1, scale=20)[:40] < 128).any()


@pytest.mark.parametrize("items", [[], [("a", picture(0)), ("b", picture(1, 8, 9))]])
def test_a_sheet_of_nothing_or_of_several_sizes_is_refused(items):
    with pytest.raises(InputError, match="pictures of one size"):
        plots.contact_sheet(items, columns=2)


def test_show_hole_keeps_observed_pixels_and_never_reads_hidden_ones():
    mask = masks.half_plane(32, 32)
    observed = torch.where(mask == 1, picture(0, 32, 32)[None], torch.nan)
    shown = plots.show_hole(observed, mask)
    seen = (mask == 1).expand_as(shown)
    assert torch.equal(shown[seen], observed[seen])
    assert shown[~seen].unique().numel() == 2
    assert shown[~seen].min() > 0.5


@pytest.mark.parametrize("length", [1, 2, 50])
def test_curves_have_a_panel_for_every_term_recorded(length):
    four = plots.fit_curves(history(length))
    two = plots.fit_curves([{name: r[name] for name in ("loss", "likelihood", "transitions")} for r in history(length)])
    assert four.dtype == np.uint8
    assert four.shape[2] == 3
    assert four.shape[0] == 2 * two.shape[0]
    assert four.shape[1] == two.shape[1]
    coloured = (four.max(axis=2).astype(int) - four.min(axis=2)) > 60
    height, width = coloured.shape
    for rows in (slice(None, height // 2), slice(height // 2, None)):
        for columns in (slice(None, width // 2), slice(width // 2, None)):
            assert coloured[rows, columns].any()


def test_a_start_far_off_does_not_flatten_the_curve():
    def drawn_height(first: float) -> int:
        pixels = plots.fit_curves([{"bound": first}] * 2 + [{"bound": float(i)} for i in range(48)]).astype(int)
        coloured = (pixels.max(axis=2) - pixels.min(axis=2)) > 60
        # Below the heading: its last value is coloured too.
        return int(np.ptp(np.argwhere(coloured[60:])[:, 0]))

    assert drawn_height(-1e6) > 0.7 * drawn_height(0.0)


@pytest.mark.parametrize("nothing", [[], [{"loss": 1.0}]])
def test_a_history_without_terms_is_refused(nothing):
    with pytest.raises(InputError, match="no loss terms to draw"):
        plots.fit_curves(nothing)


def test_matplotlib_is_loaded_on_use_only_and_without_pyplot():
    script = (
        "import sys; from vipaint_ops.evaluation import plots; assert 'matplotlib' not in sys.modules;"
        "plots.fit_curves([{'likelihood': 1.0}]); assert 'matplotlib' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_heat_map_is_brighter_where_the_values_are_larger():
    values = torch.linspace(0, 2, 20).reshape(1, 1, 2, 10)
    pixels = plots.heat_map(values, largest=1.0)
    light = pixels.astype(float).sum(-1).ravel()
    assert pixels.shape == (2, 10, 3)
    assert (np.diff(light[:10]) > 0).all()
    assert (pixels[1] == pixels[1, 1]).all()


def test_a_sheet_of_many_large_pictures_is_shrunk_to_a_size_that_is_written_in_seconds():
    sheet = plots.contact_sheet([("", torch.full((3, 512, 512), 0.5))] * 400, columns=29)
    assert 2**24 < sheet.shape[0] * sheet.shape[1] < 2**25
    assert (sheet == 191).all(-1).sum() == pytest.approx(2**24, rel=0.02)

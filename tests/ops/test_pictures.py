"""Reading and writing of picture and mask files."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.ops.conftest import scene
from vipaint_ops import InputError
from vipaint_ops.images.pictures import centre_square, load_image, load_mask, save_image


def test_a_saved_picture_is_read_back_to_the_nearest_level(tmp_path):
    picture = scene(20, 30)
    save_image(tmp_path / "a.png", picture)
    assert (load_image(tmp_path / "a.png") - picture).abs().max() <= 0.5 / 127.5 + 1e-6
    save_image(tmp_path / "b.png", load_image(tmp_path / "a.png"))
    assert torch.equal(load_image(tmp_path / "a.png"), load_image(tmp_path / "b.png"))
    save_image(tmp_path / "c.png", 3 * torch.ones(3, 4, 4))
    assert (load_image(tmp_path / "c.png") == 1).all()


def test_the_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = load_image(tmp_path / "turned.png")
    assert turned.shape == (1, 3, 6, 4)
    assert (turned[..., -1] == 1).all()
    assert (turned[..., :-1] == -1).all()


def test_deep_grey_keeps_its_depth_and_colours_are_equal(tmp_path):
    levels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    Image.fromarray(levels).save(tmp_path / "deep.png")
    expected = torch.from_numpy(levels.astype(np.float32)) / 65535 * 2 - 1
    torch.testing.assert_close(load_image(tmp_path / "deep.png"), expected.expand(1, 3, 3, 4))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1"])
def test_every_kind_of_file_gives_three_colours(mode, tmp_path):
    picture = Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode)
    picture.save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    loaded = load_image(next(tmp_path.iterdir()))
    assert loaded.shape == (1, 3, 4, 5)
    assert (loaded == 1).all()


def test_transparent_parts_are_white_in_pictures_and_hidden_in_masks(tmp_path):
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0] = (255, 255, 255, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == 1).all()
    for white in ("fill", "known"):
        assert load_mask(tmp_path / "a.png", white=white).tolist() == [[[[1, 1], [0, 0]]]]


def test_greys_of_a_mask_are_hidden_either_way(tmp_path):
    Image.fromarray(np.array([[0, 3, 127, 128, 252, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png", white="known").flatten().tolist() == [0, 0, 0, 0, 1, 1]
    assert load_mask(tmp_path / "m.png", white="fill").flatten().tolist() == [1, 1, 0, 0, 0, 0]


def test_a_mask_without_a_word_on_white_is_filled_where_it_is_white_with_a_warning(tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    with pytest.warns(FutureWarning, match="white='known' for masks of earlier versions"):
        assert load_mask(tmp_path / "m.png").flatten().tolist() == [1, 0]
    with pytest.raises(InputError, match="white is 'black'"):
        load_mask(tmp_path / "m.png", white="black")


def test_the_central_square_mixes_only_the_pixels_it_covers():
    picture = scene(40, 60)
    assert torch.equal(centre_square(picture, 40), picture[..., 10:50])
    torch.testing.assert_close(centre_square(picture, 20), torch.nn.functional.avg_pool2d(picture[..., 10:50], 2))
    mask = torch.ones(1, 1, 40, 60)
    mask[..., 21, 31] = 0
    assert (centre_square(mask, 20) < 1).nonzero()[:, 2:].tolist() == [[10, 10]]

"""Damaged picture files of every format that Pillow writes: a picture, or one error that names the file."""

import io
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vipaint_ops.errors import InputError
from vipaint_ops.images.pictures import load_image, load_mask

SIDE = 12
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "LAB")


def written():
    """A small file of every format and mode that Pillow writes."""
    Image.init()
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
    grey = pixels[..., 0]
    pictures = {mode: Image.fromarray(pixels[..., :3]).convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "CMYK")}
    pictures |= {"RGBA": Image.fromarray(pixels), "LAB": Image.new("LAB", (SIDE, SIDE), (99, 120, 140))}
    for mode, dtype in {"I": np.int32, "I;16": np.uint16, "F": np.float32}.items():
        pictures[mode] = Image.fromarray(grey.astype(dtype) / dtype(255 if mode == "F" else 1)).convert(mode)
    files = {}
    for kind in sorted(Image.SAVE):
        for mode, picture in pictures.items():
            stored = io.BytesIO()
            try:
                picture.save(stored, kind)
            except (OSError, ValueError, KeyError, NotImplementedError):
                continue
            files[f"{kind} {mode}"] = stored.getvalue()
    return files


FILES = written()
change = st.tuples(
    st.sampled_from(["set", "cut", "remove", "insert"]),
    st.one_of(st.integers(0, 200), st.integers(0, 2000)),
    st.one_of(st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255)),
)


def damage(content, changes):
    content = bytearray(content)
    for kind, position, value in changes:
        at = position % (len(content) + 1)
        match kind:
            case "set":
                content[at : at + 1] = bytes([value])
            case "cut":
                del content[at:]
            case "remove":
                del content[at : at + 1 + value % 8]
            case "insert":
                content[at:at] = bytes([value] * 4)
    return bytes(content)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file to write; large pictures are refused early, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 16)
        yield tmp_path_factory.mktemp("damaged") / "file"


def load_or_refuse(load, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return load(path)
        except InputError as error:
            assert str(path) in str(error)
            return None


@settings(max_examples=1500)
@given(st.sampled_from(sorted(FILES)), st.lists(change, max_size=4))
def test_a_damaged_file_is_a_picture_or_an_error_that_names_it(path, kind, changes):
    path.write_bytes(damage(FILES[kind], changes))
    picture, mask = load_or_refuse(load_image, path), load_or_refuse(partial(load_mask, white="fill"), path)
    if picture is not None:
        assert picture.shape[:2] == (1, 3)
        assert picture.numel() > 0
        assert picture.abs().max() <= 1
    if mask is not None:
        assert ((mask == 0) | (mask == 1)).all()


@pytest.mark.parametrize("kind", FILES)
def test_whatever_pillow_writes_and_reads_is_read(kind, path):
    """Not programs (EPS), numbers without a scale (SPIDER), formats that are only written, or ICNS, too large here."""
    path.write_bytes(FILES[kind])
    if kind.split()[0] in ("EPS", "SPIDER", "PDF", "PALM", "ICNS"):
        assert load_or_refuse(load_image, path) is None or kind == "SPIDER F"
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert load_image(path).shape == (1, 3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"P6 0 5 255\n", "cannot be read"),
        (FILES["DDS RGB"][:76] + b"\xff" * 52, "cannot be read"),
        (FILES["PNG RGB"][:-30], "cannot be read"),
        (FILES["PNG RGB"][:16] + b"\0\1\0\0\0\1\0\0" + FILES["PNG RGB"][24:], "cannot be read"),
        (FILES["BMP RGB"][:18] + b"\xff\xff\0\0\xff\xff\0\0" + FILES["BMP RGB"][26:], "decompression bomb"),
        (FILES["EPS RGB"], "PostScript program"),
    ],
    ids=["empty", "no pixels", "DDS header", "cut", "checksum", "bomb", "program"],
)
def test_the_error_says_what_is_wrong(content, message, path):
    path.write_bytes(content)
    for load in (load_image, partial(load_mask, white="fill")):
        with pytest.raises(InputError, match=message):
            load(path)

"""What picture files carry beyond plain pixels, and every way in which a mask file carries its hole."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from vipaint_ops.errors import InputError
from vipaint_ops.images.pictures import load_image, load_mask

HOLE = np.arange(64).reshape(8, 8) % 8 >= 5
PHOTO = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
LEVELS = np.where(HOLE, 0, 255).astype(np.uint8)
D50_OF_SRGB = {"r": (0.4361, 0.2225, 0.0139), "g": (0.3851, 0.7169, 0.0971), "b": (0.1431, 0.0606, 0.7141)}


def loud(load, path, **arguments):
    """The result, and the text of its only warning or nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = load(path, **arguments)
    assert len(caught) <= 1
    return result, "".join(str(w.message) for w in caught)


def save(path, pixels, **settings):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **settings)
    return path


def with_alpha(colours, alpha):
    return np.concatenate([np.broadcast_to(colours, (8, 8, 3)), alpha[..., None]], 2).astype(np.uint8)


def tiff(bits, sample_format, data, size, photometric=1):
    """A grey TIFF of one strip."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: size[1]}
    tags |= {279: len(data), 339: sample_format}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + directory + bytes(4)


def png(bits, colour_type, rows, *chunks):
    """A PNG of one row."""
    width = len(rows) * 8 // bits // {0: 1, 2: 3, 4: 2}[colour_type]
    header = struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + rows)), (b"IEND", b"")]
    body = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def icc(gamma, columns):
    """A colour profile with the primaries of sRGB, in the given order, and a power law."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * v) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    for channel, primary in zip("rgb", columns, strict=True):
        tags |= {f"{channel}XYZ".encode(): xyz(D50_OF_SRGB[primary]), f"{channel}TRC".encode(): curve}
    at, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    fields = struct.pack(">I4xI4s4s4s", at + len(body), 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    return (
        fields.ljust(68, b"\0") + xyz((0.9642, 1, 0.8249))[8:] + bytes(48) + struct.pack(">I", len(tags)) + table + body
    )


def encoded(light):
    """The transfer function of sRGB."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


MASKS = {
    "1-bit": lambda: Image.fromarray(LEVELS).convert("1"),
    "8-bit grey": lambda: LEVELS,
    "8-bit grey of 0 and 1": lambda: LEVELS // 255,
    "16-bit grey": lambda: LEVELS.astype(np.uint16) * 257,
    "16-bit grey of 0 to 255": lambda: LEVELS.astype(np.uint16),
    "colours": lambda: np.repeat(LEVELS[..., None], 3, 2),
    "palette": lambda: Image.fromarray(np.repeat(LEVELS[..., None], 3, 2)).quantize(2),
    "opaque RGBA": lambda: with_alpha(LEVELS[..., None], np.full((8, 8), 255)),
    "faint RGBA": lambda: with_alpha(LEVELS[..., None], np.full((8, 8), 90)),
    "photograph with a transparent hole": lambda: with_alpha(PHOTO, LEVELS),
    "white with a transparent hole": lambda: with_alpha(255, LEVELS),
    "black with a transparent hole": lambda: with_alpha(0, LEVELS),
    "faint transparent hole": lambda: with_alpha(PHOTO, np.where(HOLE, 240, 255)),
    "half transparent hole": lambda: with_alpha(PHOTO, np.where(HOLE, 77, 255)),
    "LA": lambda: Image.fromarray(np.stack([PHOTO[..., 0], LEVELS], 2), "LA"),
    "palette with transparency": lambda: Image.fromarray(with_alpha(PHOTO // 64 * 64, LEVELS)).quantize(64),
}


@pytest.mark.parametrize("kind", MASKS)
def test_the_hole_is_found_in_every_kind_of_mask(kind, tmp_path):
    path = save(tmp_path / "m.png", MASKS[kind]())
    known = torch.from_numpy(~HOLE).float()[None, None]
    mask, notice = loud(load_mask, path, white="known")
    assert torch.equal(mask, known)
    if kind not in ("half transparent hole", "faint transparent hole"):
        assert torch.equal(loud(load_mask, path, invert=True)[0], 1 - known)
    opacity = "transparen" in kind or kind == "LA"
    assert torch.equal(loud(load_mask, path, white="fill")[0], known if opacity else 1 - known)
    assert ("opacity is taken" in notice) == opacity


@pytest.mark.parametrize(
    ("suffix", "pixels"),
    [
        ("tiff", LEVELS.astype(np.int32)),
        ("tiff", LEVELS.astype(np.int32) // 255),
        ("tiff", LEVELS.astype(np.int32) * 257),
        ("tiff", LEVELS.astype(np.float32) / 255 * (1 + 3e-7)),
        ("tiff", Image.fromarray(LEVELS).convert("RGB").convert("CMYK")),
        ("jpg", Image.fromarray(LEVELS).convert("RGB").convert("CMYK")),
        ("gif", LEVELS),
        ("bmp", Image.fromarray(LEVELS).convert("1")),
        ("webp", Image.fromarray(with_alpha(PHOTO, LEVELS))),
        ("tga", Image.fromarray(with_alpha(PHOTO, LEVELS))),
    ],
)
def test_the_hole_is_found_in_other_formats(suffix, pixels, tmp_path):
    path = save(tmp_path / f"m.{suffix}", pixels, **({"quality": 95} if suffix == "jpg" else {}))
    assert torch.equal(loud(load_mask, path, white="known")[0], torch.from_numpy(~HOLE).float()[None, None])


@given(st.integers(1, 100), st.sampled_from(["JPEG", "WEBP"]), st.sampled_from(["L", "RGB"]))
def test_compression_adds_no_colours_to_a_mask(quality, kind, mode):
    big = Image.fromarray(LEVELS).resize((64, 64), Image.Resampling.NEAREST).convert(mode)
    stored = io.BytesIO()
    big.save(stored, kind, quality=quality)
    again = np.asarray(Image.open(stored).convert("RGB"), np.int16)
    assert np.ptp(again, axis=2).max() < 32


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (PHOTO, "mask .* has colours, as a photograph: are picture and mask swapped"),
        (with_alpha(PHOTO, np.full((8, 8), 255)), "has colours"),
        (with_alpha(LEVELS[..., None], np.where(HOLE.T, 0, 255)), "a hole in its colours and one in transparency"),
        (np.full((8, 8), np.nan, np.float32), "NaN"),
        (LEVELS.astype(np.float32), r"outside \[0, 1\] \(0 to 255\)"),
        (LEVELS.astype(np.int32) - 1, r"outside \[0, 1\] \(-0.0039"),
        (LEVELS.astype(np.int32) * 1000, "white is not known: the largest value is 255000 of 2147483647"),
    ],
)
def test_what_cannot_be_read_as_a_mask_is_refused_by_name(pixels, message, tmp_path):
    path = save(tmp_path / "mask.tiff", pixels)
    with pytest.raises(InputError, match=message) as refusal:
        load_mask(path, white="known")
    assert str(path) in str(refusal.value)


def test_a_grey_photograph_as_a_mask_is_told(tmp_path):
    grey = np.random.default_rng(1).integers(40, 200, (8, 8), dtype=np.uint8)
    assert "is it a photograph?" in loud(load_mask, save(tmp_path / "m.png", grey), white="fill")[1]


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "I;16"])
def test_a_mask_of_one_level_keeps_it(level, mode, tmp_path):
    value = (level,) * len(Image.new(mode, (1, 1)).getbands()) if mode != "I;16" else level * 257
    path = save(tmp_path / "m.png", Image.new(mode, (4, 4), value if mode != "1" else level))
    assert (load_mask(path, white="known") == (level > 0)).all()


INTEGERS = {
    "int32 of 0 to 255": (32, 2, "<i4", 255),
    "int32 of 0 to 65535": (32, 2, "<i4", 65535),
    "int32": (32, 2, "<i4", 2**31 - 1),
    "uint32": (32, 1, "<u4", 2**32 - 1),
    "uint32 of 0 to 255": (32, 1, "<u4", 255),
    "int16": (16, 2, "<i2", 2**15 - 1),
    "int16 of 0 to 255": (16, 2, "<i2", 255),
    "uint16": (16, 1, "<u2", 65535),
    "uint16 of 0 to 255": (16, 1, "<u2", 255),
}


def grey_tiff(path, kind, photometric):
    """Six grey levels from black to white in a TIFF; returns them in [-1, 1]."""
    bits, sample_format, dtype, white = INTEGERS[kind]
    shares = np.linspace(0, 1, 6)
    stored = (shares * white).round().astype(dtype)
    path.write_bytes(tiff(bits, sample_format, stored.tobytes(), (6, 1), photometric))
    return torch.from_numpy(2 * shares - 1).float()


@pytest.mark.parametrize("kind", INTEGERS)
def test_whole_numbers_of_every_depth_reach_from_black_to_white(kind, tmp_path):
    expected = grey_tiff(tmp_path / "a.tiff", kind, photometric=1)
    loaded, notice = loud(load_image, tmp_path / "a.tiff")
    torch.testing.assert_close(loaded[0, :, 0], expected.expand(3, 6), atol=1e-4, rtol=0)
    assert (f"no value is above {INTEGERS[kind][3]}" in notice) == ("of 0" in kind)


def test_where_zero_is_white_levels_are_turned(tmp_path):
    expected = grey_tiff(tmp_path / "a.tiff", "uint16", photometric=0)
    torch.testing.assert_close(loud(load_image, tmp_path / "a.tiff")[0][0, 0, 0], -expected, atol=1e-4, rtol=0)
    assert loud(load_mask, tmp_path / "a.tiff", white="known")[0].flatten().tolist() == [1, 0, 0, 0, 0, 0]


def test_12_bits_fill_the_range(tmp_path):
    (tmp_path / "a.tiff").write_bytes(tiff(12, 1, b"\xff\xf0\x00\x80\x00\x00", (4, 1)))
    expected = torch.tensor([1, -1, 2 * 0x800 / 4095 - 1, -1])
    torch.testing.assert_close(loud(load_image, tmp_path / "a.tiff")[0][0, 0, 0], expected)


LOSSES = {
    "transparent": (png(8, 4, bytes([9, 255, 9, 0])), "transparent parts become white"),
    "16-bit colours": (png(16, 2, bytes(12)), "more than 8 bits are cut to 8"),
    "16-bit grey": (png(16, 0, b"\xff\xff\0\0"), "results have 8 bits"),
    "transparent level of 16-bit grey": (png(16, 0, b"\xff\xff\0\0", (b"tRNS", b"\0\0")), "become white"),
    "16-bit grey with opacity": (png(16, 4, bytes(4)), "more than 8 bits"),
    "16-bit PPM": (b"P6 1 1 65535\n" + bytes(6), "more than 8 bits"),
    "linear light": (png(8, 2, bytes(3), (b"gAMA", struct.pack(">I", 100000))), "gamma of 1 is not applied"),
    "HDR": (png(8, 2, bytes(3), (b"cICP", bytes([9, 16, 0, 1]))), "cICP"),
    "other primaries": (png(8, 2, bytes(3), (b"cHRM", struct.pack(">8I", *([30000] * 8)))), "primary colours"),
    "broken profile": (
        png(8, 2, bytes(3), (b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))),
        "profile cannot be read and is lost",
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_what_is_lost_is_said_in_one_line(kind, tmp_path):
    content, message = LOSSES[kind]
    (tmp_path / "a.png").write_bytes(content)
    assert message in loud(load_image, tmp_path / "a.png")[1]


def test_frames_and_gain_maps_are_said_to_be_lost(tmp_path):
    frames = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    for suffix in ("gif", "tiff", "webp", "png"):
        path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
        assert "only the first of its 2 frames is used" in loud(load_image, path)[1]
    stored = io.BytesIO()
    frames[0].save(stored, "JPEG")
    note = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta hdrgm:Version="1.0"/>'
    marker = b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note
    (tmp_path / "a.jpg").write_bytes(stored.getvalue()[:2] + marker + stored.getvalue()[2:])
    assert "HDR gain map is lost" in loud(load_image, tmp_path / "a.jpg")[1]


def test_colour_profiles_are_converted_to_srgb(tmp_path):
    path = save(tmp_path / "a.png", PHOTO, icc_profile=icc(1.0, "bgr"))
    loaded, notice = loud(load_image, path)
    expected = 2 * encoded(PHOTO[..., ::-1] / 255.0) - 1
    assert np.abs(loaded[0].permute(1, 2, 0).numpy() - expected).max() < 6 / 255
    assert "colours are converted from its profile to sRGB" in notice


def test_an_srgb_profile_changes_no_pixel(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = load_image(save(tmp_path / "a.png", PHOTO))
    loaded, notice = loud(load_image, save(tmp_path / "b.png", PHOTO, icc_profile=profile))
    assert torch.equal(loaded, plain)
    assert not notice


def test_a_profile_does_not_move_the_cut_of_a_mask(tmp_path):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    path = save(tmp_path / "m.png", ramp, icc_profile=icc(1.0, "rgb"))
    assert torch.equal(loud(load_mask, path, white="known")[0].flatten(), (torch.arange(256) >= 251).float())


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [*(("tiff", t) for t in (np.uint8, np.uint16, np.int32, np.float32)), ("png", np.uint8), ("png", np.uint16)],
)
def test_masks_of_every_depth_are_turned_with_the_picture(dtype, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.array([[0, 1, 1], [1, 1, 1]]).astype(dtype)
    path = save(tmp_path / f"m.{suffix}", levels, exif=exif)
    assert loud(load_mask, path, white="known")[0].tolist() == [[[[1, 0], [1, 1], [1, 1]]]]


def test_lab_is_converted(tmp_path):
    grey = Image.new("LAB", (2, 2), (137, 128, 128))
    loaded = load_image(save(tmp_path / "a.tiff", grey))
    assert (loaded - loaded.mean()).abs().max() < 3 / 255
    assert abs(loaded.mean()) < 6 / 255

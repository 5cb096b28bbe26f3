"""Colours of the pack's own sockets."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from tools.schema_snapshot import SNAPSHOT

SCRIPT = (Path(__file__).parents[2] / "web" / "sockets.js").read_text()
COLOURS = dict(re.findall(r'(VIPAINT_\w+): "#([0-9A-F]{6})"', SCRIPT))
STOCK = """
    FFD500 A8DADC AD7452 FFA931 6EE7B7 64B5F6 FF9CF9 81C784 B39DDB C2FFAE FF6E6E B0B0B0 66FFFF ECB4B4 CDFFCD DCC274
    FFA726 5C6BC0 8D6E63 EF5350 66BB6A 42A5F5 AB47BC 9CCC65 7E57C2 D4E157 FF7043 999999 AAAAAA
"""
"""Colours of ComfyUI's own sockets in its dark and its light theme, and of sockets without one."""
BACKGROUNDS = ("353535", "262729", "FFFFFF", "F0F0F0")
"""Of nodes, dark and light."""


def linear(colour):
    """Red, green and blue of an sRGB colour, proportional to light."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4))
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(first, second):
    """Contrast ratio of WCAG 2."""
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in map(linear, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def oklab(colour):
    """Coordinates in which distances are differences as seen (Ottosson 2020)."""
    r, g, b = linear(colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def difference(first, second):
    return sum((a - b) ** 2 for a, b in zip(oklab(first), oklab(second), strict=True)) ** 0.5


def test_every_socket_type_of_the_pack_has_a_colour():
    nodes = json.loads(SNAPSHOT.read_text()).values()
    types = {slot["type"] for node in nodes for slot in node["inputs"] + node["outputs"]}
    assert set(COLOURS) == {type for type in types if type.startswith("VIPAINT_")}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_a_colour_stands_out_on_dark_and_light_nodes_and_from_other_types(colour):
    assert all(contrast(colour, background) > 2.7 for background in BACKGROUNDS)
    assert all(difference(colour, stock) > 0.1 for stock in STOCK.split())


def test_the_colours_differ():
    assert all(difference(*pair) > 0.1 for pair in combinations(COLOURS.values(), 2))

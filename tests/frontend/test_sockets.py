"""Colours of the pack's own sockets, in every theme."""

import pytest

from tests.nodes.test_sockets import COLOURS

_CLASSIC = """types => types.map(type => [
    app.canvas.default_connection_color_byType[type], app.canvas.constructor.link_type_colors[type],
])"""
_NEWER = """types => types.map(
    type => getComputedStyle(document.documentElement).getPropertyValue(`--color-datatype-${type}`).trim()
)"""


@pytest.mark.parametrize("theme", ["light", "nord", "dark"])
def test_sockets_and_links_keep_their_colours_in_every_theme(frontend, theme):
    frontend.set("Comfy.ColorPalette", theme)
    frontend.page.wait_for_timeout(500)
    colours = [f"#{colour}" for colour in COLOURS.values()]
    assert frontend.page.evaluate(_CLASSIC, list(COLOURS)) == [[colour, colour] for colour in colours]
    assert frontend.page.evaluate(_NEWER, list(COLOURS)) == colours

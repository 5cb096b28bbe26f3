"""Draws the pack's icon and banner for the ComfyUI registry: ``python -m tools.make_icon``.

A picture with a hole, and completions that agree with it outside the hole and differ inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

Picture = Image.Image
Draw = ImageDraw.ImageDraw
Point = tuple[float, float]

IMAGES = Path(__file__).parent.parent / "docs" / "images"
ICON = (400, 400)
BANNER = (1260, 540)
TITLE = "VIPaint"
LINES = ("Many plausible restorations", "of one damaged picture")

LARGER = 4
"""Factor at which both are drawn; scaling down smooths the edges."""
SIDE = 640
"""Of a card while it is drawn."""
HOLE = (300, 70, 570, 400)
BORDER, CORNER = 22, 70

NIGHT, PAPER, MUTED = "#171a2b", "#fdfaf3", "#aab0cc"
SKY_TOP, SKY_LOW = (66, 64, 140), (255, 158, 107)
FAR_HILL, NEAR_HILL = "#7b4a7e", "#2c3157"
WALL, ROOF, LIGHT = "#f3e3cf", "#c4453f", "#ffd76a"


def sun(draw: Draw) -> None:
    """A large sun, low."""
    draw.ellipse((350, 190, 530, 370), fill="#ffe08a")


def moon(draw: Draw) -> None:
    """A full moon, and stars."""
    draw.ellipse((370, 110, 520, 260), fill="#f6f2dc")
    for x, y, radius in ((415, 165, 22), (470, 205, 16), (465, 150, 10)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="#d9d3b8")
    for x, y in ((500, 330), (340, 300), (545, 110), (335, 120)):
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill="#f6f2dc")


def balloon(draw: Draw) -> None:
    """A hot-air balloon."""
    draw.polygon([(385, 245), (485, 245), (455, 315), (415, 315)], fill="#e8d9bd")
    draw.ellipse((355, 90, 515, 280), fill="#e2574c")
    draw.ellipse((402, 90, 468, 280), fill="#ffd76a")
    draw.rounded_rectangle((412, 318, 458, 356), 8, fill="#6b3f2a")


def mountain(draw: Draw) -> None:
    """A mountain with snow."""
    draw.polygon([(305, 400), (440, 120), (575, 400)], fill="#5a4579")
    draw.polygon([(440, 120), (385, 235), (420, 215), (442, 250), (468, 215), (497, 238)], fill="#fdfaf3")


def landscape(inside: Callable[[Draw], None] | None) -> Picture:
    """The scene with ``inside`` drawn in the hole; none leaves the hole empty."""
    picture = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(picture)
    for y in range(SIDE):
        share = min(1.0, y / 420)
        sky = tuple(round(a + share * (b - a)) for a, b in zip(SKY_TOP, SKY_LOW, strict=True))
        draw.line((0, y, SIDE, y), fill=sky)
    if inside:
        inside(draw)
    draw.ellipse((-260, 330, 460, 900), fill=FAR_HILL)
    draw.ellipse((200, 400, 960, 1000), fill=NEAR_HILL)
    draw.ellipse((-300, 470, 560, 1000), fill=NEAR_HILL)
    draw.rectangle((100, 330, 240, 480), fill=WALL)
    draw.polygon([(75, 340), (170, 245), (265, 340)], fill=ROOF)
    draw.rectangle((145, 375, 195, 425), fill=LIGHT)
    return picture


def card(inside: Callable[[Draw], None] | None, side: int) -> Picture:
    """A print of the scene with a white border and round corners, ``side`` pixels wide."""
    picture = landscape(inside).convert("RGBA")
    draw = ImageDraw.Draw(picture)
    if inside is None:
        draw.rounded_rectangle(HOLE, 40, fill=NIGHT, outline=PAPER, width=12)
    shape = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, SIDE - 1, SIDE - 1), CORNER, fill=255)
    draw.rounded_rectangle((0, 0, SIDE - 1, SIDE - 1), CORNER, outline=PAPER, width=BORDER)
    picture.putalpha(shape)
    picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return ImageOps.expand(picture, 4, (253, 250, 243, 0))  # a clear margin: turned edges are smooth


def place(canvas: Picture, picture: Picture, centre: Point, angle: float) -> None:
    """Paste ``picture`` with its centre at ``centre``, turned counter-clockwise by ``angle`` degrees."""
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    canvas.alpha_composite(turned, (round(centre[0] - turned.width / 2), round(centre[1] - turned.height / 2)))


def icon(side: int) -> Picture:
    """The picture with the hole in front of three completions in a fan."""
    canvas = Image.new("RGBA", (side, side))
    ImageDraw.Draw(canvas).rounded_rectangle((0, 0, side - 1, side - 1), side // 6, fill=NIGHT)
    fan = ((sun, 0.66, 0.61, -40), (balloon, 0.60, 0.38, -15), (moon, 0.41, 0.31, 8))
    for inside, x, y, angle in fan:
        place(canvas, card(inside, round(0.42 * side)), (x * side, y * side), angle)
    place(canvas, card(None, round(0.52 * side)), (0.375 * side, 0.65 * side), 3)
    return canvas


def banner(width: int, height: int) -> Picture:
    """Name and purpose, the picture with the hole, and four completions in a fan."""
    canvas = Image.new("RGBA", (width, height), NIGHT)
    draw = ImageDraw.Draw(canvas)
    left = 0.055 * width
    draw.text((left, 0.30 * height), TITLE, fill=PAPER, font=ImageFont.load_default(0.2 * height), anchor="lm")
    for row, line in enumerate(LINES):
        y = (0.55 + 0.1 * row) * height
        draw.text((left, y), line, fill=MUTED, font=ImageFont.load_default(0.065 * height), anchor="lm")
    fan = ((sun, 0.855, 0.68, -36), (balloon, 0.84, 0.41, -18), (mountain, 0.76, 0.27, -2), (moon, 0.66, 0.30, 14))
    for inside, x, y, angle in fan:
        place(canvas, card(inside, round(0.40 * height)), (x * width, y * height), angle)
    place(canvas, card(None, round(0.54 * height)), (0.665 * width, 0.64 * height), 3)
    return canvas


def main() -> None:
    """Write both pictures, drawn larger and scaled down."""
    icon(LARGER * ICON[0]).resize(ICON, Image.Resampling.LANCZOS).save(IMAGES / "icon.png", optimize=True)
    wide = banner(LARGER * BANNER[0], LARGER * BANNER[1]).resize(BANNER, Image.Resampling.LANCZOS)
    wide.convert("RGB").save(IMAGES / "banner.png", optimize=True)


if __name__ == "__main__":
    main()

"""Pictures with title, caption and colour scale, and rows of them as PNG bytes, quick enough to follow a slider.

matplotlib, by which ``figures.py`` draws the same panels, takes some hundred milliseconds for axes and text.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from fusmae_lite.show.pictures import MASK_GREY

#: Pixels: side of a panel, text above and below it, the gap to its right, room for a colour scale, a line of text.
SIDE, HEAD, FOOT, GAP, SCALE, LINE = 196, 24, 38, 14, 66, 15
INK, PALE = "black", "#404040"
#: Colour maps of errors and of attention.
ERROR_MAP, MATRIX_MAP = "cividis", "viridis"


@dataclass(frozen=True)
class Scale:
    """Numbers as colours of a matplotlib map between 0 and `top`; what lies beyond takes the end's colour."""

    colours: str
    top: float
    unit: str

    def paint(self, values: ArrayLike) -> np.ndarray:
        """(H, W) -> (H, W, 3) in 0..1; NaN becomes the grey of a hidden patch."""
        colours = matplotlib.colormaps[self.colours].with_extremes(bad=(MASK_GREY,) * 3)
        return colours(np.clip(np.asarray(values, dtype=np.float64) / self.top, 0, 1))[..., :3]


@dataclass(frozen=True)
class Panel:
    """A picture (H, W, 3) in 0..1, the title above it in `colour`, at most two lines below, a scale to its right."""

    picture: np.ndarray
    title: str = ""
    caption: str = ""
    colour: str = INK
    scale: Scale | None = None


def draw_panels(rows: Sequence[Sequence[Panel]], title: str = "") -> bytes:
    """Rows of panels as PNG bytes; `title` stands above all, as much as fits. Without rows, the title alone."""
    top, step = (24 if title else 4), HEAD + SIDE + FOOT
    widths = [sum(SIDE + GAP + SCALE * bool(panel.scale) for panel in row) for row in rows]
    wide = GAP + max(widths, default=int(font(13).getlength(title)) + 1 + GAP)
    page = Image.new("RGB", (wide, top + step * len(rows)), "white")
    ImageDraw.Draw(page).text((GAP, 5), fitting(title, wide - 2 * GAP), INK, font(13))
    for number, row in enumerate(rows):
        left = GAP
        for panel in row:
            _place(page, panel, left, top + number * step + HEAD)
            left += SIDE + GAP + SCALE * bool(panel.scale)
    return page_png(page)


def fitting(text: str, width: int) -> str:
    """The text, cut where a line of `width` pixels in the font of titles ends."""
    short = text
    while font(13).getlength(short) > width:
        text = text[:-1]
        short = f"{text}…"
    return short


def to_image(picture: ArrayLike) -> Image.Image:
    """(H, W, 3) in 0..1 as a PIL image."""
    return Image.fromarray((np.clip(np.asarray(picture), 0, 1) * 255).round().astype(np.uint8))


def few_colours(png: bytes) -> bytes:
    """The same picture in the 256 colours that fit it best, for storing: a third of the bytes, hardly a difference."""
    page = Image.open(io.BytesIO(png)).convert("RGB")
    return page_png(page.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE), optimize=True)


def page_png(page: Image.Image, **options: object) -> bytes:
    """PNG bytes of a PIL image; unless told otherwise quickly, as the smallest file takes five times as long."""
    buffer = io.BytesIO()
    page.save(buffer, format="png", **(options or {"compress_level": 1}))
    return buffer.getvalue()


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of the figures, which matplotlib brings along, in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _place(page: Image.Image, panel: Panel, left: int, upper: int) -> None:
    """One panel with the upper left corner of its picture at (left, upper)."""
    picture, pen = to_image(panel.picture), ImageDraw.Draw(page)
    shrinks = picture.width > SIDE  # then pixels are averaged, so that none is lost
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST)
    page.paste(picture, (left, upper))
    pen.text((left, upper - 18), panel.title, panel.colour, font(12, bold=panel.colour != INK))
    pen.text((left, upper + SIDE + 3), panel.caption, PALE, font(11))
    if scale := panel.scale:
        left += SIDE + 5
        page.paste(to_image(scale.paint(np.linspace([scale.top] * 10, [0] * 10, SIDE))), (left, upper))
        for height, end in ((-2, f"{scale.top:g}"), (SIDE - 13, "0")):
            pen.text((left + 14, upper + height), end, PALE, font(11))
        unit = Image.new("L", (SIDE - 40, LINE))
        ImageDraw.Draw(unit).text((unit.width / 2, 0), scale.unit, 255, font(11), anchor="ma")
        page.paste(PALE, (left + 16, upper + 20), unit.rotate(90, expand=True))

"""Rows of small pictures as PNG bytes, quick enough to follow a slider.

The functions of ``figures.py`` take some hundred milliseconds, nearly all of it for axes and for arranging
text. Here every place is known beforehand and pixels are put there directly, so a picture takes some ten milliseconds
and no figure exists that could stay alive.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from fusmae_lite.show.pictures import MASK_GREY

#: Pixels: side of a panel, text above and below it, the gap to its right, room for a colour scale, a line of text.
SIDE, HEAD, FOOT, GAP, SCALE, LINE = 196, 24, 38, 14, 66, 15
#: Pixels: width and height of a curve with its axes.
CURVE = (400, 250)
INK, PALE = "black", "#404040"


@dataclass(frozen=True)
class Scale:
    """Numbers as colours.

    Args:
        colours: name of a matplotlib colour map.
        low, high: values of its two ends; what lies beyond takes the end's colour.
        unit: written beside the scale.
    """

    colours: str
    low: float
    high: float
    unit: str

    def paint(self, values: ArrayLike) -> np.ndarray:
        """(H, W) -> (H, W, 3) in 0..1; NaN becomes the grey of a hidden patch."""
        values = np.asarray(values, dtype=np.float64)
        share = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        rgb = matplotlib.colormaps[self.colours](np.nan_to_num(share))[..., :3]
        return np.where(np.isnan(values)[..., None], MASK_GREY, rgb)


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Args:
        picture: (H, W, 3) in 0..1.
        title: above it.
        caption: below it, at most two lines.
        colour: of the title.
        scale: drawn to its right.
    """

    picture: np.ndarray
    title: str = ""
    caption: str = ""
    colour: str = INK
    scale: Scale | None = None


@dataclass(frozen=True)
class Curve:
    """One line: places and values of equal length, at least one, finite; and its colour."""

    places: Sequence[float]
    values: Sequence[float]
    colour: str


def draw_panels(rows: Sequence[Sequence[Panel]], title: str = "") -> bytes:
    """The panels as PNG bytes, a line of them for each row; `title` stands above all, as much as fits."""
    top, step = (24 if title else 4), HEAD + SIDE + FOOT
    wide = GAP + max(sum(SIDE + GAP + SCALE * bool(panel.scale) for panel in row) for row in rows)
    page = Image.new("RGB", (wide, top + step * len(rows)), "white")
    ImageDraw.Draw(page).text((GAP, 5), fitting(title, wide - 2 * GAP), INK, font(13))
    for number, row in enumerate(rows):
        left, upper = GAP, top + number * step + HEAD
        for panel in row:
            _place(page, panel, left, upper)
            left += SIDE + GAP + SCALE * bool(panel.scale)
    return page_png(page)


def fitting(text: str, width: int) -> str:
    """The text, cut where a line of `width` pixels in the font of titles ends."""
    if font(13).getlength(text) <= width:
        return text
    while text and font(13).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def rgb_png(picture: ArrayLike, enlarge: int = 1) -> bytes:
    """(H, W, 3) in 0..1 as PNG bytes; each pixel becomes `enlarge` x `enlarge`."""
    return page_png(Image.fromarray(to_bytes(picture).repeat(enlarge, axis=0).repeat(enlarge, axis=1)))


def few_colours(png: bytes) -> bytes:
    """The same picture in the 256 colours that fit it best, for storing: a third of the bytes, hardly a difference."""
    page = Image.open(io.BytesIO(png)).convert("RGB")
    page = page.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    page.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def text_png(text: str) -> bytes:
    """One line of text as PNG bytes, where there is no picture yet."""
    page = Image.new("RGB", (int(font(13).getlength(text)) + 2 * GAP, 40), "white")
    ImageDraw.Draw(page).text((GAP, 12), text, INK, font(13))
    return page_png(page)


def histogram(values: ArrayLike, limits: tuple[float, float], mean: float, std: float, colour: str) -> np.ndarray:
    """A histogram as a picture (SIDE, SIDE, 3), with the normalisation drawn in.

    Args:
        values: any shape; what lies beyond the limits is counted in the first and last bin.
        limits: (low, high), the left and right edge.
        mean: a black line.
        std: a grey band reaches one deviation to both sides of the mean.
        colour: of the bars.
    """
    low, high = limits
    bins = SIDE // 4
    counts = np.histogram(np.clip(np.asarray(values, dtype=np.float32), low, high), bins, (low, high))[0]
    heights = (counts / max(counts.max(), 1) * (SIDE - 4)).repeat(4)
    place = (np.arange(SIDE) + 0.5) / SIDE * (high - low) + low
    page = np.ones((SIDE, SIDE, 3))
    page[:, np.abs(place - mean) <= std] = 0.9
    page[np.arange(SIDE, 0, -1)[:, None] <= heights] = to_rgb(colour)
    page[:, np.abs(place - mean).argmin()] = 0
    page[-1] = 0
    return page


def draw_curves(curves: Mapping[str, Curve], x: str, y: str, title: str = "") -> bytes:
    """Lines over a common horizontal axis as PNG bytes, a frame for each name; the vertical axis holds 0.

    Args:
        curves: heading of the frame -> what it shows.
        x, y: what the axes mean.
    """
    page = Image.new("RGB", (CURVE[0] * len(curves) + GAP, CURVE[1] + 24), "white")
    ImageDraw.Draw(page).text((GAP, 5), title, INK, font(13))
    for number, (name, curve) in enumerate(curves.items()):
        _frame(page, name, curve, GAP + CURVE[0] * number, x, y)
    return page_png(page)


def page_png(page: Image.Image) -> bytes:
    """PNG bytes of a PIL image."""
    buffer = io.BytesIO()
    page.save(buffer, format="png", compress_level=1)  # the smallest file would take five times as long
    return buffer.getvalue()


def to_bytes(picture: ArrayLike) -> np.ndarray:
    """(H, W, 3) in 0..1 -> uint8."""
    return (np.clip(np.asarray(picture), 0, 1) * 255).round().astype(np.uint8)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of the figures, which matplotlib brings along, in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _place(page: Image.Image, panel: Panel, left: int, upper: int) -> None:
    """One panel with the upper left corner of its picture at (left, upper)."""
    picture = Image.fromarray(to_bytes(panel.picture))
    shrinks = picture.width > SIDE  # then pixels are averaged, so that none is lost
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST)
    page.paste(picture, (left, upper))
    pen = ImageDraw.Draw(page)
    pen.text((left, upper - 18), panel.title, panel.colour, font(12, bold=panel.colour != INK))
    for number, text in enumerate(panel.caption.split("\n")):
        pen.text((left, upper + SIDE + 3 + LINE * number), text, PALE, font(11))
    if panel.scale:
        _bar(page, panel.scale, left + SIDE + 5, upper)


def _bar(page: Image.Image, scale: Scale, left: int, upper: int) -> None:
    """A colour scale with its two ends and its unit written beside it."""
    ramp = np.repeat(np.linspace(scale.high, scale.low, SIDE)[:, None], 10, axis=1)
    page.paste(Image.fromarray(to_bytes(scale.paint(ramp))), (left, upper))
    pen = ImageDraw.Draw(page)
    pen.text((left + 14, upper - 2), f"{scale.high:g}", PALE, font(11))
    pen.text((left + 14, upper + SIDE - 13), f"{scale.low:g}", PALE, font(11))
    unit = Image.new("L", (SIDE - 40, LINE))
    ImageDraw.Draw(unit).text((unit.width / 2, 0), scale.unit, 255, font(11), anchor="ma")
    turned = unit.rotate(90, expand=True)
    page.paste(PALE, (left + 16, upper + 20), turned)


def _frame(page: Image.Image, name: str, curve: Curve, left: int, x: str, y: str) -> None:
    """One curve with its axes; `left` is the left edge of all its text."""
    pen, small = ImageDraw.Draw(page), font(11)
    start, end, upper, lower = left + 46, left + CURVE[0] - 24, 64, CURVE[1] - 14
    places, values = np.asarray(curve.places, dtype=float), np.asarray(curve.values, dtype=float)
    low, high = float(places.min()), float(places.max())
    base, top = min(0.0, 1.08 * float(values.min())), max(0.0, 1.08 * float(values.max()))
    top = top if top > base else base + 1

    def at(place: ArrayLike, value: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        share = (np.asarray(place) - low) / ((high - low) or 1)
        return start + share * (end - start), lower - (np.asarray(value) - base) / (top - base) * (lower - upper)

    pen.text((start, 28), name, curve.colour, font(12, bold=True))
    pen.text((left, 46), y, PALE, small)
    pen.text(((start + end) / 2, lower + 18), x, PALE, small, anchor="ma")
    for value in (value for value in MaxNLocator(5).tick_values(base, top) if base <= value <= top):
        row = float(at(low, value)[1])
        pen.line([(start, row), (end, row)], "#E6E6E6")
        pen.text((start - 5, row), f"{value:.3g}", PALE, small, anchor="rm")
    for place in (place for place in MaxNLocator(5, integer=True).tick_values(low, high) if low <= place <= high):
        column = float(at(place, base)[0])
        pen.text((column, lower + 4), f"{place:g}", PALE, small, anchor="ma")
    points = list(zip(*at(places, values), strict=True))
    pen.line(points, curve.colour, width=2, joint="curve")
    pen.ellipse([points[-1][0] - 3, points[-1][1] - 3, points[-1][0] + 3, points[-1][1] + 3], curve.colour)

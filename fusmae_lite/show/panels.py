"""Pictures with title, caption and colour scale, and rows of them as HTML or PNG, quick enough to follow a slider.

matplotlib, by which ``figures.py`` draws the same panels, takes some hundred milliseconds for axes and text.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from fusmae_lite.show.pictures import MASK_GREY

#: Pixels: side of a panel, text above and below it, the gap to its right, room for a colour scale, a line of text.
SIDE, HEAD, FOOT, GAP, SCALE, LINE = 240, 24, 38, 14, 66, 15
INK, PALE = "black", "#404040"
#: Colour maps of errors and of attention.
ERROR_MAP, MATRIX_MAP = "cividis", "viridis"
#: Of the HTML: figures of a row are as wide as each other, their pictures at one height under titles of any length, and
#: go to the next line where a page is narrow; texts keep their height.
STYLE = """<style>.fusmae-page{background:#fff;color:#000;padding:4px;line-height:1.35;font-size:13px}
.fusmae-page>div{display:grid;gap:0 14px;grid-template-columns:repeat(auto-fit,minmax(150px,max-content))}
.fusmae-page figure{margin:0 0 8px;display:grid;grid-row:span 4;grid-template-rows:subgrid}
.fusmae-page figcaption{grid-row:3/5;min-height:2.7em;white-space:pre-line}.fusmae-page p~figcaption{grid-row:4}
.fusmae-page b{display:block;align-self:end;border-bottom:3px solid}
.fusmae-page p{margin:4px 0 0;display:flex;gap:6px;align-self:start}.fusmae-page p i{flex:1 0 30px}
.fusmae-page img{display:block;width:100%}
.fusmae-page span,.fusmae-page u{display:block;position:relative}.fusmae-page span{overflow:hidden}
.fusmae-page [data-grid]{cursor:crosshair;touch-action:none}.fusmae-zoomed img{image-rendering:pixelated}
.fusmae-ground u{transform-origin:0 0}.fusmae-zoomed .fusmae-ground u{
transform:translate(calc(var(--x)*100%),calc(var(--y)*100%)) scale(var(--z))}
.fusmae-ground:after{content:"";position:absolute;width:7px;height:7px;border:1px solid #fff;outline:1px solid #000;
pointer-events:none;transform:translate(-50%,-50%);left:calc((var(--px,-9)*var(--z,1) + var(--x,0))*100%);
top:calc((var(--py,-9)*var(--z,1) + var(--y,0))*100%)}
@media(min-resolution:1.5dppx){.fusmae-page img{image-rendering:pixelated}}</style>"""
#: What a picture that can be painted and a page do with pointer and keys, as text of an attribute, since a script in a
#: cell's output does not run twice; and what a screen reader calls the page.
PAINT, LOOK = (
    html.escape(" ".join(resources.files("fusmae_lite.show").joinpath(name).read_text("utf-8").split()))
    for name in ("paint.js", "look.js")
)
KEYS = "pictures; arrow keys read their pixels, plus and minus zoom, 0 resets"


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
    """A picture (H, W, 3) in 0..1, the title above it in `colour`, at most two lines below, and a scale.

    In HTML it is about `side` pixels wide; one with a `name` is painted in `grid` x `grid` cells; those of the `ground`
    show the same place and are zoomed together.
    """

    picture: np.ndarray
    title: str = ""
    caption: str = ""
    colour: str = INK
    scale: Scale | None = None
    name: str = ""
    grid: int = 1
    side: int = SIDE
    ground: bool = True


def panels_html(rows: Sequence[Sequence[Panel]] | bytes, title: str = "") -> str:
    """Panels, or one PNG, as HTML: pixels enlarged by a whole number, texts wrapped and drawn by the browser."""
    if isinstance(rows, bytes):
        return f'{STYLE}<div class="fusmae-page" style="max-width:900px">{image_html(rows, title)}</div>'
    shown = "".join(f"<div>{''.join(map(_figure, row))}</div>" for row in rows)
    side = max((len(panel.picture) for row in rows for panel in row if panel.ground), default=1)
    hears = f'tabindex="0" role="group" aria-label="{KEYS}" data-lm-suppress-shortcuts="true" data-side="{side}"'
    more = f'{hears} onpointerover="{LOOK}" onfocus="{LOOK}"'
    return f'{STYLE}<div class="fusmae-page" {more}>{html.escape(title)}{shown}</div>'


def image_html(png: bytes, words: str, more: str = "") -> str:
    """An img with its alternative text; `more` are other attributes."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img decoding="sync" alt="{html.escape(words)}" {more} src="data:image/png;base64,{data}">'


def _figure(panel: Panel) -> str:
    image, more = to_image(panel.picture), ""
    times = max(1, round(panel.side / image.width))
    image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    if panel.name:
        more = f'data-name="{panel.name}" data-grid="{panel.grid}" draggable="false" onpointerdown="{PAINT}"'
    width = panel.side if image.width > 1.2 * panel.side else image.width  # a finer picture is for dense screens
    bar = ""
    if scale := panel.scale:
        ends = (scale.paint([np.linspace(0, scale.top, 9)])[0] * 255).round().astype(int)
        colours = ",".join(f"rgb({r},{g},{b})" for r, g, b in ends)
        bar = f'<p>0<i style="background:linear-gradient(to right,{colours})"></i>{scale.top:g} {scale.unit}</p>'
    title, caption = html.escape(panel.title), html.escape(panel.caption)
    picture = image_html(page_png(image), f"{panel.title}: {panel.caption}", more)
    return (
        f'<figure style="max-width:{width}px"><b style="border-color:{panel.colour}">{title}</b>'
        f"<span{' class=fusmae-ground' * panel.ground}><u>{picture}</u></span>{bar}"
        f"<figcaption>{caption}</figcaption></figure>"
    )


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

"""The whole method as one figure, in inches from the lower left corner."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show.pictures import COLOURS

WIDTH, HEIGHT = 10.2, 4.15
#: (bottom, top) of each lane; ``both`` spans the two sensors, ``use`` is what follows pretraining.
LANES = {"s1": (2.74, 3.79), "s2": (1.44, 2.49), "both": (1.44, 3.79), "use": (0.28, 1.02)}
INK, SHARED, FADED_INK, FADED_EDGE = "#222222", "#5B5B5B", "#A3A3A3", "#D9D9D9"


class Box(NamedTuple):
    part: str
    lane: str
    left: float
    width: float
    title: str
    text: str = ""
    source: str = ""  # equation or section


BOXES = (
    Box("data", "s1", 0.12, 0.98, "Sentinel-1", "VV, VH", "120 x 120 px"),
    Box("data", "s2", 0.12, 0.98, "Sentinel-2", "12 bands", "120 x 120 px"),
    Box("tokens", "s1", 1.34, 0.92, "Tokens", "8 x 8 px\n+ position", "eq. 1"),
    Box("tokens", "s2", 1.34, 0.92, "Tokens", "8 x 8 px\n+ position", "eq. 1"),
    Box("masking", "s1", 2.50, 0.92, "Mask 75 %", "", "sec. 3.3"),
    Box("masking", "s2", 2.50, 0.92, "Mask 75 %", "", "sec. 3.3"),
    Box("xattn_encoder", "both", 3.66, 1.14, "XAttnEncoder", "cross-attention\nbefore encoding", "eqs. 2-5"),
    Box("encoder", "both", 5.04, 1.08, "Encoder", "self-attention\nover all tokens", "eqs. 6-8"),
    Box("xattn_decoder", "both", 6.36, 1.14, "XAttnDecoder", "cross-attention\nafter encoding", "eqs. 10-11"),
    Box("decoders", "s1", 7.74, 0.98, "Decoder 1", "", "eq. 9"),
    Box("decoders", "s2", 7.74, 0.98, "Decoder 2", "", "eq. 9"),
    Box("loss", "both", 8.96, 1.12, "Loss", "squared error,\nhidden patches", "sec. 3.2"),
    Box("features", "use", 4.88, 1.40, "Frozen features", "mean of all tokens", ""),
    Box("probe", "use", 6.62, 2.10, "Linear probe", "average precision  (sec. 4)", ""),
)
PARTS = tuple(dict.fromkeys(box.part for box in BOXES))
#: What stands beside the boxes: height, text, size.
NOTES = (
    (3.99, "Pretraining: rebuild what was hidden", 9.5),
    (0.84, "Use: the encoder stays as it is", 9.5),
    (0.48, "XAE fuses early (XAttnEncoder), XAD late (XAttnDecoder);\neach may be left out.", 8.5),
)


def overview(highlight: Iterable[str] | str | None = None) -> Figure:
    """Fus-MAE from archive to tables: two lanes, one per sensor, equation numbers on the boxes.

    `highlight` names parts to keep in full colour, of :data:`PARTS`; the others fade. None keeps all.
    """
    chosen = {highlight} if isinstance(highlight, str) else set(PARTS if highlight is None else highlight)
    if unknown := chosen - set(PARTS):
        raise InputError(f"unknown part {sorted(unknown)[0]!r} of the overview", f"choose among {', '.join(PARTS)}")
    figure = plt.figure(figsize=(WIDTH, HEIGHT), dpi=90)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    axes.plot((0.12, WIDTH - 0.12), (1.23, 1.23), color="#C8C8C8", lw=1, ls=(0, (2, 3)))
    for height, text, size in NOTES:
        _text(axes, 0.12, height, text, SHARED, ha="left", fontsize=size, linespacing=1.3)
    for lane in ("s1", "s2", "use"):
        row = [box for box in BOXES if box.lane == lane or (box.lane == "both" and lane != "use")]
        height = sum(LANES[lane]) / 2
        for one, other in zip(row, row[1:], strict=False):
            colour = COLOURS.get(lane, SHARED) if chosen & {one.part, other.part} else FADED_EDGE
            _arrow(axes, (one.left + one.width + 0.03, height), (other.left - 0.03, height), colour)
    down = SHARED if chosen & {"features", "encoder"} else FADED_EDGE
    _arrow(axes, (5.58, LANES["both"][0] - 0.03), (5.58, LANES["use"][1] + 0.03), down)
    for box in BOXES:
        _draw_box(axes, box, box.part in chosen)
    return figure


def _text(axes: Axes, x: float, y: float, text: str, colour: str, **style: object) -> None:
    axes.text(x, y, text, color=colour, **({"ha": "center", "va": "center", "fontsize": 8.5} | style))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, lw: float = 1.4) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0, "zorder": 3}
    axes.add_patch(FancyArrowPatch(start, end, color=colour, lw=lw, **style))


def _draw_box(axes: Axes, box: Box, lit: bool) -> None:
    """The frame in the colour of its lane, what is written in it and its small drawing; light grey when faded."""
    (bottom, top), middle = LANES[box.lane], box.left + box.width / 2
    edge, ink = (COLOURS.get(box.lane, SHARED), INK) if lit else (FADED_EDGE, FADED_INK)
    fill, line = ((edge, 0.13), 1.5) if lit else ("#FAFAFA", 1.0)
    style = {"boxstyle": "round,pad=0,rounding_size=0.08", "ec": edge, "fc": fill, "lw": line, "zorder": 2}
    name = f"{box.part}:{box.lane}"
    axes.add_patch(FancyBboxPatch((box.left, bottom), box.width, top - bottom, gid=name, **style))
    _text(axes, middle, top - 0.17, box.title, ink, fontsize=9, weight="bold")
    _text(axes, middle, top - (0.43 if box.lane == "use" else 0.33), box.text, ink, va="top", linespacing=1.25)
    _text(axes, middle, bottom + 0.14, box.source, ink, style="italic")
    colours = {lane: colour if lit else FADED_EDGE for lane, colour in COLOURS.items()}
    if box.part.startswith("xattn"):
        for lane, start, end in (("s1", 2.80, 1.98), ("s2", 1.98, 2.80)):
            _arrow(axes, (box.left + 0.25, start), (box.left + box.width - 0.25, end), colours[lane], lw=1.8)
    if box.part == "encoder":
        _text(axes, middle + 0.13, 1.845, "CLS", ink, ha="left")
    for low, fills, columns, cell in _squares(box, lit, colours):
        for index, fill in enumerate(fills):
            row, column = divmod(index, columns)
            corner = (middle + (column - columns / 2) * cell, low + row * cell)
            axes.add_patch(Rectangle(corner, cell * 0.86, cell * 0.86, fc=fill, ec="none", zorder=3))


def _squares(box: Box, lit: bool, colours: dict[str, str]) -> list[tuple[float, list[object], int, float]]:
    """Bands or tokens inside a box: bottom, colours from the lower left upwards, columns, size."""
    bottom, own = LANES[box.lane][0], colours.get(box.lane)
    visible = {lane: np.random.default_rng(int(lane[1:])).permutation(32) < 8 for lane in ("s1", "s2")}
    if box.part == "data":
        bands = get_modality(box.lane).channels
        return [(bottom + 0.43 - 0.115 * (bands > 6), [own] * bands, min(bands, 6), 0.115)]
    if box.part in ("masking", "decoders"):
        hidden = (own, 0.37) if box.part == "decoders" else "#CFCFCF" if lit else "#EFEFEF"
        return [(bottom + 0.29, [own if seen else hidden for seen in visible[box.lane]], 8, 0.095)]
    if box.part == "loss":
        blank, lows = "#EFEFEF" if lit else "#F2F2F2", {"s1": 2.55, "s2": 1.98}
        return [(lows[lane], [blank if s else colours[lane] for s in visible[lane]], 8, 0.095) for lane in lows]
    if box.part == "encoder":
        return [(1.78, [colours[lane] for lane in ("cls", *["s2"] * 3, *["s1"] * 3)], 1, 0.17)]
    return []

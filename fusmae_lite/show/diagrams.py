"""The whole method as one figure, in inches from the lower left corner."""

from collections.abc import Iterable
from itertools import pairwise
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
LANES |= {"xae": LANES["s1"], "xad": LANES["s2"]}  # two models, each of both sensors
FORK, JOIN = 3.62, 7.50  # where the sensors enter the two models and leave them
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
    Box("xattn_encoder", "xae", 3.90, 1.46, "XAttnEncoder", "cross-attention", "eqs. 2-5"),
    Box("encoder", "xae", 5.76, 1.46, "Encoder", "self-attention", "eqs. 6-8"),
    Box("encoder", "xad", 3.90, 1.46, "Encoder", "self-attention", "eqs. 6-8"),
    Box("xattn_decoder", "xad", 5.76, 1.46, "XAttnDecoder", "cross-attention", "eqs. 10-11"),
    Box("decoders", "s1", 7.74, 0.98, "Decoder 1", "", "eq. 9"),
    Box("decoders", "s2", 7.74, 0.98, "Decoder 2", "", "eq. 9"),
    Box("loss", "both", 8.96, 1.12, "Loss", "squared error,\nhidden patches", "sec. 3.2"),
    Box("features", "use", 3.90, 1.46, "Frozen features", "mean of all tokens", ""),
    Box("probe", "use", 5.76, 2.10, "Linear probe", "average precision  (sec. 4)", ""),
)
PARTS = tuple(dict.fromkeys(box.part for box in BOXES))
#: What stands beside the boxes: left, height, text, size.
NOTES = (
    (0.12, 3.99, "Pretraining: rebuild what was hidden", 9.5),
    (3.90, 3.96, "XAE: the sensors meet before the encoder", 9.0),
    (3.90, 2.615, "or XAD: they meet after it", 9.0),
    (0.12, 0.84, "Use: the encoder stays as it is", 9.5),
    (0.12, 0.48, "XAE and XAD are two models. A model with\nboth blocks, or with neither, is possible too.", 8.5),
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
    for left, height, text, size in NOTES:
        _text(axes, left, height, text, SHARED, ha="left", fontsize=size, linespacing=1.3)
    for x in (FORK, JOIN):
        axes.plot((x, x), [sum(LANES[lane]) / 2 for lane in ("s1", "s2")], color=SHARED, lw=2.5, zorder=3)
    for lane in LANES.keys() - {"both"}:
        height = sum(LANES[lane]) / 2
        row = [box for box in BOXES if box.lane == lane or (box.part == "loss" and lane in ("s1", "s2"))]
        stops = [(box.left, box.left + box.width, box.part) for box in row]
        stops += [(x, x, "") for x in (FORK, JOIN) if lane != "use"]
        for (_, start, one), (end, _, other) in pairwise(sorted(stops)):
            if (start, end) != (FORK, JOIN):
                colour = COLOURS.get(lane, SHARED) if chosen & {one, other} else FADED_EDGE
                _arrow(axes, (start + 0.03, height), (end - 0.03, height), colour)
    down = SHARED if chosen & {"features", "encoder"} else FADED_EDGE
    _arrow(axes, (4.63, LANES["both"][0] - 0.03), (4.63, LANES["use"][1] + 0.03), down)
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
        for lane, start, end in (("s1", 0.50, 0.30), ("s2", 0.30, 0.50)):
            ends = (box.left + 0.35, bottom + start), (box.left + box.width - 0.35, bottom + end)
            _arrow(axes, *ends, colours[lane], lw=1.8)
    if box.part == "encoder":
        _text(axes, middle + 0.48, bottom + 0.41, "CLS", ink, ha="left")
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
        return [(bottom + 0.35, [colours[lane] for lane in (*["s1"] * 3, *["s2"] * 3, "cls")], 7, 0.13)]
    return []

"""Attention, loss curves and scores as figures, in the style of :mod:`fusmae_lite.show.figures`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality, known_modality
from fusmae_lite.show.figures import TEXT, TITLE, new_figure, show_panels
from fusmae_lite.show.panels import MATRIX_MAP, Panel, Scale
from fusmae_lite.show.pictures import COLOURS, SPARE_COLOURS, colour_of, outline

#: Colour of a score by its sensors.
SENSOR_COLOURS = {"S1": COLOURS["s1"], "S2": COLOURS["s2"], "S1+S2": COLOURS["cls"]}


def attention_panels(
    query_rgb: ArrayLike, key_rgb: ArrayLike, weights: np.ndarray, index: int, query: str, key: str, top: float | None
) -> list[Panel]:
    """The patch `index` that asks, the sensor that answers, and the weights (N,), multiples of uniform attention."""
    grid = round(weights.size**0.5)
    row, column = divmod(index, grid)
    scale = Scale(MATRIX_MAP, top or max(2.0, round(float(np.nanmax(weights)), 1)), "times uniform attention")
    cells = scale.paint(np.kron(weights.reshape(grid, grid), np.ones([len(np.asarray(key_rgb)) // grid] * 2)))
    asks, answers, place = get_modality(query).title, get_modality(key).title, f"row {row}, column {column}"
    return [
        Panel(outline(query_rgb, index, grid), f"{asks} asks", place, colour_of(query)),
        Panel(outline(key_rgb, index, grid), f"{answers} answers", "same place framed", colour_of(key)),
        Panel(outline(cells, index, grid), "where it looks", f"in {answers}", scale=scale),
    ]


def show_attention_map(
    query_rgb: ArrayLike,
    key_rgb: ArrayLike,
    weights: ArrayLike,
    query_index: int,
    *,
    query: str = "s1",
    key: str = "s2",
    title: str = "",
    top: float | None = None,
) -> Figure:
    """Where one patch looks: the query patch framed, the other picture, and a weight for each of its patches.

    `weights` (N,) is one row of the softmax of eq. 5, NaN at patches that were hidden; pictures are (H, W, 3). Colours
    end at `top` times uniform attention, or at the maximum.
    """
    weights = np.asarray(weights, dtype=np.float64).reshape(-1)
    if round(weights.size**0.5) ** 2 != weights.size or not 0 <= query_index < weights.size:
        raise InputError(
            f"{weights.size} attention weights and query patch {query_index}",
            "give one weight per patch of a square grid and a patch inside it",
        )
    weights = weights * np.isfinite(weights).sum()
    return show_panels(attention_panels(query_rgb, key_rgb, weights, query_index, query, key, top), 3, title)


def block_shares(matrix: ArrayLike, slices: Mapping[str, slice]) -> dict[tuple[str, str], float]:
    """(query, key) -> share of its attention that a token of `query` gives to `key`, on average; rows sum to 1."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return {(q, k): float(matrix[slices[q], slices[k]].sum(axis=1).mean()) for q in slices for k in slices}


def show_attention_matrix(matrix: ArrayLike, slices: Mapping[str, slice], title: str = "") -> Figure:
    """A self-attention matrix (L, L), averaged over heads, and how much of it stays inside each modality.

    `slices` says which of the L tokens are whose, as ``FusMAE.attention_maps`` returns them.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"an attention matrix of shape {matrix.shape}", "average over samples and heads to (L, L)")
    figure, ((tokens, blocks),) = new_figure(1, 2, 9, 4.1, title, width_ratios=(1.15, 1))
    relative = matrix * len(matrix)
    top = max(2.0, float(np.percentile(relative, 99)))
    image = tokens.imshow(relative, cmap=MATRIX_MAP, vmin=0, vmax=top, interpolation="nearest")
    bar = figure.colorbar(image, ax=tokens, fraction=0.046, pad=0.03, extend="max")
    bar.set_label("times uniform attention", fontsize=TEXT)
    parts = {name: part for name, part in slices.items() if part.stop - part.start > 1}
    for part in list(parts.values())[1:]:
        tokens.axhline(part.start - 0.5, color="white", lw=1)
        tokens.axvline(part.start - 0.5, color="white", lw=1)
    _name_ticks(tokens, {name: (part.start + part.stop - 1) / 2 for name, part in parts.items()}, "each token")
    shares = np.reshape(list(block_shares(matrix, slices).values()), (len(slices), len(slices)))
    _numbers(blocks, shares, [[f"{share:.0%}" for share in row] for row in shares])
    _name_ticks(blocks, {name: place for place, name in enumerate(slices)}, "share of a query's attention")
    return figure


def _name_ticks(axes: Axes, places: Mapping[str, float], title: str) -> None:
    """Modality names as coloured ticks: queries down, keys across."""
    for axis, label in ((axes.xaxis, "key (looked at)"), (axes.yaxis, "query (looks)")):
        axis.set_ticks(list(places.values()), [name.upper() for name in places])
        axis.set_label_text(label, fontsize=TEXT)
        for tick, name in zip(axis.get_ticklabels(), places, strict=True):
            tick.set(color=colour_of(name), fontweight="bold")
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=TITLE)


def _numbers(axes: Axes, shares: np.ndarray, texts: Sequence[Sequence[object]], **options: object) -> AxesImage:
    """A heat map of (rows, columns) shares with a text in each field."""
    image = axes.imshow(shares, cmap=MATRIX_MAP, vmin=0, vmax=1, **options)
    for (row, column), share in np.ndenumerate(shares):
        ink = "black" if share > 0.6 else "white"
        axes.text(column, row, texts[row][column], ha="center", va="center", color=ink, fontsize=TITLE)
    return image


def show_loss_curves(
    history: Sequence[Mapping[str, float]],
    baselines: Mapping[str, float] | None = None,
    heldout: Mapping[str, float] | None = None,
    *,
    x: str = "step",
    y: str = "mean squared error, masked patches",
    title: str = "",
    log: bool = False,
) -> Figure:
    """Loss of each modality: columns `x`, ``loss_<modality>`` and, where told, ``val_loss_<modality>`` of the rows of
    ``metrics.jsonl``; `log` draws it on a logarithmic axis.

    `baselines` are the losses of predicting each band's mean (dashed), `heldout` those on held-out patches after
    training (a diamond at the end).
    """
    table = pd.DataFrame(history)
    columns = sorted(column for column in table if column.startswith("loss_"))
    if not columns or x not in table:
        raise InputError(f"history without {x!r} and a loss_<modality>", "pass the rows of a run's metrics.jsonl")
    figure, axes = new_figure(1, len(columns), min(10, 5 * len(columns)), 3.0, title)
    for axis, column in zip(axes[0], columns, strict=True):
        name, curve = column.removeprefix("loss_"), table[[x, column]].dropna()
        colour, modality, steps = colour_of(name), known_modality(name), curve[x]
        axis.plot(steps, curve[column], color=colour, lw=2, marker="o" if len(curve) < 3 else "", label="training")
        if f"val_{column}" in table:
            seen = table[[x, f"val_{column}"]].dropna()
            axis.plot(*seen.to_numpy().T, color="black", lw=1, marker="o", ms=3, label="validation")
        if name in (heldout or {}):
            axis.plot(steps.iloc[-1], heldout[name], "D", color=colour, mec="black", ms=7, label="held out")
        if name in (baselines or {}):
            axis.axhline(baselines[name], color="black", ls="--", lw=1.2, label="predicting each band's mean")
        axis.set_title(modality.title if modality else name.upper(), fontsize=TITLE, color=colour, fontweight="bold")
        low, high = (1.08 * end for end in axis.dataLim.intervaly)  # room for a diamond on top
        axis.set(xlabel=x, ylim=(min(0, low), max(0, high) or float(low == 0)), axisbelow=True)
        axis.locator_params(axis="x", integer=True)
        if log and axis.dataLim.minposy < math.inf:
            axis.set(yscale="log", ylim=(axis.dataLim.minposy / 1.1, max(1.1 * axis.dataLim.y1, axis.dataLim.minposy)))
        axis.grid(axis="y", color="#E6E6E6")
        axis.legend(fontsize=TEXT, frameon=False)
    axes[0, 0].set_ylabel(y)
    return figure


def show_scores(
    rows: pd.DataFrame | Sequence[Mapping[str, object]], metrics: Sequence[str] = ("micro", "macro"), title: str = ""
) -> Figure:
    """Horizontal bars: a panel for each metric, a bar for each row, the value at its end.

    `rows` are the table of ``evaluate``, or mappings with ``system``, the metrics (0..1 or percent) and, if wanted,
    ``sensors`` (``"S1"``, ``"S2"``, ``"S1+S2"``), which chooses the colour, and ``low`` and ``high``, the interval of
    the first metric.
    """
    table = pd.DataFrame(rows)
    if table.empty:
        raise InputError("no scores to draw", "pass at least one row")
    table = table.reindex(columns=[*dict.fromkeys([*table, *metrics, "sensors", "low", "high"])])
    places, sensors = np.arange(len(table)), table["sensors"].fillna("none")
    fills = [SENSOR_COLOURS.get(name.upper(), "#9A9A9A") for name in sensors]
    figure, axes = new_figure(1, len(metrics), 10, 0.34 * len(table) + 0.7, title, sharey=True)
    for axis, metric in zip(axes[0], metrics, strict=True):
        values = table[metric].astype(float).to_numpy()
        axis.barh(places, np.nan_to_num(values), color=fills, height=0.66)
        ends, heading = values, metric
        if metric == metrics[0] and table["high"].notna().any():
            axis.hlines(places, table["low"], table["high"], color="black", lw=1.2)
            ends, heading = np.fmax(values, table["high"]), f"{metric} (line: 95 % interval)"
        for place, value, end in zip(places, values, ends, strict=True):
            text = "" if np.isnan(value) else f"{value:.3f}" if value <= 1 else f"{value:.1f}"
            axis.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=TEXT)
        axis.set(xlim=(0, max(float(np.nanmax(ends)) * 1.15, 1e-3)), axisbelow=True)
        axis.set_title(heading, fontsize=TITLE)
        axis.grid(axis="x", color="#E6E6E6")
        axis.tick_params(axis="y", length=0)
    names = table["system"].where(sensors == "none", table["system"] + ", " + sensors)
    axes[0, 0].set_yticks(places, names)
    axes[0, 0].invert_yaxis()
    return figure


def show_calibration(
    levels: Sequence[float], covered: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]], title: str = ""
) -> Figure:
    """Share of the truth within intervals that state `levels`: name -> share, low and high, of each level in [0, 1].

    On the diagonal an interval holds what it states; below it, it is too narrow.
    """
    figure, ((axis,),) = new_figure(1, 1, 5, 3.6, title)
    axis.plot([0, 1], [0, 1], color="black", ls="--", lw=1, label="as stated")
    for number, (name, (share, low, high)) in enumerate(covered.items()):
        errors = np.abs(np.asarray(share) - np.asarray([low, high]))
        colour = SPARE_COLOURS[number % len(SPARE_COLOURS)]
        axis.errorbar(levels, share, errors, fmt="os^Dv"[number % 5] + "-", color=colour, capsize=3, label=name)
    axis.set(xlabel="stated", ylabel="share of the truth inside", xlim=(0.4, 1), ylim=(0, 1.02), axisbelow=True)
    axis.grid(color="#E6E6E6")
    axis.legend(fontsize=TEXT, frameon=False, loc="lower right")
    return figure


def show_confusion(matrix: ArrayLike, classes: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix (n, n) of counts: rows are true classes, columns predictions, colour is the row's share.

    Rows without a patch are left out.
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(classes), len(classes)) or not matrix.any():
        needed = f"give ({len(classes)}, {len(classes)}) counts of at least one patch"
        raise InputError(f"a confusion matrix of shape {matrix.shape} and sum {matrix.sum():g}", needed)
    rows = np.flatnonzero(matrix.sum(axis=1))
    counts = matrix[rows]
    figure, ((axis,),) = new_figure(1, 1, 0.62 * len(classes) + 2, 0.36 * len(rows) + 1.2, title)
    texts = [[count or "" for count in row] for row in counts]
    image = _numbers(axis, counts / counts.sum(axis=1, keepdims=True), texts, aspect="auto")
    figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02).set_label("share of the true class", fontsize=TEXT)
    axis.set_xticks(range(len(classes)), classes, rotation=35, ha="right")
    axis.set_yticks(range(len(rows)), [f"{classes[row]} ({matrix[row].sum()})" for row in rows])
    axis.set(xlabel="predicted", ylabel="true (patches)")
    axis.tick_params(length=0)
    return figure

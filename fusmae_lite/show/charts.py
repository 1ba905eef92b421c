"""Attention, loss curves and scores as figures, in the style of :mod:`fusmae_lite.show.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show import pictures
from fusmae_lite.show.figures import MATRIX_MAP, TEXT, TITLE, WEIGHT_MAP, draw, new_figure
from fusmae_lite.show.pictures import colour_of

Row = Mapping[str, float | int | str]


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

    Args:
        query_rgb: (H, W, 3), picture of the modality that asks.
        key_rgb: (H, W, 3), picture of the modality that answers.
        weights: (N,), one row of the softmax of eq. 5; NaN at patches that were hidden.
        query_index: which of the N patches asks.
        query, key: names of the two modalities.
        title: line above the figure.
        top: end of the colour scale in multiples of uniform attention, so that maps can be compared; the maximum if
            absent.
    """
    weights = np.asarray(weights, dtype=np.float64).reshape(-1)
    grid = round(weights.size**0.5)
    if grid * grid != weights.size or not 0 <= query_index < weights.size:
        raise InputError(
            f"{weights.size} attention weights and query patch {query_index}",
            "give one weight per patch of a square grid and a patch inside it",
        )
    row, column = divmod(query_index, grid)
    figure, axes = new_figure(1, 3, 10, 3.6 + 0.2 * bool(title))
    draw(axes[0, 0], query_rgb, f"query: {get_modality(query).title}", f"row {row}, column {column}", colour_of(query))
    draw(axes[0, 1], key_rgb, f"keys: {get_modality(key).title}", "", colour_of(key))
    for axis in axes[0, :2]:
        _frame(axis, np.asarray(query_rgb).shape[0], grid, row, column)
    _weights(axes[0, 2], weights.reshape(grid, grid), top)
    _frame(axes[0, 2], grid, grid, row, column)
    figure.suptitle(title, fontsize=TITLE)
    return figure


def _weights(axes: Axes, weights: np.ndarray, top: float | None) -> None:
    """The (grid, grid) weights as multiples of uniform attention; hidden patches (NaN) are grey."""
    relative = np.ma.masked_invalid(weights * np.isfinite(weights).sum())
    image = axes.imshow(relative, cmap=WEIGHT_MAP, vmin=0, vmax=top or max(2.0, float(relative.max())))
    axes.set_facecolor((pictures.MASK_GREY,) * 3)
    axes.set(xticks=[], yticks=[])
    axes.set_title("attention weight", fontsize=TITLE)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("times uniform attention", fontsize=TEXT)


def _frame(axes: Axes, side: int, grid: int, row: int, column: int) -> None:
    """A white and black frame around one patch of a picture `side` pixels wide: visible on any ground."""
    cell = side / grid
    for colour, width in (("black", 3.2), ("white", 1.6)):
        corner = (column * cell - 0.5, row * cell - 0.5)
        axes.add_patch(Rectangle(corner, cell, cell, fill=False, ec=colour, lw=width))


def block_shares(matrix: ArrayLike, slices: Mapping[str, slice]) -> dict[tuple[str, str], float]:
    """(query, key) -> share of its attention that a token of `query` gives to `key`, on average; rows sum to 1."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return {(q, k): float(matrix[slices[q], slices[k]].sum(axis=1).mean()) for q in slices for k in slices}


def show_attention_matrix(matrix: ArrayLike, slices: Mapping[str, slice], title: str = "") -> Figure:
    """A self-attention matrix, and how much of it stays inside each modality.

    Args:
        matrix: (L, L), rows are queries and sum to 1; average the heads first.
        slices: modality or ``"cls"`` -> its tokens among the L, as ``FusMAE.attention_maps`` returns them.
        title: line above the figure.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"an attention matrix of shape {matrix.shape}", "average over samples and heads to (L, L)")
    figure, axes = new_figure(1, 2, 9, 4.1 + 0.2 * bool(title), width_ratios=(1.15, 1))
    relative = matrix * len(matrix)
    top = max(2.0, float(np.percentile(relative, 99)))
    image = axes[0, 0].imshow(relative, cmap=MATRIX_MAP, vmin=0, vmax=top, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes[0, 0], fraction=0.046, pad=0.03, extend="max")
    bar.set_label("times uniform attention", fontsize=TEXT)
    parts = {name: part for name, part in slices.items() if part.stop - part.start > 1}
    for part in list(parts.values())[1:]:
        axes[0, 0].axhline(part.start - 0.5, color="white", lw=1)
        axes[0, 0].axvline(part.start - 0.5, color="white", lw=1)
    _name_ticks(axes[0, 0], {name: (part.start + part.stop - 1) / 2 for name, part in parts.items()})
    axes[0, 0].set_title("each token", fontsize=TITLE)
    _share_table(axes[0, 1], block_shares(matrix, slices), list(slices))
    figure.suptitle(title, fontsize=TITLE)
    return figure


def _name_ticks(axes: Axes, places: Mapping[str, float]) -> None:
    """Modality names as coloured ticks: queries down, keys across."""
    labels = [name.upper() for name in places]
    axes.set_xticks(list(places.values()), labels)
    axes.set_yticks(list(places.values()), labels)
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        for tick, name in zip(ticks, places, strict=True):
            tick.set(color=colour_of(name), fontweight="bold")
    axes.tick_params(length=0)
    axes.set_xlabel("key (looked at)", fontsize=TEXT)
    axes.set_ylabel("query (looks)", fontsize=TEXT)


def _share_table(axes: Axes, shares: Mapping[tuple[str, str], float], names: Sequence[str]) -> None:
    """The block shares as a small heat map with the numbers written in."""
    table = np.array([[shares[q, k] for k in names] for q in names])
    axes.imshow(table, cmap=MATRIX_MAP, vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(table):
        ink = "black" if share > 0.6 else "white"
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=TITLE)
    _name_ticks(axes, {name: place for place, name in enumerate(names)})
    axes.set_title("share of a query's attention", fontsize=TITLE)


def show_loss_curves(
    history: Sequence[Row],
    baselines: Mapping[str, float] | None = None,
    heldout: Mapping[str, float] | None = None,
    *,
    x: str = "step",
    title: str = "",
) -> Figure:
    """Training loss of each modality, with the loss of predicting each band's mean as a horizontal line.

    Args:
        history: rows of ``metrics.jsonl``; columns ``loss_<modality>`` and `x`. Rows without one are skipped.
        baselines: modality -> loss of predicting each band's mean (dashed).
        heldout: modality -> loss on held-out patches after training (a dot at the end).
        x: column of the horizontal axis.
        title: line above the figure.
    """
    names = sorted({key.removeprefix("loss_") for row in history for key in row if key.startswith("loss_")})
    if not names:
        raise InputError("history without a loss_<modality> column", "pass the rows of a run's metrics.jsonl")
    figure, axes = new_figure(1, len(names), min(10, 5 * len(names)), 3.0 + 0.2 * bool(title))
    for axis, name in zip(axes[0], names, strict=True):
        points = [(row[x], row[f"loss_{name}"]) for row in history if x in row and f"loss_{name}" in row]
        steps, losses = zip(*points, strict=True)
        axis.plot(steps, losses, color=colour_of(name), lw=2, marker="o" if len(points) < 3 else "", label="training")
        if name in (heldout or {}):
            axis.plot(steps[-1], heldout[name], "D", color=colour_of(name), mec="black", ms=7, label="held out")
        if name in (baselines or {}):
            axis.axhline(baselines[name], color="black", ls="--", lw=1.2, label="predicting each band's mean")
        axis.set_title(get_modality(name).title, fontsize=TITLE, color=colour_of(name), fontweight="bold")
        axis.set_xlabel(x)
        axis.set_ylim(0, 1.08 * axis.dataLim.y1)  # room for the diamond of a held-out loss on top
        axis.grid(axis="y", color="#E6E6E6")
        axis.set_axisbelow(True)
        axis.legend(fontsize=TEXT, frameon=False)
    axes[0, 0].set_ylabel("mean squared error, masked patches")
    figure.suptitle(title, fontsize=TITLE)
    return figure


def show_scores(rows: Sequence[object], metrics: Sequence[str] = ("micro", "macro"), title: str = "") -> Figure:
    """Horizontal bars: a panel for each metric, a bar for each row, the value at its end.

    Args:
        rows: the result of ``evaluate``, or mappings with ``system``, the metrics (0..1 or percent) and, if wanted,
            ``sensors`` (``"S1"``, ``"S2"``, ``"S1+S2"``), which chooses the colour, and ``low`` and ``high``, the
            interval of the first metric.
        metrics: columns to draw.
        title: line above the figure.
    """
    if not rows:
        raise InputError("no scores to draw", "pass at least one row")
    table = [dict(row) if isinstance(row, Mapping) else vars(row) for row in rows]
    figure, axes = new_figure(1, len(metrics), 10, 0.34 * len(table) + 0.7 + 0.25 * bool(title), sharey=True)
    for axis, metric in zip(axes[0], metrics, strict=True):
        _score_bars(axis, table, metric, interval=metric == metrics[0])
    names = [
        ", ".join(str(row[key]) for key in ("system", "sensors") if row.get(key, "none") != "none") for row in table
    ]
    axes[0, 0].set_yticks(np.arange(len(table)), names)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title, fontsize=TITLE)
    return figure


def _score_bars(axes: Axes, table: Sequence[Row], metric: str, interval: bool) -> None:
    """One panel of :func:`show_scores`; a missing value leaves an empty place."""
    colours = {"S1": pictures.COLOURS["s1"], "S2": pictures.COLOURS["s2"], "S1+S2": pictures.COLOURS["cls"]}
    values = np.array([float(row.get(metric, np.nan)) for row in table])
    fills = [colours.get(str(row.get("sensors", "")).upper(), "#9A9A9A") for row in table]
    places, ends = np.arange(len(table)), values.copy()
    axes.barh(places, np.nan_to_num(values), color=fills, height=0.66)
    if interval and all("low" in row and "high" in row for row in table):
        low, high = (np.array([float(row[end]) for row in table]) for end in ("low", "high"))
        axes.hlines(places, low, high, color="black", lw=1.2)
        ends = np.fmax(ends, high)
    for place, value, end in zip(places, values, ends, strict=True):
        text = "" if np.isnan(value) else f"{value:.3f}" if value <= 1 else f"{value:.1f}"
        axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=TEXT)
    axes.set_xlim(0, max(float(np.nanmax(ends)) * 1.15, 1e-3))
    axes.set_title(f"{metric} (line: 95 % interval)" if np.any(ends > values) else metric, fontsize=TITLE)
    axes.grid(axis="x", color="#E6E6E6")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def show_confusion(matrix: ArrayLike, classes: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix: rows are true classes, columns predictions, numbers are patches, colour is the row's share.

    Args:
        matrix: (n, n) counts; rows without a patch are left out.
        classes: n names.
        title: line above the figure.
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(classes), len(classes)):
        raise InputError(f"a confusion matrix of shape {matrix.shape}", f"give ({len(classes)}, {len(classes)}) counts")
    rows = np.flatnonzero(matrix.sum(axis=1))
    if not len(rows):
        raise InputError("a confusion matrix without a patch", "count at least one prediction")
    shares = matrix[rows] / matrix[rows].sum(axis=1, keepdims=True)
    figure, axes = new_figure(1, 1, 0.62 * len(classes) + 2, 0.36 * len(rows) + 1.2 + 0.25 * bool(title))
    axes[0, 0].imshow(shares, cmap=MATRIX_MAP, vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            ink = "black" if share > 0.6 else "white"
            axes[0, 0].text(column, row, matrix[rows[row], column], ha="center", va="center", color=ink, fontsize=TITLE)
    axes[0, 0].set_xticks(range(len(classes)), classes, rotation=35, ha="right")
    axes[0, 0].set_yticks(range(len(rows)), [f"{classes[row]} ({matrix[row].sum()})" for row in rows])
    axes[0, 0].set_xlabel("predicted", fontsize=TEXT)
    axes[0, 0].set_ylabel("true (patches)", fontsize=TEXT)
    axes[0, 0].tick_params(length=0)
    figure.suptitle(title, fontsize=TITLE)
    return figure

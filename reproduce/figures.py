"""The pictures of RESULTS.md: label curves against the floors, the break-even curve, losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusmae_lite.show.figures import TEXT, TITLE, new_figure
from fusmae_lite.show.panels import MATRIX_MAP
from reproduce.scores import Cell
from reproduce.tables import FLOORS, Tables

#: Okabe and Ito's colours, told apart by colour-blind readers, and a mark each for those who print in grey.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7")
MARKS = "osD^vP*"
GREYS = {"statistics": ":", "texture": "--", "convolutions": "-."}


def all_figures(tables: Tables) -> Iterator[tuple[str, Figure]]:
    """(name, picture) of each that has something to show."""
    yield "labels", label_curves(tables)
    if tables.plan.curve and tables.data == "scenes":
        yield "break-even", break_even(tables)
    yield "losses", losses(tables)


def label_curves(tables: Tables) -> Figure:
    """Micro AP against the number of labels: what pretraining adds to each encoder, and the floors."""
    plan, base = tables.plan, [key for key in tables.base if tables.cell(key, "pretrained", max(tables.plan.labels))]
    figure, axes = new_figure(1, max(len(base), 1), 2.4 * max(len(base), 1) + 0.6, 3.4, sharey=True)
    for number, (axis, key) in enumerate(zip(axes[0], base, strict=False)):
        for weights, fill in (("untrained", "none"), ("pretrained", "full")):
            cells = {n: tables.cell(key, weights, n, pooling="moments") for n in plan.labels}
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)], "fillstyle": fill}
            _line(axis, cells, weights, ls="-" if weights == "pretrained" else ":", **style)
        for name, dashes in GREYS.items():
            _line(axis, {n: tables.cell("floors", name, n) for n in plan.labels}, FLOORS[name], color="0.5", ls=dashes)
        axis.set(xscale="log", title=plan.title(key), xlabel="labelled pairs")
        axis.set_xticks(plan.labels, [f"{n:g}" for n in plan.labels])
        axis.minorticks_off()
    axes[0, 0].set_ylabel("micro average precision, %")
    axes[0, 0].legend(fontsize=TEXT, frameon=False)
    return figure


def break_even(tables: Tables) -> Figure:
    """XAE's micro AP by the number of unlabelled pairs, with its random control and the best floor as levels."""
    plan, labels = tables.plan, tables.probe_labels()
    figure, axes = new_figure(1, len(labels), 4.2 * len(labels), 3.4)
    for axis, n in zip(axes[0], labels, strict=True):
        for data, colour, mark in (("curve", COLOURS[5], "s"), ("real-curve", COLOURS[4], "o")):
            sizes = sorted(tables.scores.where(data=data)["unlabelled"].unique())
            cells = {int(size): tables.some(data, "xae", "pretrained", n, int(size)) for size in sizes}
            if data == "curve":
                cells[plan.scenes[0]] = tables.some(tables.data, "xae", "pretrained", n, 0)
            title = f"pretrained on {'synthetic' if data == 'curve' else 'real'} pairs"
            _line(axis, cells, title, color=colour, marker=mark)
        levels = {"untrained": (tables.some(tables.data, "xae", "untrained", n, 0), ":")}
        if floor := tables.best_floor(n):
            levels[FLOORS[floor[0]]] = (floor[1], "--")
        for name, (cell, dashes) in levels.items():
            if cell is not None:
                axis.axhline(100 * cell.mean, color="0.5", ls=dashes, label=name)
        axis.set(xscale="log", title=f"{n:g} labelled pairs", xlabel="unlabelled pairs")
    axes[0, 0].set_ylabel("micro average precision, %")
    axes[0, 0].legend(fontsize=TEXT, frameon=False)
    return figure


def losses(tables: Tables) -> Figure:
    """Each method's own pretraining loss relative to its first epoch, every seed a line."""
    figure, axes = new_figure(1, 1, 8, 3.6)
    for number, key in enumerate(tables.base):
        rows = tables.scores.where(data=tables.data, system=key)
        for place, path in enumerate(rows["path"].unique()):
            curve = np.array(tables.scores.facts[path].get("losses") or [])
            if len(curve):
                label = tables.plan.title(key) if place == 0 else None
                style = {
                    "color": COLOURS[number % len(COLOURS)],
                    "marker": MARKS[number % len(MARKS)],
                    "ms": 4,
                    "lw": 1,
                }
                axes[0, 0].plot(np.arange(1, len(curve) + 1), curve / curve[0], label=label, **style)
    axes[0, 0].set(xlabel="epoch", ylabel="loss / loss of the first epoch")
    axes[0, 0].legend(fontsize=TEXT, ncols=2)
    return figure


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, label: str) -> Figure:
    """(rows, columns) percentages with each written into its field; NaN stays empty. For notebook 09."""
    figure, axes = new_figure(1, 1, 2.8 + 0.62 * len(columns), 1.6 + 0.32 * len(rows))
    axis = axes[0, 0]
    image = axis.imshow(np.ma.masked_invalid(values), cmap=MATRIX_MAP, vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor", fontsize=TEXT)
    axis.set_yticks(range(len(rows)), rows, fontsize=TEXT)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=TEXT, color="w" if value < 60 else "k")
    axis.set_title(title, fontsize=TITLE)
    figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02).set_label(label, fontsize=TEXT)
    return figure


def _line(axis: Axes, cells: dict[float, Cell | None], label: str, **style: object) -> None:
    """Means with their intervals."""
    present = {place: cell for place, cell in cells.items() if cell is not None}
    if present:
        mean = np.array([100 * cell.mean for cell in present.values()])
        ends = 100 * np.array([cell.interval for cell in present.values()]).T
        error = np.abs(ends - mean) if "marker" in style else None
        axis.errorbar([*present], mean, error, label=label, ms=5, lw=1.2, capsize=2, **style)

"""The pictures of RESULTS.md: label curves, scores by class, by kind of class, confusion, losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from fusmae_lite.data.synthetic.truth import KINDS
from fusmae_lite.evaluation.single_label import class_numbers
from fusmae_lite.show.charts import show_confusion
from fusmae_lite.show.figures import TEXT, TITLE, new_figure
from fusmae_lite.show.panels import MATRIX_MAP
from reproduce.plan import Plan
from reproduce.scores import Scores, cell_key, deviation
from reproduce.tables import BOTH, SENSORS, kind_cell, systems

#: Okabe and Ito's colours, told apart by colour-blind readers, and a mark each for those who print in grey.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#661100")
MARKS = "osD^vP*Xh<"


def label_curves(plan: Plan, scores: Scores) -> Figure:
    """Micro AP of linear evaluation against the share of labels, one panel for each set of sensors."""
    figure, axes = new_figure(1, 3, 11, 4.2, sharey=True)
    for axis, sensors in zip(axes[0], SENSORS, strict=True):
        for number, key in enumerate(systems(plan, scores)):
            cells = {100 * f: scores.micro(key, cell_key("linear", sensors, f)) for f in plan.fractions}
            cells = {share: cell for share, cell in cells.items() if cell is not None}
            if not cells:
                continue
            error = [100 * np.nan_to_num(deviation(cell.each)) for cell in cells.values()]
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)], "ms": 5, "lw": 1.2}
            micro = [100 * cell.mean for cell in cells.values()]
            axis.errorbar([*cells], micro, error, capsize=2, label=plan.title(key), **style)
        axis.axhline(100 * scores.prior(), color="#808080", ls=":", label="class prior")
        axis.set(xscale="log", title=sensors, xlabel="labels used, % of the training split")
        axis.set_xticks([100 * f for f in plan.fractions], [f"{100 * f:g}" for f in plan.fractions])
        axis.minorticks_off()
    axes[0, 0].set_ylabel("micro average precision, %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=TEXT)
    return figure


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, label: str) -> Figure:
    """(rows, columns) percentages with each written into its field; NaN stays empty."""
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


def class_map(plan: Plan, scores: Scores, protocol: str) -> Figure:
    """Average precision of each class on S1+S2, mean over seeds, systems as rows."""
    positives, classes = scores.labels().sum(axis=0), scores.classes()
    shown = np.flatnonzero(positives)
    rows = {plan.title(key): scores.per_class(key, cell_key(protocol, BOTH)) for key in systems(plan, scores)}
    rows = {title: 100 * each.mean(axis=0)[shown] for title, each in rows.items() if each is not None}
    names = [f"{_short(classes[c])} ({positives[c]})" for c in shown]
    how = "fine-tuned" if protocol == "finetuned" else "linear evaluation, all labels"
    title = f"{how}, S1+S2; test positives in brackets"
    return heat_map(np.array([*rows.values()]), [*rows], names, title, "average precision, %")


def kinds_map(plan: Plan, scores: Scores) -> Figure:
    """Known truth: micro AP by kind of class, sensors and protocol, systems as rows."""
    columns = [(p, s, k) for p in ("linear", "finetuned") for s in SENSORS for k in KINDS]
    keys = systems(plan, scores)
    cells = [[kind_cell(scores, key, cell_key(p, s), k) for p, s, k in columns] for key in keys]
    values = np.array([[np.nan if cell is None else 100 * cell.mean for cell in row] for row in cells])
    title = "synthetic archive with known truth: linear evaluation (left half) and fine-tuning (right half)"
    names = [f"{k}, {s}" for _, s, k in columns]
    return heat_map(values, [plan.title(key) for key in keys], names, title, "micro average precision, %")


def confusion(plan: Plan, scores: Scores, key: str = "xae", sensors: str = "S2") -> Figure | None:
    """Confusion matrix of the transfer for one system, first seed."""
    logits = scores.logits(key, cell_key("transfer", sensors))
    if logits is None:
        return None
    truth, classes = class_numbers(scores.labels("land cover")), scores.classes("land cover")
    known = truth >= 0
    matrix = confusion_matrix(truth[known], logits[0][known].argmax(axis=1), labels=range(len(classes)))
    return show_confusion(matrix, classes, f"{plan.title(key)}, {sensors}, first seed")


def losses(plan: Plan, scores: Scores) -> Figure:
    """Each method's own pretraining loss relative to its first epoch, every seed a line."""
    figure, axes = new_figure(1, 1, 8, 3.8)
    axis = axes[0, 0]
    for number, key in enumerate(systems(plan, scores)):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)], "ms": 4, "lw": 1}
        for seed, curve in enumerate(np.array(fact["history"]) for fact in scores.of(key)):
            if len(curve):
                label = plan.title(key) if seed == 0 else None
                epochs, every = np.arange(1, len(curve) + 1), max(1, len(curve) // 8)
                axis.plot(epochs, curve / curve[0], markevery=every, label=label, **style)
    axis.set(xlabel="epoch", ylabel="loss / loss of the first epoch")
    axis.legend(fontsize=TEXT, ncols=2)
    return figure


def _short(name: str) -> str:
    return name if len(name) < 24 else name[:21].rstrip(" ,") + "..."

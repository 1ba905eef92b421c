"""Scores to tables: Markdown for readers, CSV for everybody else. Percent everywhere, three digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.synthetic.truth import KINDS, Truth
from reproduce import paper
from reproduce.plan import Plan
from reproduce.scores import Cell, Scores, cell_key, deviation

SENSORS = paper.SENSORS
BOTH = "S1+S2"
DASH = "–"  # the system has no such cell


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are aligned left."""
    lines = [list(head), ["---"] * left + ["--:"] * (len(head) - left), *map(list, rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def pivot(
    plan: Plan,
    scores: Scores,
    corner: str,
    columns: Sequence[tuple[str, Any]],
    text: Callable[[str, Any], str],
    quoted: tuple[str, Mapping[str, Sequence[float]]] | None = None,
    last: Sequence[Sequence[str]] = (),
    leave_out: str = "",
) -> str:
    """A row for each system that has a cell in it: `text` of the system and of what stands beside a column's heading.

    `quoted` are heading and figures of the paper, by system, for the last column; `last` are rows below.
    """
    rows = []
    for key in systems(plan, scores):
        cells = [text(key, what) for _, what in columns]
        if key != leave_out and any(cell != DASH for cell in cells):
            theirs = [" / ".join(f"*{value}*" for value in quoted[1].get(key, ()))] if quoted else []
            rows.append([plan.title(key), *cells, *theirs])
    head = [corner, *(heading for heading, _ in columns), *([quoted[0]] if quoted else [])]
    return markdown(head, [*rows, *last])


def systems(plan: Plan, scores: Scores) -> list[str]:
    """Keys of the rows, in the plan's order."""
    return [key for key in plan.systems if key in scores.keys]


def percent(value: float) -> str:
    """A share as percent with one decimal; a dash for one that does not exist."""
    return DASH if value is None or np.isnan(value) else f"{100 * value:.1f}"


def shown(cell: Cell | None) -> str:
    """``62.3 (58.0 to 66.1)``."""
    return (
        DASH if cell is None else f"{percent(cell.mean)} ({percent(cell.interval[0])} to {percent(cell.interval[1])})"
    )


def with_deviation(each: NDArray[np.floating] | None) -> str:
    """``62.3 ± 1.2`` of the seeds' values; one seed has no deviation, and says so."""
    if each is None:
        return DASH
    return percent(each.mean()) + (f" ± {percent(deviation(each))}" if len(each) > 1 else " (one seed)")


def gap(one: Cell | None, other: Cell | None) -> str:
    """``+1.2 (-0.3 to +2.6), not told apart``; cells of other seeds are not compared, and it says so."""
    if one is None or other is None:
        return DASH
    if one.seeds != other.seeds:
        return f"not compared: {one.seeds} and {other.seeds} seeds"
    found = one.minus(other)
    difference, low, high = (f"{100 * value:+.1f}" for value in found)
    return f"{difference} ({low} to {high}), {found.verdict}"


def table_1(plan: Plan, scores: Scores, protocol: str, fraction: float) -> str:
    """One half of Table 1: micro AP with its interval, and the paper's figures for the same systems, in italics."""
    columns = [(s, cell_key(protocol, s, fraction)) for s in SENSORS]
    quoted = "*the paper's: S1 / S2 / S1+S2*", paper.FINETUNED if protocol == "finetuned" else paper.LINEAR
    prior = ["class prior", *[percent(scores.prior())] * 3, ""]
    return pivot(plan, scores, "system", columns, lambda *cell: shown(scores.micro(*cell)), quoted, [prior])


def macro_table(plan: Plan, scores: Scores, fraction: float) -> str:
    """Macro AP, mean and deviation over seeds: fine-tuned, and linear at `fraction`, S1+S2 and each sensor."""
    columns = [(f"fine-tuned, {s}", cell_key("finetuned", s)) for s in SENSORS]
    columns += [(f"linear {100 * fraction:g} %, {s}", cell_key("linear", s, fraction)) for s in SENSORS]
    return pivot(plan, scores, "system", columns, lambda *cell: with_deviation(scores.macro(*cell)))


def comparison(plan: Plan, scores: Scores, reference: str = "xae") -> str:
    """`reference` minus every other system on S1+S2, paired by patches and seeds; a verdict where it is certain."""

    def text(key: str, cell: str) -> str:
        return gap(scores.micro(reference, cell), scores.micro(key, cell))

    shares = dict.fromkeys((plan.sparse, 1.0))
    columns = [(f"linear, {100 * f:g} % of labels", cell_key("linear", BOTH, f)) for f in shares]
    columns = [("fine-tuned", cell_key("finetuned", BOTH)), *columns]
    return pivot(plan, scores, f"{plan.title(reference)} minus", columns, text, leave_out=reference)


def kinds_table(plan: Plan, scores: Scores, protocol: str, sensors: str = BOTH) -> str:
    """Known truth: micro AP over the classes of each kind, mean and deviation over seeds."""

    def text(key: str, kind: str) -> str:
        cell = kind_cell(scores, key, cell_key(protocol, sensors), kind)
        return DASH if cell is None else with_deviation(cell.each)

    return pivot(plan, scores, f"{protocol}, {sensors}", [(kind, kind) for kind in KINDS], text)


def kind_cell(scores: Scores, key: str, cell: str, kind: str) -> Cell | None:
    """Micro AP over one kind of class, for an archive with known truth."""
    return scores.micro(key, cell, tuple(BEN19.index(name) for name in getattr(Truth(), kind)))


def table_2(plan: Plan, scores: Scores, sensors: str) -> str:
    """Table 2 for one sensor: Top-1 with its interval, other columns as means over seeds; the paper's beside them."""

    def text(key: str, name: str) -> str:
        cell = cell_key("transfer", sensors)
        each = scores.single_label(key, cell)
        if name == "top1" or each is None:
            return shown(scores.accuracy(key, cell))
        return percent(np.mean([getattr(one, name) for one in each]))

    names = [("Top-1", "top1"), ("Top-3", "top3"), ("precision", "precision"), ("recall", "recall"), ("F1", "f1")]
    return pivot(plan, scores, f"system, {sensors}", names, text, ("*the paper's, same columns*", paper.TRANSFER))


def ablation_table(plan: Plan, scores: Scores) -> str:
    """Each change against the system it changes, linear evaluation on S1+S2 (or as named), paired."""
    shares, xae = (plan.sparse, 1.0), plan.title("xae")
    changes = [(plan.title(key), key, key.split("-")[0], BOTH, "") for key in plan.ablations]
    changes += [
        ("CLS instead of mean pooling", "xae", "xae", BOTH, "cls"),
        ("S1 alone, S2 filled with zeros instead of absent", "xae", "xae", "S1", "zero-filled"),
        ("S2 alone, S1 filled with zeros instead of absent", "xae", "xae", "S2", "zero-filled"),
    ]
    rows = []
    for title, key, base, sensors, variant in changes:
        cells = [(cell_key("linear", sensors, f, variant), cell_key("linear", sensors, f)) for f in shares]
        gaps = (gap(scores.micro(key, cell), scores.micro(base, plain)) for cell, plain in cells)
        rows.append([title, xae if base == "xae" else plan.title(base), *gaps])
    return markdown(["change", "against", *(f"{100 * f:g} % of labels" for f in shares)], rows, left=2)


def loss_table(plan: Plan, scores: Scores) -> str:
    """First and last epoch of pretraining and of fine-tuning on S1+S2, mean over seeds: each method's own loss."""

    def text(key: str, which: tuple[bool, int]) -> str:
        tuned, epoch = which
        curves = [f["losses"].get(cell_key("finetuned", BOTH)) if tuned else f["history"] for f in scores.of(key)]
        losses = [curve[epoch] for curve in curves if curve]
        return f"{np.mean(losses):.3f}" if losses else DASH

    columns = [("pretraining, first epoch", (False, 0)), ("last epoch", (False, -1))]
    columns += [("fine-tuning, first epoch", (True, 0)), ("last epoch", (True, -1))]
    return pivot(plan, scores, "system", columns, text)


def leakage_table(found: dict[str, list[float]]) -> str:
    """Both splits, and their difference draw by draw."""
    draws = {f"{name} split": np.array(values) for name, values in found.items()}
    draws["difference, draw by draw"] = draws["random split"] - draws["disjoint split"]
    rows = [[name, percent(values.mean()), percent(values.std(ddof=1))] for name, values in draws.items()]
    return markdown(["", "micro AP, mean over draws", "deviation over draws"], rows)


def refusals(scores: Scores) -> str:
    """Why cells could not be computed; each reason once."""
    reasons = sorted({reason for fact in scores.facts for reason in fact["refused"].values()})
    return "".join(f"- {reason}\n" for reason in reasons) or "Nothing was refused.\n"


def cells_csv(all_scores: Iterable[Scores]) -> str:
    """Every cell of linear evaluation and fine-tuning, one a line."""
    head = ["data", "system", "protocol", "sensors", "fraction", "variant", "micro", "deviation", "low", "high"]
    rows = []
    for scores in all_scores:
        for key in scores.keys:
            for cell in scores.of(key)[0]["counts"]:
                if cell.startswith("transfer"):
                    continue
                micro, macro = scores.micro(key, cell), scores.macro(key, cell)
                numbers = [micro.mean, deviation(micro.each), *micro.interval, macro.mean(), deviation(macro)]
                texts = ["" if np.isnan(v) else f"{v:.4f}" for v in numbers]
                rows.append([scores.data, key, *cell.split("|"), *texts, micro.seeds, micro.train, micro.test])
    return _csv([*head, "macro", "macro deviation", "seeds", "train", "test"], rows)


def per_class_csv(all_scores: Iterable[Scores], systems: Sequence[str]) -> str:
    """Average precision of every class on S1+S2, mean over seeds; empty for a class without a positive."""
    rows = []
    for scores in all_scores:
        positives = scores.labels().sum(axis=0)
        for key, protocol in ((k, p) for k in systems if k in scores.keys for p in ("finetuned", "linear")):
            each = scores.per_class(key, cell_key(protocol, BOTH))
            for c, name in enumerate(scores.classes() if each is not None else ()):
                value = f"{each[:, c].mean():.4f}" if positives[c] else ""
                rows.append([scores.data, key, protocol, name, int(positives[c]), value])
    return _csv(["data", "system", "protocol", "class", "test positives", "average precision"], rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()

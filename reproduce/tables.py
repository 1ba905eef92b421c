"""Scores to tables: Markdown for readers, CSV for everybody else. Percent everywhere, three digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.synthetic.truth import KINDS, Truth
from reproduce import paper
from reproduce.plan import Plan
from reproduce.scores import Cell, Scores, verdict

SENSORS = paper.SENSORS
BOTH = "S1+S2"


def cell_key(protocol: str, sensors: str, fraction: float = 1.0, variant: str = "") -> str:
    """Name of a cell among the scores of a track."""
    return f"{protocol}|{sensors}|{fraction:g}|{variant}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are aligned left."""
    lines = [list(head), ["---"] * left + ["--:"] * (len(head) - left), *map(list, rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def percent(value: float) -> str:
    """A share as percent with one decimal; a dash for one that does not exist."""
    return "–" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def shown(cell: Cell | None) -> str:
    """``62.3 (58.0 to 66.1)``; a dash where the system has no such cell."""
    return "–" if cell is None else f"{percent(cell.mean)} ({percent(cell.interval[0])} to {percent(cell.interval[1])})"


def with_deviation(mean: float, deviation: float) -> str:
    """``62.3 ± 1.2``; one seed has no deviation, and says so."""
    return f"{percent(mean)} (one seed)" if np.isnan(deviation) else f"{percent(mean)} ± {percent(deviation)}"


def systems(plan: Plan, scores: Scores) -> list[str]:
    """Keys of the rows, in the plan's order."""
    return [key for key in plan.systems if key in scores.keys]


def table_1(plan: Plan, scores: Scores, protocol: str, fraction: float) -> str:
    """One half of Table 1: micro AP with its interval, and the paper's figures for the same systems, in italics."""
    quoted = paper.FINETUNED if protocol == "finetuned" else paper.LINEAR
    rows = []
    for key in systems(plan, scores):
        cells = [scores.micro(key, cell_key(protocol, s, fraction)) for s in SENSORS]
        if any(cells):
            theirs = " / ".join(f"*{value}*" for value in quoted[key]) if key in quoted else ""
            rows.append([plan.title(key), *map(shown, cells), theirs])
    rows.append(["class prior", *[percent(scores.prior())] * 3, ""])
    return markdown(["system", *SENSORS, "*the paper's: S1 / S2 / S1+S2*"], rows)


def macro_table(plan: Plan, scores: Scores, fraction: float) -> str:
    """Macro AP, mean and deviation over seeds: fine-tuned, and linear at `fraction`, S1+S2 and each sensor."""
    rows = []
    for key in systems(plan, scores):
        row = [plan.title(key)]
        for protocol, share in (("finetuned", 1.0), ("linear", fraction)):
            found = [scores.macro(key, cell_key(protocol, s, share)) for s in SENSORS]
            row += ["–" if value is None else with_deviation(*value) for value in found]
        rows.append(row)
    head = [f"{how}, {s}" for how in ("fine-tuned", f"linear {100 * fraction:g} %") for s in SENSORS]
    return markdown(["system", *head], rows)


def comparison(plan: Plan, scores: Scores, reference: str = "xae") -> str:
    """`reference` minus every other system on S1+S2, paired by patches and seeds; a verdict where it is certain."""
    protocols = [("finetuned", 1.0), ("linear", plan.sparse), ("linear", 1.0)]
    protocols = list(dict.fromkeys(protocols))
    rows = []
    for key in systems(plan, scores):
        if key == reference:
            continue
        row = [plan.title(key)]
        for protocol, fraction in protocols:
            cell = cell_key(protocol, BOTH, fraction)
            one, other = scores.micro(reference, cell), scores.micro(key, cell)
            row.append("–" if one is None or other is None else gap(one, other))
        rows.append(row)
    head = ["fine-tuned" if p == "finetuned" else f"linear, {100 * f:g} % of labels" for p, f in protocols]
    return markdown([f"{plan.title(reference)} minus", *head], rows)


def gap(one: Cell, other: Cell) -> str:
    """``+1.2 (-0.3 to 2.6), not told apart``; cells of other seeds are not compared, and it says so."""
    if one.seeds != other.seeds:
        return f"not compared: {one.seeds} and {other.seeds} seeds"
    difference, low, high = one.minus(other)
    return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {verdict(low, high)}"


def kinds_table(plan: Plan, scores: Scores, protocol: str, sensors: str = BOTH) -> str:
    """Known truth: micro AP over the classes of each kind, mean and deviation over seeds."""
    rows = []
    for key in systems(plan, scores):
        cells = kinds(scores, key, cell_key(protocol, sensors))
        if cells is not None:
            rows.append([plan.title(key), *(with_deviation(c.mean, c.deviation) for c in cells.values())])
    return markdown([f"{protocol}, {sensors}", *KINDS], rows)


def kinds(scores: Scores, key: str, cell: str) -> dict[str, Cell] | None:
    """Kind of class -> its micro AP, for an archive with known truth."""
    truth = Truth()
    found = {}
    for kind in KINDS:
        columns = tuple(BEN19.index(name) for name in getattr(truth, kind))
        value = scores.micro(key, cell, columns)
        if value is None:
            return None
        found[kind] = value
    return found


def table_2(plan: Plan, scores: Scores, sensors: str) -> str:
    """Table 2 for one sensor: Top-1 with its interval, other columns as means over seeds; the paper's beside them."""
    rows = []
    for key in systems(plan, scores):
        cell = cell_key("transfer", sensors)
        each, top1 = scores.single_label(key, cell), scores.accuracy(key, cell)
        if each is None or top1 is None:
            continue
        rest = [np.mean([getattr(one, name) for one in each]) for name in ("top3", "precision", "recall", "f1")]
        theirs = " / ".join(f"*{value}*" for value in paper.TRANSFER.get(key, ()))
        rows.append([plan.title(key), shown(top1), *map(percent, rest), theirs])
    return markdown(
        [f"system, {sensors}", "Top-1", "Top-3", "precision", "recall", "F1", "*the paper's, same columns*"], rows
    )


def ablation_table(plan: Plan, scores: Scores) -> str:
    """Each change against the system it changes, linear evaluation on S1+S2 (or as named), paired."""
    rows = []
    full = [("linear", BOTH, f, "") for f in (plan.sparse, 1.0)]
    for key in plan.ablations:
        base = key.split("-")[0]
        rows.append([plan.title(key), plan.title(base), *(_gap(scores, key, base, c, c) for c in full)])
    for variant, title, sensors in (
        ("cls", "CLS instead of mean pooling", BOTH),
        ("zero-filled", "S1 alone, S2 filled with zeros instead of absent", "S1"),
        ("zero-filled", "S2 alone, S1 filled with zeros instead of absent", "S2"),
    ):
        pairs = [(("linear", sensors, f, variant), ("linear", sensors, f, "")) for f in (plan.sparse, 1.0)]
        rows.append([title, plan.title("xae"), *(_gap(scores, "xae", "xae", a, b) for a, b in pairs)])
    return markdown(["change", "against", *(f"{100 * f:g} % of labels" for f in (plan.sparse, 1.0))], rows, left=2)


def _gap(scores: Scores, key: str, base: str, cell: tuple, base_cell: tuple) -> str:
    one, other = scores.micro(key, cell_key(*cell)), scores.micro(base, cell_key(*base_cell))
    return "–" if one is None or other is None else gap(one, other)


def loss_table(plan: Plan, scores: Scores) -> str:
    """First and last epoch of pretraining and of fine-tuning on S1+S2, mean over seeds: each method's own loss."""
    rows = []
    for key in systems(plan, scores):
        row = [plan.title(key)]
        tuned = [f["losses"].get(cell_key("finetuned", BOTH), []) for f in scores.of(key)]
        for curves in ([f["history"] for f in scores.of(key)], tuned):
            known = [c for c in curves if c]
            row += [f"{np.mean([c[i] for c in known]):.3f}" if known else "–" for i in (0, -1)]
        rows.append(row)
    head = ["pretraining, first epoch", "last epoch", "fine-tuning, first epoch", "last epoch"]
    return markdown(["system", *head], rows)


def leakage_table(found: dict[str, list[float]]) -> str:
    """Both splits, and their difference draw by draw."""
    gaps = np.array(found["random"]) - np.array(found["disjoint"])
    rows = [[f"{name} split", percent(np.mean(v)), percent(np.std(v, ddof=1))] for name, v in found.items()]
    rows.append(["difference, draw by draw", percent(gaps.mean()), percent(gaps.std(ddof=1))])
    return markdown(["", "micro AP, mean over draws", "deviation over draws"], rows)


def refusals(plan: Plan, scores: Scores) -> list[str]:
    """Cells that could not be computed, and why; each reason once."""
    reasons = {reason for fact in scores.facts for reason in fact["refused"].values()}
    return sorted(reasons)


def cells_csv(plan: Plan, all_scores: Iterable[Scores]) -> str:
    """Every cell of linear evaluation and fine-tuning, one a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["data", "system", "protocol", "sensors", "fraction", "variant", "micro", "deviation", "low", "high"]
    writer.writerow([*names, "macro", "macro deviation", "seeds", "train", "test"])
    for scores in all_scores:
        for key in scores.keys:
            for cell in scores.of(key)[0]["counts"]:
                protocol, sensors, fraction, variant = cell.split("|")
                if protocol == "transfer":
                    continue
                one, macro = scores.micro(key, cell), scores.macro(key, cell)
                numbers = [one.mean, one.deviation, *one.interval, *macro]
                values = ["" if np.isnan(v) else f"{v:.4f}" for v in numbers]
                writer.writerow([scores.data, key, protocol, sensors, fraction, variant, *values, one.seeds, one.train,
                                 one.test])  # fmt: skip
    return text.getvalue()


def per_class_csv(all_scores: Iterable[Scores], systems: Sequence[str]) -> str:
    """Average precision of every class on S1+S2, mean over seeds; empty for a class without a positive."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data", "system", "protocol", "class", "test positives", "average precision"])
    for scores in all_scores:
        positives = scores.labels().sum(axis=0)
        for key in systems:
            for protocol in ("finetuned", "linear"):
                each = scores.per_class(key, cell_key(protocol, BOTH)) if key in scores.keys else None
                for c, name in enumerate(scores.classes() if each is not None else ()):
                    value = "" if not positives[c] else f"{each[:, c].mean():.4f}"
                    writer.writerow([scores.data, key, protocol, name, int(positives[c]), value])
    return text.getvalue()

"""Exercises of notebook 07: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
from judging import compare
from sklearn.metrics import average_precision_score


def precision_at(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of positives among the `k` patches with the highest scores. Both arrays are (patches,)."""
    # solution
    best = np.argsort(-scores)[:k]
    return float(labels[best].mean())
    # end


def check_precision_at(answer):
    rng = np.random.default_rng(0)
    some, many = (rng.random(40) < 0.4).astype(int), rng.permutation(40) / 40.0
    toy = np.array([0, 1, 1, 0, 1]), np.array([0.9, 0.8, 0.1, 0.3, 0.5])
    cases = [(*toy, k) for k in (1, 3, 5)] + [(some, many, k) for k in (1, 2, 7, 40)]

    def top(y, s, k):
        return y[np.argsort(-s)[:k]]

    slips = {
        "those are the lowest scores: sort downwards": lambda y, s, k: y[np.argsort(s)[:k]].mean(),
        "the first k patches are not the best k: sort by score": lambda y, s, k: y[:k].mean(),
        "that is recall: divide by k, not by all positives": lambda y, s, k: top(y, s, k).sum() / y.sum(),
        "that counts positives: divide by k": lambda y, s, k: top(y, s, k).sum(),
        "divide by k, not by all patches": lambda y, s, k: top(y, s, k).sum() / len(y),
        "that is the share of negatives": lambda y, s, k: 1 - top(y, s, k).mean(),
        "off by one: that takes k + 1 patches": lambda y, s, k: top(y, s, k + 1).mean(),
        "off by one: take k patches": lambda y, s, k: top(y, s, k)[1:].mean() if k > 1 else np.nan,
        "the mean score of the best k, not the share of positives": lambda y, s, k: np.sort(s)[::-1][:k].mean(),
        "that is whether patch k is a positive": lambda y, s, k: top(y, s, k)[-1],
        "the scores were cut at 0.5: take the best k": lambda y, s, k: y[s > 0.5].mean(),
    }
    compare(answer, precision_at, cases, slips)


def macro_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over classes of each class's average precision; a class without a positive is left out.

    Both arrays are (patches, classes). `average_precision_score(labels[:, c], scores[:, c])` does one class.
    """
    # solution
    present = np.flatnonzero(labels.any(axis=0))
    return float(np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in present]))
    # end


def check_macro_ap(answer):
    rng = np.random.default_rng(0)
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.9, 0.1], [0.1, 0.5, 0.9], [0.8, 0.1, 0.2], [0.2, 0.2, 0.3]])
    some = rng.random((30, 5)) < [0.1, 0.5, 0.3, 0.0, 0.7]

    def each(y, s):
        return np.array(
            [average_precision_score(y[:, c], s[:, c]) if y[:, c].any() else 0.0 for c in range(y.shape[1])]
        )

    slips = {
        "the third class has no positive: counting it as 0 is a choice nobody asked for": lambda y, s: each(
            y, s
        ).mean(),
        "that is the micro average": lambda y, s: average_precision_score(y.ravel(), s.ravel()),
        "that weighs classes by their frequency": lambda y, s: (each(y, s) * y.sum(0)).sum() / y.sum(),
        "classes are columns, patches are rows": lambda y, s: each(y.T, s.T)[y.any(1)].mean(),
        "mean over classes, not their sum": lambda y, s: each(y, s).sum(),
        "mean over classes, not the median": lambda y, s: np.median(each(y, s)[y.any(0)]),
        "that is the best class": lambda y, s: each(y, s).max(),
        "one number, not one for each class": lambda y, s: each(y, s)[y.any(0)],
        "a class without a positive is left out, not counted as 1": lambda y, s: np.where(
            y.any(0), each(y, s), 1
        ).mean(),
        "higher scores are better: the sign is wrong": lambda y, s: each(y, -s)[y.any(0)].mean(),
        "that is a mean of means over patches": lambda y, s: each(y.T, s.T).mean(),
    }
    compare(answer, macro_ap, [(labels, scores), (some, rng.random((30, 5)) + 0.4 * some)], slips)


def label_subset(patches: int, fraction: float, seed: int) -> np.ndarray:
    """Rows of the labelled subset: `fraction` of `patches`, at least one, each at most once, fixed by `seed`."""
    # solution
    count = max(1, round(patches * fraction))
    return np.sort(np.random.default_rng(seed).choice(patches, count, replace=False))
    # end


def check_label_subset(answer):
    rows = np.asarray(answer(269_695, 0.01, 0))
    assert rows.ndim == 1 and len(rows) in (2696, 2697), f"1 % of 269,695 is 2,697 patches, not {rows.shape}"
    assert rows.dtype.kind in "iu", "rows are whole numbers"
    assert len(np.unique(rows)) == len(rows), "a patch was drawn twice: draw without replacement"
    assert rows.min() >= 0 and rows.max() < 269_695, "rows must lie in 0 .. patches - 1"
    assert np.array_equal(np.sort(rows), np.sort(answer(269_695, 0.01, 0))), "the same seed must give the same rows"
    assert not np.array_equal(np.sort(rows), np.sort(answer(269_695, 0.01, 1))), "another seed must give other rows"
    assert len(answer(45, 0.01, 0)) == 1, "1 % of 45 patches is less than one: take at least one"
    assert len(answer(45, 1.0, 0)) == 45, "a fraction of 1 is every patch"
    assert len(answer(1000, 0.25, 0)) == 250, "a quarter of 1,000 is 250"
    drawn = [int(row) for seed in range(400) for row in answer(8, 0.25, seed)]
    counts = np.bincount(drawn, minlength=8)
    assert len(counts) == 8 and counts.min() > 60, f"every patch should be drawn equally often, not {counts.tolist()}"


def patches_needed(width: float, patches: int, wanted: float) -> int:
    """Test patches that shrink an interval of `width`, measured on `patches`, to the `wanted` width."""
    # solution
    return int(np.ceil(patches * (width / wanted) ** 2))
    # end


def check_patches_needed(answer):
    slips = {
        "width goes with one over the square root: square the ratio": lambda w, n, t: int(np.ceil(n * w / t)),
        "a narrower interval needs more patches: width over wanted": lambda w, n, t: int(np.ceil(n * (t / w) ** 2)),
        "square the ratio, not its root": lambda w, n, t: int(np.ceil(n * (w / t) ** 0.5)),
        "round up: one patch too few does not reach it": lambda w, n, t: int(n * (w / t) ** 2),
        "round up, not to the nearest": lambda w, n, t: round(n * (w / t) ** 2),
        "that is the factor; multiply by patches": lambda w, n, t: int(np.ceil((w / t) ** 2)),
        "in all, not in addition": lambda w, n, t: int(np.ceil(n * (w / t) ** 2)) - n,
        "off by one: nothing to add once it is rounded up": lambda w, n, t: int(np.ceil(n * (w / t) ** 2)) + 1,
        "patches are whole: round up": lambda w, n, t: n * (w / t) ** 2,
        "the ratio of the widths, not their difference": lambda w, n, t: int(np.ceil(n * (1 + w - t) ** 2)),
        "square the ratio, not the number of patches": lambda w, n, t: int(np.ceil(n**2 * w / t)),
        "the power is 2": lambda w, n, t: int(np.ceil(n * (w / t) ** 3)),
    }
    cases = [(0.2, 100, 0.2), (0.2, 100, 0.1), (0.3, 100, 0.09), (0.17, 21, 0.05), (0.25, 7, 0.125), (0.1, 100, 0.3)]
    compare(answer, patches_needed, cases, slips)


def impossible_rows(table: dict[str, dict[str, float]]) -> list[str]:
    """Names of the systems whose weighted recall differs from their accuracy, which cannot be.

    `table` maps system -> {"accuracy": ..., "recall": ...} in percent, rounded to one decimal.
    """
    # solution
    return [name for name, row in table.items() if abs(row["accuracy"] - row["recall"]) > 0.05]
    # end


def check_impossible_rows(answer):
    values = {
        "A": (61.2, 61.2),
        "B": (50.1, 49.9),
        "C": (58.8, 58.7),
        "D": (58.7, 58.8),
        "E": (0.0, 0.0),
        "F": (9.1, 8.1),
    }
    table = {name: {"accuracy": a, "recall": r} for name, (a, r) in values.items()}
    fine = {"A": table["A"]}

    def rows(wanted):
        return lambda t: [name for name, row in t.items() if wanted(row["accuracy"] - row["recall"])]

    slips = {
        "those are the rows that agree": rows(lambda d: abs(d) < 0.05),
        "both signs: the recall may be the larger one": rows(lambda d: d > 0.05),
        "both signs: the accuracy may be the larger one": rows(lambda d: d < -0.05),
        "a tenth is a difference already: both are rounded to one decimal": rows(lambda d: abs(d) > 0.15),
        "a difference of one point is not needed: a tenth is one already": rows(lambda d: abs(d) >= 0.95),
        "compare to the decimal, not to the whole percent": lambda t: [
            n for n, row in t.items() if round(row["accuracy"]) != round(row["recall"])
        ],
        "give the names, not the rows": lambda t: [t[name] for name in impossible_rows(t)],
        "give the names, not their number": lambda t: len(impossible_rows(t)),
        "all of them, not the first": lambda t: impossible_rows(t)[:1],
        "those are all rows": list,
        "some row is impossible": lambda t: [],
        "give the names, not whether there are some": lambda t: bool(impossible_rows(t)),
        "give the names, not where they stand": lambda t: [i for i, n in enumerate(t) if n in impossible_rows(t)],
    }

    def ordered(function):
        """An order of the names is not asked for."""
        return lambda t: sorted(got, key=str) if isinstance(got := function(t), (list, tuple, set)) else got

    cases = [(table,), (fine,), ({},)]
    compare(ordered(answer), ordered(impossible_rows), cases, {hint: ordered(slip) for hint, slip in slips.items()})

"""Exercises of notebook 07: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score


def precision_at(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of positives among the `k` patches with the highest scores. Both arrays are (patches,)."""
    # solution
    best = np.argsort(-scores)[:k]
    return float(labels[best].mean())
    # end


def check_precision_at(answer):
    """Five patches."""
    labels, scores = np.array([0, 1, 1, 0, 1]), np.array([0.9, 0.8, 0.1, 0.3, 0.5])
    assert answer(labels, scores, 1) == 0, "the best-scored patch is a negative: precision at 1 is 0"
    assert abs(answer(labels, scores, 3) - 2 / 3) < 1e-9, "two of the best three are positive"
    assert abs(answer(labels, scores, 5) - 0.6) < 1e-9, "with every patch taken, precision is the share of positives"


def macro_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over classes of each class's average precision; a class without a positive is left out.

    Both arrays are (patches, classes). `average_precision_score(labels[:, c], scores[:, c])` does one class.
    """
    # solution
    present = np.flatnonzero(labels.any(axis=0))
    return float(np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in present]))
    # end


def check_macro_ap(answer):
    """Two classes with known values, and a third that never occurs."""
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.9, 0.1], [0.1, 0.5, 0.9], [0.8, 0.1, 0.2], [0.2, 0.2, 0.3]])
    found = answer(labels, scores)
    assert abs(found - 0.5) > 1e-6, "the third class has no positive: counting it as 0 is a choice nobody asked for"
    assert abs(found - average_precision_score(labels.ravel(), scores.ravel())) > 1e-6, "that is the micro average"
    assert abs(found - 0.75) < 1e-9, f"found {found:.3f}; the classes score 1 and 0.5, so their mean is 0.75"


def label_subset(patches: int, fraction: float, seed: int) -> np.ndarray:
    """Rows of the labelled subset: `fraction` of `patches`, at least one, each at most once, fixed by `seed`."""
    # solution
    count = max(1, round(patches * fraction))
    return np.sort(np.random.default_rng(seed).choice(patches, count, replace=False))
    # end


def check_label_subset(answer):
    """Size, distinctness, range, and dependence on the seed."""
    rows = np.asarray(answer(269_695, 0.01, 0))
    assert len(rows) in (2696, 2697), f"1 % of 269,695 is 2,697 patches, not {len(rows)}"
    assert len(np.unique(rows)) == len(rows), "a patch was drawn twice: draw without replacement"
    assert rows.min() >= 0 and rows.max() < 269_695, "rows must lie in 0 .. patches - 1"
    assert np.array_equal(np.sort(rows), np.sort(answer(269_695, 0.01, 0))), "the same seed must give the same rows"
    assert not np.array_equal(np.sort(rows), np.sort(answer(269_695, 0.01, 1))), "another seed must give other rows"
    assert len(answer(45, 0.01, 0)) == 1, "1 % of 45 patches is less than one: take at least one"


def patches_needed(width: float, patches: int, wanted: float) -> int:
    """Test patches that shrink an interval of `width`, measured on `patches`, to the `wanted` width."""
    # solution
    return int(np.ceil(patches * (width / wanted) ** 2))
    # end


def check_patches_needed(answer):
    """Half the width needs four times the patches."""
    assert answer(0.2, 100, 0.2) == 100, "nothing to shrink: the same number of patches"
    assert answer(0.2, 100, 0.1) != 200, "width goes with one over the square root: twice is not enough"
    assert answer(0.2, 100, 0.1) == 400, "half the width needs four times the patches"


def impossible_rows(table: dict[str, dict[str, float]]) -> list[str]:
    """Names of the systems whose weighted recall differs from their accuracy, which cannot be.

    `table` maps system -> {"accuracy": ..., "recall": ...} in percent, rounded to one decimal.
    """
    # solution
    return [name for name, row in table.items() if abs(row["accuracy"] - row["recall"]) > 0.05]
    # end


def check_impossible_rows(answer):
    """One row agrees, one does not."""
    table = {"A": {"accuracy": 61.2, "recall": 61.2}, "B": {"accuracy": 50.1, "recall": 49.9}}
    found = list(answer(table))
    assert "B" in found, "B's two numbers differ although they are the same quantity"
    assert found == ["B"], f"found {found}; A agrees to the last digit"

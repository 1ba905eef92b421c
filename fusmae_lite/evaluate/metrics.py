"""Average precision over the whole test set, micro and macro, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from fusmae_lite.errors import InputError

Labels = NDArray[np.bool_]
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision in [0, 1].

    Args:
        micro: every (patch, class) decision in one ranking; frequent classes dominate.
        macro: mean of the classes' own values; rare classes count as much as frequent ones.
        per_class: one value a class; NaN for a class with no positive in the test set.
        undefined: names of those classes; they are left out of `macro`, never counted as 0 or 1.
    """

    micro: float
    macro: float
    per_class: NDArray[np.float64]
    undefined: tuple[str, ...]


def average_precision(labels: Labels, scores: Scores, classes: Sequence[str] | None = None) -> AveragePrecision:
    """Average precision of `scores` against `labels`, both (patches, classes), over the whole set at once.

    Averaging over batches instead gives another number that depends on the batch size: notebook 07 shows it.

    Raises:
        InputError: shapes differ, a score is not finite, or no class has a positive.
    """
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores)
    names = list(classes) if classes is not None else [str(i) for i in range(labels.shape[1])]
    if labels.shape != scores.shape:
        raise InputError(f"labels are {labels.shape}, scores {scores.shape}", "give one score per patch and class")
    if not np.isfinite(scores).all():
        raise InputError("scores hold NaN or infinite values", "check the learning rate and the features")
    present = labels.any(axis=0)
    if not present.any():
        raise InputError("no class has a positive in the test set", "choose another split")
    per_class = np.full(len(names), np.nan)
    for c in np.flatnonzero(present):
        per_class[c] = average_precision_score(labels[:, c], scores[:, c])
    micro = float(average_precision_score(labels[:, present].ravel(), scores[:, present].ravel()))
    absent = tuple(name for name, there in zip(names, present, strict=True) if not there)
    return AveragePrecision(micro, float(np.nanmean(per_class)), per_class, absent)


def bootstrap_interval(
    labels: Labels, scores: Scores, which: str = "micro", draws: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of micro or macro AP when the test patches are drawn again with replacement.

    It measures the chance of the test set alone, neither that of the labels trained on nor of the seed.
    """
    rng = np.random.default_rng(seed)
    values = []
    while len(values) < draws:
        rows = rng.integers(0, len(labels), len(labels))
        if labels[rows].any():
            values.append(getattr(average_precision(labels[rows], scores[rows]), which))
    tail = (1 - level) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))

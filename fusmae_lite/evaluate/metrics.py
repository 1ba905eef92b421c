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
    per_class[present] = _each_class(labels[:, present], scores[:, present])
    micro = _micro(labels[:, present], scores[:, present])
    absent = tuple(name for name, there in zip(names, present, strict=True) if not there)
    return AveragePrecision(micro, float(np.nanmean(per_class)), per_class, absent)


def bootstrap_interval(
    labels: Labels, scores: Scores, which: str = "micro", draws: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of micro or macro AP when the test patches are drawn again with replacement.

    It measures the chance of the test set alone, neither that of the labels trained on nor of the seed. A draw is
    scored over the classes that have a positive in it.
    """
    rng = np.random.default_rng(seed)
    measure = {"micro": _micro, "macro": lambda y, s: float(_each_class(y, s).mean())}[which]
    values: list[float] = []
    while len(values) < draws:
        rows = rng.integers(0, len(labels), len(labels))
        present = labels[rows].any(axis=0)
        if present.any():
            values.append(measure(labels[rows][:, present], scores[rows][:, present]))
    tail = (1 - level) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def _micro(labels: Labels, scores: Scores) -> float:
    return float(average_precision_score(labels.ravel(), scores.ravel()))


def _each_class(labels: Labels, scores: Scores) -> NDArray[np.float64]:
    return np.array([average_precision_score(labels[:, c], scores[:, c]) for c in range(labels.shape[1])])

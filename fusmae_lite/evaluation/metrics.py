"""Average precision over the whole test set, micro and macro, its interval, and whether two systems differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusmae_lite.core.errors import InputError

Labels = NDArray[np.bool_]
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision in [0, 1]."""

    micro: float  # every (patch, class) decision in one ranking; frequent classes dominate
    macro: float  # mean over classes; rare classes count as much as frequent ones
    per_class: NDArray[np.float64]  # NaN for a class with no positive in the test set
    undefined: tuple[str, ...]  # names of those classes; they are left out of macro, never counted as 0 or 1


class Comparison(NamedTuple):
    """First system minus second: on the test set as it is, and the 95 % interval over redraws of its patches."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` only where the interval excludes 0, otherwise ``not told apart``."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"

    @classmethod
    def of(cls, first: NDArray[np.float64], second: NDArray[np.float64]) -> Comparison:
        """Compare two systems' values on the same redraws, (1 + draws,) each, the undrawn test set first."""
        return cls(float(first[0] - second[0]), *interval(first - second))


def as_labels(labels: Any) -> Labels:
    """Labels of any numeric type, NumPy or torch, as bool of the same shape.

    Raises:
        InputError: a value other than 0 and 1: -1 for "absent" or a probability would silently count as a positive.
    """
    array = _as_numpy(labels)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf" or not ((array == 0) | (array == 1)).all():
        wrong = array.dtype if array.dtype.kind not in "iuf" else array[(array != 0) & (array != 1)].flat[0]
        raise InputError(f"labels hold {wrong}", "give 1 for a class that is present and 0 for one that is not")
    return array.astype(bool)


def as_scores(scores: Any) -> Scores:
    """Finite scores of any numeric type, NumPy or torch, as float64: an unsigned integer has no negative to sort by."""
    array = _as_numpy(scores)
    if array.dtype.kind not in "biuf":
        raise InputError(f"scores are {array.dtype}", "give numbers, higher for what is more likely")
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        raise InputError("scores hold NaN or infinite values", "check the learning rate and the features")
    return array


def _as_numpy(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor, which may lie on a GPU or be of a type that NumPy lacks
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    return np.asarray(values)


def average_precision(labels: Labels, scores: Scores, classes: Sequence[str] | None = None) -> AveragePrecision:
    """Average precision of `scores` against `labels`, both (patches, classes), over the whole set at once.

    Averaging over batches instead gives another number that depends on the batch size: notebook 07 shows it.

    Raises:
        InputError: shapes differ, a score is not finite, a label is neither 0 nor 1, or no class has a positive.
    """
    labels, scores = as_labels(labels), as_scores(scores)
    if labels.shape != scores.shape or labels.ndim != 2 or not labels.size:
        raise InputError(f"labels are {labels.shape}, scores {scores.shape}", "give one score per patch and class")
    names = list(classes) if classes is not None else [str(i) for i in range(labels.shape[1])]
    if len(names) != labels.shape[1]:
        raise InputError(f"{len(names)} names for {labels.shape[1]} classes", "name every column")
    present = labels.any(axis=0)
    if not present.any():
        raise InputError("no class has a positive in the test set", "choose another split")
    each = _class_ap(labels, scores)
    micro = micro_ap(labels[:, present], scores[:, present])
    return AveragePrecision(micro, float(np.nanmean(each)), each, tuple(np.array(names)[~present].tolist()))


def micro_ap(labels: Labels, scores: Scores) -> float:
    """Average precision of all (patch, class) decisions in one ranking; both (patches, classes), at least one positive.

    What scikit-learn's ``average_precision_score`` gives on the flattened arrays, a tenth of the time: an interval
    calls it a thousand times.
    """
    y, s = as_labels(labels).ravel(), as_scores(scores).ravel()
    order = np.argsort(-s, kind="stable")
    hits = np.cumsum(y[order])
    last = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)  # of each run of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _class_ap(labels: Labels, scores: Scores) -> NDArray[np.float64]:
    """(classes,); NaN for a class without a positive."""
    return np.array([micro_ap(y, s) if y.any() else np.nan for y, s in zip(labels.T, scores.T, strict=True)])


def accuracy(labels: Labels, scores: Scores) -> float:
    """Share of patches whose class is scored highest; (patches, classes) each, patches without a class left out."""
    known = labels.any(axis=1)
    return float((scores[known].argmax(axis=1) == labels[known].argmax(axis=1)).mean())


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the redraws in (1 + draws,) values."""
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    labels: Labels, scores: Scores, which: str = "micro", draws: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of micro or macro AP when the test patches are drawn again; see :func:`redraw_scores`.

    It measures the chance of the test set alone, neither that of the labels trained on nor of the seed.
    """
    return interval(redraw_scores(labels, scores, which, draws, seed), level)


def paired_comparison(
    labels: Labels, first: Scores, second: Scores, which: str = "micro", draws: int = 1000, seed: int = 0
) -> Comparison:
    """Paired bootstrap of two systems' micro or macro AP; patches that are hard for both cancel out.

    It measures the chance of the test set alone: differences between seeds of training come on top.
    """
    return Comparison.of(*(redraw_scores(labels, scores, which, draws, seed) for scores in (first, second)))


def redraw_scores(
    labels: Labels, scores: Scores, which: str = "micro", draws: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """Micro or macro AP of the test set as it is, then of `draws` redraws of its patches: (1 + draws,).

    Classes without a positive are left out of everything. One that has positives, but none in a redraw, keeps its AP
    of the whole set in the macro mean, and its decisions, all negative, in the micro ranking: were it left out, tiny
    sets would lean upwards, because draws without a rare class that is ranked badly would score the easier rest.

    Args:
        labels: (patches, classes).
        scores: (patches, classes), or (seeds, patches, classes), see :func:`redraw_values`.
        which: ``micro`` or ``macro``.
        draws: how many redraws, with replacement.
        seed: of the redraws; the same seed redraws the same patches, whatever the scores.

    Raises:
        InputError: shapes differ, a score is not finite, no class has a positive, or `which` is unknown.
    """
    labels, scores = as_labels(labels), as_scores(scores)
    if which not in ("micro", "macro"):
        raise InputError(f"no average {which!r}", "choose micro or macro")
    runs = scores if scores.ndim == 3 else scores[None]
    whole, present = [average_precision(labels, run).per_class for run in runs], labels.any(axis=0)
    if which == "micro":
        return _redraw_micro(labels[:, present], runs[:, :, present], draws, seed)

    def redrawn(rows: NDArray[np.int64], run: int) -> float:
        each = _class_ap(labels[rows][:, present], runs[run][rows][:, present])
        return float(np.where(np.isnan(each), whole[run][present], each).mean())

    return _redraw(labels, len(runs), redrawn, draws, seed)


def redraw_values(
    labels: Labels, scores: Scores, score: Callable[[Labels, Scores], float], draws: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """Any score, averaged over training seeds: of the test set, then of redraws of patches and seeds: (1 + draws,).

    The same seed redraws the same patches and seeds for every system, so that two results can be subtracted.

    Args:
        labels: (patches, classes), 0 and 1, with a positive.
        scores: (seeds, patches, classes), one training run a seed.
        score: of labels and one seed's scores.
        draws: how many redraws.
        seed: of the redraws.
    """
    labels, scores = as_labels(labels), as_scores(scores)
    if scores.shape[1:] != labels.shape or not len(scores) or not labels.any():
        what = f"labels are {labels.shape} with {int(labels.sum())} positives, scores {scores.shape}"
        raise InputError(what, "give (patches, classes) with a positive, and (seeds, patches, classes)")
    return _redraw(labels, len(scores), lambda rows, run: score(labels[rows], scores[run][rows]), draws, seed)


def _redraw_micro(labels: Labels, runs: Scores, draws: int, seed: int) -> NDArray[np.float64]:
    """As :func:`_redraw` of :func:`micro_ap`, each run sorted once: a redraw counts some patches twice, others not."""
    drawn = list(_draws(labels, len(runs), draws, seed))
    counts = np.array([np.bincount(rows, minlength=len(labels)) for rows, _ in drawn], dtype=np.float64)
    values = np.empty((len(drawn), len(runs)))
    for run, scores in enumerate(runs):
        flat = scores.ravel()
        order = np.argsort(-flat, kind="stable")
        positive, patch = labels.ravel()[order], order // labels.shape[1]
        last = np.append(np.flatnonzero(np.diff(flat[order])), len(flat) - 1)
        for draw, count in enumerate(counts):
            weight = count[patch]
            hits, all_ = np.cumsum(weight * positive)[last], np.cumsum(weight)[last]
            precision = np.divide(hits, all_, out=np.zeros_like(hits), where=all_ > 0)
            values[draw, run] = np.sum(np.diff(hits, prepend=0.0) * precision) / hits[-1]
    return np.array([values[draw, chosen].mean() for draw, (_, chosen) in enumerate(drawn)])


def _draws(labels: Labels, runs: int, draws: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and runs: all of them once, then `draws` redraws that hold a positive."""
    rng, made = np.random.default_rng(seed), 0
    yield np.arange(len(labels)), np.arange(runs)
    while made < draws:
        rows, chosen = rng.integers(0, len(labels), len(labels)), rng.integers(0, runs, runs)
        if labels[rows].any():
            made += 1
            yield rows, chosen


def _redraw(
    labels: Labels, runs: int, score: Callable[[NDArray[np.int64], int], float], draws: int, seed: int
) -> NDArray[np.float64]:
    """Means over runs of `score` (rows, run), for every redraw."""
    drawn = _draws(labels, runs, draws, seed)
    return np.array([np.mean([score(rows, run) for run in chosen]) for rows, chosen in drawn])

"""Average precision over the whole test set, micro and macro, with an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusmae_lite.core.errors import InputError

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


def as_labels(labels: Any) -> Labels:
    """Labels of any numeric type, NumPy or torch, as bool of the same shape.

    Raises:
        InputError: a value other than 0 and 1: -1 for "absent" or a probability would silently count as a positive.
    """
    array = _as_numpy(labels)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf" or not ((array == 0) | (array == 1)).all():
        odd = array.dtype if array.dtype.kind not in "iuf" else array[(array != 0) & (array != 1)].flat[0]
        raise InputError(f"labels hold {odd}", "give 1 for a class that is present and 0 for one that is not")
    return array.astype(bool)


def as_scores(scores: Any) -> Scores:
    """Scores of any numeric type, NumPy or torch, as float64: an unsigned integer has no negative to sort by.

    Raises:
        InputError: values that are no numbers, or not finite.
    """
    array = _as_numpy(scores)
    if array.dtype.kind not in "biuf":
        raise InputError(f"scores are {array.dtype}", "give numbers, higher for what is more likely")
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        raise InputError("scores hold NaN or infinite values", "check the learning rate and the features")
    return array


def _as_numpy(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor, which may lie on a GPU or be of a type that NumPy does not know
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    return np.asarray(values)


def _labels_and_scores(labels: Any, scores: Any) -> tuple[Labels, Scores]:
    """Both (patches, classes), of one shape and not empty; else InputError."""
    labels, scores = as_labels(labels), as_scores(scores)
    if labels.shape != scores.shape or labels.ndim != 2 or not labels.size:
        raise InputError(f"labels are {labels.shape}, scores {scores.shape}", "give one score per patch and class")
    return labels, scores


def average_precision(labels: Labels, scores: Scores, classes: Sequence[str] | None = None) -> AveragePrecision:
    """Average precision of `scores` against `labels`, both (patches, classes), over the whole set at once.

    Averaging over batches instead gives another number that depends on the batch size: notebook 07 shows it.

    Args:
        labels: 0 and 1 in any numeric type.
        scores: in any numeric type; compared as float64.
        classes: a name for each column.

    Raises:
        InputError: shapes differ, a score is not finite, a label is neither 0 nor 1, or no class has a positive.
    """
    labels, scores = _labels_and_scores(labels, scores)
    names = list(classes) if classes is not None else [str(i) for i in range(labels.shape[1])]
    if len(names) != labels.shape[1]:
        raise InputError(f"{len(names)} names for {labels.shape[1]} classes", "name every column")
    present = labels.any(axis=0)
    if not present.any():
        raise InputError("no class has a positive in the test set", "choose another split")
    per_class = np.full(len(names), np.nan)
    per_class[present] = _each_class(labels[:, present], scores[:, present])
    micro = micro_ap(labels[:, present], scores[:, present])
    absent = tuple(name for name, there in zip(names, present, strict=True) if not there)
    return AveragePrecision(micro, float(np.nanmean(per_class)), per_class, absent)


def bootstrap_interval(
    labels: Labels,
    scores: Scores,
    which: str = "micro",
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
    lost: str = "keep",
) -> tuple[float, float]:
    """Percentile interval of micro or macro AP when the test patches are drawn again with replacement.

    It measures the chance of the test set alone, neither that of the labels trained on nor of the seed.

    A class that loses its positives in a redraw keeps its place, see :func:`redraw_scores`. With ``lost="drop"`` it is
    left out, which on tiny sets leans upwards: a rare class that is ranked badly is missing from a third of the draws,
    which then score the easier rest. The two agree once every class has ten positives or so.
    """
    values = redraw_scores(labels, scores, which, draws, seed, lost)[1:]
    tail = (1 - level) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def redraw_scores(
    labels: Labels, scores: Scores, which: str = "micro", draws: int = 200, seed: int = 0, lost: str = "keep"
) -> NDArray[np.float64]:
    """Micro or macro AP of the test set as it is, then of `draws` redraws of its patches: (1 + draws,).

    The same seed redraws the same patches, whatever the scores.

    Args:
        labels, scores: (patches, classes); classes without a positive are left out of everything.
        which: ``micro`` or ``macro``.
        draws: how many redraws.
        seed: of the redraws.
        lost: a class that has positives, but none in a redraw: ``keep`` its AP of the whole set in the macro mean, and
            its decisions, all negative, in the micro ranking; or ``drop`` it from that redraw.

    Raises:
        InputError: shapes differ, a score is not finite, no class has a positive, or `which` or `lost` is unknown.
    """
    labels, scores = _labels_and_scores(labels, scores)
    if which not in ("micro", "macro") or lost not in ("keep", "drop"):
        raise InputError(f"which {which!r}, lost {lost!r}", "choose micro or macro, and keep or drop")
    whole, present = average_precision(labels, scores), labels.any(axis=0)
    labels, scores, known = labels[:, present], scores[:, present], whole.per_class[present]
    rng, values = np.random.default_rng(seed), [getattr(whole, which)]
    while len(values) <= draws:
        rows = rng.integers(0, len(labels), len(labels))
        drawn = labels[rows].any(axis=0)
        if drawn.any():
            columns = drawn if lost == "drop" else np.ones_like(drawn)
            values.append(_redraw(labels[rows][:, columns], scores[rows][:, columns], known[columns], which))
    return np.array(values)


def _redraw(labels: Labels, scores: Scores, known: NDArray[np.float64], which: str) -> float:
    """One redraw; a class without a positive in it scores what is `known` of it."""
    if which == "micro":
        return micro_ap(labels, scores)
    there, each = labels.any(axis=0), known.copy()
    each[there] = _each_class(labels[:, there], scores[:, there])
    return float(each.mean())


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


def _each_class(labels: Labels, scores: Scores) -> NDArray[np.float64]:
    return np.array([micro_ap(labels[:, c], scores[:, c]) for c in range(labels.shape[1])])


def redraw_values(
    labels: Labels,
    scores: Scores,
    score: Callable[[Labels, Scores], float],
    draws: int = 200,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Any score, averaged over training seeds: of the test set, then of redraws of patches and seeds: (1 + draws,).

    The same seed redraws the same patches and seeds for every system, so that two results can be subtracted.

    Args:
        labels: (patches, classes), 0 and 1.
        scores: (seeds, patches, classes), one training run a seed.
        score: of labels and one seed's scores; a redraw it refuses (no positive left) is drawn again.
        draws: how many redraws.
        seed: of the redraws.
    """
    labels, scores = _labels_and_runs(labels, scores)
    values = [np.mean([score(labels, one) for one in scores])]
    for rows, runs in _redraws(labels, len(scores), draws, seed):
        values.append(np.mean([score(labels[rows], scores[run][rows]) for run in runs]))
    return np.array(values)


def redraw_both(labels: Labels, scores: Scores, draws: int = 200, seed: int = 0) -> NDArray[np.float64]:
    """Micro and macro AP over the redraws of :func:`redraw_values`, (1 + draws, 2); arguments as there.

    Classes without a positive are left out; one that has none in a redraw keeps its place, see :func:`redraw_scores`.
    """
    labels, scores = _labels_and_runs(labels, scores)
    present = labels.any(axis=0)
    labels, scores = labels[:, present], scores[:, :, present]
    known = [_each_class(labels, one) for one in scores]

    def both(rows: NDArray[np.int64], run: int) -> list[float]:
        return [_redraw(labels[rows], scores[run][rows], known[run], which) for which in ("micro", "macro")]

    values = [np.mean([both(np.arange(len(labels)), run) for run in range(len(scores))], axis=0)]
    for rows, runs in _redraws(labels, len(scores), draws, seed):
        values.append(np.mean([both(rows, run) for run in runs], axis=0))
    return np.array(values)


def _labels_and_runs(labels: Any, scores: Any) -> tuple[Labels, Scores]:
    """(patches, classes) with a positive and (seeds, patches, classes); else InputError."""
    labels, scores = as_labels(labels), as_scores(scores)
    if scores.shape[1:] != labels.shape or not len(scores) or not labels.any():
        what = f"labels are {labels.shape} with {int(labels.sum())} positives, scores {scores.shape}"
        raise InputError(what, "give (patches, classes) with a positive, and (seeds, patches, classes)")
    return labels, scores


def _redraws(labels: Labels, runs: int, draws: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """`draws` times patches (with a positive among them) and runs, both drawn with replacement."""
    rng, made = np.random.default_rng(seed), 0
    while made < draws:
        rows, chosen = rng.integers(0, len(labels), len(labels)), rng.integers(0, runs, runs)
        if labels[rows].any():
            made += 1
            yield rows, chosen

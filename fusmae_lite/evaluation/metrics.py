"""Scores of a whole test set: average precision, the columns of Table 2, intervals, and whether two systems differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from fusmae_lite.core.errors import InputError

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]
OfRows = Callable[[NDArray[np.int64]], float]  # a score of some rows of the test set, repeated ones counting twice


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
    def of(cls, first: NDArray[np.float64], second: NDArray[np.float64]) -> "Comparison":
        """Compare two systems' values on the same redraws, (1 + draws,) each, the undrawn test set first."""
        return cls(float(first[0] - second[0]), *interval(first - second))


@dataclass(frozen=True)
class SingleLabelScores:
    """The five columns of Table 2, in [0, 1]."""

    top1: float  # share of patches whose class is scored highest; equals recall, as it must when weighted
    top3: float  # share of patches whose class is among the three highest
    precision: float  # means over the classes, weighted by their patches; 0 for a class that is never predicted
    recall: float
    f1: float
    absent: tuple[str, ...]  # classes without a patch in the test set: they have no weight in any of these
    unlabelled: int = 0  # patches left out because they carry no class


def as_labels(labels: Any) -> Labels:
    """Labels of any numeric type, NumPy or torch, as bool; InputError for anything but 0 and 1."""
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
    if isinstance(values, Tensor):  # perhaps on a GPU, or of a type that NumPy lacks
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
    micro = _ap(labels[:, present].ravel(), scores[:, present].ravel())
    return AveragePrecision(micro, float(np.nanmean(each)), each, tuple(np.array(names)[~present].tolist()))


def _ap(labels: Labels, scores: Scores) -> float:
    """scikit-learn's ``average_precision_score`` of one ranking, (n,) each, in a tenth of its time."""
    order, last = _ranked(scores)
    hits = np.cumsum(labels[order])
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _ranked(scores: Scores) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions from the highest score down, and where each run of equal scores ends."""
    order = np.argsort(-scores, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)


def _class_ap(labels: Labels, scores: Scores) -> NDArray[np.float64]:
    """(classes,); NaN for a class without a positive."""
    return np.array([_ap(y, s) if y.any() else np.nan for y, s in zip(labels.T, scores.T, strict=True)])


def class_numbers(labels: Labels) -> NDArray[np.int64]:
    """(patches, classes) with at most one True a row -> (patches,) class numbers, -1 for none; else InputError."""
    labels = as_labels(labels)
    if (labels.sum(axis=1) > 1).any():
        raise InputError("a patch has several labels", "use an archive with one class a patch, such as SEN12MS")
    return np.where(labels.any(axis=1), labels.argmax(axis=1), -1)


def single_label_scores(truth: NDArray, scores: NDArray, classes: Sequence[str]) -> SingleLabelScores:
    """Score logits (patches, classes) against class numbers (patches,), -1 for a patch without a class."""
    truth, scores = np.asarray(truth), as_scores(scores)
    if scores.shape != (len(truth), len(classes)):
        raise InputError(f"scores are {scores.shape}", f"give ({len(truth)}, {len(classes)}), one per patch and class")
    if truth.dtype.kind not in "iu" or not (truth < len(classes)).all():
        what = f"class numbers are {truth.dtype}, up to {truth.max(initial=-1)}"
        raise InputError(what, f"give 0 to {len(classes) - 1}, or -1")
    labelled = truth >= 0
    if not labelled.any():
        raise InputError("no test patch carries a class", "choose another split")
    order = np.argsort(-scores[labelled], axis=1, kind="stable")
    hit = order == truth[labelled][:, None]
    weighted = precision_recall_fscore_support(
        truth[labelled], order[:, 0], labels=range(len(classes)), average="weighted", zero_division=0
    )[:3]
    absent = tuple(name for column, name in enumerate(classes) if not (truth == column).any())
    top1, top3 = float(hit[:, 0].mean()), float(hit[:, :3].any(axis=1).mean())
    return SingleLabelScores(top1, top3, *map(float, weighted), absent, int((~labelled).sum()))


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the redraws in (1 + draws,) values."""
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    labels: Labels, scores: Scores, which: str = "micro", draws: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of :func:`redraw_scores`: the chance of the test set alone, not of labels or seeds."""
    return interval(redraw_scores(labels, scores, which, draws, seed), level)


def paired_comparison(
    labels: Labels, first: Scores, second: Scores, which: str = "micro", draws: int = 1000, seed: int = 0
) -> Comparison:
    """Paired bootstrap of two systems: patches hard for both cancel out. The chance of training is not in it."""
    return Comparison.of(*(redraw_scores(labels, scores, which, draws, seed) for scores in (first, second)))


def redraw_scores(
    labels: Labels, scores: Scores, which: str = "micro", draws: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """A score of the test set as it is, then of `draws` redraws of its patches with replacement: (1 + draws,).

    Classes without a positive are left out of everything. One that has positives, but none in a redraw, keeps its AP
    of the whole set in the macro mean, and its decisions, all negative, in the micro ranking: were it left out, tiny
    sets would lean upwards, because draws without a rare class that is ranked badly would score the easier rest.

    Args:
        labels: (patches, classes).
        scores: (patches, classes), or (seeds, patches, classes): the mean over seeds, which are redrawn as well.
        which: ``micro`` or ``macro`` average precision, or ``top1``: how often the class scored highest is right.
        draws: how many redraws, each of which holds a positive.
        seed: of the redraws; the same seed redraws the same patches and seeds, whatever the scores.
    """
    labels, scores = as_labels(labels), as_scores(scores)
    measures = {"micro": _micro, "macro": _macro, "top1": _top1}
    if which not in measures:
        raise InputError(f"no average {which!r}", "choose micro, macro or top1")
    runs = scores if scores.ndim == 3 and len(scores) else scores[None]  # none at all is refused as another shape
    whole = [average_precision(labels, run) for run in runs]
    score = [measures[which](labels, run, ap.per_class) for run, ap in zip(runs, whole, strict=True)]
    rng, values = np.random.default_rng(seed), []
    rows, chosen = np.arange(len(labels)), np.arange(len(runs))
    while len(values) <= draws:
        if labels[rows].any():
            values.append(np.mean([score[run](rows) for run in chosen]))
        rows, chosen = rng.integers(0, len(labels), len(labels)), rng.integers(0, len(runs), len(runs))
    return np.array(values)


def _micro(labels: Labels, scores: Scores, per_class: NDArray[np.float64]) -> OfRows:
    """Sorted once: a redraw counts some patches twice, others not."""
    present = ~np.isnan(per_class)
    order, last = _ranked(scores[:, present].ravel())
    positive, patch = labels[:, present].ravel()[order], order // present.sum()

    def of(rows: NDArray[np.int64]) -> float:
        weight = np.bincount(rows, minlength=len(labels)).astype(np.float64)[patch]
        hits, total = np.cumsum(weight * positive)[last], np.cumsum(weight)[last]
        precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
        return np.sum(np.diff(hits, prepend=0.0) * precision) / hits[-1]

    return of


def _macro(labels: Labels, scores: Scores, per_class: NDArray[np.float64]) -> OfRows:
    present = ~np.isnan(per_class)

    def of(rows: NDArray[np.int64]) -> float:
        each = _class_ap(labels[rows][:, present], scores[rows][:, present])
        return np.where(np.isnan(each), per_class[present], each).mean()

    return of


def _top1(labels: Labels, scores: Scores, _: NDArray[np.float64]) -> OfRows:
    correct, has_class = scores.argmax(axis=1) == labels.argmax(axis=1), labels.any(axis=1)
    return lambda rows: correct[rows[has_class[rows]]].mean()

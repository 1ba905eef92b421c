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
OfDraw = Callable[[NDArray[np.float64]], float]  # a score by how often each patch of the test set is drawn, (patches,)


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
    # a tensor is perhaps on a GPU, or of a type that NumPy lacks
    return np.asarray(values.detach().cpu().double() if isinstance(values, Tensor) else values)


def average_precision(labels: Labels, scores: Scores, classes: Sequence[str] | None = None) -> AveragePrecision:
    """Average precision of `scores` against `labels`, both (patches, classes), over the whole set at once.

    Averaging over batches instead gives another number that depends on the batch size: notebook 07 shows it.

    Raises:
        InputError: shapes differ, a score is not finite, a label is neither 0 nor 1, or no class has a positive.
    """
    labels, scores = as_labels(labels), as_scores(scores)
    if labels.shape != scores.shape or labels.ndim != 2 or not labels.size:
        raise InputError(f"labels are {labels.shape}, scores {scores.shape}", "give one score per patch and class")
    names = list(map(str, range(labels.shape[1])) if classes is None else classes)
    if len(names) != labels.shape[1]:
        raise InputError(f"{len(names)} names for {labels.shape[1]} classes", "name every column")
    if not labels.any():
        raise InputError("no class has a positive in the test set", "choose another split")
    once = np.ones(len(labels))
    each = np.array([_ranking(labels[:, [i]], scores[:, [i]])(once) for i in range(len(names))])
    undefined = tuple(np.array(names)[np.isnan(each)].tolist())
    return AveragePrecision(_measure(labels, scores, "micro")(once), float(np.nanmean(each)), each, undefined)


def _ranking(labels: Labels, scores: Scores) -> OfDraw:
    """Average precision of one ranking of all decisions (patches, classes); NaN without a positive.

    scikit-learn's ``average_precision_score`` with patches as weights, in a tenth of its time: sorted once for all
    redraws. Equal scores share a rank.
    """
    order = np.argsort(-scores.ravel(), kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores.ravel()[order])), scores.size - 1)
    positive, patch = labels.ravel()[order], order // labels.shape[1]

    def of(drawn: NDArray[np.float64]) -> float:
        weight = drawn[patch]
        hits, total = np.cumsum(weight * positive)[last], np.cumsum(weight)[last]
        precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
        return float(np.diff(hits, prepend=0.0) @ precision / hits[-1]) if hits[-1] else np.nan

    return of


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
    if which not in ("micro", "macro", "top1"):
        raise InputError(f"no average {which!r}", "choose micro, macro or top1")
    runs = scores if scores.ndim == 3 and len(scores) else scores[None]  # none at all is refused as another shape
    for run in runs:
        average_precision(labels, run)
    score, positive = [_measure(labels, run, which) for run in runs], labels.any(axis=1)

    def mean(drawn: NDArray[np.float64], chosen: NDArray[np.int64]) -> float:
        return np.mean([score[run](drawn) for run in chosen]) if drawn[positive].any() else np.nan

    return _redraw(mean, len(labels), len(runs), draws, [np.random.default_rng(seed)] * 2)


def redraw_groups(values: Scores, groups: Sequence[object], draws: int) -> NDArray[np.float64]:
    """Mean of (runs, n) values, NaN left out, then of redraws of whole groups (n,), such as tiles, and of runs.

    (1 + draws,): what lies in one group is not independent. The same groups are redrawn whatever the values.
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    known, rngs = np.isfinite(values), (np.random.default_rng(0), np.random.default_rng(1))
    parts = (np.where(known, values, 0), known)
    sums, counts = (np.stack([np.bincount(place, row, len(names)) for row in part]) for part in parts)

    def mean(drawn: NDArray[np.float64], runs: NDArray[np.int64]) -> float:
        return (sums[runs] @ drawn).sum() / max((counts[runs] @ drawn).sum(), 1)

    return _redraw(mean, len(names), len(values), draws, rngs)


def _redraw(score: Callable[..., float], units: int, runs: int, draws: int, rngs: Sequence[Any]) -> Scores:
    """A score by how often each unit counts, and which runs: of all, then of redraws; NaN is drawn again."""
    values: list[float] = []
    drawn, chosen = np.ones(units), np.arange(runs)
    while len(values) <= draws:
        if not np.isnan(value := score(drawn, chosen)):
            values.append(value)
        rows, chosen = rngs[0].integers(0, units, units), rngs[1].integers(0, runs, runs)
        drawn = np.bincount(rows, minlength=units).astype(np.float64)
    return np.array(values)


def _measure(labels: Labels, scores: Scores, which: str) -> OfDraw:
    """Classes without a positive stay out of both averages, and in top1: one of them may be scored highest."""
    if which == "top1":
        correct, has_class = scores.argmax(axis=1) == labels.argmax(axis=1), labels.any(axis=1)
        return lambda drawn: drawn[has_class & correct].sum() / drawn[has_class].sum()
    columns = np.flatnonzero(labels.any(axis=0))
    if which == "micro":
        return _ranking(labels[:, columns], scores[:, columns])
    each = [_ranking(labels[:, [i]], scores[:, [i]]) for i in columns]
    whole = [of(np.ones(len(labels))) for of in each]

    def macro(drawn: NDArray[np.float64]) -> float:
        values = np.array([of(drawn) for of in each])
        return np.where(np.isnan(values), whole, values).mean()

    return macro

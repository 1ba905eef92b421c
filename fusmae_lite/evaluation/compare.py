"""Is one system better than another? Both are scored on the same redraws of the test patches, and the gap is judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation.metrics import Labels, Scores, as_labels, as_scores, redraw_scores


@dataclass(frozen=True)
class Comparison:
    """First system minus second, in average precision.

    Args:
        difference: on the test set as it is.
        low, high: percentile interval over redraws of the test patches.
        draws: how many redraws it rests on.
    """

    difference: float
    low: float
    high: float
    draws: int

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` only where the interval excludes 0, otherwise ``not told apart``."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def paired_comparison(
    labels: Labels,
    first: Scores,
    second: Scores,
    which: str = "micro",
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap of two systems' average precision; patches that are hard for both cancel out.

    It measures the chance of the test set alone: differences between seeds of training come on top.

    Args:
        labels: (patches, classes), bool.
        first, second: (patches, classes), scores of the two systems for the same patches in the same order.
        which: ``micro`` or ``macro``.
        draws: redraws of the patches, with replacement.
        level: of the interval.
        seed: of the redraws.

    Raises:
        InputError: scores of other shapes or not finite, or no class with a positive.
    """
    labels, first, second = as_labels(labels), as_scores(first), as_scores(second)
    if not labels.shape == first.shape == second.shape:
        raise InputError(
            f"labels are {labels.shape}, scores {first.shape} and {second.shape}", "score the same patches"
        )
    one, other = (redraw_scores(labels, scores, which, draws, seed) for scores in (first, second))
    gaps, tail = one[1:] - other[1:], (1 - level) / 2
    low, high = np.quantile(gaps, [tail, 1 - tail])
    return Comparison(float(one[0] - other[0]), float(low), float(high), draws)

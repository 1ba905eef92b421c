"""A share of the labels: drawn once, without replacement, from a seed, and so that every class that can be in it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation.metrics import as_labels

#: Shares of the training labels that a table of label efficiency shows.
FRACTIONS = (0.01, 0.05, 0.1, 0.25, 1.0)


def labelled_subset(labels: NDArray[np.bool_], fraction: float, seed: int, classes: Sequence[str] = ()) -> NDArray:
    """Which training patches are labelled: positions, ascending, each at most once.

    First one patch of each class, the rarest class first, unless one drawn before shows it already; then patches at
    random until round(fraction x patches) are drawn. Rare classes are thus a little more frequent in a small share
    than in the whole; the paper gives no list of its 1 %. Without replacement: some codebases draw with it, which
    leaves 1 % with fewer patches than it says.

    Args:
        labels: (patches, classes), True where the class is present.
        fraction: share of the patches, above 0, at most 1.
        seed: decides the draw.
        classes: names, for messages.

    Raises:
        InputError: the share is no share, holds no patch, or fewer than it takes to show every class.
    """
    labels = as_labels(labels)
    if not 0 < fraction <= 1:
        raise InputError(f"label fraction {fraction} is no share", "give a number above 0, at most 1")
    count, total = round(fraction * len(labels)), len(labels)
    if count == 0:
        raise InputError(f"{fraction:.2%} of {total} training patches is none", _larger(1, total))
    order = np.random.default_rng([seed, 1]).permutation(total)
    first = _one_of_each(labels, order)
    if len(first) > count:
        present = int(labels.any(axis=0).sum())
        absent = np.flatnonzero(labels.any(axis=0) & ~labels[first[:count]].any(axis=0))
        name = classes[absent[0]] if len(classes) else f"class {absent[0]}"
        what = f"{fraction:.2%} of {total} training patches are {count}, too few to show all {present} classes ({name})"
        raise InputError(what, _larger(len(first), total))
    rest = order[~np.isin(order, first)]
    return np.sort(np.concatenate([first, rest[: count - len(first)]]))


def _one_of_each(labels: NDArray[np.bool_], order: NDArray) -> NDArray:
    """Few patches that show every class which occurs, the first found in `order`, the rarest class first."""
    counts = labels.sum(axis=0)
    chosen: list[int] = []
    shown = np.zeros(labels.shape[1], dtype=bool)
    for column in np.argsort(counts, kind="stable"):
        if counts[column] and not shown[column]:
            chosen.append(int(order[labels[order, column].argmax()]))
            shown |= labels[chosen[-1]]
    return np.array(chosen, dtype=np.int64)


def _larger(patches: int, total: int) -> str:
    return f"use a fraction of at least {patches / total:.3g}, or an archive with more patches" if total else "add some"

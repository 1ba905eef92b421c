"""Search by vectors, within a sensor or across, and how good a search is.

``similar`` (n, m) are cosines of queries with a database, ``allowed`` (n, m) is True where a query may find a pair.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation.metrics import Comparison, redraw_groups

Array = NDArray[np.float64]


class Retrieval(NamedTuple):
    """Scores of each query, (n,); NaN where nothing that it may find is like it."""

    precision: Array  # mean likeness of the first k found
    average: Array  # mean precision over the whole ranking, weighted by the likeness of what stands at each rank
    chance: Array  # mean likeness of all it may find: the precision of a random order, on average


def standardise(x: ArrayLike, fit: ArrayLike | None = None) -> Array:
    """(n, D) less the mean of each column, by its deviation; both are those of `fit` (m, D), by default of x itself."""
    x, fit = (np.asarray(part, dtype=np.float64) for part in (x, x if fit is None else fit))
    return (x - fit.mean(axis=0)) / np.maximum(fit.std(axis=0), 1e-6)


def cosines(queries: ArrayLike, database: ArrayLike) -> Array:
    """Of (n, D) with (m, D): (n, m)."""
    a, b = (np.asarray(x, dtype=np.float64) for x in (queries, database))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"vectors are {a.shape} and {b.shape}", "give (n, D) and (m, D)")
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    return a @ b.T


def jaccard(labels: ArrayLike, others: ArrayLike) -> Array:
    """Likeness of multi-label pairs: labels that two share by labels that either carries, (n, C), (m, C) -> (n, m)."""
    a, b = (np.asarray(x, dtype=np.float64) for x in (labels, others))
    shared = a @ b.T
    return shared / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1) - shared, 1)


def search(similar: Array, k: int, allowed: NDArray | None = None) -> NDArray:
    """Columns of the k highest cosines of each row, best first, (n, k); -1 where fewer may be found."""
    order, allowed = _ranked(similar, allowed)
    found = np.where(np.arange(order.shape[1]) < allowed.sum(axis=1)[:, None], order, -1)[:, :k]
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)


def score_search(similar: Array, likeness: Array, k: int, allowed: NDArray | None = None) -> Retrieval:
    """Score what each query finds; `likeness` (n, m) in 0..1. If it is 0 or 1, these are the usual P@k and AP."""
    order, allowed = _ranked(similar, allowed)
    gains, among = np.take_along_axis(np.where(allowed, likeness, 0), order, axis=1), allowed.sum(axis=1)
    total = np.where(gains.any(axis=1), gains.sum(axis=1), np.nan)  # NaN: no score
    at, none = gains.cumsum(axis=1) / np.arange(1, gains.shape[1] + 1), 0 * total
    first = gains[:, :k].sum(axis=1) / np.clip(among, 1, k)
    return Retrieval(first + none, (gains * at).sum(axis=1) / total, total / np.maximum(among, 1))


def compare_groups(first: ArrayLike, second: ArrayLike, groups: ArrayLike, draws: int = 1000) -> Comparison:
    """Mean of `first` less that of `second`, each (n,) or (runs, n), NaN left out.

    The interval is over redraws of whole groups, as queries of one tile are not independent, and of runs.
    """
    both = (redraw_groups(np.atleast_2d(np.asarray(values)), groups, draws) for values in (first, second))
    return Comparison.of(*both)


def _ranked(similar: Array, allowed: NDArray | None) -> tuple[NDArray, NDArray]:
    """Columns of each row from the most to the least alike, what may not be found last; and what may be."""
    allowed = np.ones(similar.shape, dtype=bool) if allowed is None else np.asarray(allowed, dtype=bool)
    return np.argsort(np.where(allowed, -similar, np.inf), axis=1, kind="stable"), allowed

"""Exercises of notebook 10: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np


def search_other_tiles(vectors: np.ndarray, tiles: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the k vectors with the highest cosine to each, best first, (n, k), none of a vector's own tile.

    `vectors` are (n, D), `tiles` (n,) names; every vector has at least k of other tiles.
    """
    # solution
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = np.where(tiles[:, None] == tiles, -np.inf, unit @ unit.T)
    return np.argsort(-similar, axis=1)[:, :k]
    # end


def check_search_other_tiles(answer):
    """Directions in the plane; the nearest is of the same tile, and a long vector is no nearer for it."""
    angles = np.radians([0, 5, 20, 50, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([1, 1, 1, 50, 1])[:, None]
    found = np.asarray(answer(vectors, np.array(["a", "a", "b", "b", "c"]), 2))
    assert found.shape == (5, 2), f"shape {found.shape}, wanted (5, 2)"
    assert 0 not in found[0] and 1 not in found[0], "a pair found itself or one of its own tile"
    assert found[0].tolist() == [2, 3], "cosines, best first: divide each vector by its length, and sort downwards"
    assert found[3].tolist() == [4, 1], "vector 3 is nearest to 90 degrees (4), then to 5 degrees (1)"


def partner_recall(similar: np.ndarray, k: int) -> float:
    """Share of queries that find their partner, column i for row i, among their first k; a tie counts against it."""
    # solution
    ranks = (similar >= np.diag(similar)[:, None]).sum(axis=1)
    return float((ranks <= k).mean())
    # end


def check_partner_recall(answer):
    """A case by hand, and one in which everything is equal."""
    similar = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.7, 0.6, 0.3]])
    for k, wanted in ((1, 1 / 3), (2, 2 / 3), (3, 1.0)):
        assert abs(answer(similar, k) - wanted) < 1e-9, f"k = {k}: got {answer(similar, k):.3f}, wanted {wanted:.3f}"
    assert answer(np.ones((4, 4)), 1) == 0, "a model that finds all alike must not score: let ties count against it"


def times_found(found: np.ndarray, count: int) -> np.ndarray:
    """How often each of `count` pairs was found, (count,), by the searches `found` (n, k); -1 stands for none."""
    # solution
    return np.bincount(found[found >= 0], minlength=count)
    # end


def check_times_found(answer):
    """Three searches, one of them short, and a pair that nobody finds."""
    got = np.asarray(answer(np.array([[1, 2], [2, -1], [1, 2]]), 4))
    assert got.shape == (4,), f"shape {got.shape}, wanted (4,): also those that nobody found"
    assert got.sum() == 5, "-1 says that nothing more was found: do not count it"
    assert got.tolist() == [0, 2, 3, 0], f"got {got.tolist()}, wanted [0, 2, 3, 0]"


def merge_rankings(similarities: list[np.ndarray], constant: float = 60.0) -> np.ndarray:
    """Sum over searches of 1 / (constant + rank), (n, m); rank 1 is the highest of its row.

    Each of `similarities` is (n, m), for example of radar and of optics, whose cosines have no common scale.
    """
    # solution
    ranks = [np.argsort(np.argsort(-similar, axis=1), axis=1) + 1 for similar in similarities]
    return sum(1 / (constant + rank) for rank in ranks)
    # end


def check_merge_rankings(answer):
    """Only the order within each search counts."""
    radar, optics = np.array([[0.99, 0.98, 0.97]]), np.array([[-0.5, 0.1, 0.0]])
    got = np.asarray(answer([radar, optics]))
    assert got.shape == (1, 3), f"shape {got.shape}, wanted (1, 3)"
    assert np.allclose(got, answer([10 * radar - 3, optics])), "use ranks: stretching one search must change nothing"
    assert np.allclose(got, [[1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]]), "rank 1 is the highest similarity"

"""Exercises of notebook 10: the solutions, and a check beside each."""

import numpy as np
from judging import compare


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
    rng = np.random.default_rng(0)
    tiles = np.array(list("aabbccddeeff"))
    cases = [(rng.normal(size=(12, d)) * rng.uniform(0.5, 20, (12, 1)), tiles, k) for d, k in ((3, 4), (5, 1), (2, 9))]

    def ranked(similar, tiles, k):
        return np.argsort(-np.where(tiles[:, None] == tiles, -np.inf, similar), axis=1)[:, :k]

    def cosines(x):
        return (x @ x.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(x, axis=1)

    def distance(x):
        return np.linalg.norm(x[:, None] - x, axis=2)

    slips = {
        "a long vector is no nearer for it: divide by the lengths": lambda x, t, k: ranked(x @ x.T, t, k),
        "pairs of the own tile are found": lambda x, t, k: ranked(cosines(x), np.arange(len(x)), k),
        "a pair finds itself": lambda x, t, k: np.argsort(-cosines(x), axis=1)[:, :k],
        "only its own tile is searched: it is to be left out": lambda x, t, k: np.argsort(
            -np.where(t[:, None] == t, cosines(x), -np.inf), axis=1
        )[:, :k],
        "those are the least alike: sort downwards": lambda x, t, k: np.argsort(
            np.where(t[:, None] == t, np.inf, cosines(x)), axis=1
        )[:, :k],
        "by distance, not by cosine": lambda x, t, k: ranked(-distance(x), t, k),
        "the best comes first": lambda x, t, k: ranked(cosines(x), t, k)[:, ::-1],
        "opposite vectors are not alike: a cosine has a sign": lambda x, t, k: ranked(np.abs(cosines(x)), t, k),
        "left out too late: search first among the other tiles": lambda x, t, k: ranked(cosines(x), t, k + 1)[:, 1:],
    }
    compare(answer, search_other_tiles, cases, slips)


def partner_recall(similar: np.ndarray, k: int) -> float:
    """Share of queries that find their partner, column i for row i, among their first k; a tie counts against it."""
    # solution
    ranks = (similar >= np.diag(similar)[:, None]).sum(axis=1)
    return float((ranks <= k).mean())
    # end


def check_partner_recall(answer):
    rng = np.random.default_rng(0)
    by_hand = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.7, 0.6, 0.3]])
    cases = [(by_hand, k) for k in (1, 2, 3)] + [(np.ones((4, 4)), 1), (np.ones((4, 4)), 4)]
    cases += [(rng.normal(size=(20, 20)) + np.eye(20), k) for k in (1, 3, 7)] + [(by_hand - 2, 1)]

    def recall(similar, k, ties=True, limit=0):
        own = np.diag(similar)[:, None]
        return ((similar >= own if ties else similar > own).sum(axis=1) + (not ties) <= k + limit).mean()

    slips = {
        "a tie counts against it: a model that finds all alike must not score": lambda s, k: recall(s, k, ties=False),
        "a row is a query: you searched from the columns": lambda s, k: recall(s.T, k),
        "the first place has rank 1, and rank k is still among the first k": lambda s, k: recall(s, k, limit=-1),
        "one place too many": lambda s, k: recall(s, k, limit=1),
        "a share, not a count": lambda s, k: recall(s, k) * len(s),
        "that is the share of those who do not find it": lambda s, k: 1 - recall(s, k),
        "the higher the cosine, the nearer: those are the least alike": lambda s, k: recall(-s, k),
        "divide by the queries, not by k": lambda s, k: recall(s, k) * len(s) / k,
        "only the first place is looked at": lambda s, k: recall(s, 1),
    }
    compare(answer, partner_recall, cases, slips)


def times_found(found: np.ndarray, count: int) -> np.ndarray:
    """How often each of `count` pairs was found, (count,), by the searches `found` (n, k); -1 stands for none."""
    # solution
    return np.bincount(found[found >= 0], minlength=count)
    # end


def check_times_found(answer):
    rng = np.random.default_rng(0)
    cases = [(np.array([[1, 2], [2, -1], [1, 2]]), 4), (np.array([[0, 3, 3]]), 5), (np.full((2, 2), -1), 3)]
    cases += [(rng.integers(-1, 9, (30, 3)), 12)]

    def often(found, count):
        return np.bincount(found[found >= 0], minlength=count)

    slips = {
        "-1 says that nothing was found: it is not the last pair": lambda f, n: often(f % n, n),
        "-1 says that nothing was found: it is not the first pair": lambda f, n: often(np.maximum(f, 0), n),
        "also those that nobody found: one number for each pair": lambda f, n: np.bincount(f[f >= 0]),
        "how often, not whether": lambda f, n: (often(f, n) > 0).astype(int),
        "a count, not a share": lambda f, n: often(f, n) / max((f >= 0).sum(), 1),
        "the other places count, too, not only the first": lambda f, n: often(f[:, 0], n),
        "pair 0 can be found, too": lambda f, n: np.bincount(f[f > 0], minlength=n),
        "that is who finds how many": lambda f, n: np.pad((f >= 0).sum(axis=1), (0, n))[:n],
        "sorted by frequency: place i is pair i": lambda f, n: np.sort(often(f, n))[::-1],
    }
    compare(answer, times_found, cases, slips)


def merge_rankings(similarities: list[np.ndarray], constant: float = 60.0) -> np.ndarray:
    """Sum over searches of 1 / (constant + rank), (n, m); rank 1 is the highest of its row.

    Each of `similarities` is (n, m), for example of radar and of optics, whose cosines have no common scale.
    """
    # solution
    ranks = [np.argsort(np.argsort(-similar, axis=1), axis=1) + 1 for similar in similarities]
    return sum(1 / (constant + rank) for rank in ranks)
    # end


def check_merge_rankings(answer):
    rng = np.random.default_rng(0)
    cases = [([rng.normal(size=(4, 7)), 30 * rng.normal(size=(4, 7))], 60.0)]
    cases += [([rng.normal(size=(3, 5)) for _ in range(3)], 2.0), ([rng.normal(size=(2, 6))], 10.0)]

    def merged(similarities, constant, place=lambda s: np.argsort(np.argsort(-s, axis=1), axis=1) + 1):
        return sum(1 / (constant + place(similar)) for similar in similarities)

    slips = {
        "rank 1 is the highest of its row": lambda s, c: merged(s, c, lambda x: np.argsort(np.argsort(x, 1), 1) + 1),
        "ranks begin at 1": lambda s, c: merged(s, c, lambda x: np.argsort(np.argsort(-x, 1), 1)),
        "argsort gives who stands at each place; sort it once more for the place of each": lambda s, c: merged(
            s, c, lambda x: np.argsort(-x, 1) + 1
        ),
        "ranks within a row, not a column": lambda s, c: merged(s, c, lambda x: np.argsort(np.argsort(-x, 0), 0) + 1),
        "the sum over searches, not the mean": lambda s, c: merged(s, c) / len(s),
        "use ranks: one search's scale drowns the other": lambda s, c: sum(s),
        "all searches, not the first alone": lambda s, c: merged(s[:1], c),
        "`constant` is passed in": lambda s, c: merged(s, 60.0),
        "the constant stands in every search's sum": lambda s, c: merged(s, 0.0),
        "1 / (constant + rank), not the ranks themselves": lambda s, c: (
            merged(s, c) * 0 + sum(np.argsort(np.argsort(-x, 1), 1) + 1 for x in s)
        ),
        "the highest is wanted: no minus sign": lambda s, c: -merged(s, c),
        "one value for each query and pair": lambda s, c: merged(s, c).sum(axis=1),
    }
    compare(answer, merge_rankings, cases, slips)
    assert np.allclose(answer(cases[0][0]), merge_rankings(cases[0][0])), "without a constant, it is 60"

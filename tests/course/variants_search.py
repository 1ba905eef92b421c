"""Answers of readers to the exercises of notebook 10, right and wrong."""

from collections import Counter

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

RIGHT, WRONG = {}, {}


def search_in_loops(vectors, tiles, k):
    rows = []
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if tiles[j] != tiles[i]]
        cosine = {
            j: np.dot(vectors[i], vectors[j]) / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]) for j in others
        }
        rows.append(sorted(others, key=cosine.get, reverse=True)[:k])
    return np.array(rows)


def search_by_distance(vectors, tiles, k):
    away = cdist(vectors, vectors, "cosine") + 10.0 * np.equal.outer(tiles, tiles)
    return away.argsort(1)[:, :k]


def search_with_lengths(vectors, tiles, k):
    similar = (vectors @ vectors.T) / np.sqrt((vectors**2).sum(1))
    similar[tiles[:, None] == tiles[None]] = -1e9
    return np.flip(similar.argsort(1), 1)[:, :k]


RIGHT["search_other_tiles"] = (search_in_loops, search_by_distance, search_with_lengths)
WRONG["search_other_tiles"] = {
    "divide by the lengths": lambda x, t, k: (np.where(t[:, None] == t, np.inf, -(x @ x.T))).argsort(1)[:, :k],
    "a pair finds itself": lambda x, t, k: cdist(x, x, "cosine").argsort(1)[:, :k],
    "of the own tile": lambda x, t, k: search_by_distance(x, np.arange(len(x)), k),
    "not by cosine": lambda x, t, k: (cdist(x, x) + 1e6 * (t[:, None] == t)).argsort(1)[:, :k],
    "sort downwards": lambda x, t, k: (-cdist(x, x, "cosine") + 10.0 * (t[:, None] == t)).argsort(1)[:, :k],
    "best comes first": lambda x, t, k: search_by_distance(x, t, k)[:, ::-1],
    "shape (12, 12)": lambda x, t, k: search_by_distance(x, t, len(x)),
}


def recall_in_loops(similar, k):
    hits = 0
    for i, row in enumerate(similar):
        better = sum(1 for j, value in enumerate(row) if j != i and value >= row[i])
        hits += better < k
    return hits / len(similar)


RIGHT["partner_recall"] = (
    recall_in_loops,
    lambda s, k: np.mean([rankdata(-row, "max")[i] <= k for i, row in enumerate(s)]),
    lambda s, k: float(np.mean(np.sum(s - s.diagonal()[:, None] >= 0, 1) < k + 1)),
)
WRONG["partner_recall"] = {
    "a tie counts": lambda s, k: np.mean([(row > row[i]).sum() < k for i, row in enumerate(s)]),
    "a row is a query": lambda s, k: recall_in_loops(s.T, k),
    "a share": lambda s, k: round(recall_in_loops(s, k) * len(s)),
    "still among the first k": lambda s, k: recall_in_loops(s, k - 1),
    "least alike": lambda s, k: recall_in_loops(-s, k),
    "returns nothing": lambda s, k: None,
}


def count_in_loops(found, count):
    counts = [0] * count
    for row in found:
        for j in row:
            if j != -1:
                counts[j] += 1
    return np.array(counts)


RIGHT["times_found"] = (
    count_in_loops,
    lambda f, n: np.array([Counter(f.ravel().tolist())[j] for j in range(n)]),
    lambda f, n: (f[..., None] == np.arange(n)).sum((0, 1)),
)
WRONG["times_found"] = {
    "not the last pair": lambda f, n: np.array([np.sum(f % n == j) for j in range(n)]),
    "not the first pair": lambda f, n: np.bincount(f.clip(0).ravel(), minlength=n),
    "one number for each pair": lambda f, n: np.bincount(f[f != -1]),
    "not whether": lambda f, n: np.isin(np.arange(n), f).astype(int),
    "not only the first": lambda f, n: count_in_loops(f[:, :1], n),
    "pair 0": lambda f, n: np.bincount(f[f > 0], minlength=n),
}


def merge_by_rankdata(similarities, constant=60.0):
    return np.sum([1 / (constant + rankdata(-s, axis=1)) for s in similarities], axis=0)


def merge_in_loops(similarities, constant=60.0):
    total = np.zeros(similarities[0].shape)
    for similar in similarities:
        for i, row in enumerate(similar):
            for place, j in enumerate(np.argsort(row)[::-1], 1):
                total[i, j] += 1 / (constant + place)
    return total


RIGHT["merge_rankings"] = (
    merge_by_rankdata,
    merge_in_loops,
    lambda s, c=60.0: sum(1 / (c + (x[:, None] >= x[..., None]).sum(2)) for x in s),
)
WRONG["merge_rankings"] = {
    "highest of its row": lambda s, c=60.0: np.sum([1 / (c + rankdata(x, axis=1)) for x in s], axis=0),
    "begin at 1": lambda s, c=60.0: merge_by_rankdata(s, c - 1),
    "once more": lambda s, c=60.0: sum(1 / (c + (-x).argsort(1) + 1) for x in s),
    "not a column": lambda s, c=60.0: np.sum([1 / (c + rankdata(-x, axis=0)) for x in s], axis=0),
    "not the mean": lambda s, c=60.0: np.mean([1 / (c + rankdata(-x, axis=1)) for x in s], axis=0),
    "use ranks": lambda s, c=60.0: np.sum(s, axis=0),
    "passed in": lambda s, c=60.0: merge_by_rankdata(s),
}

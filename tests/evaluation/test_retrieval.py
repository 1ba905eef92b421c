"""Search and its scores against loops that say what is meant, and on answers that are known."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation.retrieval import compare_groups, cosines, jaccard, score_search, search, standardise

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 6)) < 0.3
QUERIES, DATABASE = RNG.normal(size=(2, 40, 5))
TILES = RNG.integers(0, 12, 40)
ALLOWED = TILES[:, None] != TILES
K = 5


def by_hand() -> tuple[list[list[int]], list[float], list[float]]:
    """Rows found, precision at K and average precision of each query, by the definitions."""
    rows, precision, average = [], [], []
    for i, query in enumerate(QUERIES):
        seen = [j for j in range(40) if TILES[j] != TILES[i]]
        alike = {j: query @ DATABASE[j] / np.linalg.norm(query) / np.linalg.norm(DATABASE[j]) for j in seen}
        ranked = sorted(seen, key=lambda j: -alike[j])
        gains = []
        for j in ranked:
            either = (LABELS[i] | LABELS[j]).sum()
            gains.append((LABELS[i] & LABELS[j]).sum() / either if either else 0)
        rows.append(ranked[:K])
        at = [np.mean(gains[: n + 1]) for n in range(len(gains))]
        precision.append(np.mean(gains[:K]) if sum(gains) else np.nan)
        average.append(np.dot(gains, at) / sum(gains) if sum(gains) else np.nan)
    return rows, precision, average


def test_search_and_scores_are_those_of_a_loop():
    rows, precision, average = by_hand()
    similar = cosines(QUERIES, DATABASE)
    found = score_search(similar, jaccard(LABELS, LABELS), K, ALLOWED)
    assert search(similar, K, ALLOWED).tolist() == rows
    assert np.isnan(precision).any(), "one without labels has no score"
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.average, average)


def test_of_one_label_a_pair_it_is_the_usual_average_precision():
    one = np.eye(4)[RNG.integers(0, 4, 40)]
    similar = cosines(QUERIES, DATABASE)
    found = score_search(similar, jaccard(one, one), K)
    usual = [average_precision_score(one @ row, s) for row, s in zip(one, similar, strict=True)]
    np.testing.assert_allclose(found.average, usual)


def test_a_random_order_scores_chance_and_a_perfect_one_more():
    likeness = jaccard(LABELS, LABELS)
    draws = [score_search(RNG.random((40, 40)), likeness, K, ALLOWED) for _ in range(300)]
    assert np.nanmean([draw.precision for draw in draws]) == pytest.approx(np.nanmean(draws[0].chance), abs=0.01)
    best = score_search(likeness, likeness, K, ALLOWED)
    assert np.nanmean(best.precision) > np.nanmean(draws[0].chance) + 0.2


def test_nothing_of_the_same_tile_is_found_and_few_left_are_said():
    found = search(cosines(QUERIES, QUERIES), 40, ALLOWED)
    assert all((TILES[row[row >= 0]] != tile).all() for row, tile in zip(found, TILES, strict=True))
    assert ((found >= 0).sum(axis=1) == ALLOWED.sum(axis=1)).all()
    assert (search(cosines(QUERIES, QUERIES), 3, np.zeros((40, 40))) == -1).all()


def test_standardised_columns_have_mean_0_and_deviation_1_of_those_it_was_fitted_on():
    x = standardise(DATABASE, DATABASE[:30])
    np.testing.assert_allclose(x[:30].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(x[:30].std(axis=0), 1)
    assert np.isfinite(standardise(np.ones((3, 2)))).all()


def test_a_comparison_is_paired_and_counts_tiles_not_pairs():
    hard = TILES / 12.0
    paired = compare_groups(hard + 0.1, hard, TILES)
    assert paired.difference == pytest.approx(0.1) and paired.high - paired.low < 1e-9, "what is hard for both cancels"
    alone, as_if = (compare_groups(hard, np.zeros(40), groups) for groups in (TILES, np.arange(40)))
    assert alone.high - alone.low > 1.2 * (as_if.high - as_if.low), "pairs of a tile are no new evidence"
    runs = np.stack([hard, hard + 0.3])
    assert compare_groups(runs, hard, TILES).high == pytest.approx(0.3), "runs are drawn again, too"
    gaps = np.where(np.arange(40) == 3, np.nan, 1.0)
    assert compare_groups(gaps, np.zeros(40), TILES).difference == 1


def test_vectors_that_do_not_match_are_refused():
    with pytest.raises(InputError, match=r"vectors are \(40, 5\) and \(40, 4\); give \(n, D\) and \(m, D\)"):
        cosines(QUERIES, DATABASE[:, :4])

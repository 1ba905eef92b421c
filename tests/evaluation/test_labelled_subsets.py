"""Protocols on known answers: a share of the labels, paired comparison, the redraws, and Table 2's metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusmae_lite.core.config import load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation import (
    average_precision,
    bootstrap_interval,
    labelled_subset,
    paired_comparison,
    single_label_probe,
    single_label_scores,
)
from fusmae_lite.evaluation.metrics import class_numbers, redraw_scores


def many() -> np.ndarray:
    """Labels of 2000 patches in which the first class is in 2 of them only and the last in none."""
    labels = np.random.default_rng(0).random((2000, 6)) < [0.0, 0.01, 0.1, 0.3, 0.5, 0.0]
    labels[[5, 700], 0] = True
    return labels


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.1, 0.25, 1.0])
def test_a_share_has_its_size_repeats_nothing_and_shows_every_class(fraction):
    labels = many()
    for seed in range(5):
        rows = labelled_subset(labels, fraction, seed)
        assert len(rows) == len(set(rows.tolist())) == round(fraction * 2000)
        assert (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < 2000
        assert labels[rows].any(axis=0).tolist() == labels.any(axis=0).tolist()


def test_a_share_follows_its_seed_and_is_otherwise_uniform():
    labels = many()
    assert np.array_equal(labelled_subset(labels, 0.1, 3), labelled_subset(labels, 0.1, 3))
    assert not np.array_equal(labelled_subset(labels, 0.1, 3), labelled_subset(labels, 0.1, 4))
    drawn = np.mean([np.isin(np.arange(2000), labelled_subset(labels, 0.1, seed)) for seed in range(200)], axis=0)
    common = np.delete(np.arange(2000), [5, 700])
    assert drawn[common].mean() == pytest.approx(0.1, abs=0.002) and drawn[common].max() < 0.25
    shares = [labels[labelled_subset(labels, 0.1, seed)].mean(axis=0)[4] for seed in range(50)]
    assert np.mean(shares) == pytest.approx(labels[:, 4].mean(), abs=0.02)


@pytest.mark.parametrize(
    ("patches", "fraction", "named"),
    [(50, 0.001, "is none"), (2000, 0.0005, "too few to show all 5"), (50, 0.0, "no share"), (50, 1.5, "no share")],
)
def test_a_share_that_cannot_be_is_one_line(patches, fraction, named):
    with pytest.raises(InputError, match=named) as caught:
        labelled_subset(many()[:patches] if patches < 2000 else many(), fraction, 0)
    assert "\n" not in str(caught.value)


def noisy(labels: np.ndarray, noise: float, seed: int) -> np.ndarray:
    return labels + noise * np.random.default_rng(seed).normal(size=labels.shape)


def test_better_is_said_only_where_the_interval_excludes_zero():
    labels = many()[:300, 2:5]
    good, bad = noisy(labels, 0.5, 1), noisy(labels, 2.0, 2)
    won = paired_comparison(labels, good, bad, draws=200)
    gap = average_precision(labels, good).micro - average_precision(labels, bad).micro
    assert won.verdict == "better" and won.low < won.difference < won.high
    assert won.difference == pytest.approx(gap)
    lost = paired_comparison(labels, bad, good, "macro", draws=200)
    assert lost.verdict == "worse" and lost.high < 0
    same = paired_comparison(labels, good, good, draws=50)
    assert same == (0.0, 0.0, 0.0) and same.verdict == "not told apart"
    with pytest.raises(InputError, match="one score per patch"):
        paired_comparison(labels, good, bad[:-1])


def test_equal_systems_are_rarely_told_apart():
    verdicts = []
    for seed in range(20):
        labels = np.random.default_rng(seed).random((120, 3)) < 0.3
        first, second = (noisy(labels, 1.0, 1000 * seed + k) for k in (1, 2))
        verdicts.append(paired_comparison(labels, first, second, draws=100).verdict)
    assert verdicts.count("not told apart") >= 16


def test_redraws_pair_the_patches_and_keep_a_lost_class():
    labels = np.zeros((20, 2), dtype=bool)
    labels[:10, 0], labels[0, 1] = True, True
    scores = np.zeros((20, 2))
    scores[:, 0] = labels[:, 0]  # the common class is found, the rare one (one patch) is ranked last
    scores[0, 1] = -1.0
    macro = redraw_scores(labels, scores, "macro", 300)
    assert macro[0] == average_precision(labels, scores).macro == pytest.approx((1 + 0.05) / 2)
    unchanged = int(np.isclose(macro[1:], macro[0]).sum())
    assert unchanged > 60 and macro.max() < 0.75, "a redraw without the rare class would have scored 1 without it"
    assert np.array_equal(macro, redraw_scores(labels, scores, "macro", 300))
    low, high = bootstrap_interval(labels, scores, "macro", 300)
    assert low <= macro[0] <= high < 0.75
    with pytest.raises(InputError, match="weighted"):
        redraw_scores(labels, scores, "weighted")


def test_table_two_by_hand():
    truth = np.array([0, 0, 1, 2, -1])
    scores = np.array([[4, 3, 2, 1], [3, 4, 2, 1], [1, 4, 3, 2], [4, 3, 1, 2], [9, 9, 9, 9.0]])
    result = single_label_scores(truth, scores, ["forest", "water", "urban", "snow"])
    assert result.top1 == result.recall == 0.5 and result.top3 == 0.75
    assert result.precision == pytest.approx(0.5 * 0.5 + 0.25 * 0.5)
    assert result.f1 == pytest.approx(0.5 * 0.5 + 0.25 * 2 / 3)
    assert result.absent == ("snow",) and result.unlabelled == 1
    with pytest.raises(InputError, match="no test patch"):
        single_label_scores(np.array([-1]), scores[:1], ["a", "b", "c", "d"])
    with pytest.raises(InputError, match="one per patch"):
        single_label_scores(truth, scores, ["a", "b"])
    with pytest.raises(InputError, match="NaN"):
        single_label_scores(truth, scores * np.nan, ["a", "b", "c", "d"])


def test_one_class_a_patch_is_learnt_and_several_are_refused():
    rng = torch.Generator().manual_seed(0)
    numbers = torch.randint(3, (300,), generator=rng)
    y = torch.nn.functional.one_hot(numbers, 3).float()
    y[0] = 0  # carries no class
    x = y @ torch.randn(3, 8, generator=rng) + 0.05 * torch.randn(300, 8, generator=rng)
    config = load_preset("smoke", probe_learning_rate=3e-2, probe_batch_size=20)
    scores = single_label_probe(x[:200], y[:200], x[200:], config).numpy()
    assert single_label_scores(class_numbers(y[200:].numpy()), scores, "abc").top1 > 0.98
    with pytest.raises(InputError, match="several labels"):
        class_numbers(np.ones((1, 2)))

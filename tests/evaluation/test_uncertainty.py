"""The spread of predictions over what else is hidden, and intervals that hold what they state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import TINY

from fusmae_lite import FusMAE, InputError, ModelConfig
from fusmae_lite.evaluation.uncertainty import (
    LEVELS,
    coverage,
    cross_fitted,
    fit_widths,
    hide_more,
    over_groups,
    spread,
    stated_widths,
)
from fusmae_lite.model.masking import random_mask, sample_masks

SMALL = ModelConfig(**{name: value for name, value in TINY.items() if name in ModelConfig.model_fields})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_draw_hides_some_of_what_is_visible_and_shows_nothing_new():
    masks = sample_masks("cloud", 6, 225, 56, ("s1", "s2"), seeded())
    more = hide_more(masks, 0.25, seeded(1))
    for name, mask in masks.items():
        assert ((~more[name]).sum(dim=1) == 42).all() and more[name][mask].all()
    nearly = {"s2": random_mask(3, 25, 2, seeded())}
    for share in (0.0, 0.5, 1.0):  # one more at least, and one always stays
        assert ((~hide_more(nearly, share, seeded())["s2"]).sum(dim=1) == 1).all()
    with pytest.raises(InputError, match="1 patch of s2"):
        hide_more({"s2": random_mask(3, 25, 1, seeded())}, 0.5)


def test_the_spread_is_that_of_predictions_from_less():
    torch.manual_seed(0)
    model = FusMAE(SMALL).eval()
    images = {name: torch.randn(2, count, 120, 120, generator=seeded()) for name, count in SMALL.channels.items()}
    masks = sample_masks("independent", 2, SMALL.tokens, 10, SMALL.modalities, seeded())
    found, rng = spread(model, images, masks, draws=3, share=0.5, generator=seeded(5)), seeded(5)
    with torch.no_grad():
        made = [model(images, hide_more(masks, 0.5, rng)).patches for _ in range(3)]
    for name, (mean, deviation) in found.items():
        values = np.stack([patches[name].numpy() for patches in made])
        assert np.allclose(mean, values.mean(axis=0), atol=1e-6) and (deviation > 0).all()
        assert np.allclose(deviation, values.std(axis=0, ddof=1), atol=1e-6)
    alone = spread(model, {"s2": images["s2"]}, {"s2": masks["s2"]}, 2)
    assert set(alone) == {"s2"}
    with pytest.raises(InputError, match="1 draws"):
        spread(model, images, masks, draws=1)


def test_normal_errors_of_the_stated_deviation_need_no_other_widths():
    ratios = torch.randn(40, 5000, generator=seeded()).abs()
    assert np.allclose(coverage(ratios, stated_widths()).mean(axis=0), LEVELS, atol=0.005)
    assert np.allclose(fit_widths(ratios), stated_widths(), rtol=0.01)


def test_fitted_widths_hold_on_others_of_the_same_kind_whatever_their_form():
    errors = [torch.randn(30, 4000, generator=seeded(i)).pow(3).abs() / 0.1 for i in (1, 2)]  # ten times too sure
    assert (coverage(errors[1], stated_widths()).mean(axis=0) < np.array(LEVELS) - 0.1).all()
    held = coverage(errors[1], fit_widths(errors[0]))
    assert held.shape == (30, 4) and np.allclose(held.mean(axis=0), LEVELS, atol=0.01)
    half = np.arange(30) % 3 == 0
    crossed = cross_fitted(errors[0], half)
    assert np.array_equal(crossed[half], coverage(errors[0][half], fit_widths(errors[0][~half])))
    assert np.allclose(crossed.mean(axis=0), LEVELS, atol=0.01)


def test_pairs_of_one_tile_are_redrawn_together():
    shares = np.repeat([[0.2], [0.8]], 50, axis=0)
    mean, low, high = over_groups(shares, ["a"] * 50 + ["b"] * 50)
    assert mean == pytest.approx([0.5]) and low == pytest.approx([0.2]) and high == pytest.approx([0.8])
    _, low, high = over_groups(shares, range(100))
    assert 0.4 < low[0] < 0.5 < high[0] < 0.6

"""Exercises of notebook 09: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
import torch


def fuse_by_hand(tokens: dict[str, torch.Tensor], attentions: dict) -> torch.Tensor:
    """Equation 2 for any number of sensors: every sensor adds what it hears from all others together.

    `tokens` maps a sensor to (B, n_i, D); `attentions[name](x, y)` is CA(x, y) of that sensor. Returns (B, sum n_i, D).
    """
    # solution
    parts = []
    for name, x in tokens.items():
        rest = torch.cat([y for other, y in tokens.items() if other != name], dim=1)
        parts.append(x + attentions[name](x, rest))
    return torch.cat(parts, dim=1)
    # end


def check_fuse_by_hand(answer):
    """Three sensors, and an attention that only averages what it sees."""
    tokens = {"a": torch.zeros(1, 2, 1), "b": torch.full((1, 1, 1), 3.0), "c": torch.full((1, 3, 1), 7.0)}
    mean = {name: lambda x, y: y.mean(dim=1, keepdim=True).expand_as(x) for name in tokens}
    found = answer(tokens, mean)
    assert tuple(found.shape) == (1, 6, 1), f"shape {tuple(found.shape)}, wanted (1, 6, 1): two, one and three tokens"
    assert not torch.allclose(found[0, 0], torch.tensor([5.0])), "one softmax over all others: c has more tokens than b"
    wanted = torch.tensor([6.0, 6.0, 7.2, 8.0, 8.0, 8.0])
    assert torch.allclose(found.flatten(), wanted), "add to each sensor what it hears from all others, none from itself"


def visible_counts(shares: np.ndarray, total: int, tokens: int) -> np.ndarray:
    """How many patches each sensor keeps: near `shares` (M,) of `total`, at least 1, at most `tokens`, sum `total`."""
    # solution
    counts = np.clip(np.floor(np.asarray(shares) * total).astype(int), 1, tokens)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        room = (counts < tokens) if step > 0 else (counts > 1)
        missing = np.where(room, step * (np.asarray(shares) * total - counts), -np.inf)
        counts[missing.argmax()] += step
    return counts
    # end


def check_visible_counts(answer):
    """The total is kept, and nobody is left without a patch."""
    for shares in ([0.5, 0.5], [1.0, 0.0], [0.02, 0.9, 0.08], [0.333, 0.333, 0.334]):
        counts = np.asarray(answer(np.array(shares), 112, 225))
        assert counts.min() >= 1, f"shares {shares}: a present sensor must keep at least one patch"
        assert counts.sum() == 112, f"shares {shares}: {counts.sum()} patches in all, wanted 112"
        assert np.abs(counts - 112 * np.array(shares)).max() < 2.1, f"shares {shares} give {counts}: too far away"
    assert np.asarray(answer(np.array([1.0, 0.0]), 300, 225)).max() == 225, "no sensor has more than 225 patches"


def drop_a_sensor(
    images: dict[str, torch.Tensor], probability: float, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """With `probability` leave one sensor out of a batch, each with the same chance; never the last one left."""
    # solution
    if len(images) < 2 or rng.random() >= probability:
        return dict(images)
    gone = sorted(images)[rng.integers(len(images))]
    return {name: image for name, image in images.items() if name != gone}
    # end


def check_drop_a_sensor(answer):
    """Frequencies, and the input left alone."""
    images, rng = {"s1": torch.zeros(1), "s2": torch.ones(1)}, np.random.default_rng(0)
    kept = [tuple(sorted(answer(images, 0.5, rng))) for _ in range(400)]
    assert set(images) == {"s1", "s2"}, "the batch of the caller was changed: return a new dict"
    assert min(map(len, kept)) == 1 and max(map(len, kept)) == 2, "drop one sensor sometimes, never both"
    assert 150 < kept.count(("s1", "s2")) < 250, f"both were kept {kept.count(('s1', 's2'))} times of 400, expected 200"
    assert 60 < kept.count(("s1",)) < 140, "each sensor should be the dropped one about equally often"
    assert list(answer({"s1": torch.zeros(1)}, 1.0, rng)) == ["s1"], "a batch of one sensor must keep it"


def with_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Features (n, p) and (n, q) of two sensors -> (n, p + q + p q): both, and every product of one with the other."""
    # solution
    products = (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
    return np.hstack([a, b, products])
    # end


def check_with_products(answer):
    """The exclusive or of two signs is the sign of their product."""
    a, b = np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.array([[1.0], [-1.0], [1.0], [-1.0]])
    found = answer(a, b)
    assert found.shape == (4, 3), f"shape {found.shape}, wanted (4, 3): one, one and one product"
    assert np.array_equal(found[:, 2], [1, -1, -1, 1]), "the last column must be the product of the first two"
    assert answer(np.ones((5, 2)), np.ones((5, 12))).shape == (5, 38), "2 + 12 + 2 x 12 columns"

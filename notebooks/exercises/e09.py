"""Exercises of notebook 09: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
import torch
from judging import compare


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
    generator = torch.Generator().manual_seed(0)
    tokens = {name: torch.randn(2, n, 3, generator=generator) for name, n in (("a", 2), ("b", 1), ("c", 3))}
    pair = {name: torch.randn(1, n, 2, generator=generator) for name, n in (("s2", 4), ("s1", 3))}

    def attend(scale):
        return lambda x, y: scale * (x @ y.transpose(1, 2)).softmax(-1) @ y

    attentions = {name: attend(scale) for name, scale in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("s1", 1.0), ("s2", 0.5))}
    got = answer(tokens, attentions)
    assert got is not None, "the function returns nothing"
    assert tuple(got.shape) == (2, 6, 3), f"shape {tuple(got.shape)}, wanted (2, 6, 3): two, one and three tokens"

    def rest(tokens, name):
        return torch.cat([y for other, y in tokens.items() if other != name], 1)

    def build(part):
        return lambda t, a: torch.cat([part(t, a, name) for name in t], 1)

    slips = {
        "the residual is missing: add x": build(lambda t, a, n: a[n](t[n], rest(t, n))),
        "one softmax over all others: c has more tokens than b": build(
            lambda t, a, n: t[n] + sum(a[n](t[n], y) for o, y in t.items() if o != n) / (len(t) - 1)
        ),
        "one softmax over all others, not one for each": build(
            lambda t, a, n: t[n] + sum(a[n](t[n], y) for o, y in t.items() if o != n)
        ),
        "a sensor asks the others, not itself as well": build(
            lambda t, a, n: t[n] + a[n](t[n], torch.cat(list(t.values()), 1))
        ),
        "that is self-attention: x asks the others": build(lambda t, a, n: t[n] + a[n](t[n], t[n])),
        "each sensor has its own attention": build(lambda t, a, n: t[n] + next(iter(a.values()))(t[n], rest(t, n))),
        "the difference: add what is heard": build(lambda t, a, n: t[n] - a[n](t[n], rest(t, n))),
        "that only joins the tokens: nobody has heard anything": build(lambda t, a, n: t[n]),
        "the residual counts twice": build(lambda t, a, n: 2 * t[n] + a[n](t[n], rest(t, n))),
        "one other sensor, not all of them": build(
            lambda t, a, n: t[n] + a[n](t[n], next(y for o, y in t.items() if o != n))
        ),
        "sensors stand in the order of the dict": lambda t, a: torch.cat(
            [t[n] + a[n](t[n], rest(t, n)) for n in reversed(t)], 1
        ),
        "the samples of the batch are mixed": build(
            lambda t, a, n: t[n] + a[n](t[n], rest(t, n)).mean(0, keepdim=True)
        ),
    }

    def heard_twice(t, a):
        now = dict(t)
        for n in now:
            now[n] = now[n] + a[n](now[n], rest(now, n))
        return torch.cat(list(now.values()), 1)

    slips["the second sensor hears what the first has become: all listen at once"] = heard_twice
    compare(answer, fuse_by_hand, [(tokens, attentions), (pair, attentions)], slips)


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
    rng = np.random.default_rng(0)
    cases = [
        ([0.5, 0.5], 112),
        ([1.0, 0.0], 112),
        ([0.02, 0.9, 0.08], 112),
        ([0.333, 0.333, 0.334], 112),
        ([1, 0], 300),
    ]
    cases += [(rng.dirichlet(np.ones(m)), total) for m in (2, 3, 4) for total in (30, 111, 200)]
    cases += [([0.9, 0.1], 226), ([1.0], 100), ([0.0, 0.0, 1.0], 4), ([0.002] * 4 + [0.519, 0.473], 100)]
    for shares, total in cases:
        shares = np.array(shares, dtype=float)
        given = shares.copy()
        counts = answer(given, total, 225)
        assert counts is not None, "the function returns nothing"
        counts, said = np.asarray(counts), f"shares {shares.round(3).tolist()} of {total}"
        assert np.array_equal(given, shares), "the shares that were passed in have changed: work on a copy"
        assert counts.shape == shares.shape, f"one count for each of {len(shares)} sensors, not {counts.shape}"
        assert np.array_equal(counts, np.round(counts)), f"{said} give {counts}: counts are whole"
        assert counts.min() >= 1, f"{said}: a present sensor must keep at least one patch"
        assert counts.max() <= 225, f"{said}: no sensor has more than 225 patches"
        assert counts.sum() == total, f"{said}: {counts.sum()} patches in all, wanted {total}"
        off, least = (np.square(some - total * shares).sum() for some in (counts, visible_counts(shares, total, 225)))
        assert off < least + 1, f"{said} give {counts.tolist()}, too far away from the shares"


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
    images, rng = {"s1": torch.zeros(1), "s2": torch.ones(1)}, np.random.default_rng(0)
    answers = [answer(images, 0.5, rng) for _ in range(600)]
    assert all(isinstance(some, dict) for some in answers), "return a dict"
    assert set(images) == {"s1", "s2"}, "the batch of the caller was changed: return a new dict"
    assert all(
        image is images[name] or torch.equal(image, images[name]) for some in answers for name, image in some.items()
    ), "the images that stay must stay as they are"
    kept = [tuple(sorted(some)) for some in answers]
    assert min(map(len, kept)) > 0, "never drop the last sensor: one at a time"
    assert min(map(len, kept)) == 1 and max(map(len, kept)) == 2, "drop one sensor sometimes, never both"
    assert 240 < kept.count(("s1", "s2")) < 360, f"both were kept {kept.count(('s1', 's2'))} times of 600, expected 300"
    assert 105 < kept.count(("s1",)) < 195, "each sensor should be the dropped one about equally often"
    assert list(answer({"s1": torch.zeros(1)}, 1.0, rng)) == ["s1"], "a batch of one sensor must keep it"
    three = {name: torch.zeros(1) for name in ("a", "b", "c")}
    kept = [tuple(sorted(answer(three, 0.3, rng))) for _ in range(600)]
    full, gone = kept.count(("a", "b", "c")), [sum(name not in some for some in kept) for name in three]
    assert min(map(len, kept)) == 2, "three sensors: leave one out, not more"
    assert 360 < full < 480, f"at 30 % all three were kept {full} times of 600: `probability` is the chance to drop"
    assert min(gone) > 30 and max(gone) < 95, f"three sensors, dropped {gone} times: each with the same chance"
    assert all(len(answer(three, 0.0, rng)) == 3 for _ in range(50)), "with probability 0 all are kept"
    assert all(len(answer(three, 1.0, rng)) == 2 for _ in range(50)), "with probability 1 one is always dropped"
    again = [[sorted(answer(three, 0.5, np.random.default_rng(seed))) for seed in range(40)] for _ in range(2)]
    assert again[0] == again[1], "the same seed must give the same draw: use `rng` for both"


def with_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Features (n, p) and (n, q) of two sensors -> (n, p + q + p q): both, and every product of one with the other."""
    # solution
    products = (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
    return np.hstack([a, b, products])
    # end


def check_with_products(answer):
    rng = np.random.default_rng(0)
    xor = np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.array([[1.0], [-1.0], [1.0], [-1.0]])
    some = rng.normal(size=(5, 2)), rng.normal(size=(5, 3))
    found = answer(*some)
    assert found is not None, "the function returns nothing"
    assert np.shape(found)[:1] == (5,), f"shape {np.shape(found)}: one row for each of 5 pairs"

    def products(a, b):
        return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)

    slips = {
        "those are the products alone: keep both sensors, too": products,
        "both are joined, but not multiplied": lambda a, b: np.hstack([a, b]),
        "multiplied row by row, not every feature with every other": lambda a, b: np.hstack([a, b, a * b]),
        "sums, not products": lambda a, b: np.hstack([a, b, (a[:, :, None] + b[:, None, :]).reshape(len(a), -1)]),
        "differences, not products": lambda a, b: np.hstack(
            [a, b, (a[:, :, None] - b[:, None, :]).reshape(len(a), -1)]
        ),
        "the sensors are swapped: first a, then b": lambda a, b: np.hstack([b, a, products(a, b)]),
        "the second sensor is missing": lambda a, b: np.hstack([a, products(a, b)]),
        "the first sensor is missing": lambda a, b: np.hstack([b, products(a, b)]),
        "products of one sensor with itself": lambda a, b: np.hstack([a, b, products(a, a)]),
        "products of one sensor with itself, not with the other": lambda a, b: np.hstack([a, b, products(b, b)]),
        "averaged over the batch": lambda a, b: np.hstack([a, b, products(a, b)]).mean(0, keepdims=True),
        "one product for each pair of features, not their sum": lambda a, b: np.hstack(
            [a, b, products(a, b).sum(1, keepdims=True)]
        ),
        "a pair is multiplied with itself, not with other pairs": lambda a, b: np.hstack(
            [a, b, products(a, np.roll(b, 1, axis=0))]
        ),
    }

    def sets(function):
        """The order of the products is not asked for; that of the pairs is, and that both sensors come first."""

        def sorted_products(a, b):
            joined = np.asarray(function(a, b))
            return np.hstack(
                [joined[:, : a.shape[1] + b.shape[1]], np.sort(joined[:, a.shape[1] + b.shape[1] :], axis=1)]
            )

        return sorted_products

    compare(sets(answer), sets(with_products), [xor, some], {hint: sets(slip) for hint, slip in slips.items()})

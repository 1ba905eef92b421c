"""Exercises of notebook 05: the schedule, weight decay, the cost of a run, accumulation."""

from __future__ import annotations

import math
from collections.abc import Callable

from judging import compare


def schedule_at(step: int, total: int, warmup: int, peak: float) -> float:
    """Learning rate of `step` (from 0): linear to `peak` over `warmup` steps, then half a cosine to 0 at `total`."""
    # solution
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    # end


def check_schedule_at(answer: Callable[..., float]) -> None:
    from fusmae_lite.core.config import load_preset
    from fusmae_lite.train.optimise import learning_rate_at

    def cosine(done: float, peak: float) -> float:
        return peak * 0.5 * (1 + math.cos(math.pi * done))

    def rising(step, total, warmup, peak, start=1.0, slots=1):
        return peak * (step + start) / (warmup + slots) if step < warmup else None

    def after(fall):
        return lambda s, t, w, p: fall(s, t, w, p) if s >= w else rising(s, t, w, p)

    def before(rise):
        return lambda s, t, w, p: rise(s, t, w, p) if s < w else schedule_at(s, t, w, p)

    slips = {
        "the warm-up starts above 0: step + 1 over warmup + 1": before(lambda s, t, w, p: p * s / w),
        "off by one: divide by warmup + 1, the peak comes after the warm-up": before(
            lambda s, t, w, p: p * (s + 1) / w
        ),
        "off by one in the warm-up: step counts from 0, so step + 1": before(lambda s, t, w, p: p * s / (w + 1)),
        "there is no warm-up: rise linearly first": before(lambda s, t, w, p: p),
        "the cosine starts at the end of the warm-up: subtract warmup from step": after(
            lambda s, t, w, p: cosine(s / t, p)
        ),
        "the cosine spans total - warmup steps, not total": after(lambda s, t, w, p: cosine((s - w) / t, p)),
        "subtract warmup from step, too": after(lambda s, t, w, p: cosine(s / (t - w), p)),
        "half a cosine, not a whole one: pi, not 2 pi": after(lambda s, t, w, p: cosine(2 * (s - w) / (t - w), p)),
        "a cosine runs to -1: add 1 and halve": after(lambda s, t, w, p: p * math.cos(math.pi * (s - w) / (t - w))),
        "halve 1 + cos": after(lambda s, t, w, p: 2 * cosine((s - w) / (t - w), p)),
        "that rises after the warm-up: 1 + cos": after(lambda s, t, w, p: p - cosine((s - w) / (t - w), p)),
        "a straight line down; take half a cosine": after(lambda s, t, w, p: p * (1 - (s - w) / (t - w))),
        "the peak is missing": lambda s, t, w, p: schedule_at(s, t, w, 1.0),
    }
    places = [(s, 1000, 50, 2e-4) for s in (0, 1, 40, 49, 50, 51, 500, 999)]
    compare(answer, schedule_at, [*places, (0, 20, 0, 1.0), (5, 20, 0, 1.0), (3, 10, 4, 0.5), (7, 10, 4, 0.5)], slips)
    config = load_preset("paper")
    for step in (0, 40, 49, 50, 500, 999):
        wanted = learning_rate_at(step, 10, config)
        got = answer(step, 1000, 50, config.learning_rate)
        assert abs(got - wanted) < 1e-9, f"step {step} of 1000, 50 of warm-up: got {got:.4g}, expected {wanted:.4g}"


def decays(name: str, ndim: int) -> bool:
    """Whether weight decay applies to a parameter: to matrices and kernels, never to norms, biases and tokens.

    Names look like "blocks.0.attn.qkv.weight", "blocks.0.norm1.weight", "cls_token", "decoders.s1.mask_token".
    """
    # solution
    return ndim >= 2 and not name.endswith(("cls_token", "mask_token", "positions.table"))
    # end


def check_decays(answer: Callable[..., bool]) -> None:
    from fusmae_lite.core.config import ModelConfig
    from fusmae_lite.model.fusmae import FusMAE
    from fusmae_lite.train.optimise import parameter_groups

    small = {"width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    model = FusMAE(ModelConfig(fusion="both", positions="learned", **small))
    decayed = {id(p) for p in parameter_groups(model, 0.05)[0]["params"]}
    cases = [(name, parameter.ndim) for name, parameter in model.named_parameters()]
    right = {name: id(parameter) in decayed for name, parameter in model.named_parameters()}
    tokens = ("cls_token", "mask_token", "positions.table")
    slips = {
        "the other way round: matrices decay, norms and biases do not": lambda n, d: not right[n],
        "tokens have more than one dimension, yet they do not decay": lambda n, d: d >= 2,
        "a matrix has two dimensions: they decay": lambda n, d: d > 2 and not n.endswith(tokens),
        "the kernel of the projection has four dimensions, and it decays": lambda n, d: (
            d == 2 and not n.endswith(tokens)
        ),
        "the scale of a norm is called weight, too: go by the dimensions": lambda n, d: (
            n.endswith("weight") and not n.endswith(tokens)
        ),
        "biases and norms have one dimension: they do not decay": lambda n, d: not n.endswith(tokens),
        "the class token does not decay": lambda n, d: d >= 2 and not n.endswith(tokens[1:]),
        "the mask token does not decay": lambda n, d: d >= 2 and not n.endswith((tokens[0], tokens[2])),
        "learned positions do not decay": lambda n, d: d >= 2 and not n.endswith(tokens[:2]),
        "something decays": lambda n, d: False,
        "not everything decays": lambda n, d: True,
    }
    for hint, slip in slips.items():
        assert any(bool(answer(*case)) != bool(slip(*case)) for case in cases), hint
    for name, ndim in cases:
        wanted, got = right[name], bool(answer(name, ndim))
        assert got == wanted, f"{name} with {ndim} dimensions should {'' if wanted else 'not '}decay"


def hours(pairs: int, epochs: int, pairs_per_second: float) -> float:
    """Hours of a run over `pairs` training pairs."""
    # solution
    return pairs * epochs / pairs_per_second / 3600
    # end


def check_hours(answer: Callable[..., float]) -> None:
    slips = {
        "that is seconds": lambda n, e, r: n * e / r,
        "that is minutes": lambda n, e, r: n * e / r / 60,
        "that is days": lambda n, e, r: n * e / r / 86400,
        "every epoch reads all pairs again": lambda n, e, r: n / r / 3600,
        "divide by the rate: twice as fast takes half as long": lambda n, e, r: n * e * r / 3600,
        "an hour has 60 x 60 seconds: divide by 3600": lambda n, e, r: n * e / r * 3600,
        "epochs multiply the work": lambda n, e, r: n / e / r / 3600,
        "the rate is missing": lambda n, e, r: n * e / 3600,
        "the other way round: pairs over rate": lambda n, e, r: r / (n * e) / 3600,
        "hours have fractions: do not round": lambda n, e, r: n * e // r // 3600,
    }
    compare(answer, hours, [(354_196, 100, 163.98), (3600, 2, 2.0), (1000, 7, 30.0)], slips)


def accumulated_loss(means: list[float], sizes: list[int]) -> float:
    """Mean loss of a batch, from the mean losses of its pieces and their sizes (which may differ)."""
    # solution
    total = sum(sizes)
    return sum(mean * size / total for mean, size in zip(means, sizes, strict=True))
    # end


def check_accumulated_loss(answer: Callable[..., float]) -> None:
    slips = {
        "pieces of different sizes: weigh each mean by its size": lambda m, s: sum(m) / len(m),
        "divide by the number of samples": lambda m, s: sum(a * b for a, b in zip(m, s, strict=True)),
        "divide by the number of samples, not of pieces": lambda m, s: (
            sum(a * b for a, b in zip(m, s, strict=True)) / len(s)
        ),
        "that is the sum of the means": lambda m, s: sum(m),
        "multiply each mean by its size, do not divide": lambda m, s: (
            sum(a / b for a, b in zip(m, s, strict=True)) / sum(1 / b for b in s)
        ),
        "divide by the sizes, not by the sum of the losses": lambda m, s: (
            sum(a * b for a, b in zip(m, s, strict=True)) / sum(m)
        ),
        "the sum of the losses is not what a mean of means needs: weigh by size": lambda m, s: sum(m) / sum(s),
        "that is the largest": lambda m, s: max(m),
        "that is the last piece alone": lambda m, s: m[-1],
        "weights go with the sizes, not with their squares": lambda m, s: (
            sum(a * b * b for a, b in zip(m, s, strict=True)) / sum(b * b for b in s)
        ),
    }
    cases = [([1.0, 3.0], [2, 2]), ([1.0, 4.0], [2, 1]), ([0.5, 2.0, 8.0], [1, 5, 3]), ([7.0], [3])]
    compare(answer, accumulated_loss, cases, slips)

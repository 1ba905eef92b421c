"""Exercises of notebook 05: the schedule, weight decay, the cost of a run, accumulation."""

from __future__ import annotations

import math
from collections.abc import Callable


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
    for name, parameter in model.named_parameters():
        wanted, got = id(parameter) in decayed, bool(answer(name, parameter.ndim))
        assert got == wanted, f"{name} with {parameter.ndim} dimensions should {'' if wanted else 'not '}decay"


def hours(pairs: int, epochs: int, pairs_per_second: float) -> float:
    """Hours of a run over `pairs` training pairs."""
    # solution
    return pairs * epochs / pairs_per_second / 3600
    # end


def check_hours(answer: Callable[..., float]) -> None:
    got = answer(354_196, 100, 163.98)
    assert abs(got - 60) < 0.1, f"the paper's run comes out as {got:.3g} h, not 60 h"
    assert abs(answer(3600, 2, 2.0) - 1) < 1e-9, "7,200 pairs at 2 pairs/s take one hour"


def accumulated_loss(means: list[float], sizes: list[int]) -> float:
    """Mean loss of a batch, from the mean losses of its pieces and their sizes (which may differ)."""
    # solution
    total = sum(sizes)
    return sum(mean * size / total for mean, size in zip(means, sizes, strict=True))
    # end


def check_accumulated_loss(answer: Callable[..., float]) -> None:
    assert abs(answer([1.0, 3.0], [2, 2]) - 2.0) < 1e-9, "two equal pieces: the plain average"
    assert abs(answer([1.0, 4.0], [2, 1]) - 2.0) < 1e-9, "a piece of one sample counts half as much as one of two"

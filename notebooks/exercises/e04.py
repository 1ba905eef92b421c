"""Exercises of notebook 04: the decoder's input, the loss, and two counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from judging import compare


def lay_out(latents: torch.Tensor, index: torch.Tensor, mask_token: torch.Tensor, n_patches: int) -> torch.Tensor:
    """Put visible latents (B, n, D) at their places `index` (B, n) and the mask token (D,) everywhere else.

    Returns (B, n_patches, D). Positions are not added yet.
    """
    # solution
    batch, _, width = latents.shape
    canvas = mask_token.expand(batch, n_patches, width)
    return canvas.scatter(1, index.unsqueeze(-1).expand(-1, -1, width), latents)
    # end


def check_lay_out(answer: Callable[..., torch.Tensor]) -> None:
    latents, token = torch.arange(1.0, 13.0).reshape(2, 2, 3), torch.tensor([-1.0, -2.0, -3.0])
    index = torch.tensor([[3, 0], [1, 4]])
    out = answer(latents.clone(), index, token, 5)
    assert tuple(out.shape) == (2, 5, 3), f"the shape is {tuple(out.shape)}, not (2, 5, 3)"

    def placed(latents, index, token, n):
        canvas = torch.zeros(len(latents), n, latents.shape[-1]) + token
        for row, places in enumerate(index):
            canvas[row, places] = latents[row]
        return canvas

    slips = {
        "empty places hold the mask token, not 0": lambda x, i, t, n: placed(x, i, 0 * t, n),
        "every sample has its own index; you used that of sample 0": lambda x, i, t, n: placed(
            x, i[:1].expand_as(i), t, n
        ),
        "latents belong at their index: you put them one after the other": lambda x, i, t, n: torch.cat(
            [x, t.expand(len(x), n - x.shape[1], -1)], 1
        ),
        "do not sort the index without its latents": lambda x, i, t, n: placed(x, i.sort(-1)[0], t, n),
        "the latents were added to the mask token; put them in its place": lambda x, i, t, n: placed(x + t, i, t, n),
        "the latents stand in reversed order": lambda x, i, t, n: placed(x.flip(1), i, t, n),
        "each place is off by one": lambda x, i, t, n: placed(x, (i + 1) % n, t, n),
        "that holds the mask token where latents belong": lambda x, i, t, n: t.expand(len(x), n, -1),
        "the samples of the batch are swapped": lambda x, i, t, n: placed(x.flip(0), i, t, n),
    }
    generator = torch.Generator().manual_seed(0)
    many = torch.rand(3, 9, generator=generator).argsort(1)[:, :4]
    big = (torch.randn(3, 4, 2, generator=generator), many, torch.randn(2, generator=generator), 9)
    compare(answer, lay_out, [(latents, index, token, 5), big], slips)


def hidden_error(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error over hidden patches: (B, N, K), (B, N, K), bool (B, N) with True = hidden -> scalar."""
    # solution
    error = (prediction - target).square().mean(dim=-1)
    return (error * mask).sum() / mask.sum()
    # end


def check_hidden_error(answer: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    target, prediction = torch.randn(2, 3, 4, 5, generator=generator)
    mask = torch.tensor([[True, True, False, True], [False, True, False, False], [True, True, False, False]])
    ones = torch.tensor([1.0, 2.0, 3.0, 100.0]).reshape(1, 4, 1).expand(2, 4, 3)
    toy = (ones, torch.zeros(2, 4, 3), torch.tensor([[True, True, True, False]] * 2))

    def error(p, t):
        return (p - t).square().mean(-1)

    slips = {
        "that averages over all patches: the visible ones are not asked for": lambda p, t, m: error(p, t).mean(),
        "divide by the number of hidden patches, not of all": lambda p, t, m: (error(p, t) * m).mean(),
        "that is the error of the visible patches: True means hidden": lambda p, t, m: error(p, t)[~m].mean(),
        "sum over hidden patches: divide by their number": lambda p, t, m: (error(p, t) * m).sum(),
        "that is the root; the loss is the squared error": lambda p, t, m: error(p, t)[m].mean().sqrt(),
        "that is the absolute error: square it": lambda p, t, m: (p - t).abs().mean(-1)[m].mean(),
        "mean over the values of a patch, not their sum": lambda p, t, m: (p - t).square().sum(-1)[m].mean(),
        "that is a mean of each sample's mean: samples with few hidden patches weigh too much": lambda p, t, m: (
            torch.stack([error(p, t)[row][m[row]].mean() for row in range(len(m))]).mean()
        ),
        "square each difference before you average": lambda p, t, m: (p - t).mean(-1).square()[m].mean(),
        "divide by hidden patches, not by samples": lambda p, t, m: (error(p, t) * m).sum() / len(m),
        "one scalar for the batch, not one for each sample": lambda p, t, m: (error(p, t) * m).sum(1) / m.sum(1),
        "one scalar for the batch, not one for each patch": lambda p, t, m: error(p, t) * m,
        "that is the mean difference, in which errors cancel": lambda p, t, m: (p - t)[m].mean(),
    }
    compare(answer, hidden_error, [(prediction, target, mask), toy], slips)


def xattn_decoder_parameters(width: int, sensors: int = 2, mlp_ratio: int = 4) -> int:
    """Trained parameters of XAttnDecoder with our norms: per sensor two LayerNorms, q, k, v, proj, and a two-layer MLP.

    Every Linear has a bias; a LayerNorm has a scale and a shift.
    """
    # solution
    norms = 2 * 2 * width
    attention = 4 * (width * width + width)
    mlp = 2 * mlp_ratio * width * width + mlp_ratio * width + width
    return sensors * (norms + attention + mlp)
    # end


def check_xattn_decoder_parameters(answer: Callable[..., int]) -> None:
    from fusmae_lite.model.cross_attention import XAttnDecoder

    right = xattn_decoder_parameters
    slips = {
        "for every sensor, not for one": lambda w, n=2, r=4: right(w, 1, r),
        "for any number of sensors, not for two": lambda w, n=2, r=4: right(w, 2, r),
        "the MLP is mlp_ratio times as wide, not always 4 times": lambda w, n=2, r=4: right(w, n, 4),
        "the LayerNorms are missing": lambda w, n=2, r=4: right(w, n, r) - n * 4 * w,
        "two LayerNorms for a sensor, not one": lambda w, n=2, r=4: right(w, n, r) - n * 2 * w,
        "a LayerNorm has a scale and a shift": lambda w, n=2, r=4: right(w, n, r) - n * 2 * w,
        "four projections, q, k, v and proj: the last is missing": lambda w, n=2, r=4: right(w, n, r) - n * (w * w + w),
        "every Linear of the attention has a bias": lambda w, n=2, r=4: right(w, n, r) - n * 4 * w,
        "the biases of the MLP are missing": lambda w, n=2, r=4: right(w, n, r) - n * (r * w + w),
        "no bias was counted": lambda w, n=2, r=4: right(w, n, r) - n * (4 * w + r * w + w),
        "the MLP has two layers": lambda w, n=2, r=4: right(w, n, r) - n * (r * w * w + w),
        "the MLP is missing": lambda w, n=2, r=4: right(w, n, r) - n * (2 * r * w * w + r * w + w),
        "the biases of the MLP are mlp_ratio * width and width": lambda w, n=2, r=4: right(w, n, r) - n * (r - 1) * w,
    }
    compare(answer, right, [(32, 2, 4), (16, 3, 2), (8, 1, 1), (24, 4, 3)], slips)
    for names, width, ratio in ((("s1", "s2"), 32, 4), (("s1", "s2", "x"), 16, 2)):
        wanted = sum(p.numel() for p in XAttnDecoder(names, width, 4, ratio).parameters())
        got = answer(width, len(names), ratio)
        assert got == wanted, f"{len(names)} sensors, width {width}, MLP x {ratio}: got {got}, the module has {wanted}"
    assert answer(32) == right(32), "two sensors and an MLP of 4 times the width are the defaults"


def seen_by_neither(mask_ratio: float, consistent: bool) -> float:
    """Expected share of places that are hidden in both of two sensors, for either masking of section 3.3."""
    # solution
    return mask_ratio if consistent else mask_ratio**2
    # end


def check_seen_by_neither(answer: Callable[..., float]) -> None:
    slips = {
        "the two strategies are swapped": lambda r, c: seen_by_neither(r, not c),
        "that is the share seen by both": lambda r, c: 1 - r if c else (1 - r) ** 2,
        "that is the share seen by at least one": lambda r, c: 1 - r if c else 1 - r**2,
        "chances of independent draws are multiplied, not added": lambda r, c: r if c else min(1, 2 * r),
        "independent draws: both must hide it, so multiply": lambda r, c: r,
        "consistent masks hide the same places: once is twice": lambda r, c: r**2,
        "that is the share seen by exactly one": lambda r, c: 0 if c else 2 * r * (1 - r),
        "independent draws: multiply the ratio by itself, not by the share that is seen": lambda r, c: (
            r if c else r * (1 - r)
        ),
    }
    cases = [(ratio, consistent) for ratio in (0, 0.25, 0.5, 0.75, 0.9, 1) for consistent in (True, False)]
    compare(answer, seen_by_neither, cases, slips)

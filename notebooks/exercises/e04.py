"""Exercises of notebook 04: the decoder's input, the loss, and two counts."""

from __future__ import annotations

from collections.abc import Callable

import torch


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
    latents = torch.arange(12.0).reshape(2, 2, 3)
    index = torch.tensor([[3, 0], [1, 4]])
    token = torch.tensor([-1.0, -2.0, -3.0])
    out = answer(latents, index, token, 5)
    assert tuple(out.shape) == (2, 5, 3), f"the shape is {tuple(out.shape)}, not (2, 5, 3)"
    assert torch.equal(out[0, 3], latents[0, 0]), "the first latent of sample 0 belongs at place 3"
    assert torch.equal(out[1, 1], latents[1, 0]), "every sample has its own index"
    assert torch.equal(out[0, 1], token), "empty places hold the mask token"
    assert torch.equal(token, torch.tensor([-1.0, -2.0, -3.0])), "the mask token itself was overwritten"


def hidden_error(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error over hidden patches: (B, N, K), (B, N, K), bool (B, N) with True = hidden -> scalar."""
    # solution
    error = (prediction - target).square().mean(dim=-1)
    return (error * mask).sum() / mask.sum()
    # end


def check_hidden_error(answer: Callable[..., torch.Tensor]) -> None:
    target = torch.zeros(2, 4, 3)
    prediction = torch.tensor([1.0, 2.0, 3.0, 100.0]).reshape(1, 4, 1).expand(2, 4, 3)
    mask = torch.tensor([[True, True, True, False]] * 2)
    value = float(answer(prediction, target, mask))
    assert abs(value - 14 / 3) < 1e-4, f"got {value:.4g}, expected 14 / 3: average over hidden patches, and only those"


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

    for names, width, ratio in ((("s1", "s2"), 32, 4), (("s1", "s2", "x"), 16, 2)):
        wanted = sum(p.numel() for p in XAttnDecoder(names, width, 4, ratio).parameters())
        got = answer(width, len(names), ratio)
        assert got == wanted, f"{len(names)} sensors, width {width}, MLP x {ratio}: got {got}, the module has {wanted}"


def seen_by_neither(mask_ratio: float, consistent: bool) -> float:
    """Expected share of places that are hidden in both of two sensors, for either masking of section 3.3."""
    # solution
    return mask_ratio if consistent else mask_ratio**2
    # end


def check_seen_by_neither(answer: Callable[..., float]) -> None:
    from fusmae_lite.model.masking import sample_masks

    for consistent, strategy in ((True, "consistent"), (False, "independent")):
        for ratio in (0.25, 0.75):
            draw = torch.Generator().manual_seed(0)
            masks = sample_masks(strategy, 2000, 100, round(100 * (1 - ratio)), ("s1", "s2"), draw)
            counted = float((masks["s1"] & masks["s2"]).float().mean())
            got = answer(ratio, consistent)
            assert abs(got - counted) < 0.01, f"{strategy}, {ratio:.0%} hidden: got {got:.3g}, counted {counted:.3g}"

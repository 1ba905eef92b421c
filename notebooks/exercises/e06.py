"""Exercises of notebook 06: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
import torch
from judging import compare


def paste_visible(original: torch.Tensor, prediction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Keep `prediction` where `mask` is True and put `original` back where it is False.

    Both patch tensors are (B, N, K); the mask is (B, N), True where the encoder saw nothing.
    """
    # solution
    return torch.where(mask.unsqueeze(-1), prediction, original)
    # end


def check_paste_visible(answer):
    generator = torch.Generator().manual_seed(0)
    original, prediction = torch.randn(2, 2, 4, 3, generator=generator)
    mask = torch.tensor([[True, False, True, False], [False, False, False, True]])
    square = (*torch.randn(2, 4, 4, 4, generator=generator), torch.rand(4, 4, generator=generator) < 0.5)
    slips = {
        "True means hidden: swap the two": lambda o, p, m: torch.where(m[..., None], o, p),
        "that is the prediction alone: put visible patches back": lambda o, p, m: p,
        "that is the original alone: hidden patches must hold the prediction": lambda o, p, m: o,
        "visible patches must hold the original, not 0": lambda o, p, m: p * m[..., None],
        "hidden patches must hold the prediction, not 0": lambda o, p, m: o * ~m[..., None],
        "every sample has its own mask; you used that of sample 0": lambda o, p, m: torch.where(m[:1, :, None], p, o),
        "the two were added: choose one for each patch": lambda o, p, m: o + p * m[..., None],
        "the mask belongs to patches, not to the values in a patch": lambda o, p, m: torch.where(m[:, None], p, o),
        "the two were averaged: choose one for each patch": lambda o, p, m: (o + p) / 2,
    }
    compare(answer, paste_visible, [(original, prediction, mask), square], slips)


def only_one_visible(tokens: int, patch: int) -> torch.Tensor:
    """A mask (1, tokens) that hides every patch except number `patch`: the most that `forward` allows to hide."""
    # solution
    mask = torch.ones(1, tokens, dtype=torch.bool)
    mask[0, patch] = False
    return mask
    # end


def check_only_one_visible(answer):
    mask = answer(225, 112)
    assert isinstance(mask, torch.Tensor), "give a tensor" if mask is not None else "the function returns nothing"
    assert tuple(mask.shape) == (1, 225), f"shape {tuple(mask.shape)}, expected (1, 225)"
    assert mask.dtype == torch.bool, f"dtype {mask.dtype}, expected torch.bool"

    def one(n, p):
        return torch.nn.functional.one_hot(torch.tensor([p % n]), n).bool()

    slips = {
        "the sense is the wrong way round: True means hidden": one,
        "patches are counted from 0, not from 1": lambda n, p: ~one(n, p - 1),
        "patches are counted from 0: off by one": lambda n, p: ~one(n, p + 1),
        "all are hidden: show one": lambda n, p: torch.ones(1, n).bool(),
        "none is hidden": lambda n, p: torch.zeros(1, n).bool(),
        "all before it are visible, too": lambda n, p: (torch.arange(n) > p)[None],
        "all after it are visible, too": lambda n, p: (torch.arange(n) < p)[None],
        "counted from the end": lambda n, p: ~one(n, n - 1 - p),
        "another patch is visible than the one asked for": lambda n, p: ~one(n, 112),
    }
    compare(answer, only_one_visible, [(225, 112), (9, 0), (9, 8), (4, 2)], slips)


def rmse_in_units(prediction: np.ndarray, target: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Root mean squared error of each band in physical units.

    Both arrays are (B, C, H, W) in normalised units; `std` (C,) is each band's deviation in dB or reflectance.
    """
    # solution
    return np.sqrt(np.square(prediction - target).mean(axis=(0, 2, 3))) * std
    # end


def check_rmse_in_units(answer):
    rng = np.random.default_rng(0)
    toy = np.zeros((3, 2, 4, 4)) + np.array([1.0, -2.0])[:, None, None], np.zeros((3, 2, 4, 4)), np.array([5.0, 0.1])
    found = np.asarray(answer(*toy))
    assert found.shape == (2,), f"shape {found.shape}, expected one value a band: (2,)"

    def square(p, t):
        return np.square(p - t)

    bands = (0, 2, 3)
    slips = {
        "take the root before multiplying by the deviation, or scale by its square": lambda p, t, s: (
            np.sqrt(square(p, t).mean(bands)) * s**2
        ),
        "bring the error into units: multiply by each band's deviation": lambda p, t, s: np.sqrt(
            square(p, t).mean(bands)
        ),
        "multiply by the deviation; dividing is what normalisation did": lambda p, t, s: (
            np.sqrt(square(p, t).mean(bands)) / s
        ),
        "the deviation belongs outside the root, or squared inside": lambda p, t, s: np.sqrt(
            square(p, t).mean(bands) * s
        ),
        "the root is missing": lambda p, t, s: square(p, t).mean(bands) * s,
        "the root is missing: those are squared units": lambda p, t, s: square(p, t).mean(bands) * s**2,
        "average the squares over samples and pixels first, then take the root": lambda p, t, s: (
            np.sqrt(square(p, t).mean((2, 3))).mean(0) * s
        ),
        "that is the mean absolute error": lambda p, t, s: np.abs(p - t).mean(bands) * s,
        "errors of both signs cancel: square before you average": lambda p, t, s: np.abs((p - t).mean(bands)) * s,
        "mean over the squares, not their sum": lambda p, t, s: np.sqrt(square(p, t).sum(bands)) * s,
        "one deviation for each band, not their mean": lambda p, t, s: np.sqrt(square(p, t).mean(bands)) * s.mean(),
        "the deviations are in the wrong order": lambda p, t, s: np.sqrt(square(p, t).mean(bands)) * s[::-1],
        "one value a band, over samples and pixels": lambda p, t, s: np.sqrt(square(p, t).mean()) * s,
        "average over all samples, not the first alone": lambda p, t, s: np.sqrt(square(p, t)[0].mean((1, 2))) * s,
    }
    cases = [toy, (rng.normal(size=(3, 4, 5, 6)), rng.normal(1, 1, (3, 4, 5, 6)), np.array([5.0, 4.0, 0.1, 2.0]))]
    cases.append((rng.normal(size=(2, 2, 2, 2)), rng.normal(size=(2, 2, 2, 2)), np.array([3.0, 0.5])))
    compare(answer, rmse_in_units, cases, slips)


def power_factor(error_db: float) -> float:
    """By which factor a backscatter estimate is off in linear power when it is off by `error_db` decibels."""
    # solution
    return 10 ** (error_db / 10)
    # end


def check_power_factor(answer):
    slips = {
        "that is the factor for amplitudes; power has 10 in the denominator, not 20": lambda x: 10 ** (x / 20),
        "the 10 in the denominator is missing": lambda x: 10.0**x,
        "that is the way from a factor to decibels": lambda x: 10 * np.log10(np.abs(x) or 1),
        "the sign is wrong: more decibels are more power": lambda x: 10 ** (-x / 10),
        "a decibel belongs to powers of 10, not of e": lambda x: np.exp(x / 10),
        "a decibel belongs to powers of 10, not of 2": lambda x: 2 ** (x / 10),
        "3 dB as a factor of two is a rule of thumb: use powers of 10": lambda x: 2 ** (x / 3),
        "the sign of the error counts: -3 dB is about one half": lambda x: 10 ** (abs(x) / 10),
        "that is what is added, not the factor: leave the 1": lambda x: 10 ** (x / 10) - 1,
        "decibels are logarithms: not a tenth, but a power": lambda x: x / 10,
        "that is the factor times ten": lambda x: 10 * 10 ** (x / 10),
        "a bel has ten decibels: divide": lambda x: 10.0 ** (x * 10) if x < 30 else np.inf,
    }
    compare(answer, power_factor, [(0,), (10,), (-3,), (20,), (3.0,), (-12.5,)], slips)

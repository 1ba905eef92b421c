"""Exercises of notebook 06: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
import torch


def paste_visible(original: torch.Tensor, prediction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Keep `prediction` where `mask` is True and put `original` back where it is False.

    Both patch tensors are (B, N, K); the mask is (B, N), True where the encoder saw nothing.
    """
    # solution
    return torch.where(mask.unsqueeze(-1), prediction, original)
    # end


def check_paste_visible(answer):
    """The pasted patches keep every visible value and every hidden prediction."""
    original, prediction = torch.zeros(2, 4, 3), torch.ones(2, 4, 3)
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    pasted = answer(original, prediction, mask)
    assert pasted.shape == original.shape, f"shape {tuple(pasted.shape)}, expected {tuple(original.shape)}"
    assert not torch.equal(pasted, 1 - mask.float()[..., None].expand_as(pasted)), "True means hidden: swap the two"
    assert torch.equal(pasted, mask.float()[..., None].expand_as(pasted)), "hidden patches must hold the prediction"


def only_one_visible(tokens: int, patch: int) -> torch.Tensor:
    """A mask (1, tokens) that hides every patch except number `patch`: the most that `forward` allows to hide."""
    # solution
    mask = torch.ones(1, tokens, dtype=torch.bool)
    mask[0, patch] = False
    return mask
    # end


def check_only_one_visible(answer):
    """One False at the right place, and bool."""
    mask = answer(225, 112)
    assert tuple(mask.shape) == (1, 225), f"shape {tuple(mask.shape)}, expected (1, 225)"
    assert mask.dtype == torch.bool, f"dtype {mask.dtype}, expected torch.bool"
    assert int((~mask).sum()) == 1, f"{int((~mask).sum())} patches are visible, expected 1 (True means hidden)"
    assert not mask[0, 112], "another patch is visible than the one asked for"


def rmse_in_units(prediction: np.ndarray, target: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Root mean squared error of each band in physical units.

    Both arrays are (B, C, H, W) in normalised units; `std` (C,) is each band's deviation in dB or reflectance.
    """
    # solution
    return np.sqrt(np.square(prediction - target).mean(axis=(0, 2, 3))) * std
    # end


def check_rmse_in_units(answer):
    """Normalised errors of 1 and 2 in two bands with deviations 5 and 0.1."""
    target = np.zeros((3, 2, 4, 4))
    prediction = target + np.array([1.0, -2.0])[:, None, None]
    found = np.asarray(answer(prediction, target, np.array([5.0, 0.1])))
    assert found.shape == (2,), f"shape {found.shape}, expected one value a band: (2,)"
    assert not np.allclose(found, [5.0, 0.4]), (
        "take the root before multiplying by the deviation, or scale by its square"
    )
    assert np.allclose(found, [5.0, 0.2]), (
        f"found {found}, expected [5, 0.2]: an error of 1 is one deviation of the band"
    )
    mixed = answer(np.array([[[[0.0]]], [[[2.0]]]]), np.zeros((2, 1, 1, 1)), np.array([1.0]))
    assert np.allclose(mixed, [2**0.5]), "average the squares over samples and pixels first, then take the root"


def power_factor(error_db: float) -> float:
    """By which factor a backscatter estimate is off in linear power when it is off by `error_db` decibels."""
    # solution
    return 10 ** (error_db / 10)
    # end


def check_power_factor(answer):
    """0, 10 and -3 dB."""
    assert abs(answer(0) - 1) < 1e-9, "0 dB is a factor of 1: nothing is wrong"
    assert abs(answer(20) - 10) > 1e-6, "that is the factor for amplitudes; power has 10 in the denominator, not 20"
    assert abs(answer(10) - 10) < 1e-9, "10 dB is a factor of 10"
    assert abs(answer(-3) - 0.501) < 1e-3, "-3 dB is about one half"

"""Exercises of notebook 01: data."""

from __future__ import annotations

import numpy as np


def average_db(db: np.ndarray) -> float:
    """Average of backscatter values given in dB, itself in dB.

    What is averaged must be the power, not its logarithm.
    """
    # solution
    return float(10 * np.log10(np.mean(10 ** (np.asarray(db, dtype=np.float64) / 10))))
    # end


def check_average_db(answer):
    assert abs(answer(np.array([-7.0, -7.0])) + 7) < 1e-6, "the average of equal values is that value"
    got = answer(np.array([0.0, -20.0]))
    assert abs(got + 10) > 1e-6, "that is the mean of the decibels; average powers 1 and 0.01 instead"
    assert abs(got - 10 * np.log10(0.505)) < 1e-6, f"powers 1 and 0.01 average to 0.505, -2.967 dB, not {got:.3f}"
    values = np.random.default_rng(0).normal(-12, 5, (20, 20)).astype(np.float32)
    right = 10 * np.log10(np.mean(10 ** (values.astype(np.float64) / 10)))
    assert abs(answer(values) - right) < 1e-3, "wrong on a 20 x 20 image"


def ndvi(image: np.ndarray) -> np.ndarray:
    """Vegetation index (B08 - B04) / (B08 + B04) of a Sentinel-2 image (12, H, W): (H, W), between -1 and 1.

    Where both bands are 0 the index is 0. Take the channels by name, from `S2.band_index`.
    """
    # solution
    from fusmae_lite import S2

    infrared, red = (np.asarray(image, dtype=np.float64)[S2.band_index(band)] for band in ("B08", "B04"))
    total = infrared + red
    return np.divide(infrared - red, total, out=np.zeros_like(total), where=total != 0)
    # end


def check_ndvi(answer):
    image = np.zeros((12, 2, 2), dtype=np.float32)
    image[7], image[3] = [[3000, 500], [0, 100]], [[1000, 500], [0, 300]]
    got = np.asarray(answer(image))
    assert got.shape == (2, 2), f"give (H, W), here (2, 2), not {got.shape}"
    assert np.isfinite(got).all(), "0 / 0 must give 0, not NaN"
    assert np.allclose(got, [[0.5, 0], [0, -0.5]]), f"expected [[0.5, 0], [0, -0.5]], got {got.tolist()}"
    counts = np.asarray(answer(image.astype(np.uint16)))
    assert np.allclose(counts, got), "unsigned integers wrap around below 0: convert to float before you subtract"


def twelve_of_thirteen(image: np.ndarray) -> np.ndarray:
    """Sentinel-2 level 1C, 13 bands (13, H, W), as the 12 bands of this package, (12, H, W).

    The 13 come in the order B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12.
    """
    # solution
    return np.delete(np.asarray(image), 10, axis=0)
    # end


def check_twelve_of_thirteen(answer):
    from fusmae_lite import S2

    order = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
    image = np.arange(13.0)[:, None, None] * np.ones((13, 2, 3))
    got = np.asarray(answer(image))
    assert got.shape == (12, 2, 3), f"give (12, H, W), here (12, 2, 3), not {got.shape}"
    bands = [order[int(channel[0, 0])] for channel in got]
    wrong = [f"channel {c} is {a}, not {b}" for c, (a, b) in enumerate(zip(bands, S2.bands, strict=True)) if a != b]
    assert not wrong, "; ".join(wrong)


def looks(power: np.ndarray) -> float:
    """Equivalent number of looks of an evenly rough area: squared mean over variance of the power (not dB)."""
    # solution
    power = np.asarray(power, dtype=np.float64)
    return float(power.mean() ** 2 / power.var())
    # end


def check_looks(answer):
    rng = np.random.default_rng(0)
    for wanted in (1, 4, 16):
        got = answer(0.02 * rng.gamma(wanted, 1 / wanted, 200_000))
        assert abs(got / wanted - 1) < 0.05, f"speckle simulated with {wanted} looks: you find {got:.2f}"

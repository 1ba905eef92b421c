"""Exercises of notebook 01: data."""

from __future__ import annotations

import numpy as np
from judging import compare


def average_db(db: np.ndarray) -> float:
    """Average of backscatter values given in dB, itself in dB.

    What is averaged must be the power, not its logarithm.
    """
    # solution
    return float(10 * np.log10(np.mean(10 ** (np.asarray(db, dtype=np.float64) / 10))))
    # end


def check_average_db(answer):
    rng = np.random.default_rng(0)
    cases = [(np.array([-7.0, -7.0]),), (np.array([0.0, -20.0]),), (rng.normal(-12, 5, (20, 30)).astype(np.float32),)]
    slips = {
        "that is the mean of the decibels; average powers, 10 ** (dB / 10), instead": lambda x: x.mean(),
        "that is the median of the decibels; average powers instead": lambda x: np.median(x),
        "dB of a power has 10 in it, not the 20 of an amplitude": lambda x: 20 * np.log10(np.mean(10 ** (x / 20))),
        "that is the average power; bring it back to dB": lambda x: np.mean(10 ** (x / 10)),
        "that is the dB of the sum, not of the mean": lambda x: 10 * np.log10(np.sum(10 ** (x / 10))),
        "a decibel has the logarithm to base 10": lambda x: 10 * np.log(np.mean(10 ** (x / 10))),
        "the factor 10 before the logarithm is missing": lambda x: np.log10(np.mean(10 ** (x / 10))),
        "the sign is wrong: powers below 1 are negative decibels": lambda x: -10 * np.log10(np.mean(10 ** (x / 10))),
        "average all values, not one axis of them": lambda x: 10 * np.log10(np.mean(10 ** (x / 10), axis=0)),
    }
    compare(answer, average_db, cases, slips)


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
    rng, image = np.random.default_rng(0), np.zeros((12, 2, 2), dtype=np.float32)
    image[7], image[3] = [[3000, 500], [0, 100]], [[1000, 500], [0, 300]]
    some = rng.integers(1, 9000, (12, 3, 4)).astype(np.float32)
    got = np.asarray(answer(image))
    assert got.shape == (2, 2), f"give (H, W), here (2, 2), not {got.shape}"
    assert np.isfinite(got).all(), "0 / 0 must give 0, not NaN"

    def index(a: int, b: int):
        return lambda x: (x[a] - x[b]) / np.maximum(x[a] + x[b], 1e-9)

    slips = {
        "the sign is wrong: infrared minus red": index(3, 7),
        "that is B8A, not B08: take channels by name": index(8, 3),
        "B08 is not at 8: B01 is channel 0, and B8A follows B08": index(8, 4),
        "that is the difference without the division": lambda x: x[7] - x[3],
        "divide by the sum of the two, not by their mean": lambda x: 2 * index(7, 3)(x),
        "that is the ratio of the two; take their difference over their sum": lambda x: x[7] / np.maximum(x[3], 1e-9),
        "that is green, not red: red is B04": index(7, 2),
        "that is B05, not B04": index(7, 4),
        "that is blue, not red: red is B04": index(7, 1),
        "that is B07, not B08": index(6, 3),
    }
    compare(answer, ndvi, [(image,), (some,)], slips)
    wrapped = "unsigned integers wrap around below 0: convert to float before you subtract"
    assert np.allclose(np.asarray(answer(some.astype(np.uint16))), got := ndvi(some), atol=1e-6), wrapped


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
    image = np.arange(13.0)[:, None, None] * np.ones((13, 12, 14))
    got = np.asarray(answer(image))
    assert got.shape == (12, 12, 14), f"give (12, H, W), here (12, 12, 14), not {got.shape}"
    bands = [order[int(channel[0, 0])] for channel in got]
    wrong = [f"channel {c} is {a}, not {b}" for c, (a, b) in enumerate(zip(bands, S2.bands, strict=True)) if a != b]
    assert not wrong, "; ".join(wrong)
    compare(answer, twelve_of_thirteen, [(np.random.default_rng(0).random((13, 4, 5)),)])


def looks(power: np.ndarray) -> float:
    """Equivalent number of looks of an evenly rough area: squared mean over variance of the power (not dB)."""
    # solution
    power = np.asarray(power, dtype=np.float64)
    return float(power.mean() ** 2 / power.var())
    # end


def check_looks(answer):
    rng = np.random.default_rng(0)
    cases = [(0.02 * rng.gamma(wanted, 1 / wanted, (400, 500)),) for wanted in (1, 4, 16)]
    slips = {
        "square the mean": lambda x: x.mean() / x.var(),
        "that is mean over deviation; both are squared": lambda x: x.mean() / x.std(),
        "the other way round: squared mean over variance": lambda x: x.var() / x.mean() ** 2,
        "divide by the variance, not by the deviation": lambda x: x.mean() ** 2 / x.std(),
        "the variance is squared already": lambda x: x.mean() ** 2 / x.var() ** 2,
        "that is the mean of the squares, not the squared mean": lambda x: np.mean(x**2) / x.var(),
        "power is given, not decibels: nothing to convert": lambda x: looks(10 ** (x / 10)),
        "looks are counted in power, not in decibels": lambda x: looks(10 * np.log10(x)),
        "one number for the whole area, not one for each column": lambda x: x.mean(axis=0) ** 2 / x.var(axis=0),
    }
    compare(answer, looks, cases, slips)

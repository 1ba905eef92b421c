"""Random fields to cut patches from: made once, then cropped, flipped and turned at random, which costs little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusmae_lite.data.synthetic.statistics import CELL_GRID, TO_DB, block_mean, detrend

PERIOD = 512  # pixels
FIELDS = 16


class FieldBank:
    """Periodic fields to cut from.

    Args:
        fields: (FIELDS, PERIOD, PERIOD).
        side: of the crops in pixels; at most PERIOD.
        signs: whether a field upside down is as good a field.

    Attributes:
        variance: over all fields.
    """

    def __init__(self, fields: np.ndarray, side: int, *, signs: bool = True) -> None:
        self.side, self._states = side, 16 if signs else 8
        self.variance = float(fields.var())
        self._fields = np.pad(fields.astype(np.float32), ((0, 0), (0, side), (0, side)), mode="wrap")

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        """(side, side) float32 at a random place of a random field, in a random one of its flips, turns and signs."""
        field, top, left, state = rng.integers((FIELDS, PERIOD, PERIOD, self._states)).tolist()
        image = self._fields[field, top : top + self.side, left : left + self.side]
        image = image.T if state & 1 else image
        image = image[:: -1 if state & 2 else 1, :: -1 if state & 4 else 1]
        return -image if state & 8 else image


def outlines(seed: int, side: int, length: float) -> FieldBank:
    """Smooth Gaussian fields, mean 0, variance 1, Gaussian correlation of so many pixels: where land cover changes."""
    fields = _shaped(seed, 0, lambda frequency: np.exp(-((frequency * length) ** 2) / 4))
    return FieldBank(fields / fields.std(), side)


def textures(seed: int, side: int, length: float) -> FieldBank:
    """Gaussian fields with exponential correlation of so many pixels, rough at every scale, mean 0.

    Scaled so that what :func:`~fusmae_lite.data.synthetic.statistics.cell_texture` measures has the deviation 1.
    """
    fields = _shaped(seed, 1, lambda frequency: (1 + (frequency * length) ** 2) ** -1.5)
    cells = 6 * CELL_GRID
    return FieldBank(fields / detrend(block_mean(fields[:, :cells, :cells], 6)).std(), side)


def speckle(seed: int, side: int, looks: float) -> FieldBank:
    """Speckle of fully developed multi-look intensity in dB: gamma of mean 1 and `looks` looks, pixels independent."""
    power = np.random.default_rng([seed, FIELDS, 2]).standard_gamma(looks, (FIELDS, PERIOD, PERIOD)) / looks
    return FieldBank(TO_DB * np.log(np.maximum(power, 1e-6)), side, signs=False)


def _shaped(seed: int, kind: int, power: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """White noise with the given power spectrum over frequency in radians a pixel, mean 0."""
    frequency = 2 * np.pi * np.hypot(np.fft.fftfreq(PERIOD)[:, None], np.fft.rfftfreq(PERIOD)[None])
    amplitude = np.sqrt(power(frequency))
    amplitude[0, 0] = 0
    noise = np.random.default_rng([seed, FIELDS, kind]).standard_normal((FIELDS, PERIOD, PERIOD), dtype=np.float32)
    return np.fft.irfft2(np.fft.rfft2(noise) * amplitude, s=(PERIOD, PERIOD))

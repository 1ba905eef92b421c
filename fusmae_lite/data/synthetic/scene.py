"""A synthetic pair from a seed and an index: a land-cover map, what two sensors see of it, speckle.

Radar is in dB and optics in ln of the stored value, so that differences of land cover add and no reflectance turns
negative. Letters: 14 features, VV VH and the 12 optical bands in sensor order; k layers.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.synthetic.truth import Truth

CELL_GRID = 20  # cells of 60 m, the coarsest band, along a side
DETREND = 5  # cells: texture is what is left after the mean of 300 m, which is mostly land cover, is taken away
TO_DB = 10 / np.log(10)
PERIOD = 512  # pixels
FIELDS = 16
#: Independent fields behind the 14 bands' texture: they carry 94 % of the measured correlations.
FACTORS = 3
#: Correlation length of outlines in pixels: land cover changes every few hundred metres (our choice).
OUTLINE = 20.0
SMALLEST_SHARE = 0.02
LARGEST_OFFSET = 2.5  # deviations
BRIGHTEST = 20_000
MARKED_SHARE = 0.2
#: Pixels: marks shall reach over several patches, or no masked one could be told from its neighbours.
TRUTH_OUTLINE = 60.0


def load() -> dict[str, Any]:
    """statistics.json: what benchmarks/measure_statistics.py measured on real pairs."""
    return json.loads(Path(__file__).with_name("statistics.json").read_text(encoding="utf-8"))


def block_mean(image: np.ndarray, size: int) -> np.ndarray:
    """(..., H, W) -> (..., H / size, W / size). By slices: 5 times as fast as NumPy's mean over two short axes."""
    if size == 1:
        return image
    tall = sum(image[..., row::size, :] for row in range(1, size)) + image[..., ::size, :]
    return (sum(tall[..., column::size] for column in range(1, size)) + tall[..., ::size]) / size**2


def detrend(cells: np.ndarray) -> np.ndarray:
    """(..., CELL_GRID, CELL_GRID) less its mean over blocks of `DETREND` cells."""
    return cells - np.kron(block_mean(cells, DETREND), np.ones((DETREND, DETREND)))


class FieldBank:
    """Periodic fields (FIELDS, PERIOD, PERIOD) to cut patches from, turned in 8 ways or, with the sign, 16 `states`."""

    def __init__(self, fields: np.ndarray, side: int, states: int = 16) -> None:
        self.side, self._states = side, states
        self.variance = float(fields.var())
        self._fields = np.pad(fields.astype(np.float32), ((0, 0), (0, side), (0, side)), mode="wrap")

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        """(side, side) float32 at a random place."""
        field, top, left, state = rng.integers((FIELDS, PERIOD, PERIOD, self._states)).tolist()
        image = self._fields[field, top : top + self.side, left : left + self.side]
        image = image.T if state & 1 else image
        image = image[:: -1 if state & 2 else 1, :: -1 if state & 4 else 1]
        return -image if state & 8 else image


def _shaped(seed: int, kind: int, power: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """White noise with the given power spectrum over frequency in radians a pixel, mean 0."""
    frequency = 2 * np.pi * np.hypot(np.fft.fftfreq(PERIOD)[:, None], np.fft.rfftfreq(PERIOD)[None])
    amplitude = np.sqrt(power(frequency))
    amplitude[0, 0] = 0
    noise = np.random.default_rng([seed, FIELDS, kind]).standard_normal((FIELDS, PERIOD, PERIOD), dtype=np.float32)
    return np.fft.irfft2(np.fft.rfft2(noise) * amplitude, s=(PERIOD, PERIOD))


@dataclass(frozen=True)
class SyntheticPair:
    """Bands as in :class:`~fusmae_lite.data.archives.base.Patch`, class names, and each pixel's class."""

    bands: dict[str, dict[str, np.ndarray]]
    labels: tuple[str, ...]
    land_cover: np.ndarray


class Scenes:
    """Draws synthetic pairs; the same (seed, index) always gives the same one, in any order and in any process.

    Args:
        seed: of the whole archive.
        lookalikes: class name -> the BEN19 class whose statistics it has; None: the 19 themselves.
        side: pixels of 10 m along a side.
        one_grid: every band at `side` pixels (SEN12MS), instead of each at its native resolution.
        truth: make known truth instead of land cover.
    """

    def __init__(
        self,
        seed: int,
        *,
        lookalikes: Mapping[str, str] | None = None,
        side: int = 120,
        one_grid: bool = False,
        truth: Truth | None = None,
    ) -> None:
        measured = load()
        self.seed, self.side, self.truth = seed, side, truth
        lookalikes = lookalikes or {name: name for name in BEN19}
        self.classes = tuple(lookalikes)
        rows = [measured["classes"][name] for name in lookalikes.values()]
        self._means = np.array([row["mean"] for row in rows])
        self._spread = np.linalg.cholesky(np.array([row["covariance"] for row in rows]) + 1e-6 * np.eye(14))
        self._levels = np.exp(np.array([row["texture_level"] for row in rows]))
        share = np.array([row["patches"] + 1.0 for row in rows])  # plus one, so that all occur
        counts = np.array(measured["labels_per_patch"][1:], dtype=float)  # of patches with 1, 2, ... classes
        self._share, self._counts = share / share.sum(), counts / counts.sum()
        self._pooled_mean = np.array(measured["pooled_mean"])
        self._pooled_spread = np.linalg.cholesky(np.array(measured["pooled_covariance"]) + 1e-6 * np.eye(14))
        self._factors = _factors(np.array(measured["texture_covariance"]))
        self._draw_fields(measured["looks"], measured["correlation_length_metres"] / 10)
        self._metres = (10,) * S2.channels if one_grid else S2.resolution
        # exp of texture with mean 0 would raise the mean by half its variance (in ln units): weight of taking that off
        unit = np.repeat([1 / TO_DB, 1.0], [2, 12])
        self._excess = -0.5 * unit * self._texture.variance * (self._factors**2).sum(axis=1)

    def _draw_fields(self, looks: float, length: float) -> None:
        """Speckle of so many looks in dB; texture of exponential correlation, outlines of Gaussian, `length` pixels."""
        power = np.random.default_rng([self.seed, FIELDS, 2]).standard_gamma(looks, (FIELDS, PERIOD, PERIOD)) / looks
        self._speckle = FieldBank(TO_DB * np.log(np.maximum(power, 1e-6)), self.side, states=8)
        fields = _shaped(self.seed, 1, lambda frequency: (1 + (frequency * length) ** 2) ** -1.5)
        cells = block_mean(fields[:, : 6 * CELL_GRID, : 6 * CELL_GRID], 6)
        self._texture = FieldBank(fields / detrend(cells).std(), self.side)  # detrended cells of deviation 1
        outline = OUTLINE if self.truth is None else TRUTH_OUTLINE
        fields = _shaped(self.seed, 0, lambda frequency: np.exp(-((frequency * outline) ** 2) / 4))
        self._outline = FieldBank(fields / fields.std(), self.side)

    def pair(self, index: int) -> SyntheticPair:
        rng = np.random.default_rng([self.seed, index])
        labels, land_cover, *layers = self._land_cover(rng) if self.truth is None else self._marks(rng, self.truth)
        images = self._see(rng, *layers)
        bands = {sensor.name: {b: images[b] for b in sensor.bands} for sensor in (S1, S2)}
        return SyntheticPair(bands, labels, land_cover)

    def _land_cover(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """Labels, map, (k, side, side) one-hot layers, (k, 14) logarithms and (k, 2) texture levels of the layers."""
        count = min(1 + int(rng.choice(len(self._counts), p=self._counts)), len(self.classes))
        drawn = rng.choice(len(self.classes), size=count, replace=False, p=self._share)
        order = np.zeros((self.side, self.side), dtype=np.int8)
        for j in range(1, count):  # the j-th class takes 1 / (j + 1) of the area from those before it
            order[self._outline.crop(rng) > NormalDist().inv_cdf(j / (j + 1))] = j
        shares = np.bincount(order.ravel(), minlength=count) / order.size
        lookup = np.where(shares < SMALLEST_SHARE, shares.argmax(), np.arange(count)).astype(np.int8)
        order = lookup[order]  # a class of a few pixels gives way, so that it needs no label
        kept = np.flatnonzero(shares >= SMALLEST_SHARE)
        offsets = np.clip(rng.standard_normal((count, 14)), -LARGEST_OFFSET, LARGEST_OFFSET)
        logs = self._means[drawn] + np.einsum("kij,kj->ki", self._spread[drawn], offsets)
        labels = tuple(self.classes[c] for c in sorted(drawn[kept]))
        layers = (order == kept.astype(np.int8)[:, None, None]).astype(np.float32)
        return labels, drawn.astype(np.int8)[order], layers, logs[kept], self._levels[drawn[kept]]

    def _marks(self, rng: np.random.Generator, truth: Truth) -> tuple[Any, ...]:
        """As :meth:`_land_cover`: one layer of background, and one for each mark that shows."""
        present, radar, optical = truth.draw(rng)
        offset = np.clip(rng.standard_normal(14), -LARGEST_OFFSET, LARGEST_OFFSET)
        layers = [np.ones((self.side, self.side), dtype=np.float32)]
        logs = [self._pooled_mean + truth.offset * self._pooled_spread @ offset]
        levels = [(1.0, 1.0)]  # the background's texture goes on under the marks
        for c, (kind, mark) in enumerate(zip(truth.kind_of(), truth.marks(), strict=True)):
            field = self._outline.crop(rng)  # drawn for every class, so that one class's fate moves no other's mark
            if not (radar[c] or optical[c]):
                continue
            area = field > np.quantile(field, 1 - MARKED_SHARE)
            areas, sign = [area], (1.0, -1.0)
            if kind == "context":
                inner, other = field > np.quantile(field, 1 - MARKED_SHARE / 2), self._outline.crop(rng)
                other = np.where(area, -np.inf, other)
                around = area & ~inner
                areas = [inner, around if present[c] else other > np.quantile(other, 1 - around.mean())]
            for place, way in zip(areas, sign, strict=False):
                layers.append(place.astype(np.float32))
                logs.append(way * mark * np.repeat([radar[c], optical[c]], [2, 12]))
                levels.append((truth.strength, truth.strength) if kind == "texture" else (0.0, 0.0))
        labels = tuple(name for name in BEN19 if name in np.array(truth.classes)[present])
        nowhere = np.zeros((self.side, self.side), dtype=np.int8)
        return labels, nowhere, np.stack(layers), np.array(logs), np.array(levels)

    def _see(
        self, rng: np.random.Generator, layers: np.ndarray, logs: np.ndarray, levels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Every band, in its stored type and side."""
        texture = np.stack([self._texture.crop(rng) for _ in range(FACTORS)])
        stacks = []
        for sensor in (0, 1):
            strength = _weighted(levels[None, :, sensor].astype(np.float32), layers)
            stacks.append(np.concatenate([layers, texture * strength, strength**2]))
        weights = np.column_stack([logs.T, self._factors, self._excess]).astype(np.float32)
        radar = _weighted(weights[:2], stacks[0])
        images = {band: image + self._speckle.crop(rng) for band, image in zip(S1.bands, radar, strict=True)}
        for metres in sorted(set(self._metres)):
            channels = [c for c in range(S2.channels) if self._metres[c] == metres]
            values = np.exp(_weighted(weights[[2 + c for c in channels]], block_mean(stacks[1], metres // 10)))
            values = np.rint(np.clip(values, 1, BRIGHTEST)).astype(np.uint16)
            images |= {S2.bands[channel]: image for channel, image in zip(channels, values, strict=True)}
        return images


def _weighted(weights: np.ndarray, stack: np.ndarray) -> np.ndarray:
    """(b, k), (k, h, w) -> (b, h, w). Not a product by BLAS, which may add in an order that depends on its threads."""
    return np.einsum("bk,khw->bhw", weights, stack)


def _factors(covariance: np.ndarray) -> np.ndarray:
    """(14, FACTORS): leading factors of the correlations, each row scaled to its band's measured deviation."""
    deviations = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(deviations, deviations))
    factors = vectors[:, -FACTORS:] * np.sqrt(values[-FACTORS:])
    return factors / np.linalg.norm(factors, axis=1, keepdims=True) * deviations[:, None]

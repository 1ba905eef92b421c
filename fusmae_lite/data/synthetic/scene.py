"""One synthetic pair from a seed and an index: a land-cover map, what two sensors see of it, speckle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.synthetic.fields import outlines, speckle, textures
from fusmae_lite.data.synthetic.statistics import TO_DB, block_mean, load
from fusmae_lite.data.synthetic.truth import Truth

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
TRUTH_OFFSET = 0.3  # between-patch deviations in truth mode, of the measured ones: marks shall stand out


@dataclass(frozen=True)
class SyntheticPair:
    """A synthetic pair.

    Args:
        bands: as :class:`~fusmae_lite.data.archives.base.Patch` has them.
        labels: class names, in the order of the scenes' classes.
        land_cover: (side, side) index of each pixel's class; all 0 in truth mode.
    """

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
        found = load()
        self.seed, self.side, self.truth = seed, side, truth
        names = lookalikes or dict(zip(BEN19, BEN19, strict=True))
        self.classes = tuple(names)
        self._rows = [found["classes"][name] for name in names.values()]
        self._means = np.array([row["mean"] for row in self._rows])
        self._spread = np.linalg.cholesky(np.array([row["covariance"] for row in self._rows]) + 1e-6 * np.eye(14))
        self._levels = np.exp(np.array([row["texture_level"] for row in self._rows]))
        self._share, self._counts = _frequencies(found, self._rows)
        self._pooled = (
            np.array(found["pooled_mean"]),
            np.linalg.cholesky(np.array(found["pooled_covariance"]) + 1e-6 * np.eye(14)),
        )
        self._factors = _factors(np.array(found["texture_covariance"]))
        self._speckle = speckle(seed, side, found["looks"])
        self._texture = textures(seed, side, found["correlation_length_metres"] / 10)
        self._outline = outlines(seed, side, OUTLINE if truth is None else TRUTH_OUTLINE)
        self._groups = _groups(one_grid)
        # exp of texture with mean 0 would raise the mean by half its variance (in ln units): weight of taking that off
        unit = np.repeat([1 / TO_DB, 1.0], [2, 12])
        self._excess = -0.5 * unit * self._texture.variance * (self._factors**2).sum(axis=1)

    def pair(self, index: int) -> SyntheticPair:
        """Pair number `index`."""
        rng = np.random.default_rng([self.seed, index])
        if self.truth is None:
            labels, land_cover, layers, logs, levels = self._land_cover(rng)
        else:
            labels, land_cover, layers, logs, levels = self._marks(rng, self.truth)
        images = self._see(rng, layers, logs, levels)
        bands = {"s1": {b: images[b] for b in S1.bands}, "s2": {b: images[b] for b in S2.bands}}
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
        mean, spread = self._pooled
        offset = np.clip(rng.standard_normal(14), -LARGEST_OFFSET, LARGEST_OFFSET)
        layers, logs = [np.ones((self.side, self.side), dtype=np.float32)], [mean + TRUTH_OFFSET * spread @ offset]
        for mark, in_radar, in_optics in zip(truth.marks(), radar, optical, strict=True):
            field = self._outline.crop(rng)  # drawn for every class, so that one class's fate moves no other's mark
            if in_radar or in_optics:
                layers.append((field > np.quantile(field, 1 - MARKED_SHARE)).astype(np.float32))
                logs.append(mark * np.repeat([in_radar, in_optics], [2, 12]))
        levels = np.zeros((len(layers), 2))
        levels[0] = 1  # the background's texture goes on under the marks
        labels = tuple(name for name in BEN19 if name in np.array(truth.classes)[present])
        return labels, np.zeros((self.side, self.side), dtype=np.int8), np.stack(layers), np.array(logs), levels

    def _see(
        self, rng: np.random.Generator, layers: np.ndarray, logs: np.ndarray, levels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Every band, in its stored type and side."""
        texture = np.stack([self._texture.crop(rng) for _ in range(FACTORS)])
        images: dict[str, np.ndarray] = {}
        stacks = []
        for sensor in (0, 1):
            strength = _weighted(levels[None, :, sensor].astype(np.float32), layers)
            stacks.append(np.concatenate([layers, texture * strength, strength**2]))
        for sensor, factor, bands, rows in self._groups:
            weights = np.column_stack([logs[:, rows].T, self._factors[rows], self._excess[rows]]).astype(np.float32)
            values = _weighted(weights, block_mean(stacks[sensor], factor))
            if sensor == 1:
                np.exp(values, out=values)
                values = np.rint(np.clip(values, 1, BRIGHTEST, out=values), out=values).astype(np.uint16)
            for image, band in zip(values, bands, strict=True):
                images[band] = image + self._speckle.crop(rng) if sensor == 0 else image
        return images


def _weighted(weights: np.ndarray, stack: np.ndarray) -> np.ndarray:
    """(b, k), (k, h, w) -> (b, h, w). Not a product by BLAS, which may add in an order that depends on its threads."""
    return np.einsum("bk,khw->bhw", weights, stack)


def _groups(one_grid: bool) -> list[tuple[int, int, tuple[str, ...], list[int]]]:
    """(0 radar or 1 optics, pixels of 10 m along a pixel, bands, their rows among the 14) of each resolution."""
    groups = [(0, 1, S1.bands, [0, 1])]
    for metres in (10,) if one_grid else sorted(set(S2.resolution)):
        channels = [c for c in range(S2.channels) if one_grid or S2.resolution[c] == metres]
        groups.append((1, metres // 10, tuple(S2.bands[c] for c in channels), [2 + c for c in channels]))
    return groups


def _frequencies(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each class (measured, plus one so that all occur) and of 1, 2, ... classes on a patch."""
    share = np.array([row["patches"] + 1.0 for row in rows])
    counts = np.array(found["labels_per_patch"][1:], dtype=float)
    return share / share.sum(), counts / counts.sum()


def _factors(covariance: np.ndarray) -> np.ndarray:
    """(14, FACTORS): leading factors of the correlations, each row scaled to its band's measured deviation."""
    deviations = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(deviations, deviations))
    factors = vectors[:, -FACTORS:] * np.sqrt(values[-FACTORS:])
    return factors / np.linalg.norm(factors, axis=1, keepdims=True) * deviations[:, None]

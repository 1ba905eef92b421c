"""What the pixels of an archive are, pair by pair: for ``fusmae doctor --check``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import track
from fusmae_lite.core.sensors import known_modality
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.archives.sample import check_archive

#: Pairs read unless all are asked for: a few seconds from GeoTIFFs.
SAMPLE = 64
#: Refusals that are printed; the others are counted.
SHOWN = 5
#: Deviations of the data set by which the mean of a band may differ from its statistics before it is pointed at.
FAR = 1.0


@dataclass
class _Seen:
    """Least and largest value of one sensor, and the sum over pairs of each band's mean."""

    low: float = np.inf
    high: float = -np.inf
    pairs: int = 0
    means: dict[str, float] = field(default_factory=dict)

    def add(self, bands: Mapping[str, np.ndarray]) -> None:
        self.low = min(self.low, *(float(array.min()) for array in bands.values()))
        self.high = max(self.high, *(float(array.max()) for array in bands.values()))
        self.pairs += 1
        for band, array in bands.items():
            self.means[band] = self.means.get(band, 0.0) + float(array.mean())


def check_up(archive: Archive, every: bool = False) -> tuple[list[str], bool]:
    """Read a sample of the pairs, or every one; lines for people, and whether all of it is as it should be."""
    drawn = np.random.default_rng(0).permutation(len(archive))
    rows = np.sort(drawn if every else drawn[:SAMPLE])
    seen: dict[str, _Seen] = {}
    refused, placed = [], []
    for row in track(rows.tolist(), "pairs"):
        try:
            patch = archive.read(row)
        except InputError as error:
            refused.append(str(error))
            continue
        placed.append(patch.crs is not None)
        for name, bands in patch.bands.items():
            seen.setdefault(name, _Seen()).add(bands)
    try:
        check_archive(archive)
    except InputError as error:
        refused.append(str(error))
    gaps = sum("no data" in text for text in refused)
    return [
        f"checked   {len(rows)} of {len(archive)} pairs: {len(refused)} refused, {gaps} of them for no data",
        *(f"          refused: {text}" for text in refused[:SHOWN]),
        *([f"          and {len(refused) - SHOWN} more"] if len(refused) > SHOWN else []),
        *(line for name, values in seen.items() for line in _about(name, values)),
        f"pairing   the sensors of {sum(placed)} of {len(placed)} pairs say where they lie, and lie in one place",
    ], not refused


def _about(name: str, seen: _Seen) -> list[str]:
    """Unit, range and means of a sensor, beside what they should be."""
    modality = known_modality(name)
    span = f"{seen.low:.6g} to {seen.high:.6g}"
    if modality is None:
        return [f"{name:<9} {span}; nobody has registered this sensor"]
    valid = "not checked" if modality.valid is None else f"plausible are {modality.valid[0]:g} to {modality.valid[1]:g}"
    means, far = [], []
    for band, expected, deviation in zip(modality.bands, modality.mean, modality.std, strict=True):
        mean = seen.means[band] / seen.pairs
        means.append(f"{band} {mean:.5g} ({expected:g})")
        if abs(mean - expected) > FAR * deviation:
            far.append(f"{band} by {abs(mean - expected) / deviation:.1f}")
    return [
        f"{name:<9} {modality.units}: {span}, {valid}",
        f"          mean of each band (and of its statistics): {', '.join(means)}",
        *([f"          further than {FAR:g} deviation from its statistics: {', '.join(far)}"] if far else []),
    ]

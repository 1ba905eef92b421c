"""What the pixels of an archive are, pair by pair: for ``fusmae doctor --check``."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd

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


def check_up(archive: Archive, every: bool = False) -> tuple[list[str], bool]:
    """Read a sample of the pairs, or every one; lines for people, and whether all of it is as it should be."""
    drawn = np.random.default_rng(0).permutation(len(archive))
    rows = np.sort(drawn if every else drawn[:SAMPLE])
    seen: dict[str, list[tuple[str, float, float, float]]] = defaultdict(list)  # band, least, mean, largest
    refused, placed = [], []
    for row in track(rows.tolist(), "pairs"):
        try:
            patch = archive.read(row)
        except InputError as error:
            refused.append(str(error))
            continue
        placed.append(patch.crs is not None)
        for name, bands in patch.bands.items():
            seen[name] += [(band, array.min(), float(array.mean()), array.max()) for band, array in bands.items()]
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


def _about(name: str, seen: list[tuple[str, float, float, float]]) -> list[str]:
    """Unit, range and means of a sensor, beside what they should be."""
    table = pd.DataFrame(seen, columns=["band", "low", "mean", "high"])
    modality, span = known_modality(name), f"{table['low'].min():.6g} to {table['high'].max():.6g}"
    if modality is None:
        return [f"{name:<9} {span}; this sensor is not registered"]
    valid = "not checked" if modality.valid is None else f"plausible are {modality.valid[0]:g} to {modality.valid[1]:g}"
    means = table.groupby("band")["mean"].mean()[list(modality.bands)]
    off = (means - list(modality.mean)).abs() / list(modality.std)
    said = (f"{band} {mean:.5g} ({usual:g})" for (band, mean), usual in zip(means.items(), modality.mean, strict=True))
    far = ", ".join(f"{band} by {deviations:.1f}" for band, deviations in off[off > FAR].items())
    return [
        f"{name:<9} {modality.units}: {span}, {valid}",
        f"          mean of each band (and of its statistics): {', '.join(said)}",
        *([f"          further than {FAR:g} deviation from its statistics: {far}"] if far else []),
    ]

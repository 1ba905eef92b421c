"""What one patch cannot tell but several can: an offset on every pixel, pictures for measurements; what all hold."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import track
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, Modality, known_modality
from fusmae_lite.data.archives.base import Archive
from fusmae_lite.data.archives.pixels import ADDED

#: Pairs looked at in a suspicious archive; a sound one shows that it is with the first.
DRAWN = 16
#: Fewer than these can all be a cloud by chance.
FEWEST = 3
#: Pairs read unless all are asked for: a few seconds from GeoTIFFs.
SAMPLE = 64
#: Refusals that are printed; the others are counted.
SHOWN = 5
#: Deviations of the data set by which the mean of a band may differ from its statistics before it is pointed at.
FAR = 1.0
#: Unit, a look that every band of a sound pair may have, but never all pairs of an archive, what it tells, the cure.
_SUSPICIONS = [
    (REFLECTANCE, lambda band: band.min() >= 0.9 * ADDED,
     f"no pixel of any band is below {0.9 * ADDED:g}: that looks like the {ADDED} that is added from processing "
     "baseline 04.00 on", f"subtract {ADDED} (clip at 0), or declare the offset -{ADDED} in the files"),
    (REFLECTANCE, lambda band: band.max() <= 255,
     "no pixel of any band is above 255: that looks like pictures of 8 bits",
     f"take the bands of the product itself, {REFLECTANCE}"),
    (DECIBEL, lambda band: not -45 <= band.mean() <= -3,
     "the mean of no band lies between -45 and -3 dB, where radar images lie",
     "convert the archive to decibels: 10 * log10(power)"),
]  # fmt: skip


def check_archive(archive: Archive, modalities: Sequence[str] = ("s1", "s2")) -> None:
    """InputError where every one of some pairs, drawn by a fixed seed, looks as if it were in another unit.

    Looks once at an archive and remembers it there. A pair that cannot be read is passed over.
    """
    done: set[str] = archive.__dict__.setdefault("_sampled", set())
    drawn = np.random.default_rng(0).choice(len(archive), min(DRAWN, len(archive)), replace=False)
    for name in modalities:
        modality = known_modality(name)
        if name in done or modality is None or modality.valid is None:
            continue
        refuse_suspicious(modality, _readable(archive, name, drawn.tolist()), str(archive.root), "pairs")
        done.add(name)


def _readable(archive: Archive, name: str, rows: Sequence[int]) -> Iterator[Mapping[str, np.ndarray]]:
    for row in rows:
        with suppress(InputError):
            yield archive.read(row, [name]).bands[name]


def refuse_suspicious(modality: Modality, drawn: Iterable[Mapping[str, np.ndarray]], where: str, what: str) -> None:
    """InputError where each of some images, band -> pixels, looks as if it were in another unit; `what` they are."""
    suspicions, seen = [row[1:] for row in _SUSPICIONS if row[0] == modality.units], 0
    for bands in drawn if suspicions else ():
        suspicions = [suspicion for suspicion in suspicions if all(map(suspicion[0], bands.values()))]
        seen += 1
        if not suspicions:
            return
    if suspicions and seen >= FEWEST:
        _, look, cure = suspicions[0]
        raise InputError(f"{where}: {modality.title} in each of {seen} {what} drawn: {look}", cure)


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

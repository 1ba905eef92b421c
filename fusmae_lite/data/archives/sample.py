"""What one patch cannot tell but several can: an offset on every pixel, pictures in place of measurements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, Modality, known_modality
from fusmae_lite.data.archives.base import Archive
from fusmae_lite.data.archives.pixels import ADDED

#: Pairs looked at in a suspicious archive; a sound one shows that it is with the first.
DRAWN = 16
#: Fewer than these can all be a cloud by chance.
FEWEST = 3
#: Units -> looks that every band of a sound pair may have, but never all pairs of an archive: test, what, cure.
_SUSPICIONS = {
    REFLECTANCE: (
        (
            lambda band: band.min() >= 0.9 * ADDED,
            f"no pixel of any band is below {0.9 * ADDED:g}: that looks like the {ADDED} that is added from processing "
            "baseline 04.00 on",
            f"subtract {ADDED} (clip at 0), or declare the offset -{ADDED} in the files",
        ),
        (
            lambda band: band.max() <= 255,
            "no pixel of any band is above 255: that looks like pictures of 8 bits",
            f"take the bands of the product itself, {REFLECTANCE}",
        ),
    ),
    DECIBEL: (
        (
            lambda band: not -45 <= band.mean() <= -3,
            "the mean of no band lies between -45 and -3 dB, where radar images lie",
            "convert the archive to decibels: 10 * log10(power)",
        ),
    ),
}


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
    suspicions, seen = _SUSPICIONS.get(modality.units, ()), 0
    for bands in drawn if suspicions else ():
        suspicions = [suspicion for suspicion in suspicions if all(map(suspicion[0], bands.values()))]
        seen += 1
        if not suspicions:
            return
    if suspicions and seen >= FEWEST:
        _, look, cure = suspicions[0]
        raise InputError(f"{where}: {modality.title} in each of {seen} {what} drawn: {look}", cure)

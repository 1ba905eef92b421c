"""What one patch cannot tell but several can: an offset on every pixel, pictures in place of measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, known_modality
from fusmae_lite.data.archives.base import Archive
from fusmae_lite.data.archives.pixels import ADDED

#: Pairs looked at in a suspicious archive; a sound one shows that it is with the first.
DRAWN = 16
#: Fewer than these can all be a cloud by chance.
FEWEST = 3


@dataclass(frozen=True)
class _Suspicion:
    """A look that a sound pair may have, but never all pairs of an archive."""

    fits: Callable[[Sequence[np.ndarray]], bool]
    what: str
    cure: str


_SUSPICIONS = {
    REFLECTANCE: (
        _Suspicion(
            lambda bands: all(band.min() >= 0.9 * ADDED for band in bands),
            f"no pixel of any band is below {0.9 * ADDED:g}: that looks like the {ADDED} that is added from processing "
            "baseline 04.00 on",
            f"subtract {ADDED} (clip at 0), or declare the offset -{ADDED} in the files",
        ),
        _Suspicion(
            lambda bands: all(band.max() <= 255 for band in bands),
            "no pixel of any band is above 255: that looks like pictures of 8 bits",
            f"take the bands of the product itself, {REFLECTANCE}",
        ),
    ),
    DECIBEL: (
        _Suspicion(
            lambda bands: all(not -45 <= band.mean() <= -3 for band in bands),
            "the mean of no band lies between -45 and -3 dB, where radar images lie",
            "convert the archive to decibels: 10 * log10(power)",
        ),
    ),
}


def check_archive(archive: Archive, modalities: Sequence[str] = ("s1", "s2")) -> None:
    """Raise InputError where every one of some pairs, drawn by a fixed seed, looks as if it were in another unit.

    Looks once at an archive and remembers it there. A pair that cannot be read is left to whoever needs it.
    """
    done: set[str] = archive.__dict__.setdefault("_sampled", set())
    for name in modalities:
        modality = known_modality(name)
        if name in done or modality is None or modality.valid is None:
            continue
        suspicions, seen = _SUSPICIONS.get(modality.units, ()), 0
        for bands in _drawn(archive, name):
            suspicions = [suspicion for suspicion in suspicions if suspicion.fits(list(bands.values()))]
            seen += 1
            if not suspicions:
                break
        if suspicions and seen >= FEWEST:
            what = f"{archive.root}: {modality.title} in each of {seen} pairs drawn: {suspicions[0].what}"
            raise InputError(what, suspicions[0].cure)
        done.add(name)


def _drawn(archive: Archive, modality: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Bands of pairs drawn from the whole archive."""
    pairs = len(archive.names)
    rows = np.random.default_rng(0).choice(pairs, min(DRAWN, pairs), replace=False)
    for row in rows.tolist():
        try:
            yield archive.read(row, [modality]).bands[modality]
        except InputError:
            continue

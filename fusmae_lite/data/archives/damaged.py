"""``partial=True``: what is damaged inside is found by reading it, once and before anything counts on it."""

from __future__ import annotations

import time

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import duration, interactive, line, track
from fusmae_lite.data.archives.base import Archive

#: Pairs after which the time is told, and the time (seconds) that is worth telling.
_TIMED, _LONG = 32, 30


def leave_out_damaged(archive: Archive) -> None:
    """Read every pair once (GeoTIFFs 50 a second, an LMDB thousands) and leave out those that cannot be read.

    A run cannot do that on its way: its batches and steps follow from the number of pairs. `left_out` tells of them.

    Raises:
        InputError: no pair can be read.
    """
    reasons: dict[int, str] = {}
    started, pairs = time.monotonic(), len(archive)
    for row in track(range(pairs), "partial: reading every pair"):
        try:
            archive.read(row)
        except InputError as error:
            reasons[row] = str(error)
        left = (time.monotonic() - started) / _TIMED * (pairs - _TIMED)
        if row + 1 == _TIMED and left > _LONG and not interactive():
            line(
                f"partial: reads all {pairs} pairs once, in about {duration(left)}, to leave out what is damaged; "
                "`fusmae encode --partial` does so for good"
            )
    if len(reasons) == pairs:
        raise InputError(f"{archive.root}: no pair can be read, first {reasons[0]}", "mend the archive")
    if reasons:
        archive.left_out = (*archive.left_out, *((archive.names[row], why) for row, why in reasons.items()))
        whole = np.ones(pairs, dtype=bool)
        whole[list(reasons)] = False
        archive.keep(whole)

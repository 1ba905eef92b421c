"""Fingerprints of pairs, by content and not by name, that every job keeps beside its results.

Of a few pairs (the bundled 84) every file is read, so that a copy is the same and nothing else is. Of many, sizes and
times of all files count and a drawn sample is read; a table by ``fusmae encode`` has checksums instead.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import known_modality
from fusmae_lite.data.archives.base import Archive
from fusmae_lite.data.archives.metadata import TableArchive

if TYPE_CHECKING:
    from fusmae_lite.data.pairs import PairDataset

#: Raised whenever reading or resampling gives other pixels for the same files.
READING = 2
#: Pairs of one sensor are read whole up to so many files and bytes.
WHOLE_FILES, WHOLE_BYTES = 4096, 2**28
#: Pairs that are read of more than that.
DRAWN = 256


def identity(
    archive: Archive, rows: Sequence[int] | np.ndarray | None = None, sensors: Sequence[str] = (), **more: Any
) -> str:
    """Fingerprint of some pairs: ``content``, or ``content.times`` where only a sample was read.

    It covers `rows` in their order (None: all, and their splits), bands, statistics and units of the sensors
    (by default all), and whatever `more` the result depends on, for example the size of the images.
    """
    chosen = np.arange(len(archive)) if rows is None else np.asarray(rows, dtype=np.int64)
    parts = [_of_sensor(archive, chosen, name) for name in sensors or archive.keys(0)]
    return _joined(archive, chosen, parts, splits=archive.splits.tolist() if rows is None else None, **more)


def identity_of(dataset: "PairDataset", sensors: Sequence[str] = ()) -> str:
    """:func:`identity` of a data set as some sensors show it; files are looked at once, when first asked."""
    parts: dict[str, tuple[str, str]] = dataset.__dict__.setdefault("_identities", {})
    names = [modality.name for modality in dataset.modalities if not sensors or modality.name in sensors]
    for name in names:
        if name not in parts:
            parts[name] = _of_sensor(dataset.archive, dataset.indices, name)
    more = {"size": dataset.size, "normalise": dataset.normalise}
    return _joined(dataset.archive, dataset.indices, [parts[name] for name in names], sensors=names, **more)


def difference(then: str, now: str) -> tuple[str, str] | None:
    """What has happened to pairs between two fingerprints and what to do about it, in words; None if nothing."""
    if then == now:
        return None
    if "." in then and then.partition(".")[0] == now.partition(".")[0]:
        return (
            "the files of its pairs have other times than then, which a change of pixels and a copy both explain",
            "copy them with their times (cp -a, rsync -a), or encode them: an LMDB is known by its checksums",
        )
    return "its pairs are others, or have changed since", "restore them"


def signature(archive: Archive, row: int) -> int:
    """What tells cheaply whether one pair may have changed: a CRC-32 of its files' sizes and times, labels and meta."""
    meta = {n: str(v).lower() if isinstance(v, bool) else v for n, v in archive.meta(row).items()}  # "true", as in text
    crc = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    if isinstance(archive, TableArchive):
        crc = zlib.crc32(archive.labels[row].tobytes(), crc)
    for name in archive.keys(row):
        sums, paths = archive.stored_crc32(name), archive.files(row, name) or [archive.store]
        facts = [sums[row]] if sums is not None else [_stat(path) for path in paths if path]
        crc = zlib.crc32(repr([name, *facts]).encode(), crc)
    return crc


@lru_cache(maxsize=1)
def package(folder: Path = Path(__file__).parents[1]) -> str:
    """Fingerprint of this package: code, presets, statistics and weights."""
    kinds = (".py", ".toml", ".json", ".safetensors")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in kinds]
    return digest(*(path.relative_to(folder).as_posix().encode() + path.read_bytes() for path in files))


def digest(*parts: bytes) -> str:
    """A short SHA-256."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:24]


def _joined(archive: Archive, rows: np.ndarray, parts: Sequence[tuple[str, str]], **more: Any) -> str:
    contents, times = zip(*parts, strict=True)
    facts = {"reading": READING, "classes": archive.classes, "contents": contents, **more}
    labels = archive.labels[rows].tobytes() if isinstance(archive, TableArchive) else b""  # else in files
    names = "\n".join(archive.names[row] for row in rows.tolist())
    content = digest(json.dumps(facts, default=str).encode(), labels, names.encode())
    return f"{content}.{digest(*(time.encode() for time in times))}" if any(times) else content


def _of_sensor(archive: Archive, rows: np.ndarray, name: str) -> tuple[str, str]:
    """(content, times) of one sensor's side of the pairs; no times unless they stand for the content."""
    content, times = hashlib.sha256(), hashlib.sha256()
    modality = known_modality(name)
    content.update(json.dumps([name, modality and asdict(modality)]).encode())
    files = archive.files(int(rows[0]), name) if len(rows) else []
    size = sum(_stat(path)[0] for path in files)
    few = len(rows) * len(files) <= WHOLE_FILES and len(rows) * size <= WHOLE_BYTES if files else len(rows) <= DRAWN
    sums = None if few else archive.stored_crc32(name)
    timed = not few and sums is None
    if timed:
        paths = (path for row in rows.tolist() for path in archive.files(row, name))
        for path in paths if archive.store is None else [archive.store]:
            size, changed, _ = _stat(path)
            content.update(b"%d " % size)
            times.update(b"%d " % changed)
    elif sums is not None:
        content.update(sums[rows].tobytes())
    drawn = rows if few else np.random.default_rng(0).choice(rows, min(DRAWN, len(rows)), replace=False)
    for row in drawn.tolist():
        content.update(b"%d " % _crc(archive, row, name))
    return content.hexdigest(), times.hexdigest() if timed else ""


def _stat(path: str) -> tuple[int, int, int]:
    """Size, time of the last change, and that of the entry, which no program can set; a missing file is told later."""
    try:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns
    except OSError:
        return -1, 0, 0


def _crc(archive: Archive, row: int, name: str) -> int:
    """CRC-32 of the files of one sensor's side of a pair or, where it has none of its own, of its pixels."""
    crc = 0
    try:
        files = archive.files(row, name)
        for path in files:
            crc = zlib.crc32(Path(path).read_bytes(), crc)
        for array in () if files else archive.read(row, [name]).bands[name].values():
            crc = zlib.crc32(np.ascontiguousarray(array), crc)
    except (OSError, InputError) as error:  # told when it is read
        crc = zlib.crc32(str(error).encode(), crc)
    return crc

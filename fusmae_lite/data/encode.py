"""``fusmae encode``: any archive -> an LMDB of safetensors that is read at the speed of memory.

Decoding runs in as many processes as there are processors, one process writes. What is committed survives a kill.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.locks import LOCK, only_job
from fusmae_lite.core.progress import duration, interactive, line, track
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.archives.base import SYNTHETIC, is_synthetic
from fusmae_lite.data.archives.lmdb_env import DATA, release
from fusmae_lite.data.archives.lmdb_store import JOURNAL, SOURCE, LmdbArchive
from fusmae_lite.data.archives.metadata import METADATA
from fusmae_lite.data.archives.sample import check_archive
from fusmae_lite.data.archives.tensors import Layout
from fusmae_lite.data.decode import Decoded, decoded, layout_of
from fusmae_lite.data.encode_journal import SKIPPED, Journal, checksums, read_skipped, write_skipped, write_table
from fusmae_lite.data.identity import signature

#: Pairs per commit; each commit is flushed to the disk.
BATCH = 128
_SECONDS_BETWEEN_LINES = 30


@dataclass(frozen=True)
class Encoded:
    """What an encode did: pairs in the archive, how many were there before, what was left out and why."""

    folder: Path
    pairs: int
    kept: int
    skipped: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    seconds: float
    partial: bool = False


def encode(source: Archive, destination: Path | str, *, workers: int | None = None, partial: bool = False) -> Encoded:
    """Write every pair of an archive into an LMDB that :class:`LmdbArchive` opens.

    Args:
        source: any archive.
        destination: a folder that does not exist, is empty, or holds an unfinished encode of the same archive.
        workers: processes that decode; 0 decodes in this one; None takes all processors.
        partial: patches that cannot be read are no reason to come back. Without it the journal stays, so that the
            same call tries them again once they are mended.

    Returns:
        What was done; ``skipped`` are the patches that could not be read.

    Raises:
        InputError: the destination is finished, is used otherwise, is held by another job, or lies in the source (or
            around it).
        RunError: the disk is full, a decoding process died, a value on disk is not what was written.
    """
    started = time.perf_counter()
    folder = _destination(Path(destination), source)
    check_archive(source)
    layout = _layout(source)
    release(folder)
    with only_job(folder):
        _destination(folder, source)  # another may have finished it while this one looked at the archive
        return _encode(source, folder, layout, workers, partial, started)


def _encode(
    source: Archive, folder: Path, layout: dict[str, Layout], workers: int | None, partial: bool, started: float
) -> Encoded:
    try:
        journal = Journal(folder, _identity(source))
        with contextlib.closing(_Store(folder)) as store:
            kept = _still_there(source, journal, store)
            skipped = _write_all(source, journal, store, layout, workers)
            rows = [row for row, name in enumerate(source.names) if name in journal]
            if not rows:
                raise InputError(f"{source.root}: no patch can be read, first {skipped[0][1]}", "mend the archive")
            _compare(store.env, checksums(journal, source, rows), folder, 2 * len(rows))
        write_skipped(folder, (*skipped, *source.left_out))
        if is_synthetic(source.root):  # what is synthetic stays marked as such
            write_text(folder / SYNTHETIC, (source.root / SYNTHETIC).read_text(encoding="utf-8"))
        write_table(folder, source, journal, rows, layout)
        journal.close(remove=partial or not skipped)
    except (OSError, lmdb.Error) as error:
        raise _disk(folder, error) from None
    return Encoded(folder, len(rows), kept, tuple(skipped), source.left_out, time.perf_counter() - started, partial)


def verify(folder: Path | str) -> int:
    """Read every value of a finished encode and compare it with its checksum; returns the number of pairs.

    Raises:
        InputError: no archive by ``fusmae encode``.
        RunError: a value differs.
    """
    archive = LmdbArchive(folder)
    sums = archive.checksums()
    release(archive.folder)
    with contextlib.closing(_Store(archive.folder, readonly=True)) as store:
        _compare(store.env, sums, archive.folder, len(archive) * len(archive.keys(0)))
    return len(archive)


def compare(folder: Path | str, source: Archive, workers: int | None = None) -> None:
    """Make sure that an encode is still what its source would give; decodes only pairs whose files look changed.

    Raises:
        InputError: no archive by ``fusmae encode``.
        RunError: pairs of the source have changed, gone or come since; names the first.
    """
    archive = LmdbArchive(folder)
    sums = {name: archive.stored_crc32(name) for name in archive.keys(0)}
    noted = archive.table.rest[SOURCE].to_pylist() if SOURCE in archive.table.rest else [None] * len(archive)
    rows = {name: row for row, name in enumerate(source.names)}
    index = {name: row for row, name in enumerate(archive.names)}
    odd = [name for name in index if name not in rows]
    left_out = read_skipped(archive.folder)
    odd += [name for name in rows if name not in index and name not in left_out]
    suspects = [row for name, row in rows.items() if name in index and noted[index[name]] != signature(source, row)]
    for record, _ in track(decoded(source, archive.layouts, suspects, workers), "compare", len(suspects)):
        i = index[record["name"]]
        kept = {name: int(column[i]) for name, column in sums.items() if column is not None}
        labels = {name for name, there in zip(archive.classes, archive.labels[i], strict=True) if there}
        if record.get("crc32") != kept or set(record["labels"]) != labels or record["meta"] != archive.meta(i):
            odd.append(record["name"])
    if odd:
        raise RunError(
            f"{source.root} has changed since {folder} was encoded from it: {len(odd)} pairs differ, first {odd[0]}; "
            "encode it into another folder"
        )


def finished(destination: Path | str) -> bool:
    """Whether a folder holds a whole archive and nothing is left to do."""
    folder = Path(destination).expanduser()
    return (folder / METADATA).is_file() and (folder / DATA).is_file() and not (folder / JOURNAL).is_file()


def report(done: Encoded) -> str:
    """A few lines for people: pairs, rate, what is not in it and why."""
    new = done.pairs - done.kept
    lines = [
        f"{done.pairs} pairs in {done.folder} ({done.kept} were there before), written and verified in "
        f"{duration(done.seconds)}, {new / done.seconds:.0f} pairs a second"
    ]
    left_out = done.left_out + done.skipped
    if done.partial and left_out:
        lines.append(f"{len(left_out)} were left out, first {left_out[0][1]}")
    elif done.left_out:
        lines.append(f"{len(done.left_out)} were not taken from the source, first {done.left_out[0][1]}")
    if done.skipped and not done.partial:
        lines.append(f"{len(done.skipped)} could not be read, first {done.skipped[0][1]}")
        lines.append("mend them and run the same command to add them, or accept it with --partial")
    if left_out:
        lines.append(f"all of them with reasons: {done.folder / SKIPPED}")
    return "\n".join(lines)


class _Store:
    """The environment being written; its map grows by itself."""

    def __init__(self, folder: Path, readonly: bool = False) -> None:
        size = max(2**26, 2 * (folder / DATA).stat().st_size if (folder / DATA).is_file() else 0)
        # no lock file of LMDB's: ours keeps a second writer away
        self.env = lmdb.open(str(folder), map_size=size, lock=False, readahead=False, readonly=readonly)
        self.close = self.env.close

    def write(self, items: Sequence[tuple[str, bytes]]) -> None:
        """All of them or none."""
        while True:
            try:
                with self.env.begin(write=True) as transaction:
                    for key, value in items:
                        transaction.put(key.encode(), value)
                return
            except lmdb.MapFullError:
                self.env.set_mapsize(2 * self.env.info()["map_size"])


def _destination(destination: Path, source: Archive) -> Path:
    folder, root = destination.expanduser().resolve(), source.root.resolve()
    if folder == root or root in folder.parents or folder in root.parents:
        raise InputError(f"{destination} lies in the archive {source.root} or around it", "choose a folder elsewhere")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{destination} is a file", "choose a folder")
    if not folder.is_dir() or (folder / JOURNAL).is_file():
        return folder
    if finished(folder):
        raise InputError(
            f"{destination} is an encoded archive already", "choose another folder, or check this one with --verify"
        )
    if any(entry.name != LOCK for entry in folder.iterdir()):
        raise InputError(f"{destination} is not empty and not from an encode", "choose an empty folder")
    return folder


def _identity(source: Archive) -> dict[str, Any]:
    """What a journal must agree on to be continued: the format and the names (not the path: disks move)."""
    names = hashlib.sha256("\n".join(source.names).encode()).hexdigest()
    return {"kind": source.kind, "pairs": len(source), "names": names}


def _layout(source: Archive) -> dict[str, Layout]:
    """Modality -> band -> (side, dtype), from the first patch that can be read."""
    first = None
    for index in range(len(source)):
        try:
            bands = source.read(index).bands
        except InputError as error:
            first = first or error
            continue
        return layout_of(bands)
    raise InputError(f"{source.root}: no patch can be read", f"mend the archive, first: {first}")


def _still_there(source: Archive, journal: Journal, store: _Store) -> int:
    """Forget journal lines whose values were not committed or whose source has changed; returns how many are done."""
    with store.env.begin() as transaction, transaction.cursor() as cursor:
        there = set(cursor.iternext(keys=True, values=False))
    changed = 0
    for row, name in enumerate(source.names):
        if name in journal and not all(key.encode() in there for key in source.keys(row).values()):
            journal.forget(name)
        elif name in journal and journal.source(name) != signature(source, row):
            journal.forget(name)
            changed += 1
    if changed:
        line(f"{changed} pairs may have changed since they were encoded: they are encoded again")
    return sum(name in journal for name in source.names)


def _write_all(
    source: Archive, journal: Journal, store: _Store, layout: dict[str, Layout], workers: int | None
) -> list[tuple[str, str]]:
    """Decode and commit what is not in the journal; returns (name, reason) of patches that cannot be read."""
    # neighbours in name are neighbours in the tree and on disk
    rows = sorted((row for row, name in enumerate(source.names) if name not in journal), key=source.names.__getitem__)
    skipped: list[tuple[str, str]] = []
    records: list[dict[str, Any]] = []
    items: list[tuple[str, bytes]] = []
    with contextlib.closing(decoded(source, layout, rows, workers)) as patches:
        for record, values in _told(track(patches, "encode", len(rows)), len(rows), skipped):
            if "reason" in record:
                skipped.append((record["name"], record["reason"]))
                continue
            records.append(record)
            items += values.items()
            if len(records) == BATCH:
                _commit(journal, store, records, items)
        _commit(journal, store, records, items)
    return skipped


def _commit(journal: Journal, store: _Store, records: list[dict[str, Any]], items: list[tuple[str, bytes]]) -> None:
    """The journal first: a value without its line would be unknown, a line without its value is decoded again."""
    if records:
        journal.append(records)
        store.write(items)
        records.clear()
        items.clear()


def _told(patches: Iterable[Decoded], total: int, skipped: Sequence[object]) -> Iterator[Decoded]:
    """Pass patches on; where no bar moves, print a line now and then."""
    started = last = time.monotonic()
    for number, patch in enumerate(patches, 1):
        yield patch
        if not interactive() and time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            rate = number / (last - started)
            line(
                f"{number} of {total} pairs, {rate:.0f} a second, {duration((total - number) / rate)} to go, "
                f"{len(skipped)} skipped"
            )


def _compare(env: lmdb.Environment, sums: Iterable[tuple[str, int]], folder: Path, total: int) -> None:
    """Read every value back and compare its CRC-32 with that of what was written."""
    with env.begin(buffers=True) as transaction:
        for key, crc in track(sums, "verify", total):
            value = transaction.get(key.encode())
            if value is None or zlib.crc32(value) != crc:
                raise RunError(
                    f"{folder / DATA}: {key} is not what was written; the disk may be failing: delete the folder and "
                    "encode onto another"
                )


def _disk(folder: Path, error: Exception) -> RunError:
    return RunError(
        f"{folder} cannot be written ({error}); free space or mend it, then run the same command: "
        "what was committed is kept"
    )

"""``fusmae encode``: any archive -> an LMDB of safetensors that is read at the speed of memory.

Many processes decode, one writes. A commit holds some pairs and the record of each, its row of the table: a pair with a
record is done, whatever is killed and when. At the end the table is made of the records, and they go.
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import duration, followed, line
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.archives.base import SYNTHETIC, is_synthetic
from fusmae_lite.data.archives.lmdb_store import CHECKSUM, DATA, JOURNAL, RECORD, SOURCE, release
from fusmae_lite.data.archives.pixels import Layout
from fusmae_lite.data.archives.sample import check_archive
from fusmae_lite.data.encoded import SKIPPED, decode, finished, layout_of, verify_values, write_skipped, write_table
from fusmae_lite.data.identity import digest, signature
from fusmae_lite.data.loader import each

#: Pairs per commit; each commit is flushed to the disk.
BATCH = 128


@dataclass(frozen=True)
class Encoded:
    """Pairs in the archive, how many were there before, (name, reason) of what was left out."""

    folder: Path
    pairs: int
    kept: int
    skipped: tuple[tuple[str, str], ...]  # could not be read
    left_out: tuple[tuple[str, str], ...]  # by the source itself
    seconds: float
    partial: bool = False

    def __str__(self) -> str:
        rate = (self.pairs - self.kept) / self.seconds
        lines = [
            f"{self.pairs} pairs in {self.folder} ({self.kept} were there before), written and verified in "
            f"{duration(self.seconds)}, {rate:.0f} pairs a second"
        ]
        if left_out := self.left_out + (self.skipped if self.partial else ()):
            lines.append(f"{len(left_out)} were left out, first {left_out[0][1]}")
        if self.skipped and not self.partial:
            lines.append(f"{len(self.skipped)} could not be read, first {self.skipped[0][1]}")
            lines.append("mend them and run the same command to add them, or accept it with --partial")
        if self.left_out or self.skipped:
            lines.append(f"all of them with reasons: {self.folder / SKIPPED}")
        return "\n".join(lines)


def encode(source: Archive, destination: Path | str, *, workers: int | None = None, partial: bool = False) -> Encoded:
    """Write every pair of an archive into an LMDB that :class:`LmdbArchive` opens.

    Args:
        source: any archive.
        destination: a folder that does not exist, is empty, or holds an unfinished encode of the same archive.
        workers: processes that decode; 0 decodes in this one; None takes all processors.
        partial: be done without the patches that cannot be read; otherwise the same call tries them again later.

    Raises:
        InputError: the destination is finished, is used otherwise, is held by another job, or lies in the source (or
            around it).
        RunError: the disk is full, a decoding process died, a value on disk is not what was written.
    """
    started = time.perf_counter()
    folder = Path(destination).expanduser().resolve()
    _check_free(folder, source)
    check_archive(source)
    _check_keys(source)
    layouts = _layouts(source)
    release(folder)
    with only_job(folder):
        _check_free(folder, source)  # another job may have finished it meanwhile
        try:
            _begin(folder / JOURNAL, source)
            with contextlib.closing(_Store(folder)) as store:
                done = _done(source, store)
                # neighbours in name are neighbours in the tree and on disk
                left = sorted(set(range(len(source))) - done, key=source.names.__getitem__)
                skipped = _write_pairs(source, left, layouts, store, workers)
                rows = [row for row in range(len(source)) if row not in skipped]
                reasons = tuple((source.names[row], reason) for row, reason in skipped.items())
                if not rows:
                    raise InputError(f"{source.root}: no patch can be read, first {reasons[0][1]}", "mend the archive")
                sums = (
                    (key, store.record(source.names[row])[CHECKSUM + modality])
                    for row in rows
                    for modality, key in source.keys(row).items()
                )
                verify_values(store.env, sums, folder, len(rows) * len(layouts))
                write_skipped(folder, (*reasons, *source.left_out))
                if is_synthetic(source.root):  # what is synthetic stays marked as such
                    write_text(folder / SYNTHETIC, (source.root / SYNTHETIC).read_text(encoding="utf-8"))
                write_table(folder, source, store.record, rows, layouts)
                if partial or not skipped:
                    store.write(dict.fromkeys(RECORD + source.names[row] for row in rows))
                    (folder / JOURNAL).unlink()
        except (OSError, lmdb.Error) as error:
            raise RunError(
                f"{folder} cannot be written ({error}); free space or mend it, then run the same command: "
                "what was committed is kept"
            ) from None
    return Encoded(folder, len(rows), len(done), reasons, source.left_out, time.perf_counter() - started, partial)


class _Store:
    """An environment being written; its map grows by itself."""

    def __init__(self, folder: Path) -> None:
        data = folder / DATA
        size = max(2**26, 2 * data.stat().st_size if data.is_file() else 0)
        try:  # no lock file of LMDB's: ours keeps a second writer away
            self.env = lmdb.open(str(folder), map_size=size, lock=False, readahead=False)
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
            raise InputError(f"{data} cannot be continued ({error})", "encode into another folder") from None
        self.close = self.env.close

    def write(self, items: Mapping[str, bytes | None]) -> None:
        """All of them or none; None removes a key."""
        while True:
            try:
                with self.env.begin(write=True) as transaction:
                    for key, value in items.items():
                        transaction.delete(key.encode()) if value is None else transaction.put(key.encode(), value)
                return
            except lmdb.MapFullError:
                self.env.set_mapsize(2 * self.env.info()["map_size"])

    def record(self, name: str) -> Any:
        """That of a pair; None if it has none."""
        with self.env.begin() as transaction:
            return json.loads(transaction.get((RECORD + name).encode(), b"null"))


def _begin(journal: Path, source: Archive) -> None:
    """Note what the folder is of; InputError if it was begun from another archive."""
    begun = digest(json.dumps([source.kind, *source.names]).encode())  # not from which path: disks move
    if not journal.is_file():
        write_text(journal, begun)
    elif journal.read_bytes() != begun.encode():
        raise InputError(f"{journal} was begun from another archive", "choose an empty folder")


def _done(source: Archive, store: _Store) -> set[int]:
    """Rows that are committed and whose source has not changed since."""
    records = {row: record for row, name in enumerate(source.names) if (record := store.record(name))}
    done = {row for row, record in records.items() if record[SOURCE] == signature(source, row)}
    if changed := len(records) - len(done):
        line(f"{changed} pairs may have changed since they were encoded: they are encoded again")
    return done


def _write_pairs(
    source: Archive, rows: Sequence[int], layouts: Mapping[str, Layout], store: _Store, workers: int | None
) -> dict[int, str]:
    """Decode and commit; returns row -> reason of patches that cannot be read."""
    skipped: dict[int, str] = {}
    items: dict[str, bytes | None] = {}
    with contextlib.closing(each(decode, (source, layouts), rows, workers)) as decoded:
        pairs = followed(zip(rows, decoded, strict=True), "encode", len(rows))
        for number, (row, (record, values)) in enumerate(pairs, 1):
            if "reason" in record:
                skipped[row] = record["reason"]
                values, record = dict.fromkeys(source.keys(row).values()), None  # what an earlier try left
            items |= values | {RECORD + source.names[row]: record and json.dumps(record).encode()}
            if number % BATCH == 0 or number == len(rows):
                store.write(items)
                items.clear()
    return skipped


def _check_keys(source: Archive) -> None:
    """InputError if two sensors of a pair share a key: one would overwrite the other."""
    for row, name in enumerate(source.names):
        keys = source.keys(row)
        if len(set(keys.values())) < len(keys):
            named = ", ".join(f"{modality} {key!r}" for modality, key in keys.items())
            what = f"{type(source).__name__}: sensors of {name} share a key ({named})"
            raise InputError(what, "name each sensor of a pair differently in its columns or keys")


def _layouts(source: Archive) -> dict[str, Layout]:
    """The layout of the first patch that can be read."""
    first = None
    for row in range(len(source)):
        try:
            return layout_of(source.read(row).bands)
        except InputError as error:
            first = first or error
    raise InputError(f"{source.root}: no patch can be read", f"mend the archive, first: {first}")


def _check_free(folder: Path, source: Archive) -> None:
    """InputError unless the folder is free or an unfinished encode."""
    root = source.root.resolve()
    if folder == root or root in folder.parents or folder in root.parents:
        raise InputError(f"{folder} lies in the archive {source.root} or around it", "choose a folder elsewhere")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", "choose a folder")
    if finished(folder):
        cure = "choose another folder, or check this one with --verify"
        raise InputError(f"{folder} is an encoded archive already", cure)
    if folder.is_dir() and not (folder / JOURNAL).is_file() and any(e.name[0] != "." for e in folder.iterdir()):
        raise InputError(f"{folder} is not empty and not from an encode", "choose an empty folder")

"""What an encode knows about its own progress: one JSON line per patch, and the table it becomes in the end."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import parse_object, write_text, write_whole
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.archives.lmdb_store import CHECKSUM, CRS, EDGES, JOURNAL, SOURCE
from fusmae_lite.data.archives.metadata import METADATA, NOTE

SKIPPED = "skipped.csv"
_ROWS_AT_ONCE = 4096
_OFFICIAL = {"val": "validation"}


class Journal:
    """An append-only file beside the data: which patches are done and what is known of them.

    A line reaches the disk before the values it speaks of are committed, so every committed key has its line; lines
    whose keys were not committed are dropped by the caller. Only where a line starts is kept in memory.

    Args:
        folder: the destination.
        header: identifies the source; a journal of another source is refused.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self.path = folder / JOURNAL
        self.meta_fields: dict[str, None] = {}  # an ordered set
        self._start: dict[str, int] = {}
        self._source: dict[str, int | None] = {}
        self._file = open(self.path, "ab+")  # noqa: SIM115  (open as long as the encode runs)
        self._load(dict(header))
        if self.path.stat().st_size == 0:
            self.append([header])

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add lines and flush them to the disk."""
        at = self._file.seek(0, os.SEEK_END)
        lines = [json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records]
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        for record, line in zip(records, lines, strict=True):
            self._note(record, at)
            at += len(line)

    def __contains__(self, name: str) -> bool:
        return name in self._start

    def __getitem__(self, name: str) -> dict[str, Any]:
        self._file.seek(self._start[name])
        return json.loads(self._file.readline())

    def source(self, name: str) -> int | None:
        """The signature of a patch that is done, as it was when it was decoded."""
        return self._source[name]

    def forget(self, name: str) -> None:
        """Treat a patch as not done."""
        self._start.pop(name, None)

    def close(self, remove: bool = False) -> None:
        """Let go of the file, and delete it if nothing is left to do."""
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _load(self, header: dict[str, Any]) -> None:
        self._file.seek(0)
        at = 0
        for number, line in enumerate(self._file):
            try:
                record = parse_object(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            if record is None:  # the line a kill cut short, and whatever follows it
                self._file.truncate(at)
                break
            if number == 0 and record != header:
                raise InputError(f"{self.path.parent} was begun from another archive", "choose an empty folder")
            self._note(record, at)
            at += len(line)

    def _note(self, record: Mapping[str, Any], at: int) -> None:
        if "name" in record:
            self._start[record["name"]] = at
            self._source[record["name"]] = record.get("source")
            self.meta_fields.update(dict.fromkeys(record["meta"]))


def write_table(
    folder: Path, source: Archive, journal: Journal, rows: Sequence[int], layout: Mapping[str, Any]
) -> None:
    """metadata.parquet from the journal, in the order of the source, under a temporary name first.

    Columns: patch_id, labels, split as reBEN spells it, the source's own, the name of each key, crs, left, bottom,
    right, top, what tells whether the source has changed, and a CRC-32 for each key. The file's metadata note what an
    archive of it offers.
    """
    keys = {m: "patch_id" if key == source.names[rows[0]] else f"{m}_name" for m, key in source.keys(rows[0]).items()}
    note = {"kind": source.kind, "classes": source.classes, "keys": keys, "bands": layout}
    fixed = {"patch_id", "split", *keys.values()}
    schema = pa.schema(
        [("patch_id", pa.string()), ("labels", pa.list_(pa.string())), ("split", pa.string())]
        + [(column, pa.string()) for column in keys.values() if column != "patch_id"]
        + [(field, _kind(field)) for field in journal.meta_fields if field not in fixed]
        + [(CRS, pa.string()), *((edge, pa.float64()) for edge in EDGES), (SOURCE, pa.uint32())]
        + [(CHECKSUM + modality, pa.uint32()) for modality in keys],
        metadata={NOTE: json.dumps(note)},
    )

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for first in range(0, len(rows), _ROWS_AT_ONCE):
                records = [_as_row(journal[source.names[row]], keys) for row in rows[first : first + _ROWS_AT_ONCE]]
                writer.write_table(pa.Table.from_pylist(records, schema=schema))

    write_whole(folder / METADATA, write)


def write_skipped(folder: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """skipped.csv: name and reason of what is not in the archive; no file if everything is."""
    if not skipped:
        with contextlib.suppress(FileNotFoundError):
            (folder / SKIPPED).unlink()
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("name", "reason"), *skipped])
    write_text(folder / SKIPPED, text.getvalue())


def read_skipped(folder: Path) -> set[str]:
    """Names in skipped.csv."""
    if not (folder / SKIPPED).is_file():
        return set()
    with open(folder / SKIPPED, encoding="utf-8", newline="") as file:
        return {row["name"] for row in csv.DictReader(file)}


def checksums(journal: Journal, source: Archive, rows: Sequence[int]) -> Iterator[tuple[str, int]]:
    """(key, CRC-32) of everything that was written."""
    for row in rows:
        crc = journal[source.names[row]]["crc32"]
        yield from ((key, crc[modality]) for modality, key in source.keys(row).items())


def _as_row(record: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    meta = {field: text == "true" if _kind(field) == pa.bool_() else text for field, text in record["meta"].items()}
    return {
        **meta,
        **{column: record["keys"][modality] for modality, column in keys.items()},
        "patch_id": record["name"],
        "labels": record["labels"],
        "split": _OFFICIAL.get(meta["split"], meta["split"]),
        CRS: record["crs"],
        SOURCE: record["source"],
        **dict(zip(EDGES, record["bounds"] or [None] * 4, strict=True)),
        **{CHECKSUM + modality: crc for modality, crc in record["crc32"].items()},
    }


def _kind(field: str) -> pa.DataType:
    """Columns that are true or false in reBEN's table stay so; everything else is text."""
    return pa.bool_() if field.startswith("contains_") else pa.string()

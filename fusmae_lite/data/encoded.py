"""What an encode stores of a pair, the table of all and the list of those left out; checks that nothing has changed."""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import write_text, write_whole
from fusmae_lite.core.progress import track
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.archives.lmdb_store import (
    CHECKSUM,
    CRS,
    DATA,
    EDGES,
    JOURNAL,
    SOURCE,
    LmdbArchive,
    environment,
)
from fusmae_lite.data.archives.metadata import METADATA, NOTE
from fusmae_lite.data.archives.pixels import Layout, pack
from fusmae_lite.data.identity import signature
from fusmae_lite.data.loader import each

SKIPPED = "skipped.csv"
_ROWS_AT_ONCE = 4096


def decode(shared: tuple[Archive, Mapping[str, Layout]], row: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record of a pair, and key -> safetensors bytes; of one that cannot be read a record of the reason alone.

    The record is its row of metadata.parquet: the source's own columns, patch_id, the name of each other key, labels,
    split as reBEN spells it, crs, left, bottom, right, top, the source's signature, and a CRC-32 for each key.
    """
    source, layouts = shared
    name, keys = source.names[row], source.keys(row)
    state = signature(source, row)  # before it is read: what changes now is seen later
    try:
        patch = source.read(row)
        if layout_of(patch.bands) != layouts:
            raise InputError(f"{name}: other bands, sizes or types than the archive's first patch", "encode it apart")
    except InputError as error:
        return {"reason": str(error)}, {}
    values = {modality: pack(bands) for modality, bands in patch.bands.items()}
    record = {
        **patch.meta,
        **{column: keys[modality] for modality, column in _key_columns(source, row).items()},
        "patch_id": name,
        "labels": [label for label in source.classes if label in patch.labels],
        "split": "validation" if patch.meta["split"] == "val" else patch.meta["split"],
        CRS: patch.crs,
        SOURCE: state,
        **dict(zip(EDGES, patch.bounds or [None] * 4, strict=True)),
        **{CHECKSUM + modality: zlib.crc32(value) for modality, value in values.items()},
    }
    return record, {keys[modality]: value for modality, value in values.items()}


def layout_of(bands: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Layout]:
    """Modality -> band -> (side, dtype)."""
    return {m: {b: (array.shape[0], array.dtype.name) for b, array in arrays.items()} for m, arrays in bands.items()}


def _key_columns(source: Archive, row: int) -> dict[str, str]:
    """Modality -> column of its keys."""
    return {m: "patch_id" if key == source.names[row] else f"{m}_name" for m, key in source.keys(row).items()}


def write_table(
    folder: Path,
    source: Archive,
    record: Callable[[str], dict[str, Any]],
    rows: Sequence[int],
    layouts: Mapping[str, Layout],
) -> None:
    """metadata.parquet from the records of some rows; the file's metadata note what an archive of it offers."""
    names, columns = [source.names[row] for row in rows], _key_columns(source, rows[0])
    first = dict.fromkeys(("patch_id", *columns.values()), pa.string())
    first |= {"labels": pa.list_(pa.string()), "split": pa.string()}
    last = {CRS: pa.string(), **dict.fromkeys(EDGES, pa.float64()), SOURCE: pa.uint32()}
    last |= {CHECKSUM + modality: pa.uint32() for modality in columns}
    own: dict[str, pa.DataType] = {}
    for field, fact in (item for name in names for item in record(name).items()):
        own.setdefault(field, pa.bool_() if isinstance(fact, bool) else pa.string())
    types = first | {field: kind for field, kind in own.items() if field not in first | last} | last
    note = {"kind": source.kind, "classes": source.classes, "keys": columns, "bands": layouts}
    schema = pa.schema(list(types.items()), metadata={NOTE: json.dumps(note)})

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for start in range(0, len(names), _ROWS_AT_ONCE):
                part = [record(name) for name in names[start : start + _ROWS_AT_ONCE]]
                writer.write_table(pa.Table.from_pylist(part, schema=schema))

    write_whole(folder / METADATA, write)


def write_skipped(folder: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """skipped.csv: name and reason of what is not in the archive; no file if everything is."""
    if skipped:
        table = pd.DataFrame(skipped, columns=["name", "reason"])
        write_text(folder / SKIPPED, table.to_csv(index=False, lineterminator="\n"))
    else:
        (folder / SKIPPED).unlink(missing_ok=True)


def finished(destination: Path | str) -> bool:
    """Whether a folder holds a whole archive and nothing is left to do."""
    folder = Path(destination).expanduser()
    return (folder / METADATA).is_file() and (folder / DATA).is_file() and not (folder / JOURNAL).is_file()


def verify(folder: Path | str) -> int:
    """Read every value of a finished encode and compare it with its checksum; returns the number of pairs.

    Raises:
        InputError: no archive by ``fusmae encode``.
        RunError: a value differs.
    """
    archive = LmdbArchive(folder)
    verify_values(environment(archive.folder), archive.checksums(), archive.folder, len(archive) * len(archive.layouts))
    return len(archive)


def verify_values(env: lmdb.Environment, sums: Iterable[tuple[str, int]], folder: Path, total: int) -> None:
    """RunError unless every value has its CRC-32."""
    with env.begin(buffers=True) as transaction:
        for key, crc in track(sums, "verify", total):
            value = transaction.get(key.encode())
            if value is None or zlib.crc32(value) != crc:
                raise RunError(
                    f"{folder / DATA}: {key} is not what was written; the disk may be failing: delete the folder and "
                    "encode onto another"
                )


def compare(folder: Path | str, source: Archive, workers: int | None = None) -> None:
    """Make sure that an encode is still what its source would give; decodes only pairs whose files look changed.

    Raises:
        InputError: no archive by ``fusmae encode``.
        RunError: pairs of the source have changed, gone or come since; names the first.
    """
    archive = LmdbArchive(folder)
    signatures = archive.rest[SOURCE].to_pylist() if SOURCE in archive.rest else [None] * len(archive)
    encoded = {name: i for i, name in enumerate(archive.names)}
    path = archive.folder / SKIPPED
    skipped = set(pd.read_csv(path, dtype=str, keep_default_na=False)["name"]) if path.is_file() else set()
    different = sorted(encoded.keys() - set(source.names), key=encoded.get)
    different += [name for name in source.names if name not in encoded and name not in skipped]
    shared = [(row, encoded[name]) for row, name in enumerate(source.names) if name in encoded]
    suspects = [(row, i) for row, i in shared if signatures[i] != signature(source, row)]
    records = each(decode, (source, archive.layouts), [row for row, _ in suspects], workers)
    for (row, i), (record, _) in zip(suspects, track(records, "compare", len(suspects)), strict=True):
        if {**record, SOURCE: 0} != {**decode((archive, archive.layouts), i)[0], SOURCE: 0}:
            different.append(source.names[row])
    if different:
        raise RunError(
            f"{source.root} has changed since {folder} was encoded from it: {len(different)} pairs differ, first "
            f"{different[0]}; encode it into another folder"
        )

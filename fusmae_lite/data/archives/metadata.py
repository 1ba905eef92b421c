"""metadata.parquet: one row per pair, as reBEN publishes it and as ``fusmae encode`` writes it.

Half a million rows are handled as columns; nothing here loops over them in Python.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.listing import require_file, unopened
from fusmae_lite.data.archives.names import refuse_duplicates

METADATA = "metadata.parquet"
#: The second table of reBEN: patches its authors set apart.
SNOW = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
#: Key under which ``fusmae encode`` describes the archive in the file's own metadata.
NOTE = b"fusmae-lite"

_AGAIN = "download the table again"
#: What pyarrow says to a damaged file.
_DAMAGED = (OSError, pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError)
#: Beyond any archive of pairs; a made file that claims more would only fill the memory.
_MOST_ROWS, _MOST_CLASSES, _LARGEST_SIDE = 20_000_000, 10_000, 10_000
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


@dataclass(frozen=True)
class Metadata:
    """The rows of one or two tables."""

    names: tuple[str, ...]  # column patch_id, each once
    splits: np.ndarray  # (n,) of "train", "val", "test" or ""
    labels: np.ndarray  # (n, n_classes) bool
    rest: dict[str, pa.Array]  # every further column of text, numbers or days
    where: str  # the file, or files, for messages
    keys: dict[str, list[str]]  # the columns that name files or keys, each name once

    def row(self, index: int, names: Sequence[str] | None = None) -> dict[str, str]:
        """Further columns (all, or those named) of one row as text, without those that are empty there."""
        values = ((name, self.rest[name][index].as_py()) for name in (self.rest if names is None else names))
        return {name: _as_text(value) for name, value in values if value is not None}

    def take(self, rows: np.ndarray) -> Metadata:
        """Only the rows of a (n,) bool mask."""
        names = tuple(compress(self.names, rows))
        rest = {name: column.filter(pa.array(rows)) for name, column in self.rest.items()}
        keys = {name: list(compress(texts, rows)) for name, texts in self.keys.items()}
        return Metadata(names, self.splits[rows], self.labels[rows], rest, self.where, keys)


def read_metadata(
    path: Path,
    classes: Sequence[str],
    *,
    second: Path | None = None,
    keys: Sequence[str] = ("s1_name",),
    no_split: bool = False,
) -> Metadata:
    """Read and check one table, or two as one: the rows of the `second` come after the first's.

    `classes` are in the order of the columns of `labels`, `keys` the columns beside patch_id that name files or keys:
    text, no name twice. With `no_split` an empty split is legal.

    Raises:
        InputError: not readable, a column missing, empty cells, a name twice, an unknown label or split.
    """
    wanted = ("patch_id", "labels", "split", *keys)
    columns, where = _columns(path, wanted), str(path)
    if second is not None:
        columns = _append(columns, _columns(second, wanted), path, second)
        where = f"{path} with {second.name}"
    named = dict.fromkeys(("patch_id", *keys))
    names = {key: typed(columns[key], key, pa.string(), where).to_pylist() for key in named}
    for key, column in names.items():
        refuse_duplicates(column, where, key)
    labels = _label_matrix(typed(columns.pop("labels"), "labels", pa.list_(pa.string()), where), classes, where)
    splits = _SPLITS | ({"": ""} if no_split else {})
    split = typed(columns.pop("split"), "split", pa.string(), where)
    codes = _codes(split, list(splits), where, "split", "none of train, validation, test")
    del columns["patch_id"]
    rest = {name: column for name, column in columns.items() if _is_plain(column.type)}
    parts = np.array(list(splits.values()), dtype="<U5")[codes]
    return Metadata(tuple(names["patch_id"]), parts, labels, rest, where, names)


def read_reben_table(folder: Path, snow_and_clouds: bool, table: Path | None = None) -> Metadata:
    """The official table in a folder, with the rows of the second one if they are asked for."""
    second = folder / SNOW if snow_and_clouds else None
    if second:
        require_file(second, f"put {SNOW} there, or leave snow_and_clouds out")
    return read_metadata(table or folder / METADATA, BEN19, second=second)


def read_names(path: Path) -> set[str]:
    """Every patch_id and s1_name of a table: names whose files are known although their rows are not used."""
    columns = _columns(path, ("patch_id", "s1_name"), only=True)
    return {text for name, column in columns.items() for text in typed(column, name, pa.string(), path).to_pylist()}


def read_note(path: Path) -> dict[str, Any] | None:
    """What ``fusmae encode`` noted in a table about the archive behind it; None in a table from elsewhere."""
    require_file(path, f"put {path.name} of the archive there")
    try:
        text = (pq.read_schema(path).metadata or {}).get(NOTE)
    except _DAMAGED as error:
        raise _unreadable(path, error) from None
    if text is None:
        return None
    try:
        note = json.loads(text)
        _check_note(note["classes"], note["keys"], note["bands"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged note by `fusmae encode` ({type(error).__name__}: {_first_line(error)})",
            "copy the table again, or encode the archive again",
        ) from None
    return note


def _check_note(classes: list[str], keys: dict[str, str], bands: dict[str, dict[str, Sequence[Any]]]) -> None:
    """Raise ValueError and the like unless it says what an archive offers, in sizes that a patch can have."""
    if not (0 < len(classes) == len(set(classes)) <= _MOST_CLASSES and all(type(name) is str for name in classes)):
        raise ValueError("classes are no list of different names")
    if not keys or keys.keys() != bands.keys() or not all(type(column) is str for column in keys.values()):
        raise ValueError("keys and bands are of other sensors")
    for band, (side, dtype) in (item for sensor in bands.values() for item in sensor.items()):
        np.dtype(dtype)
        if type(side) is not int or not 0 < side <= _LARGEST_SIDE:
            raise ValueError(f"band {band} of {side} pixels")
    if not all(bands.values()):
        raise ValueError("a sensor without bands")


def _columns(path: Path, wanted: Sequence[str], only: bool = False) -> dict[str, pa.Array]:
    """Each column as one array, ten times as quick to take a row from as a chunked one; texts as plain texts."""
    require_file(path, f"put {path.name} of the archive there")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in wanted if name not in names]:
                raise InputError(f"{path}: no column {', '.join(missing)}", f"{_AGAIN}, or add it")
            refuse_duplicates(names, path, "column", "keep one of them")
            if file.metadata.num_rows > _MOST_ROWS:
                raise InputError(f"{path}: {file.metadata.num_rows} rows, at most {_MOST_ROWS}", _AGAIN)
            table = file.read(columns=list(wanted) if only else None)
        table.validate(full=True)
        table = table.unify_dictionaries()
        return {name: _simple(table.column(name).combine_chunks()) for name in table.column_names}
    except InputError:
        raise
    except _DAMAGED as error:
        raise _unreadable(path, error) from None


def _simple(column: pa.Array) -> pa.Array:
    """Categories become what they stand for, long texts and days texts; everything else stays."""
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = column.type
    if pa.types.is_timestamp(kind):  # a zone that the system lacks must not matter
        return column.cast(pa.timestamp(kind.unit)).cast(pa.string())
    texts = (pa.types.is_large_string, pa.types.is_string_view, pa.types.is_date)
    return column.cast(pa.string()) if any(test(kind) for test in texts) else column


def _is_plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    return any(test(kind) for test in tests)


def _append(first: dict[str, pa.Array], second: dict[str, pa.Array], path: Path, more: Path) -> dict[str, pa.Array]:
    if unshared := sorted(first.keys() ^ second.keys()):
        raise InputError(f"{more}: only one of it and {path} has column {unshared[0]}", "download both again")
    try:
        return {name: pa.concat_arrays([column, second[name].cast(column.type)]) for name, column in first.items()}
    except _DAMAGED as error:
        raise InputError(f"{more}: does not fit {path} ({_first_line(error)})", "download both again") from None


def typed(column: pa.Array, name: str, kind: pa.DataType, where: object, nulls: bool = False) -> pa.Array:
    """The column in this type, without empty cells unless `nulls` are legal; InputError where it cannot be."""
    try:
        column = column.cast(kind)
    except _DAMAGED:
        raise InputError(f"{where}: column {name} holds {column.type}, expected {kind}", _AGAIN) from None
    if column.null_count and not nulls:
        raise InputError(f"{where}: column {name} is empty in {column.null_count} rows", f"fill it in, or {_AGAIN}")
    return column


def _label_matrix(column: pa.ListArray, classes: Sequence[str], where: object) -> np.ndarray:
    """List of names per row -> (n, n_classes) bool."""
    expected = f"none of the {len(classes)} classes ({classes[0]}, ...)"
    codes = _codes(column.flatten(), classes, where, "label", expected)
    rows = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy(zero_copy_only=False))
    table = np.zeros((len(column), len(classes)), dtype=bool)
    table[rows, codes] = True
    return table


def _codes(column: pa.Array, known: Sequence[str], where: object, what: str, expected: str) -> np.ndarray:
    """Place of each text among the known ones; InputError for any other."""
    codes = pc.index_in(column, value_set=pa.array(known, pa.string()))
    if codes.null_count:
        text = column.filter(codes.is_null())[0].as_py()
        raise InputError(f"{where}: {what} {text!r} is {expected}", f"correct the spelling, or {_AGAIN}")
    return codes.to_numpy(zero_copy_only=False)


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__


def _unreadable(path: Path, error: Exception) -> InputError:
    return unopened(path) or InputError(f"{path}: no readable parquet table ({_first_line(error)})", _AGAIN)

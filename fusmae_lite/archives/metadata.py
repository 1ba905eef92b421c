"""metadata.parquet: one row per pair, as reBEN publishes it and as ``fusmae encode`` writes it.

Half a million rows are handled as columns; nothing here loops over them in Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fusmae_lite.archives.base import SPLITS, Archive
from fusmae_lite.archives.names import refuse_duplicates
from fusmae_lite.errors import InputError

METADATA = "metadata.parquet"
#: The second table of reBEN: patches its authors set apart.
SNOW = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
#: Key under which ``fusmae encode`` describes the archive in the file's own metadata.
NOTE = b"fusmae-lite"

_AGAIN = "download the table again"
_OFFICIAL = {"train": "train", "validation": "val", "val": "val", "test": "test"}


@dataclass(frozen=True)
class Metadata:
    """The rows of one or two tables.

    Args:
        names: column patch_id, each once.
        splits: (n,) of ``"train"``, ``"val"``, ``"test"`` or ``""``.
        labels: (n, n_classes) bool.
        rest: every further column.
        where: the file, or files, for messages.
    """

    names: tuple[str, ...]
    splits: np.ndarray
    labels: np.ndarray
    rest: dict[str, pa.Array]
    where: str

    def column(self, name: str) -> list[Any]:
        """A further column as a list."""
        return _texts(self.rest[name], name, self.where)

    def row(self, index: int, names: Sequence[str] | None = None) -> dict[str, str]:
        """Further columns (all, or those named) of one row as text, without those that are empty (null) there."""
        values = ((name, self.rest[name][index].as_py()) for name in (self.rest if names is None else names))
        return {name: _as_text(value) for name, value in values if value is not None}

    def take(self, rows: np.ndarray) -> Metadata:
        """Only the rows of a (n,) bool mask."""
        if rows.all():
            return self
        names = tuple(compress(self.names, rows))
        rest = {name: column.filter(pa.array(rows)) for name, column in self.rest.items()}
        return Metadata(names, self.splits[rows], self.labels[rows], rest, self.where)


class TableArchive(Archive):
    """An archive whose labels and splits are columns of its `table`."""

    table: Metadata

    @property
    def labels(self) -> np.ndarray:
        """(len, n_classes) bool in the order of `classes`, from the table."""
        return self.table.labels

    @cached_property
    def splits(self) -> np.ndarray:  # type: ignore[override]
        """(len,) of ``"train"``, ``"val"``, ``"test"`` or ``""``, from the table."""
        return self.table.splits


def read_metadata(
    path: Path,
    classes: Sequence[str],
    *,
    second: Path | None = None,
    keys: Sequence[str] = ("s1_name",),
    no_split: bool = False,
) -> Metadata:
    """Read and check one table, or two as one.

    Args:
        path: the table.
        classes: label names, in the order of the columns of `labels`.
        second: a further table whose rows come after the first's.
        keys: columns beside patch_id that name files or keys: text, no name twice.
        no_split: an empty split is legal.

    Raises:
        InputError: not readable, a column missing, empty cells, a name twice, an unknown label or split.
    """
    wanted = ("patch_id", "labels", "split", *keys)
    columns, where = _columns(_read_table(path, wanted)), str(path)
    if second is not None:
        columns = _join(columns, _columns(_read_table(second, wanted)), path, second)
        where = f"{path} with {second.name}"
    for key in dict.fromkeys(("patch_id", *keys)):
        refuse_duplicates(_texts(columns[key], key, where), where, key)
    labels = _label_matrix(_typed(columns.pop("labels"), "labels", pa.list_(pa.string()), where), classes, where)
    splits = _split_column(_typed(columns.pop("split"), "split", pa.string(), where), no_split, where)
    names = tuple(_texts(columns.pop("patch_id"), "patch_id", where))
    return Metadata(names, splits, labels, columns, where)


def read_names(path: Path) -> set[str]:
    """Every patch_id and s1_name of a table: names whose files are known although their rows are not used."""
    columns = _columns(_read_table(path, ("patch_id", "s1_name"), only=True))
    return {text for name, column in columns.items() for text in _texts(column, name, path)}


def read_note(path: Path) -> dict[str, Any] | None:
    """What ``fusmae encode`` noted in a table about the archive behind it; None in a table from elsewhere."""
    try:
        note = (pq.read_schema(path).metadata or {}).get(NOTE)
        return None if note is None else dict(json.loads(note))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from None


def _read_table(path: Path, wanted: Sequence[str], only: bool = False) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path} is missing", f"put {path.name} of the archive there")
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in wanted if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}", f"{_AGAIN}, or add it")
            table = file.read(columns=list(wanted) if only else None)
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    return table


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    """Each column as one array: ten times as quick to take a row from as a chunked one."""
    return {name: pa.concat_arrays(table.column(name).chunks or [pa.array([])]) for name in table.column_names}


def _join(first: dict[str, pa.Array], second: dict[str, pa.Array], path: Path, more: Path) -> dict[str, pa.Array]:
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))[0]
        raise InputError(f"{more}: only one of it and {path} has column {odd}", "download both again")
    try:
        return {name: pa.concat_arrays([first[name], second[name]]) for name in first}
    except pa.ArrowException as error:
        raise InputError(f"{more}: does not fit {path} ({_first_line(error)})", "download both again") from None


def _typed(column: pa.Array, name: str, kind: pa.DataType, where: object) -> pa.Array:
    """The column in this type, without empty cells."""
    try:
        column = column if column.type == kind else column.cast(kind)
    except pa.ArrowException:
        raise InputError(f"{where}: column {name} holds {column.type}, expected {kind}", _AGAIN) from None
    if column.null_count:
        raise InputError(f"{where}: column {name} is empty in {column.null_count} rows", f"fill it in, or {_AGAIN}")
    return column


def _texts(column: pa.Array, name: str, where: object) -> list[str]:
    return _typed(column, name, pa.string(), where).to_pylist()


def _label_matrix(column: pa.ListArray, classes: Sequence[str], where: object) -> np.ndarray:
    """List of names per row -> (n, n_classes) bool."""
    flat = column.flatten()
    codes = pc.index_in(flat, value_set=pa.array(classes, pa.string()))
    if codes.null_count:
        odd = flat.filter(codes.is_null())[0].as_py()
        raise InputError(
            f"{where}: label {odd!r} is none of the {len(classes)} classes ({classes[0]}, ...)",
            f"correct the spelling, or {_AGAIN}",
        )
    rows = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy(zero_copy_only=False))
    table = np.zeros((len(column), len(classes)), dtype=bool)
    table[rows, codes.to_numpy(zero_copy_only=False)] = True
    return table


def _split_column(column: pa.Array, no_split: bool, where: object) -> np.ndarray:
    """Official split names -> (n,) of SPLITS or ``""``."""
    encoded = column.dictionary_encode()
    known: Mapping[str, str] = {**_OFFICIAL, **({"": ""} if no_split else {})}
    values = encoded.dictionary.to_pylist()
    odd = [value for value in values if value not in known]
    if odd:
        raise InputError(f"{where}: split {odd[0]!r} is none of train, validation, test", f"correct it, or {_AGAIN}")
    names = np.array([known[value] for value in values] or [""], dtype=f"<U{max(map(len, SPLITS))}")
    return names[encoded.indices.to_numpy(zero_copy_only=False)]


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, PermissionError):
        return InputError(f"{path}: no permission to read it", "correct the permissions (chmod a+r)")
    return InputError(f"{path}: no readable parquet table ({_first_line(error)})", _AGAIN)

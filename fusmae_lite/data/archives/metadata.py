"""metadata.parquet: one row per pair, as reBEN publishes it and as ``fusmae encode`` writes it; no loop over rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError, model_validator

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives.base import Archive, without_row
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.names import refuse_duplicates, require_file, told_by, told_if_unreadable

METADATA = "metadata.parquet"
#: The second table of reBEN: patches its authors set apart.
SNOW = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
#: Key under which ``fusmae encode`` describes the archive in the file's own metadata.
NOTE = b"fusmae-lite"
_AGAIN = "download the table again"
#: What pyarrow says to a damaged file.
_DAMAGED = (OSError, pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError)
#: Beyond any archive of pairs; a made file that claims more would only fill the memory.
_MOST_ROWS = 20_000_000
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
#: Types of further columns that are kept.
_PLAIN = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
#: rico-hdl also writes the land-cover map of a patch; nothing here reads it.
_MAP = "_reference_map"


_Side = Annotated[int, Field(gt=0, le=10_000)]  # in pixels
_Dtype = Annotated[str, Field(pattern="^(bool|(u?int|float)[0-9]{1,2})$")]


class Note(BaseModel, strict=True):
    """What ``fusmae encode`` notes of an archive, in sizes that a patch can have."""

    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)]
    keys: Annotated[dict[str, str], Field(min_length=1)]  # modality -> column of its keys
    bands: dict[str, Annotated[dict[str, tuple[_Side, _Dtype]], Field(min_length=1)]]  # modality -> band -> its form

    @model_validator(mode="after")
    def _fits(self) -> "Note":
        if self.keys.keys() != self.bands.keys() or len(set(self.classes)) < len(self.classes):
            raise ValueError("keys and bands are of other sensors, or a class occurs twice")
        return self


@dataclass(frozen=True)
class Metadata:
    """The rows of one or two tables."""

    names: tuple[str, ...]  # column patch_id, each once
    splits: np.ndarray  # (n,) of "train", "val", "test" or ""
    labels: np.ndarray  # (n, n_classes) bool
    rest: dict[str, pa.Array]  # every further column of text, numbers or days
    where: str  # the file, or files, for messages
    keys: dict[str, list[str]]  # the columns that name files or keys, each name once


class TableArchive(Archive):
    """Pairs whose labels, splits and names are columns of a table."""

    labels: np.ndarray = None  # type: ignore[assignment]  # (len, n_classes) bool
    where: str  # the table, for messages

    def _labels_of(self, index: int) -> tuple[str, ...]:
        return tuple(compress(self.classes, self.labels[index]))

    def _take(self, table: Metadata, on_disk: Mapping[str, set[str]], folder: Path, reason: str, partial: bool) -> None:
        """The rows of the `table` that are whole; `columns` are set.

        Files of a second table in `folder` may lie on disk without a row; others are refused for the `reason`.
        """
        self.names, self.splits, self.labels, self.rest = table.names, table.splits, table.labels, table.rest
        self.where, columns = table.where, self.columns
        self._join(on_disk, self.where, partial)
        strays, cure = without_row(columns, on_disk), "download the tables again, remove the files"
        if not (folder / SNOW).is_file():
            cure = f"if it is one of the snowy or cloudy patches, put {SNOW} there"
        elif strays:
            second = read_columns(folder / SNOW, ("patch_id", "s1_name"), only=True)
            spared = {text for name in second for text in typed(second[name], name, pa.string(), SNOW).to_pylist()}
            strays = {name: strays[name] for name in strays.keys() - spared}
        strays = {name: modality for name, modality in strays.items() if not name.endswith(_MAP)}
        self._refuse_strays(strays, reason, f"{cure}, or open with partial=True to leave it out", partial)
        if not self.names:
            cure = "complete the archive, or encode it again"
            raise InputError(f"{self.root} holds no patch that its table knows", cure)


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
    text, no name twice. With `no_split` an empty split is legal. InputError for whatever else is missing or unknown.
    """
    wanted = ("patch_id", "labels", "split", *keys)
    columns, where = read_columns(path, wanted), str(path)
    if second is not None:
        columns = _append(columns, read_columns(second, wanted), path, second)
        where = f"{path} with {second.name}"
    names = {}
    for key in dict.fromkeys(("patch_id", *keys)):
        names[key] = typed(columns[key], key, pa.string(), where).to_pylist()
        refuse_duplicates(names[key], where, key)
    label = typed(columns.pop("labels"), "labels", pa.list_(pa.string()), where)
    expected = f"none of the {len(classes)} classes ({classes[0]}, ...)"
    labels = np.zeros((len(label), len(classes)), dtype=bool)
    rows = np.repeat(np.arange(len(label)), pc.list_value_length(label).to_numpy(zero_copy_only=False))
    labels[rows, _codes(label.flatten(), classes, where, "label", expected)] = True
    splits = _SPLITS | ({"": ""} if no_split else {})
    split = typed(columns.pop("split"), "split", pa.string(), where)
    codes = _codes(split, list(splits), where, "split", "none of train, validation, test")
    parts = np.array(list(splits.values()), dtype="<U5")[codes]
    del columns["patch_id"]
    plain = {name: column for name, column in columns.items() if any(test(column.type) for test in _PLAIN)}
    rest = {name: column for name, column in plain.items() if not name.startswith("__index_level_")}  # pandas' own
    return Metadata(tuple(names["patch_id"]), parts, labels, rest, where, names)


def read_reben_table(folder: Path, snow_and_clouds: bool, table: Path | None = None) -> Metadata:
    """The official table in a folder, with the rows of the second one if they are asked for."""
    if snow_and_clouds:
        require_file(folder / SNOW, f"put {SNOW} there, or leave snow_and_clouds out")
    read = read_metadata(table or folder / METADATA, BEN19, second=folder / SNOW if snow_and_clouds else None)
    return replace(read, rest=told_by(read.keys["s1_name"], read.names) | read.rest)


def read_note(path: Path) -> Note | None:
    """What ``fusmae encode`` noted in a table about the archive behind it; None in a table from elsewhere."""
    require_file(path, f"put {path.name} of the archive there")
    with told_if_unreadable(path, "parquet table", _AGAIN, *_DAMAGED):
        text = (pq.read_schema(path).metadata or {}).get(NOTE)
    try:
        return None if text is None else Note.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{path}: damaged note by `fusmae encode` ({'.'.join(map(str, first['loc']))} {first['msg']})"
        raise InputError(what, "copy the table again, or encode the archive again") from None


def typed(column: pa.Array, name: str, kind: pa.DataType, where: object, nulls: bool = False) -> pa.Array:
    """The column in this type, without empty cells unless `nulls` are legal; InputError where it cannot be."""
    try:
        column = column.cast(kind)
    except _DAMAGED:
        raise InputError(f"{where}: column {name} holds {column.type}, expected {kind}", _AGAIN) from None
    if column.null_count and not nulls:
        raise InputError(f"{where}: column {name} is empty in {column.null_count} rows", f"fill it in, or {_AGAIN}")
    return column


def read_columns(path: Path, wanted: Sequence[str], only: bool = False) -> dict[str, pa.Array]:
    """Each column as one array, ten times as quick to take a row from as a chunked one; texts as plain texts."""
    require_file(path, f"put {path.name} of the archive there")
    with told_if_unreadable(path, "parquet table", _AGAIN, *_DAMAGED):
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


def _simple(column: pa.Array) -> pa.Array:
    """Categories become what they stand for, long texts and days texts; everything else stays."""
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = column.type
    if pa.types.is_timestamp(kind):  # a zone that the system lacks must not matter
        return column.cast(pa.timestamp(kind.unit)).cast(pa.string())
    texts = (pa.types.is_large_string, pa.types.is_string_view, pa.types.is_date)
    return column.cast(pa.string()) if any(test(kind) for test in texts) else column


def _append(first: dict[str, pa.Array], second: dict[str, pa.Array], path: Path, more: Path) -> dict[str, pa.Array]:
    if unshared := sorted(first.keys() ^ second.keys()):
        raise InputError(f"{more}: only one of it and {path} has column {unshared[0]}", "download both again")
    try:
        return {name: pa.concat_arrays([column, second[name].cast(column.type)]) for name, column in first.items()}
    except _DAMAGED as error:
        raise InputError(f"{more}: does not fit {path} ({error})", "download both again") from None


def _codes(column: pa.Array, texts: Sequence[str], where: object, what: str, expected: str) -> np.ndarray:
    """Place of each cell among the texts; InputError for any other."""
    codes = pc.index_in(column, value_set=pa.array(texts, pa.string()))
    if codes.null_count:
        text = column.filter(codes.is_null())[0].as_py()
        raise InputError(f"{where}: {what} {text!r} is {expected}", f"correct the spelling, or {_AGAIN}")
    return codes.to_numpy(zero_copy_only=False)

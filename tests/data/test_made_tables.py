"""Tables that nobody would write by hand: each is refused in one line, or simply works where its meaning is clear."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_archives import MAKERS, refused

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.archives.metadata import METADATA, NOTE

BIG = 1e38
#: What a column may hold instead: (what, values of n rows).
COLUMNS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "large texts": lambda c: c.cast(
        pa.large_list(pa.large_string()) if pa.types.is_list(c.type) else pa.large_string()
    ),
    "categories": lambda c: (
        pa.ListArray.from_arrays(c.offsets, c.values.dictionary_encode())
        if pa.types.is_list(c.type)
        else c.dictionary_encode()
    ),
    "views of texts": lambda c: c if pa.types.is_list(c.type) else c.cast(pa.string()).cast(pa.string_view()),
    "bytes": lambda c: pa.array([str(value).encode() for value in c.to_pylist()]),
    "bytes that are no text": lambda c: pa.array([b"\xff\xfe"] * len(c)),
    "whole numbers": lambda c: pa.array(range(len(c))),
    "huge numbers": lambda c: pa.array([BIG] * len(c)),
    "NaN": lambda c: pa.array([float("nan")] * len(c)),
    "infinities": lambda c: pa.array([float("-inf")] * len(c)),
    "half precision": lambda c: pa.array(np.ones(len(c), np.float16)),
    "truth values": lambda c: pa.array([True] * len(c)),
    "days": lambda c: pa.array([datetime.date(2017, 6, 13)] * len(c)),
    "times of no zone": lambda c: pa.array([2**62] * len(c), pa.timestamp("us", tz="Nowhere/At_all")),
    "durations": lambda c: pa.array([1] * len(c), pa.duration("s")),
    "decimals": lambda c: pa.array([1] * len(c)).cast(pa.decimal128(30, 2)),
    "structs": lambda c: pa.array([{"a": 1, "b": [None]}] * len(c)),
    "lists of lists": lambda c: pa.array([[["x"]]] * len(c)),
    "lists of numbers": lambda c: pa.array([[1, 2]] * len(c)),
    "lists of fixed size": lambda c: pa.array([["x"]] * len(c), pa.list_(pa.string(), 1)),
    "maps": lambda c: pa.array([[("a", 1)]] * len(c), pa.map_(pa.string(), pa.int64())),
    "nothing": lambda c: pa.nulls(len(c)),
    "empty cells": lambda c: pa.nulls(len(c), c.type),
    "control characters": lambda c: pa.array(["\x1b[31m\n"] * len(c)),
    "endless texts": lambda c: pa.array(["x" * 50_000] * len(c)),
}
NOTES = (
    b"", b"no json", b"[]", b"null", b"3", b'"text"', b"{}", b"[" * 100_000, b"\xff", b'{"classes": []}',
    b'{"classes": ["a"], "keys": {}, "bands": {}}',
)  # fmt: skip


@pytest.fixture(scope="module")
def tables(archive, tmp_path_factory) -> dict[str, tuple[Path, pa.Table]]:
    """Kind -> its archive, and its table as it should be."""
    roots = {kind: MAKERS[kind](tmp_path_factory.mktemp(kind), archive, (0, 6)) for kind in ("rico", "encoded")}
    return {kind: (root, pq.read_table(root / METADATA)) for kind, root in roots.items()}


def use(root: Path) -> bool:
    """Whether everything that an archive offers can be had; if not, one line said so."""
    try:
        archive = open_archive(root)
        assert archive.labels.shape == (len(archive), len(archive.classes))
        for row in range(len(archive)):
            assert all(isinstance(fact, str | bool) for fact in archive.meta(row).values())
            archive.read(row)
        if hasattr(archive, "_noted") and archive._noted:
            list(archive.checksums())
    except InputError as error:
        assert str(error).isprintable() and "; " in str(error) and len(str(error)) < 2100
        return False
    return True


def written(root: Path, table: pa.Table, **options: object) -> bool:
    pq.write_table(table, root / METADATA, **options)
    return use(root)


@pytest.mark.parametrize("kind", ["rico", "encoded"])
def test_a_column_of_another_type_gives_one_line_or_works(tables, kind):
    root, table = tables[kind]
    good = 0
    for at, name in enumerate(table.column_names):
        column = table.column(name).combine_chunks()
        for what, change in COLUMNS.items():
            try:
                changed = change(column)
            except pa.ArrowException:  # no such form of this column
                continue
            works = written(root, table.set_column(at, name, changed))
            clear = what in ("large texts", "categories", "views of texts") and column.type != pa.bool_()
            assert works or not clear, f"{name} as {what}"
            good += works
        for fewer in (table.remove_column(at), table.append_column(name, column)):
            written(root, fewer)
    assert good > 20 and written(root, table)


def test_a_place_that_cannot_be_one_is_refused(tables):
    root, table = tables["encoded"]
    for edge in ("left", "bottom", "right", "top"):
        at = table.column_names.index(edge)
        for value in (BIG, float("nan"), float("inf"), -1e9):
            pq.write_table(table.set_column(at, edge, pa.array([value, 0.0])), root / METADATA)
            refused(lambda: open_archive(root), METADATA, edge)
        for changed in (pa.nulls(2, pa.float64()), pa.array([4, 5]), table.column(edge).cast(pa.float32())):
            assert written(root, table.set_column(at, edge, changed))
    for dropped in ("crs", "left"):
        pq.write_table(table.drop_columns(dropped), root / METADATA)
        refused(lambda: open_archive(root), METADATA, f"no column {dropped}")
    pq.write_table(table.append_column("split", table["split"]), root / METADATA)
    refused(lambda: open_archive(root), METADATA, "column split occurs twice")
    assert written(root, table)


def test_a_damaged_note_gives_one_line(tables):
    root, table = tables["encoded"]
    sound = json.loads(table.schema.metadata[NOTE])
    odd = [{key: value for key, value in sound.items() if key != dropped} for dropped in ("classes", "keys", "bands")]
    for key in ("classes", "keys", "bands"):
        odd += [sound | {key: value} for value in (None, 3, "text", [], {}, [[]], {"s1": None}, {"s1": {"VV": 3}})]
    for side in (-1, 0, 10**6, 1e38, "120", None, True):
        bands = sound["bands"]
        odd.append(sound | {"bands": bands | {"s1": {"VV": [side, "float32"], "VH": [120, "float32"]}}})
    odd += [sound | {"bands": sound["bands"] | {"s1": {"VV": [120, "object?"], "VH": [120, "float32"]}}}]
    odd += [sound | {"classes": sound["classes"] * 2}, sound | {"keys": {"s1": "absent", "s2": "patch_id"}}]
    for note in (*NOTES, *(json.dumps(entry).encode() for entry in odd)):
        assert not written(root, table.replace_schema_metadata({NOTE: note})), note[:200]
    assert written(root, table)


@pytest.mark.parametrize("kind", ["rico", "encoded"])
def test_garbled_bytes_give_one_line_or_work(tables, kind):
    root, table = tables[kind]
    pq.write_table(table, root / METADATA)
    sound, draw = (root / METADATA).read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(sound)
        for at in draw.integers(len(data), size=draw.integers(1, 9)):
            data[at] = draw.integers(256)
        (root / METADATA).write_bytes(data[: draw.integers(len(data))] if draw.random() < 0.1 else data)
        use(root)
    assert written(root, table.slice(0, 1)) is False and written(root, table.slice(0, 0)) is False
    assert written(root, table, row_group_size=1) and written(root, table)

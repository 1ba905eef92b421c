"""LMDB of safetensors, as rico-hdl, BigEarthNet's own high-throughput tool, and ``fusmae encode`` write it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar

import lmdb
import numpy as np
import pyarrow as pa

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import S1, S2, Modality, known_modality
from fusmae_lite.data.archives.base import Patch
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.lmdb_env import DATA, all_keys, environment, unreadable
from fusmae_lite.data.archives.metadata import METADATA, Metadata, TableArchive, read_metadata, read_note, typed
from fusmae_lite.data.archives.names import check_names, check_s1_names, check_s2_names, place_and_day, version
from fusmae_lite.data.archives.pairing import match, subfolders
from fusmae_lite.data.archives.pixels import first_with_offset, offset_left
from fusmae_lite.data.archives.reben import read_reben_table, snow_cure, snow_names
from fusmae_lite.data.archives.tensors import Layout, unpack

#: What ``fusmae encode`` keeps beside the data until it has finished.
JOURNAL = "encode.journal"
#: Columns that ``fusmae encode`` adds: a checksum per key, and the place on the ground.
CHECKSUM = "crc32_"
CRS = "crs"
EDGES = ("left", "bottom", "right", "top")
#: And what tells later whether a pair's source may have changed: :func:`fusmae_lite.data.identity.signature`.
SOURCE = "source_signature"
#: No coordinate, in metres or degrees, lies beyond twice round the Earth.
FARTHEST = 1e8


OWN = (CRS, *EDGES, SOURCE)


class LmdbArchive(TableArchive):
    """Patches in one LMDB environment; see :class:`Archive`.

    ::

        root/data.mdb            key: a patch's name in one sensor; value: safetensors map band -> (side, side) array
        root/metadata.parquet    a row per pair; may lie beside the environment's folder instead, as in
        root/<folder>/data.mdb, root/metadata.parquet

    Keys of BigEarthNet are the S2 patch_id and the S1 name. A table by ``fusmae encode`` notes what is in the
    archive (kind, classes, bands, keys) and adds columns crs, left, bottom, right, top and a checksum per key; any
    other is read as reBEN's, with names of either version. Opening reads the table and the keys, no values. The
    environment is opened read-only, without locks, once per process; instances can be pickled and forked.

    Raises:
        InputError: not readable, an unfinished encode, a row without its keys, keys without a row.
    """

    kind: ClassVar[str] = "LMDB of safetensors"
    layout: ClassVar[str] = f"{DATA} with {METADATA} beside it or one folder up"

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        self.root = Path(root)
        self.folder = _find(self.root) or self.root
        self._data = str(self.folder / DATA)  # building a Path for each read would cost a tenth of it
        path = _find_table(self.folder)
        note = read_note(path)
        self.classes = tuple(note["classes"]) if note else BEN19
        self.layouts: dict[str, Layout] = _layouts(note)
        self._key_columns: dict[str, str] = note["keys"] if note else {"s1": "s1_name", "s2": "patch_id"}
        if note and snow_and_clouds:
            raise InputError(f"{path} has no second table", "leave snow_and_clouds out; give it when encoding")
        if note:
            table = read_metadata(path, self.classes, keys=tuple(self._key_columns.values()), no_split=True)
            for names in table.keys.values():
                check_names(names, table.where)
            _check_places(table)
        else:
            table = read_reben_table(path.parent, snow_and_clouds, path)
            check_s2_names(table.names, table.where, version(next(iter(table.names), "")) or 2)
            check_s1_names(table.column("s1_name"), table.where)
            if late := first_with_offset(table.names):
                raise offset_left(f"{path}: {late}")
        self._noted = note is not None
        self._select(table, path.parent, partial)

    def _select(self, table: Metadata, folder: Path, partial: bool) -> None:
        keys = {m: table.names if c == "patch_id" else table.column(c) for m, c in self._key_columns.items()}
        found = all_keys(self.folder)
        whole, self.left_out = match(
            keys,
            dict.fromkeys(keys, found),
            lambda modality, key: f"{self._data}: key {key}",
            table.where,
            partial=partial,
            extra=("has no row in the table", snow_cure(folder)),
            spare=lambda: snow_names(folder),
        )
        self.table, self.names = table, table.names
        self._keys = {modality: tuple(names) for modality, names in keys.items()}
        self.keep(whole)
        self._rest = [name for name in self.table.rest if not name.startswith(CHECKSUM) and name not in OWN]
        if not self.names:
            raise InputError(f"{self.folder} holds no patch that its table knows", "encode the archive again")

    def keep(self, rows: np.ndarray) -> None:
        """See :class:`Archive`."""
        super().keep(rows)
        self._keys = {modality: tuple(compress(names, rows)) for modality, names in self._keys.items()}

    @classmethod
    def matches(cls, root: Path) -> bool:
        """A data.mdb, or a table beside the one folder that has a data.mdb."""
        return _find(root) is not None

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Copy one patch out of the map: arrays as :class:`Archive` describes, writable, independent of it."""
        chosen = modalities or tuple(self.layouts)
        bands: dict[str, dict[str, np.ndarray]] = {}
        try:
            with self._environment().begin(buffers=True) as transaction:
                for modality in chosen:
                    if modality not in self.layouts:
                        raise InputError(
                            f"{self.folder} has no modality {modality!r}", f"choose from {', '.join(self.layouts)}"
                        )
                    key = self._keys[modality][index]
                    value, where = transaction.get(key.encode()), f"{self._data}: {key}"
                    if value is None:
                        raise InputError(f"{where} is missing", "encode the archive again")
                    bands[modality] = unpack(value, self.layouts[modality], where, known_modality(modality))
        except lmdb.Error as error:
            raise unreadable(self.folder, error) from None
        labels = tuple(compress(self.classes, self.labels[index]))
        return Patch(self.names[index], bands, labels, self.meta(index), *self._place(index))

    def keys(self, index: int) -> dict[str, str]:
        """The keys of a pair."""
        return {modality: names[index] for modality, names in self._keys.items()}

    def meta(self, index: int) -> dict[str, str]:
        """Split and every further column of the table as text; for a table of reBEN also tile and acquisition_date."""
        known = {"split": str(self.splits[index])}
        if not self._noted:
            known |= place_and_day(self.names[index], self._keys["s1"][index])
        return {**known, **self.table.row(index, self._rest)}

    def checksums(self) -> Iterator[tuple[str, int]]:
        """(key, CRC-32) of every value, where ``fusmae encode`` wrote the table; else InputError."""
        for modality, names in self._keys.items():
            column = CHECKSUM + modality
            if column not in self.table.rest:
                raise InputError(f"{self.table.where} has no checksums", "only `fusmae encode` writes them")
            sums = typed(self.table.rest[column], column, pa.uint32(), self.table.where)
            yield from zip(names, sums.to_pylist(), strict=True)

    def stored_crc32(self, modality: str) -> np.ndarray | None:
        """Of every value, where ``fusmae encode`` wrote the table."""
        column = self.table.rest.get(CHECKSUM + modality)
        return None if column is None else np.asarray(column.to_pylist(), dtype=np.uint32)

    @property
    def store(self) -> str:  # type: ignore[override]
        """The environment's file."""
        return self._data

    def _environment(self) -> lmdb.Environment:
        if self.__dict__.get("_handle", (0,))[0] != os.getpid():
            self._handle = (os.getpid(), environment(self.folder))
        return self._handle[1]

    def _place(self, index: int) -> tuple[str | None, tuple[float, ...] | None]:
        """(crs, bounds) as encoded; (None, None) in a table from elsewhere."""
        if not self._noted:
            return None, None
        crs, *edges = (self.table.rest[name][index].as_py() for name in (CRS, *EDGES))
        return crs, None if None in edges else tuple(edges)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the handle, which belongs to one process."""
        return {name: value for name, value in self.__dict__.items() if name != "_handle"}


def _find(root: Path) -> Path | None:
    """The environment's folder: the root, or the only one in it that has a data.mdb."""
    if (root / DATA).is_file():
        return root
    if not (root / METADATA).is_file():
        return None
    below = [root / name for name in subfolders(root) if (root / name / DATA).is_file()]
    return below[0] if len(below) == 1 else None


def _find_table(folder: Path) -> Path:
    """metadata.parquet of an environment, in its folder or one up; InputError if it was never finished."""
    for path in (folder / METADATA, folder.absolute().parent / METADATA):
        if path.is_file():
            return path
        if (folder / JOURNAL).is_file():
            raise InputError(
                f"{folder}: an encode that has not finished", "run the same `fusmae encode` to continue it"
            )
    raise InputError(f"{folder / METADATA} is missing", "put the archive's metadata.parquet there or one folder up")


def _check_places(table: Metadata) -> None:
    """Raise InputError unless the columns of the place on the ground are there and hold what can be one, or nothing."""
    missing = [column for column in (CRS, *EDGES) if column not in table.rest]
    if missing:
        raise InputError(
            f"{table.where}: no column {', '.join(missing)} of texts or numbers", "encode the archive again"
        )
    table.rest[CRS] = typed(table.rest[CRS], CRS, pa.string(), table.where, nulls=True)
    for edge in EDGES:
        table.rest[edge] = typed(table.rest[edge], edge, pa.float64(), table.where, nulls=True)
        values = table.rest[edge].drop_null().to_numpy()
        odd = values[~(np.abs(values) <= FARTHEST)]
        if len(odd):
            raise InputError(
                f"{table.where}: column {edge} holds {odd[0]:g} in {len(odd)} rows, no coordinate",
                "encode the archive again, or leave these cells empty",
            )


def _layouts(note: dict[str, Any] | None) -> dict[str, Layout]:
    """Modality -> band -> (side, dtype): as noted when encoding, else BigEarthNet's two sensors."""
    if note:
        noted = {
            m: {band: (side, dtype) for band, (side, dtype) in bands.items()} for m, bands in note["bands"].items()
        }
        for name, layout in noted.items():
            _compare(layout, known_modality(name))
        return noted
    return {modality.name: _native(modality) for modality in (S1, S2)}


def _compare(layout: Layout, modality: Modality | None) -> None:
    """Raise InputError where a note contradicts the sensor of that name."""
    if modality is None:
        return
    wanted = {(band, modality.dtype) for band in modality.bands}
    if odd := {(band, dtype) for band, (_, dtype) in layout.items()} ^ wanted:
        band, dtype = min(odd)
        what = f"{METADATA}: band {band} ({dtype}) of {modality.name} is noted or expected, but not both"
        raise InputError(what, f"encode with the bands {', '.join(modality.bands)} as {modality.dtype}")


def _native(modality: Modality) -> Layout:
    return {band: (modality.native_side(band), modality.dtype) for band in modality.bands}

"""LMDB of safetensors, as rico-hdl, BigEarthNet's own high-throughput tool, and ``fusmae encode`` write it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import lmdb
import numpy as np
import pyarrow as pa

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import S1, S2, known_modality
from fusmae_lite.data.archives.base import Patch
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.metadata import (
    METADATA,
    Metadata,
    TableArchive,
    read_metadata,
    read_note,
    read_reben_table,
    typed,
)
from fusmae_lite.data.archives.names import (
    check_names,
    check_s1_names,
    check_s2_names,
    listed,
    told_if_unreadable,
    version,
)
from fusmae_lite.data.archives.pixels import Layout, first_with_offset, offset_left, unpack

DATA = "data.mdb"
#: What ``fusmae encode`` keeps until it has finished: a file beside the data, and keys that begin like no name.
JOURNAL, RECORD = "encode.journal", "\n"
#: Columns that ``fusmae encode`` adds: a checksum per key, and the place on the ground.
CHECKSUM = "crc32_"
CRS = "crs"
EDGES = ("left", "bottom", "right", "top")
#: And what tells later whether a pair's source may have changed: :func:`fusmae_lite.data.identity.signature`.
SOURCE = "source_signature"
#: No coordinate, in metres or degrees, lies beyond twice round the Earth.
FARTHEST = 1e8

_PLACE = {CRS: pa.string(), **dict.fromkeys(EDGES, pa.float64())}
_NATIVE: dict[str, Layout] = {
    sensor.name: {band: (sensor.native_side(band), sensor.dtype) for band in sensor.bands} for sensor in (S1, S2)
}

# LMDB grants a process one handle on an environment, and a forked process none of its parent's.
# Real path -> ((process, device, inode), handle): another identity is opened afresh.
_OPEN: dict[str, tuple[tuple[int, int, int], lmdb.Environment]] = {}


def environment(folder: Path) -> lmdb.Environment:
    """This process's handle on the environment in a folder: read-only, no lock file, no read-ahead."""
    path = os.path.realpath(folder)
    with _told(folder):
        status = os.stat(os.path.join(path, DATA))
        identity = (os.getpid(), status.st_dev, status.st_ino)
        if path in _OPEN and _OPEN[path][0] == identity:
            return _OPEN[path][1]
        release(folder)
        handle = lmdb.open(path, readonly=True, lock=False, readahead=False, create=False, max_spare_txns=4)
    # LMDB maps the pages that the file claims to have; touching those a truncated copy lacks would kill the process.
    claimed = (handle.info()["last_pgno"] + 1) * handle.stat()["psize"]
    if status.st_size < claimed:
        handle.close()
        raise InputError(f"{folder / DATA}: {status.st_size} bytes of {claimed}, truncated", "copy it again")
    _OPEN[path] = identity, handle
    return handle


def release(folder: Path) -> None:
    """Close this process's handle, so that the folder can be written or opened by other means."""
    if opened := _OPEN.pop(os.path.realpath(folder), None):
        opened[1].close()


def all_keys(folder: Path) -> set[str]:
    """Every key; reads no value."""
    with _told(folder), environment(folder).begin() as transaction, transaction.cursor() as cursor:
        keys = {key.decode(errors="replace") for key in cursor.iternext(keys=True, values=False)}
    return {key for key in keys if not key.startswith(RECORD)}


def _told(folder: Path) -> AbstractContextManager[None]:
    cure = "copy it again, or encode it again"
    return told_if_unreadable(folder / DATA, "LMDB environment", cure, OSError, lmdb.Error)


class LmdbArchive(TableArchive):
    """Patches in one LMDB environment.

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
        self.store = str(self.folder / DATA)
        path = _find_table(self.folder)
        note = read_note(path)
        self._noted = note is not None
        self.classes, sources, self.layouts = BEN19, {"s1": "s1_name", "s2": "patch_id"}, _NATIVE
        if note is not None:
            if snow_and_clouds:
                raise InputError(f"{path} has no second table", "leave snow_and_clouds out; give it when encoding")
            self.classes, sources, self.layouts = note.classes, note.keys, note.bands
            _check_layouts(note.bands)
            table = read_metadata(path, self.classes, keys=tuple(sources.values()), no_split=True)
            for names in table.keys.values():
                check_names(names, table.where)
            _check_places(table)
        else:
            table = read_reben_table(path.parent, snow_and_clouds, path)
            check_s2_names(table.names, table.where, version(next(iter(table.names), "")) or 2)
            check_s1_names(table.keys["s1_name"], table.where)
            if late := first_with_offset(table.names):
                raise offset_left(f"{path}: {late}")
        self.columns = {modality: table.keys[column] for modality, column in sources.items()}
        self.untold = {name for name in table.rest if name in _PLACE or name.startswith((CHECKSUM, SOURCE))}
        on_disk = dict.fromkeys(self.columns, all_keys(self.folder))
        self._take(table, on_disk, path.parent, "has no row in the table", partial)

    @classmethod
    def matches(cls, root: Path) -> bool:
        """A data.mdb, or a table beside the one folder that has a data.mdb."""
        return _find(root) is not None

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Copy one patch out of the map: arrays as :class:`Archive` describes, writable, independent of it."""
        bands: dict[str, dict[str, np.ndarray]] = {}
        with _told(self.folder), environment(self.folder).begin(buffers=True) as transaction:
            for modality, key in self._chosen(index, modalities).items():
                value, where = transaction.get(key.encode()), self._path(modality, key)
                if value is None:
                    raise InputError(f"{where} is missing", "encode the archive again")
                bands[modality] = unpack(value, self.layouts[modality], where, known_modality(modality))
        crs, bounds = None, None
        if self._noted:
            crs, *edges = (self.rest[name][index].as_py() for name in _PLACE)
            bounds = None if None in edges else tuple(edges)
        return Patch(self.names[index], bands, self._labels_of(index), self.meta(index), crs, bounds)

    def checksums(self) -> Iterator[tuple[str, int]]:
        """(key, CRC-32) of every value, where ``fusmae encode`` wrote the table; else InputError."""
        for modality, names in self.columns.items():
            sums = self.stored_crc32(modality)
            if sums is None:
                raise InputError(f"{self.where} has no checksums", "only `fusmae encode` writes them")
            yield from zip(names, sums.tolist(), strict=True)

    def stored_crc32(self, modality: str) -> np.ndarray | None:
        """Of every value, where ``fusmae encode`` wrote the table."""
        name = CHECKSUM + modality
        column = self.rest.get(name)
        return None if column is None else typed(column, name, pa.uint32(), self.where).to_numpy()


def _find(root: Path) -> Path | None:
    """The environment's folder: the root, or the only one in it that has a data.mdb."""
    if (root / DATA).is_file():
        return root
    names = listed(root, folders=True) if (root / METADATA).is_file() else []
    stores = [root / name for name in names if (root / name / DATA).is_file()]
    return stores[0] if len(stores) == 1 else None


def _find_table(folder: Path) -> Path:
    """metadata.parquet of an environment, in its folder or one up; InputError if it was never finished."""
    for path in (folder / METADATA, folder.absolute().parent / METADATA):
        if path.is_file():
            return path
        if (folder / JOURNAL).is_file():
            cure = "run the same `fusmae encode` to continue it"
            raise InputError(f"{folder}: an encode that has not finished", cure)
    raise InputError(f"{folder / METADATA} is missing", "put the archive's metadata.parquet there or one folder up")


def _check_places(table: Metadata) -> None:
    """InputError unless the columns of the place on the ground are there and hold what can be one, or nothing."""
    if missing := [column for column in _PLACE if column not in table.rest]:
        what = f"{table.where}: no column {', '.join(missing)} of texts or numbers"
        raise InputError(what, "encode the archive again")
    for name, kind in _PLACE.items():
        table.rest[name] = typed(table.rest[name], name, kind, table.where, nulls=True)
    for edge in EDGES:
        values = table.rest[edge].drop_null().to_numpy()
        wrong = values[~(np.abs(values) <= FARTHEST)]
        if len(wrong):
            what = f"{table.where}: column {edge} holds {wrong[0]:g} in {len(wrong)} rows, no coordinate"
            raise InputError(what, "encode the archive again, or leave these cells empty")


def _check_layouts(layouts: Mapping[str, Layout]) -> None:
    """InputError where a layout contradicts the sensor of its name."""
    for name, bands in layouts.items():
        modality = known_modality(name)
        wanted = {(band, modality.dtype) for band in modality.bands} if modality else set()
        if modality and (differing := {(band, dtype) for band, (_, dtype) in bands.items()} ^ wanted):
            band, dtype = min(differing)
            what = f"{METADATA}: band {band} ({dtype}) of {modality.name} is noted or expected, but not both"
            raise InputError(what, f"encode with the bands {', '.join(modality.bands)} as {modality.dtype}")

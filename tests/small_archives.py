"""Archives of a few bundled patches in every format, for tests to read and to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.archives.metadata import METADATA, SNOW
from fusmae_lite.data.encode import encode

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"
#: Patches of every split.
ROWS = (0, 1, 6, 15)
OFFICIAL = {"train": "train", "val": "validation", "test": "test"}


def v2_name(v1_name: str, tile: str) -> str:
    """The name reBEN would give a patch of v1."""
    *start, column, row = v1_name.split("_")
    return "_".join([*start, "N9999", "R022", f"T{tile}", column, row])


def rows_of(archive: Archive, rows: Sequence[int]) -> list[dict[str, object]]:
    """Rows of a metadata.parquet in the form of reBEN's."""
    table = []
    for row in rows:
        meta = archive.meta(row)
        table.append(
            {
                "patch_id": v2_name(archive.names[row], meta["tile"]),
                "labels": [name for name, there in zip(archive.classes, archive.labels[row], strict=True) if there],
                "split": OFFICIAL[meta["split"]],
                "country": meta["country"],
                "s1_name": meta["s1_name"],
                "s2v1_name": archive.names[row],
                "contains_seasonal_snow": False,
                "contains_cloud_or_shadow": False,
            }
        )
    return table


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def make_v1(root: Path, archive: Archive, rows: Sequence[int] = ROWS) -> Path:
    """A v1 archive with split lists."""
    for row in rows:
        for folder, name in zip(("BigEarthNet-S1-v1.0", "BigEarthNet-v1.0"), archive.keys(row).values(), strict=True):
            shutil.copytree(SAMPLES / folder / name, root / folder / name)
        with open(root / f"{archive.meta(row)['split']}.csv", "a") as file:
            file.write(f"{archive.names[row]},{archive.meta(row)['s1_name']}\n")
    return root


def make_reben(root: Path, archive: Archive, rows: Sequence[int] = ROWS) -> Path:
    """The same pixels under the names and in the layout of reBEN; links, not copies."""
    table = rows_of(archive, rows)
    for row, entry in zip(rows, table, strict=True):
        s1_name, s2_name, old = str(entry["s1_name"]), str(entry["patch_id"]), archive.names[row]
        s2 = root / "BigEarthNet-S2" / s2_name.rsplit("_", 2)[0] / s2_name
        s1 = root / "BigEarthNet-S1" / s1_name.rsplit("_", 3)[0] / s1_name
        s1.mkdir(parents=True)
        s2.mkdir(parents=True)
        for path in (SAMPLES / "BigEarthNet-v1.0" / old).glob("*.tif"):
            shutil.copy(path, s2 / path.name.replace(old, s2_name))
        for path in (SAMPLES / "BigEarthNet-S1-v1.0" / s1_name).glob("*.tif"):
            shutil.copy(path, s1 / path.name)
    write_rows(root / METADATA, table)
    return root


def make_rico(root: Path, archive: Archive, rows: Sequence[int] = ROWS) -> Path:
    """An LMDB as rico-hdl writes it, with reBEN's table one folder up."""
    table = rows_of(archive, rows)
    env = lmdb.open(str(root / "Encoded-BigEarthNet"), map_size=2**30)
    with env.begin(write=True) as transaction:
        for row, entry in zip(rows, table, strict=True):
            bands = archive.read(row).bands
            transaction.put(str(entry["s1_name"]).encode(), save(bands["s1"]))
            transaction.put(str(entry["patch_id"]).encode(), save(bands["s2"]))
    env.close()
    write_rows(root / METADATA, table)
    return root


def make_encoded(root: Path, archive: Archive, rows: Sequence[int] = ROWS) -> Path:
    """An LMDB by ``fusmae encode``, from v1."""
    encode(open_archive(make_v1(root / "source", archive, rows)), root / "lmdb", workers=0)
    shutil.rmtree(root / "source")
    return root / "lmdb"


#: Format -> a function (empty folder, the bundled archive) -> root of a sound archive of len(ROWS) pairs.
MAKERS: dict[str, Callable[[Path, Archive], Path]] = {
    "v1": make_v1,
    "reben": make_reben,
    "rico": make_rico,
    "encoded": make_encoded,
}


def change_value(folder: Path, key: str, change: Callable[[bytes], bytes | None]) -> None:
    """Replace one value of an LMDB, or delete it where `change` gives None."""
    env = lmdb.open(str(folder), map_size=2**30, lock=False)
    with env.begin(write=True) as transaction:
        value = change(bytes(transaction.get(key.encode())))
        transaction.delete(key.encode()) if value is None else transaction.put(key.encode(), value)
    env.close()


def snow_table(root: Path) -> Path:
    """Where the second table lies."""
    return root / SNOW


def refused(action, *parts: object) -> None:
    """Run it; assert a one-line InputError that has the parts and, after a semicolon, a cure."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and "; " in message
    for part in parts:
        assert str(part) in message, message

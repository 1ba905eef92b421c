"""Sound archives of every format, damaged in one place each: none may pass silently.

Each damage must surface, when the archive is opened, when its labels are asked for or when its patches are read, as an
InputError of one line that names the file or key and a cure. A further format joins by a maker in
``small_archives.MAKERS`` and damages in ``DAMAGES``.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from safetensors.numpy import load, save
from small_archives import MAKERS, change_value

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.archives.lmdb_store import DATA, release
from fusmae_lite.data.archives.metadata import METADATA

Damage = Callable[[Path], object]
# what `repaint` writes has no place on the ground; rasterio says so each time
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def first(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


# GeoTIFFs


def cut(pattern: str, share: float) -> Damage:
    def damage(root: Path) -> None:
        path = first(root, pattern)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


def repaint(pattern: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(root: Path) -> None:
        path = first(root, pattern)
        with rasterio.open(path) as file:
            pixels = change(file.read())
        profile = {"driver": "GTiff", "dtype": pixels.dtype.name, "count": pixels.shape[0]}
        with rasterio.open(path, "w", height=pixels.shape[1], width=pixels.shape[2], **profile) as file:
            file.write(pixels)

    return damage


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flat[array.size // 3] = np.nan
    return array


TIFS: dict[str, Damage] = {
    "an empty tif": cut("*_B03.tif", 0),
    "half a tif": cut("*_B08.tif", 0.5),
    "a tif without its end": cut("*_VH.tif", 0.95),
    "text instead of a tif": lambda root: first(root, "*_B11.tif").write_text("404 not found"),
    "a missing tif": lambda root: first(root, "*_B09.tif").unlink(),
    "a missing radar band": lambda root: first(root, "*_VV.tif").unlink(),
    "a folder in place of a tif": lambda root: (
        first(root, "*_B12.tif").unlink(),
        first(root, "*_B11.tif").with_name(first(root, "*_B11.tif").name.replace("B11", "B12")).mkdir(),
    ),
    "a renamed band": lambda root: first(root, "*_B8A.tif").rename(first(root, "*_B8A.tif").with_name("B10.tif")),
    "a tif of another size": repaint("*_B02.tif", lambda a: a[:, ::2, ::2]),
    "a tif that is not square": repaint("*_B01.tif", lambda a: a[:, :-1]),
    "a tif of two bands": repaint("*_B05.tif", lambda a: np.concatenate([a, a])),
    "a tif of another type": repaint("*_B04.tif", lambda a: a.astype("float32")),
    "radar as integers": repaint("*_VV.tif", lambda a: a.astype("int16")),
    "radar in double precision": repaint("*_VH.tif", lambda a: a.astype("float64")),
    "a NaN in the radar": repaint("*_VV.tif", with_nan),
    "an infinity in the radar": repaint("*_VH.tif", lambda a: np.where(a == a.max(), -np.inf, a).astype("float32")),
}


# Folders and lists of v1


def edit(pattern: str, change: Callable[[str], str]) -> Damage:
    def damage(root: Path) -> None:
        path = first(root, pattern)
        path.write_text(change(path.read_text()))

    return damage


def drop_folder(pattern: str) -> Damage:
    return lambda root: shutil.rmtree(first(root, pattern).parent)


def double_partner(root: Path) -> None:
    """Without lists, two radar images claim one optical image."""
    for path in root.glob("*.csv"):
        path.unlink()
    one, two = sorted((root / "BigEarthNet-S1-v1.0").glob("*/*.json"))[:2]
    record = json.loads(two.read_text()) | {
        "corresponding_s2_patch": json.loads(one.read_text())["corresponding_s2_patch"]
    }
    two.write_text(json.dumps(record))


def without_lists(damage: Damage) -> Damage:
    def both(root: Path) -> None:
        for path in root.glob("*.csv"):
            path.unlink()
        damage(root)

    return both


V1: dict[str, Damage] = {
    "no radar folder": lambda root: shutil.rmtree(root / "BigEarthNet-S1-v1.0"),
    "a missing S1 partner": drop_folder("*_VV.tif"),
    "a missing S2 partner": drop_folder("*_B02.tif"),
    "a missing S1 partner, no lists": without_lists(drop_folder("*_VV.tif")),
    "a missing S2 partner, no lists": without_lists(drop_folder("*_B02.tif")),
    "two partners for one patch": double_partner,
    "radar json without the partner": without_lists(edit("S1*.json", lambda text: text.replace("corresponding", "c"))),
    "a line twice": edit("train.csv", lambda text: text + text.splitlines()[0] + "\n"),
    "a patch in two splits": lambda root: (
        shutil.copy(root / "train.csv", root / "splits.csv") and shutil.copy(root / "train.csv", root / "test.csv")
    ),
    "a list with three cells": edit("test.csv", lambda text: text.replace("\n", ",x\n")),
    "a list of binary rubbish": lambda root: (root / "val.csv").write_bytes(b"\xff\xfe\x00\x80,\x9d\n"),
    "v2 names in a list": edit(
        "test.csv",
        lambda text: text.replace("_", "_", 1).replace(
            text.split(",")[0], "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57"
        ),
    ),
    "a v2 folder among v1": lambda root: (
        root / "BigEarthNet-v1.0" / "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57"
    ).mkdir(),
    "v1 and v2 in one folder": lambda root: (root / "BigEarthNet-S2").mkdir(),
    "an unknown label": edit("S2*.json", lambda text: text.replace('"labels": [', '"labels": ["Moon", ')),
    "labels that are no list": edit("S2*.json", lambda text: json.dumps(json.loads(text) | {"labels": 3})),
    "labels that are no names": edit("S2*.json", lambda text: json.dumps(json.loads(text) | {"labels": [{}]})),
    "half a json": edit("S2*.json", lambda text: text[: len(text) // 2]),
    "no json": lambda root: first(root, "S2*.json").unlink(),
}


# Tables


def rows(change: Callable[[list[dict]], object]) -> Damage:
    """Change the rows of the table; what `change` returns, if anything, replaces them."""

    def damage(root: Path) -> None:
        path = first(root, METADATA)
        table = pq.read_table(path)
        entries = table.to_pylist()
        entries = change(entries) or entries
        kept = pa.Table.from_pylist(entries).replace_schema_metadata(table.schema.metadata)
        pq.write_table(kept, path)

    return damage


def each(field: str, value: Callable[[int, dict], object]) -> Damage:
    return rows(lambda entries: [{**entry, field: value(i, entry)} for i, entry in enumerate(entries)])


def no_column(field: str) -> Damage:
    return rows(lambda entries: [{k: v for k, v in entry.items() if k != field} for entry in entries])


def flip(place: float) -> Damage:
    """Garble 64 bytes of the table, at a share of its length."""

    def damage(root: Path) -> None:
        path = first(root, METADATA)
        data = bytearray(path.read_bytes())
        at = int(place * (len(data) - 64))
        data[at : at + 64] = b"\xff" * 64
        path.write_bytes(bytes(data))

    return damage


TABLES: dict[str, Damage] = {
    "an empty table": lambda root: first(root, METADATA).write_bytes(b""),
    "half a table": lambda root: first(root, METADATA).write_bytes(
        first(root, METADATA).read_bytes()[: first(root, METADATA).stat().st_size // 2]
    ),
    "a csv called parquet": lambda root: first(root, METADATA).write_text("patch_id,split\n"),
    "a garbled footer": flip(1.0),
    "no column patch_id": no_column("patch_id"),
    "no column labels": no_column("labels"),
    "no column split": no_column("split"),
    "no column s1_name": no_column("s1_name"),
    "a row twice": rows(lambda entries: entries + entries[:1]),
    "a patch_id twice": each("patch_id", lambda i, row: "same" if i < 2 else row["patch_id"]),
    "one S1 image for two rows": rows(lambda entries: entries[1].update(s1_name=entries[0]["s1_name"])),
    "an unknown label": rows(lambda entries: entries[2]["labels"].append("Moon")),
    "a 43-class label": rows(lambda entries: entries[0].update(labels=["Sea and ocean"])),
    "an unknown split": rows(lambda entries: entries[1].update(split="holdout")),
    "no split in a row": rows(lambda entries: entries[1].update(split=None)),
    "no labels in a row": rows(lambda entries: entries[1].update(labels=None)),
    "an empty label": rows(lambda entries: entries[1].update(labels=[None])),
    "no name in a row": rows(lambda entries: entries[1].update(patch_id=None)),
    "labels as one text": each("labels", lambda i, row: ", ".join(row["labels"])),
    "numbers for splits": each("split", lambda i, row: 1.5),
    "a row without files": rows(
        lambda entries: entries.append(
            entries[0] | {"patch_id": entries[0]["patch_id"] + "9", "s1_name": entries[0]["s1_name"] + "9"}
        )
    ),
    "files without a row": rows(lambda entries: entries[1:]),
    "no rows": lambda root: pq.write_table(pq.read_table(first(root, METADATA)).slice(0, 0), first(root, METADATA)),
}

REBEN: dict[str, Damage] = {
    "no table": lambda root: (root / METADATA).unlink(),
    "no optical folder": lambda root: shutil.rmtree(root / "BigEarthNet-S2"),
    "a missing S1 partner": drop_folder("*_VV.tif"),
    "a missing S2 partner": drop_folder("*_B02.tif"),
    "v1 names in the table": each("patch_id", lambda i, row: row["s2v1_name"] if i == 1 else row["patch_id"]),
    "names of nothing in the table": each("patch_id", lambda i, row: "../../etc" if i == 1 else row["patch_id"]),
    "an S1 name of nothing": each("s1_name", lambda i, row: "radar" if i == 1 else row["s1_name"]),
    "a v1 folder inside": lambda root: (root / "BigEarthNet-S2" / "S2A_MSIL2A_20170613T101031_87_48").mkdir(),
    "a v1 folder one level down": lambda root: (
        root / "BigEarthNet-S2/S2A_MSIL2A_20170613T101031/S2A_MSIL2A_20170613T101031_87_48"
    ).mkdir(parents=True),
    "patches one level too high": lambda root: first(root, "*_B02.tif").parent.rename(
        root / "BigEarthNet-S2" / first(root, "*_B02.tif").parent.name
    ),
    "a patch in another's acquisition": lambda root: first(root, "*_VV.tif").parent.rename(
        sorted((root / "BigEarthNet-S1").iterdir())[-1] / first(root, "*_VV.tif").parent.name
    ),
    "v1 beside v2": lambda root: (root / "BigEarthNet-v1.0").mkdir(),
    "a damaged second table": lambda root: (
        rows(lambda entries: entries[1:])(root),
        (root / "metadata_for_patches_with_snow_cloud_or_shadow.parquet").write_bytes(b"PAR1"),
    ),
}


# LMDB


def value(modality: str, change: Callable[[bytes], bytes | None]) -> Damage:
    """Change the value of the second pair."""

    def damage(root: Path) -> None:
        archive = open_archive(root)
        release(archive.folder)
        change_value(archive.folder, archive.keys(1)[modality], change)

    return damage


def bands(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        loaded = load(data)
        return save(change(loaded) or loaded)

    return damage


def header(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    """Change the header as JSON, and keep the bytes behind it."""

    def damage(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8 : 8 + length])
        change(entries)
        text = json.dumps(entries).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return damage


def data_file(change: Callable[[bytes], bytes]) -> Damage:
    def damage(root: Path) -> None:
        path = first(root, DATA)
        path.write_bytes(change(path.read_bytes()))

    return damage


RNG = np.random.default_rng(0)
LMDB: dict[str, Damage] = {
    "no value": value("s2", lambda data: b""),
    "seven bytes": value("s1", lambda data: data[:7]),
    "a value cut in its header": value("s2", lambda data: data[:100]),
    "a value cut in its pixels": value("s2", lambda data: data[: len(data) // 2]),
    "one byte short": value("s1", lambda data: data[:-1]),
    "one byte too many": value("s1", lambda data: data + b"\0"),
    "random bytes": value("s2", lambda data: RNG.bytes(len(data))),
    "zeros": value("s2", lambda data: bytes(len(data))),
    "a header longer than the value": value("s2", lambda data: struct.pack("<Q", len(data)) + data[8:]),
    "a header of 2^63 bytes": value("s1", lambda data: struct.pack("<Q", 2**63) + data[8:]),
    "a header that is no JSON": value("s2", lambda data: data[:8] + b"x" + data[9:]),
    "a header that is a list": value("s1", lambda data: struct.pack("<Q", 2) + b"[]" + data[8:]),
    "a header of deep nesting": value("s1", lambda data: struct.pack("<Q", 90_000) + b"[" * 90_000 + data),
    "a type that does not exist": value("s1", header(lambda h: h["VV"].update(dtype="F31"))),
    "a type of another width": value("s2", header(lambda h: h["B02"].update(dtype="U8"))),
    "offsets behind the end": value("s1", header(lambda h: h["VV"].update(data_offsets=[57600, 2 * 57600 + 4]))),
    "offsets before the start": value("s1", header(lambda h: h["VH"].update(data_offsets=[-57600, 0]))),
    "bands on top of each other": value("s1", header(lambda h: h["VV"].update(h["VH"]))),
    "a negative shape": value("s1", header(lambda h: h["VV"].update(shape=[-120, -120]))),
    "no shape": value("s1", header(lambda h: h["VV"].pop("shape"))),
    "another type": value("s1", bands(lambda b: {k: v.astype("float16") for k, v in b.items()})),
    "signed pixels": value("s2", bands(lambda b: {k: v.astype("int16") for k, v in b.items()})),
    "a missing band": value("s2", bands(lambda b: b.pop("B8A") is None or b)),
    "an extra band": value("s2", bands(lambda b: b | {"B10": b["B02"]})),
    "a band of another name": value("s2", bands(lambda b: b | {"B8a": b.pop("B8A")})),
    "another shape": value("s2", bands(lambda b: b | {"B02": np.ascontiguousarray(b["B02"][::2, ::2])})),
    "a flat band": value("s2", bands(lambda b: b | {"B02": b["B02"].ravel()})),
    "a NaN": value("s1", bands(lambda b: b | {"VV": with_nan(b["VV"])})),
    "an infinity": value("s1", bands(lambda b: b | {"VH": np.full_like(b["VH"], np.inf)})),
    "the other sensor's value": value("s2", lambda data: save({"VV": np.zeros((120, 120), "f4")})),
    "a missing key": value("s1", lambda data: None),
    "no data.mdb": lambda root: first(root, DATA).unlink(),
    "an empty data.mdb": data_file(lambda data: b""),
    "half a data.mdb": data_file(lambda data: data[: len(data) // 2]),
    "a data.mdb without its last page": data_file(lambda data: data[:-4096]),
    "a data.mdb of random bytes": data_file(lambda data: RNG.bytes(20_000)),
    "no table": lambda root: first(root, METADATA).unlink(),
}

#: Format (a key of MAKERS) -> what can be wrong with it.
DAMAGES: dict[str, dict[str, Damage]] = {
    "v1": TIFS | V1,
    "reben": TIFS | TABLES | REBEN,
    "rico": TABLES | LMDB | {"v1 names in the table": REBEN["v1 names in the table"]},
    "encoded": {name: TABLES[name] for name in ("an unknown label", "a row twice", "half a table")} | LMDB,
}
CASES = [(kind, name) for kind, damages in DAMAGES.items() for name in damages]


@pytest.fixture(scope="module")
def sound(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One sound archive per format."""
    return {kind: MAKERS[kind](tmp_path_factory.mktemp(kind), archive) for kind in DAMAGES}


def use(root: Path) -> None:
    """Everything that an archive offers, of every patch."""
    archive = open_archive(root)
    assert archive.labels.shape == (len(archive), len(archive.classes)) and len(archive.splits) == len(archive)
    for index in range(len(archive)):
        archive.meta(index)
        archive.read(index)


def check(error: InputError, root: Path) -> None:
    """One line that names a file or key, and a cure after it."""
    message = str(error)
    what, _, cure = message.partition("; ")
    assert "\n" not in message and len(cure) > 10, message
    assert str(root) in what, message
    assert len(message) < 900, message


def test_there_are_enough_of_them():
    assert len(CASES) >= 60


@pytest.mark.parametrize("kind", DAMAGES)
def test_undamaged_it_passes(sound, kind):
    use(sound[kind])


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}-{name.replace(' ', '-')}" for kind, name in CASES])
def test_damage_is_refused_in_one_line(sound, tmp_path, kind, name, capfd):
    root = tmp_path / "copy"
    shutil.copytree(sound[kind], root)
    DAMAGES[kind][name](root)
    with pytest.raises(InputError) as caught:
        use(root)
    check(caught.value, tmp_path)
    assert capfd.readouterr() == ("", "")  # and no library adds noise of its own


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_disk_that_vanishes_after_opening(sound, tmp_path, kind):
    shutil.copytree(sound[kind], tmp_path / "copy")
    archive = open_archive(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(InputError) as caught:
        archive.read(0)
    check(caught.value, tmp_path)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_folder_without_permission(sound, tmp_path, kind, monkeypatch):
    """Tests may run as root, whom no mode keeps out: the system's refusal is acted."""
    archive = open_archive(sound[kind])
    if kind in ("v1", "reben"):
        refuse = PermissionError(13, "Permission denied")
        monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(refuse))
        with pytest.raises(InputError) as caught:
            open_archive(sound[kind])
    else:
        release(archive.folder)
        monkeypatch.setattr(
            "lmdb.open", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
        with pytest.raises(InputError) as caught:
            archive.read(0)
    check(caught.value, sound[kind])


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_disk_that_can_only_be_read(sound, tmp_path, kind):
    """Nothing is written when an archive is used: not even a lock file."""
    before = sorted((path, path.stat().st_mtime_ns) for path in sound[kind].rglob("*"))
    use(sound[kind])
    assert sorted((path, path.stat().st_mtime_ns) for path in sound[kind].rglob("*")) == before

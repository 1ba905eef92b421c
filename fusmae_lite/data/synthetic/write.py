"""Synthetic pairs as archives, drawn and written in chunks by one process or several.

Names keep each format's grammar but no place on Earth has them: tiles are called 00Sxx (there is no zone 00), the
country is "Synthetic", and coordinates lie in the Gulf of Guinea.
"""

import json
import shutil
from contextlib import closing
from datetime import date, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_folder
from fusmae_lite.core.progress import followed
from fusmae_lite.data.archives.base import SYNTHETIC
from fusmae_lite.data.archives.labels import BEN19, TO_19
from fusmae_lite.data.archives.pixels import pack
from fusmae_lite.data.archives.sen12ms import BANDS_ON_DISK, HELD_OUT, IGBP10, SIDE
from fusmae_lite.data.loader import each, processors
from fusmae_lite.data.synthetic.scene import Scenes, SyntheticPair
from fusmae_lite.data.synthetic.truth import Truth

#: Format -> bytes a pair takes on disk, with room to spare.
FORMATS = {"v1": 380_000, "reben": 380_000, "sen12ms": 2_800_000, "lmdb": 300_000}
CHUNK = 64
#: Below this number another process costs more time to start than it saves.
WORTH_A_PROCESS = 500

CELLS = 90  # along a side of a tile
FIRST_DAY = date(2017, 6, 13)
SPLIT_OF = ("train", "train", "train", "validation", "test")
CRS = "EPSG:32631"
WEST, NORTH = 500_000, 120_000
#: The columns of reBEN's table.
_COLUMNS = dict.fromkeys(("patch_id", "labels", "split", "country", "s1_name", "s2v1_name"), pa.string())
_COLUMNS |= {
    "labels": pa.list_(pa.string()),
    "contains_seasonal_snow": pa.bool_(),
    "contains_cloud_or_shadow": pa.bool_(),
}
#: BEN19 class -> the first of its CORINE names, for the json of version 1.
_CORINE = {name: next(old for old, new in TO_19.items() if new == name) for name in BEN19}
#: IGBP class -> the BEN19 class whose statistics it has. Nothing here is measured on SEN12MS.
LOOKALIKES = dict(zip(IGBP10, [BEN19[c] for c in (10, 13, 7, 4, 15, 2, 0, 11, 14, 18)], strict=True))


def synthesise(
    destination: Path | str,
    pairs: int,
    *,
    format: str = "lmdb",
    seed: int = 0,
    truth: Truth | None = None,
    workers: int = 0,
) -> Path:
    """Write a synthetic archive that `open_archive` reads as one of its format; returns its folder.

    Pair number i of a seed is the same in every format of BigEarthNet, whatever `workers` is. 60 / 20 / 20 of them
    are train, val and test (SEN12MS: nine tenths train, one tenth in held-out scenes). SYNTHETIC.txt in the folder
    says what it is. The archive appears under its name when it is complete.

    Args:
        destination: folder to make; must not exist.
        pairs: how many.
        format: v1, reben, sen12ms (triplets of 256 px) or lmdb.
        seed: decides every pixel.
        truth: make known truth (see :class:`Truth`) instead of land cover; written to truth.json. Not for sen12ms.
        workers: processes; 0: one per processor, fewer for small archives.

    Raises:
        InputError: the folder exists, no such format, too little room on the disk, or the disk refuses.
    """
    destination = Path(destination).expanduser()
    _check(destination, pairs, format, seed, truth)
    workers = workers or min(processors(), 1 + pairs // WORTH_A_PROCESS)
    lookalike = {"lookalikes": LOOKALIKES, "side": SIDE, "one_grid": True} if format == "sen12ms" else {}
    scenes = Scenes(seed, truth=truth, **lookalike)
    about = {"pairs": pairs, "seed": seed, "format": format, "known_truth": truth is not None}

    def fill(root: Path) -> None:
        job, firsts = (root, pairs, format, scenes), range(0, pairs, CHUNK)
        with closing(each(_write_chunk, job, firsts, workers if workers > 1 else 0)) as chunks:
            _write_tables(root, list(followed(chain.from_iterable(chunks), f"synthetic {format}", pairs)), about)
        if truth is not None:
            (root / "truth.json").write_text(truth.as_json(), encoding="utf-8")

    try:
        return write_folder(destination, fill)
    except (OSError, lmdb.Error) as error:
        raise InputError(f"{destination}: cannot be written ({error})", "give a disk with room and rights") from None


def describe(index: int) -> dict[str, Any]:
    """What reBEN's table says of a pair, but for its labels: 8,100 pairs fill a tile, tile after tile on a new day."""
    tile, cell = divmod(index, CELLS**2)
    row, column = divmod(cell, CELLS)
    day = FIRST_DAY + timedelta(days=tile % 365)
    place = f"00S{chr(65 + tile // 26 % 26)}{chr(65 + tile % 26)}"
    start = f"S2A_MSIL2A_{day:%Y%m%d}T10{tile // 365:02d}31"
    return {
        "patch_id": f"{start}_N9999_R022_T{place}_{column}_{row}",
        "split": SPLIT_OF[index % len(SPLIT_OF)],
        "country": "Synthetic",
        "s1_name": f"S1A_IW_GRDH_1SDV_{day:%Y%m%d}T17{tile // 365:02d}43_{place}_{column}_{row}",
        "s2v1_name": f"{start}_{column}_{row}",
        "contains_seasonal_snow": False,
        "contains_cloud_or_shadow": False,
    }


def _write_chunk(job: tuple[Path, int, str, Scenes], first: int) -> list[dict[str, Any]]:
    """Draw and write some pairs; returns their rows of the table."""
    root, pairs, format, scenes = job
    drawn = {index: scenes.pair(index) for index in range(first, min(first + CHUNK, pairs))}
    rows = [{**describe(index), "labels": pair.labels} for index, pair in drawn.items()]
    if format == "lmdb":  # open for one chunk: LMDB's own lock keeps processes apart
        size = pairs * 2 * FORMATS["lmdb"] + 2**24
        with (
            lmdb.open(str(root), map_size=size, sync=False, metasync=False, readahead=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for row, pair in zip(rows, drawn.values(), strict=True):
                transaction.put(row["patch_id"].encode(), pack(pair.bands["s2"]))
                transaction.put(row["s1_name"].encode(), pack(pair.bands["s1"]))
        return rows
    for row, (index, pair) in zip(rows, drawn.items(), strict=True):
        if format == "sen12ms":
            _write_triplet(root, index, pair)
        else:
            _write_folders(root, index, row, pair, version=1 if format == "v1" else 2)
    return rows


def _write_folders(root: Path, index: int, row: dict[str, Any], pair: SyntheticPair, version: int) -> None:
    """GeoTIFF folders of BigEarthNet, with the json of version 1."""
    west, north = WEST + 1200 * (index % CELLS), NORTH - 1200 * (index // CELLS % CELLS)
    about = {
        "labels": [_CORINE[name] for name in pair.labels],
        "coordinates": {"ulx": west, "uly": north, "lrx": west + 1200, "lry": north - 1200},
        "projection": CRS,
        "tile_source": "synthetic",
    }
    for sensor, bands in pair.bands.items():
        if version == 1:
            name = row["s1_name" if sensor == "s1" else "s2v1_name"]
            folder = root / ("BigEarthNet-S1-v1.0" if sensor == "s1" else "BigEarthNet-v1.0") / name
        else:
            name, parts = (row["s1_name"], 3) if sensor == "s1" else (row["patch_id"], 2)
            folder = root / f"BigEarthNet-{sensor.upper()}" / name.rsplit("_", parts)[0] / name
        for band, image in bands.items():
            _write_tif(folder / f"{name}_{band}.tif", image[None], west, north)
        if version == 1:
            more = {"corresponding_s2_patch": row["s2v1_name"]} if sensor == "s1" else {}
            (folder / f"{name}_labels_metadata.json").write_text(json.dumps({**about, **more}), encoding="utf-8")


def _write_triplet(root: Path, index: int, pair: SyntheticPair) -> None:
    """A triplet of SEN12MS: four seasons in turn; every tenth one in a held-out scene, the others in scene 1."""
    season = list(HELD_OUT)[index % len(HELD_OUT)]
    scene = min(HELD_OUT[season]) if index // len(HELD_OUT) % 10 == 9 else 1
    rng, codes = np.random.default_rng([index]), list(IGBP10.values())
    cover = np.zeros((4, SIDE, SIDE), dtype=np.uint16)
    for c in np.unique(pair.land_cover):  # each column of pixels has one of a merged class's codes
        cover[0] += np.where(pair.land_cover == c, rng.choice(codes[c], size=SIDE), 0).astype(np.uint16)
    s2 = {**pair.bands["s2"], "B10": np.full((SIDE, SIDE), 10, dtype=np.uint16)}
    images = {"s1": list(pair.bands["s1"].values()), "lc": cover, "s2": [s2[band] for band in BANDS_ON_DISK["s2"]]}
    for kind, image in images.items():
        path = root / season / f"{kind}_{scene}" / f"{season}_{kind}_{scene}_p{index}.tif"
        _write_tif(path, np.stack(image), WEST, NORTH)


def _write_tif(path: Path, image: np.ndarray, west: int, north: int) -> None:
    """(bands, side, side) over 1,200 m or, with more than 120 pixels, in pixels of 10 m."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, side, _ = image.shape
    metres = max(10, 1200 // side)
    grid = {"crs": CRS, "transform": rasterio.Affine(metres, 0, west, 0, -metres, north)}
    size = {"count": count, "height": side, "width": side, "dtype": image.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **size, **grid) as file:
        file.write(image)


def _write_tables(root: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """The format's tables, and the mark of what is synthetic."""
    if about["format"] == "v1":
        table = pd.DataFrame(rows).replace({"split": {"validation": "val"}})
        (root / "splits").mkdir()
        for split in ("train", "val", "test"):
            part = table.loc[table["split"] == split, ["s2v1_name", "s1_name"]]
            part.to_csv(root / f"splits/{split}.csv", header=False, index=False, lineterminator="\n")
        index = table[["s2v1_name", "s1_name", "split", "country"]].rename(columns={"s2v1_name": "s2_name"})
        index.to_csv(root / "index.csv", index=False, lineterminator="\n")
    elif about["format"] != "sen12ms":
        schema = pa.schema(_COLUMNS.items(), metadata={"synthetic": json.dumps(about)})
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / "metadata.parquet")
    (root / "lock.mdb").unlink(missing_ok=True)
    text = (
        "SYNTHETIC DATA. No image in this folder was taken by a satellite.\n"
        f"Made by fusmae-lite: {', '.join(f'{name} {value}' for name, value in about.items())}.\n"
        "Results on it must never stand beside results on real patches without saying so.\n"
    )
    (root / SYNTHETIC).write_text(text, encoding="utf-8")


def _check(destination: Path, pairs: int, format: str, seed: int, truth: Truth | None) -> None:
    """InputError for what cannot be written; makes the parent folder."""
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}", f"choose one of {', '.join(FORMATS)}")
    if not 1 <= pairs <= 5_000_000:
        raise InputError(f"pairs {pairs}", "give a number from 1 to 5,000,000")
    if seed < 0:
        raise InputError(f"seed {seed} is negative", "give 0 or more")
    if truth is not None and format == "sen12ms":
        raise InputError("known truth is for several labels a patch, SEN12MS has one", "choose v1, reben or lmdb")
    if destination.exists():
        raise InputError(f"{destination} exists", "give another folder, or remove it first; nothing is overwritten")
    folder, needed = destination.parent, pairs * FORMATS[format]
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"{folder} has {free / 1e9:.1f} GB free, the archive needs {needed / 1e9:.1f}"
        raise InputError(what, "give another disk or fewer pairs")

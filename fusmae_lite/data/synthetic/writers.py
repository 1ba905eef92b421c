"""Synthetic pairs as files, in the layout of each format. Names keep the format's grammar; the place is none on Earth.

Tiles are called 00Sxx (there is no zone 00), the country is "Synthetic", and coordinates lie in the Gulf of Guinea.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import rasterio

from fusmae_lite.data.archives.labels import BEN19, TO_19
from fusmae_lite.data.archives.sen12ms import BANDS_ON_DISK, HELD_OUT, IGBP10, SIDE
from fusmae_lite.data.synthetic.scene import SyntheticPair

CELLS = 90  # along a side of a tile
FIRST_DAY = date(2017, 6, 13)
#: Every fifth pair is for validation, every other fifth for testing: 60 / 20 / 20.
SPLIT_OF = ("train", "train", "train", "val", "test")
CRS = "EPSG:32631"
WEST, NORTH = 500_000, 120_000
#: BEN19 class -> the first of its CORINE names, for the json of version 1.
CORINE = {name: next(old for old, new in TO_19.items() if new == name) for name in BEN19}
#: IGBP class -> the BEN19 class whose statistics it has. Nothing here is measured on SEN12MS.
LOOKALIKES = {
    "Forest": BEN19[10],
    "Shrubland": BEN19[13],
    "Savanna": BEN19[7],
    "Grassland": BEN19[4],
    "Wetlands": BEN19[15],
    "Croplands": BEN19[2],
    "Urban": BEN19[0],
    "Snow/Ice": BEN19[11],
    "Barren": BEN19[14],
    "Water": BEN19[18],
}


@dataclass(frozen=True)
class Row:
    """What the tables say of a pair: names in either version, split, labels, west and north edge."""

    index: int
    s2_name: str
    s2v1_name: str
    s1_name: str
    split: str
    labels: tuple[str, ...]
    place: tuple[int, int]


def describe(index: int, labels: tuple[str, ...]) -> Row:
    """Pair number `index`: 8,100 pairs fill a tile, tile after tile on day after day."""
    tile, cell = divmod(index, CELLS * CELLS)
    row, column = divmod(cell, CELLS)
    day = FIRST_DAY + timedelta(days=tile % 365)
    place = f"00S{chr(65 + tile // 26 % 26)}{chr(65 + tile % 26)}"
    start = f"S2A_MSIL2A_{day:%Y%m%d}T10{tile // 365:02d}31"
    return Row(
        index=index,
        s2_name=f"{start}_N9999_R022_T{place}_{column}_{row}",
        s2v1_name=f"{start}_{column}_{row}",
        s1_name=f"S1A_IW_GRDH_1SDV_{day:%Y%m%d}T17{tile // 365:02d}43_{place}_{column}_{row}",
        split=SPLIT_OF[index % len(SPLIT_OF)],
        labels=labels,
        place=(WEST + 1200 * column, NORTH - 1200 * row),
    )


def write_v1(root: Path, row: Row, pair: SyntheticPair) -> None:
    """GeoTIFF folders and json of BigEarthNet-MM v1."""
    west, north = row.place
    about: dict[str, Any] = {
        "labels": [CORINE[name] for name in row.labels],
        "coordinates": {"ulx": west, "uly": north, "lrx": west + 1200, "lry": north - 1200},
        "projection": CRS,
        "tile_source": "synthetic",
    }
    for sensor, folder, more in (
        ("s2", root / "BigEarthNet-v1.0" / row.s2v1_name, {}),
        ("s1", root / "BigEarthNet-S1-v1.0" / row.s1_name, {"corresponding_s2_patch": row.s2v1_name}),
    ):
        _write_bands(folder, pair.bands[sensor], row.place)
        (folder / f"{folder.name}_labels_metadata.json").write_text(json.dumps({**about, **more}), encoding="utf-8")


def write_reben(root: Path, row: Row, pair: SyntheticPair) -> None:
    """GeoTIFF folders of reBEN."""
    for sensor, name, parts in (("s2", row.s2_name, 2), ("s1", row.s1_name, 3)):
        folder = root / f"BigEarthNet-{sensor.upper()}" / name.rsplit("_", parts)[0] / name
        _write_bands(folder, pair.bands[sensor], row.place)


def write_sen12ms(root: Path, row: Row, pair: SyntheticPair) -> None:
    """A triplet of SEN12MS: four seasons in turn; every tenth one in a held-out scene, the others in scene 1."""
    season = list(HELD_OUT)[row.index % len(HELD_OUT)]
    scene = min(HELD_OUT[season]) if row.index // len(HELD_OUT) % 10 == 9 else 1
    rng, codes = np.random.default_rng([row.index]), list(IGBP10.values())
    cover = np.zeros((4, SIDE, SIDE), dtype=np.uint16)
    for c in np.unique(pair.land_cover):  # each column of pixels has one of a merged class's codes
        cover[0] += np.where(pair.land_cover == c, rng.choice(codes[c], size=SIDE), 0).astype(np.uint16)
    s2 = {**pair.bands["s2"], "B10": np.full((SIDE, SIDE), 10, dtype=np.uint16)}
    images = {"s1": list(pair.bands["s1"].values()), "lc": cover, "s2": [s2[band] for band in BANDS_ON_DISK["s2"]]}
    for kind, image in images.items():
        path = root / season / f"{kind}_{scene}" / f"{season}_{kind}_{scene}_p{row.index}.tif"
        _write_tif(path, np.stack(image), (WEST, NORTH), 10)


def write_lists(root: Path, rows: Sequence[Row]) -> None:
    """index.csv and splits/*.csv of a v1 archive."""
    (root / "splits").mkdir()
    for split in dict.fromkeys(SPLIT_OF):
        text = "".join(f"{row.s2v1_name},{row.s1_name}\n" for row in rows if row.split == split)
        (root / f"splits/{split}.csv").write_text(text, encoding="utf-8")
    with open(root / "index.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["s2_name", "s1_name", "split", "country"])
        writer.writerows([row.s2v1_name, row.s1_name, row.split, "Synthetic"] for row in rows)


def write_table(root: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """metadata.parquet as reBEN publishes it; the file's own metadata says that it is synthetic."""
    columns = {
        "patch_id": [row.s2_name for row in rows],
        "labels": [list(row.labels) for row in rows],
        "split": ["validation" if row.split == "val" else row.split for row in rows],
        "country": ["Synthetic"] * len(rows),
        "s1_name": [row.s1_name for row in rows],
        "s2v1_name": [row.s2v1_name for row in rows],
        "contains_seasonal_snow": [False] * len(rows),
        "contains_cloud_or_shadow": [False] * len(rows),
    }
    types = {"labels": pa.list_(pa.string())}
    table = pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()})
    parquet.write_table(table.replace_schema_metadata({"synthetic": json.dumps(about)}), root / "metadata.parquet")


def _write_bands(folder: Path, bands: Mapping[str, np.ndarray], place: tuple[int, int]) -> None:
    for band, image in bands.items():
        _write_tif(folder / f"{folder.name}_{band}.tif", image[None], place, 1200 // len(image))


def _write_tif(path: Path, image: np.ndarray, place: tuple[int, int], metres: int) -> None:
    (west, north), (count, height, width) = place, image.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = {"crs": CRS, "transform": rasterio.Affine(metres, 0, west, 0, -metres, north)}
    size = {"count": count, "height": height, "width": width, "dtype": image.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **size, **grid) as file:
        file.write(image)

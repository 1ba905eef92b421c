"""SEN12MS as an archive: opening, splits, labels after merging, reading, and whatever may be wrong with it."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_archives import refused

from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data.archives import SEN12MS, open_archive
from fusmae_lite.data.archives.sen12ms import HELD_OUT, IGBP10, NAN_TRIPLET

TRAIN = "ROIs1158_spring_s2_1_p30"
TEST = "ROIs1970_fall_s2_144_p7"


def path_of(root: Path, name: str, kind: str) -> Path:
    roi, season, _, scene, _ = name.split("_")
    return root / f"{roi}_{season}" / f"{kind}_{scene}" / f"{name.replace('_s2_', f'_{kind}_')}.tif"


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 2560)}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=pixels.dtype.name, count=count, height=height, width=width, **place
    ) as file:
        file.write(pixels)


def igbp(*shares: tuple[int, int]) -> np.ndarray:
    """A (4, 256, 256) land-cover file whose first band has so many rows of each code: (code, rows), ..."""
    codes = np.zeros((4, 256, 256), dtype="uint16")
    codes[0] = np.repeat([code for code, _ in shares], [rows for _, rows in shares])[:, None]
    return codes


def write(root: Path, name: str, land_cover: np.ndarray) -> None:
    """A triplet whose optical band number b is full of 100 * (b + 1) and whose radar is VV -10, VH -20 dB."""
    save(path_of(root, name, "s1"), np.full((2, 256, 256), [[[-10.0]], [[-20.0]]], dtype="float32"))
    save(path_of(root, name, "s2"), np.full((13, 256, 256), 100 * np.arange(1, 14)[:, None, None], dtype="uint16"))
    save(path_of(root, name, "lc"), land_cover)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sen12ms")
    # croplands 12 and 14 are together more than water, which is the most frequent single code
    write(root, TRAIN, igbp((17, 100), (12, 80), (14, 76)))
    write(root, TEST, igbp((8, 120), (9, 30), (1, 50), (5, 56)))
    return root


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def test_opens_through_the_list_with_the_official_split(original):
    archive = open_archive(original)
    assert isinstance(archive, SEN12MS) and tuple(archive.names) == (TRAIN, TEST)
    assert [archive.split(name).tolist() for name in ("train", "val", "test")] == [[0], [], [1]]
    assert [archive.meta(index)["split"] for index in (0, 1)] == ["train", "test"]
    assert "SEN12MS" in archive.describe() and "1 train, 1 test" in archive.describe()


def test_the_held_out_list_is_the_official_one():
    assert sum(len(scenes) for scenes in HELD_OUT.values()) == 26
    assert [len(scenes) for scenes in HELD_OUT.values()] == [6, 7, 8, 5]


def test_reads_bands_in_order_and_drops_b10(original):
    patch = open_archive(original).read(0)
    assert tuple(patch.bands["s1"]) == S1.bands and tuple(patch.bands["s2"]) == S2.bands
    assert [int(array[0, 0]) for array in patch.bands["s2"].values()] == [100 * b for b in range(1, 14) if b != 11]
    assert patch.bands["s1"]["VH"][5, 5] == -20 and patch.bands["s1"]["VH"].dtype == np.float32
    assert {array.shape for bands in patch.bands.values() for array in bands.values()} == {(256, 256)}
    assert (patch.crs, patch.bounds) == ("EPSG:32631", (500000, 0, 502560, 2560))
    assert list(open_archive(original).read(0, ["s2"]).bands) == ["s2"]


def test_keys_are_stems(original):
    assert open_archive(original).keys(1) == {"s1": "ROIs1970_fall_s1_144_p7", "s2": TEST}


def test_the_label_is_the_most_frequent_class_after_merging(original):
    archive = open_archive(original)
    assert [archive.read(index).labels for index in (0, 1)] == [("Croplands",), ("Savanna",)]  # before `labels`
    assert archive.labels.shape == (2, 10) and archive.labels.sum(axis=1).tolist() == [1, 1]
    assert [archive.classes[row.argmax()] for row in archive.labels] == ["Croplands", "Savanna"]
    assert archive.read(1).labels == ("Savanna",)  # and after
    assert sorted(code for members in IGBP10.values() for code in members) == list(range(1, 18))


def test_eight_classes_leave_savanna_out(original, tmp_path):
    archive = SEN12MS(original, n_classes=8)
    assert len(archive.classes) == 8 and archive.labels.shape == (2, 8)
    assert archive.read(1).labels == ("Forest",)
    write(tmp_path, TRAIN, igbp((8, 200), (15, 56)))
    assert SEN12MS(tmp_path, n_classes=8).read(0).labels == ()
    refused(lambda: SEN12MS(original, n_classes=9), "9 classes")


def test_the_triplet_with_nan_is_left_out(original, copy):
    write(copy, NAN_TRIPLET, igbp((1, 256)))
    archive = open_archive(copy)
    assert len(archive) == 2 and [name for name, _ in archive.left_out] == [NAN_TRIPLET]


@pytest.mark.parametrize("kind", ["s1", "s2", "lc"])
@pytest.mark.parametrize("folder", [False, True])
def test_an_incomplete_triplet(copy, kind, folder):
    gone = path_of(copy, TRAIN, kind)
    shutil.rmtree(gone.parent) if folder else gone.unlink()
    refused(lambda: open_archive(copy), gone, "is missing")
    archive = open_archive(copy, partial=True)
    assert tuple(archive.names) == (TEST,) and archive.left_out[0][0] == TRAIN and str(gone) in archive.left_out[0][1]


def test_folders_without_a_triplet(tmp_path):
    refused(lambda: open_archive(tmp_path), tmp_path, "ROIs1158_spring")
    (tmp_path / "ROIs1158_spring").mkdir()
    refused(lambda: open_archive(tmp_path), tmp_path, "no complete triplet")


def test_a_file_in_a_folder_of_another_scene(copy):
    path = path_of(copy, TRAIN, "s1")
    path.rename(path.with_name("ROIs1158_spring_s1_2_p30.tif"))
    refused(lambda: open_archive(copy), "ROIs1158_spring_s1_2_p30.tif", "ROIs1158_spring_s1_1_p")


@pytest.mark.parametrize("kind", ["s1", "s2"])
def test_a_file_that_vanished_after_opening(copy, kind):
    archive = open_archive(copy)
    path_of(copy, TRAIN, kind).unlink()
    refused(lambda: archive.read(0), path_of(copy, TRAIN, kind), "missing")


@pytest.mark.parametrize("kind", ["s1", "s2", "lc"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_truncated_file(copy, kind, share, capfd):
    path = path_of(copy, TRAIN, kind)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(lambda: open_archive(copy).read(0), path, "truncated")
    assert capfd.readouterr() == ("", "")


def spoilt(pixels: np.ndarray) -> np.ndarray:
    pixels[1, 3, 3] = np.nan
    return pixels


@pytest.mark.parametrize(
    ("kind", "change", "parts"),
    [
        ("s2", lambda pixels: pixels[:12], ("12 bands", "expected 13")),
        ("s1", lambda pixels: pixels[:1], ("1 bands", "expected 2")),
        ("lc", lambda pixels: pixels[:1], ("1 bands", "expected 4")),
        ("s2", lambda pixels: pixels[:, :, :-1], ("B01", "256 x 255", "256 x 256")),
        ("lc", lambda pixels: pixels[:, :-1, :-1], ("255 x 255",)),
        ("s1", lambda pixels: pixels.astype("float64"), ("VV is float64", "float32")),
        ("s2", lambda pixels: pixels.astype("float32"), ("B01 is float32", "uint16")),
        ("s1", spoilt, ("VH", "1 NaN or infinite")),
        ("lc", lambda pixels: pixels + 1, ("IGBP code 18",)),
    ],
)
def test_wrong_pixels(copy, kind, change, parts):
    path = path_of(copy, TRAIN, kind)
    with rasterio.open(path) as file:
        pixels = change(file.read())
    save(path, pixels)
    refused(lambda: open_archive(copy).read(0), path, *parts)


def test_unknown_modality(original):
    refused(lambda: open_archive(original).read(0, ["lc"]), "'lc'", "s1, s2")


class Entry:
    """What os.scandir yields, of a file that exists by name only."""

    def __init__(self, name: str, folder: bool) -> None:
        self.name, self.is_dir = name, lambda: folder


def test_opens_180662_triplets_in_seconds_from_names_alone(tmp_path, monkeypatch):
    """The size of the archive, listed from memory: 4 seasons, 252 scenes, 3 kinds; seconds of this process, no disk."""
    scenes = {season: sorted({*scenes, *range(1, 64)})[:63] for season, scenes in HELD_OUT.items()}
    listing: dict[str, list[Entry]] = {}
    for season, numbers in scenes.items():
        (tmp_path / season).mkdir()
        folders = [f"{kind}_{scene}" for scene in numbers for kind in ("s1", "s2", "lc")]
        listing[str(tmp_path / season)] = [Entry(folder, True) for folder in folders]
        for folder in folders:
            names = [f"{season}_{folder}_p{patch}.tif" for patch in range(717)]
            listing[str(tmp_path / season / folder)] = [Entry(name, False) for name in names]
    monkeypatch.setattr(os, "scandir", lambda path: listing[str(path)])
    monkeypatch.setattr(rasterio, "open", None)
    start = time.process_time()
    archive = open_archive(tmp_path)
    assert len(archive.split("train")) + len(archive.split("test")) == len(archive) == 252 * 717
    assert time.process_time() - start < 5

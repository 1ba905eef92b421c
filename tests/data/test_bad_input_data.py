"""Whatever is wrong with the data is refused in one line that names the file and a cure."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.augment import augment
from fusmae_lite.data.pairs import PairDataset, stack_bands

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data_samples"
S2_NAME = "S2A_MSIL2A_20170613T101031_87_48"
S1_NAME = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A writable archive of one original pair, with its split list."""
    for folder, name in (("BigEarthNet-v1.0", S2_NAME), ("BigEarthNet-S1-v1.0", S1_NAME)):
        shutil.copytree(SAMPLES / folder / name, tmp_path / folder / name)
    (tmp_path / "train.csv").write_text(f"{S2_NAME},{S1_NAME}\n")
    return tmp_path


def tif(root: Path, band: str) -> Path:
    folder, name = ("BigEarthNet-S1-v1.0", S1_NAME) if band.startswith("V") else ("BigEarthNet-v1.0", S2_NAME)
    return root / folder / name / f"{name}_{band}.tif"


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], **profile: object) -> None:
    """Decode a GeoTIFF, change its pixels, write it back."""
    with rasterio.open(path) as file:
        pixels, kept = change(file.read()), file.profile
    kept.update(count=pixels.shape[0], height=pixels.shape[1], width=pixels.shape[2], dtype=pixels.dtype.name)
    kept.pop("blockysize", None)
    with rasterio.open(path, "w", **{**kept, **profile}) as file:
        file.write(pixels)


def refused(action: Callable[[], object], *parts: str) -> str:
    """Run it; assert a one-line InputError whose text has the parts and, after a semicolon, a cure."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    assert re.search(
        r"; .*\b(pass|download|complete|correct|crop|convert|add|write|keep|unpack|give|choose)\b", message
    ), message
    return message


def test_the_copy_is_sound_before_it_is_damaged(copy):
    assert len(open_archive(copy)) == 1 and open_archive(copy).read(0).labels


def test_a_folder_that_does_not_exist(tmp_path):
    refused(lambda: open_archive(tmp_path / "nowhere"), str(tmp_path / "nowhere"), "does not exist")


def test_a_folder_that_is_no_archive(tmp_path):
    refused(lambda: open_archive(tmp_path), str(tmp_path), "no archive", "BigEarthNet-v1.0", "BigEarthNet-S1-v1.0")


@pytest.mark.parametrize("folder", ["BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"])
def test_an_archive_of_one_sensor(copy, folder):
    shutil.rmtree(copy / folder)
    refused(lambda: open_archive(copy), str(copy), f"no folder {folder}")


def test_empty_folders(tmp_path):
    for folder in ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"):
        (tmp_path / folder).mkdir()
    refused(lambda: open_archive(tmp_path), str(tmp_path), "holds no patch")


@pytest.mark.parametrize("band", ["VH", "B8A"])
def test_a_missing_band(copy, band):
    tif(copy, band).unlink()
    refused(lambda: open_archive(copy).read(0), str(tif(copy, band)), f"band {band}", "missing")


@pytest.mark.parametrize("band", ["VV", "B02", "B01"])
@pytest.mark.parametrize("compress", ["deflate", "none"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_geotiff(copy, band, compress, share, capfd):
    path = tif(copy, band)
    rewrite(path, lambda pixels: pixels, compress=compress)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(lambda: open_archive(copy).read(0), str(path), "truncated")
    assert capfd.readouterr() == ("", "")


def test_gdal_adds_no_noise_of_its_own(copy):
    path = tif(copy, "B03")
    path.write_bytes(path.read_bytes()[:4000])
    code = (
        "import sys\nfrom fusmae_lite.data.archives import open_archive\n"
        "try:\n    open_archive(sys.argv[1]).read(0)\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, copy], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "" and done.stdout.count("\n") == 1


@pytest.mark.parametrize("band", ["VV", "B05"])
def test_a_wrong_sized_geotiff(copy, band):
    rewrite(tif(copy, band), lambda pixels: pixels[:, :-1])
    side = 120 if band == "VV" else 60
    refused(lambda: open_archive(copy).read(0), str(tif(copy, band)), f"{side - 1} x {side} pixels", f"{side} x {side}")


def test_a_geotiff_of_several_bands(copy):
    rewrite(tif(copy, "B05"), lambda pixels: np.concatenate([pixels, pixels]))
    refused(lambda: open_archive(copy).read(0), str(tif(copy, "B05")), "2 x 60 x 60")


def test_a_geotiff_of_another_type(copy):
    rewrite(tif(copy, "VV"), lambda pixels: pixels.astype("int32"), predictor=1)
    refused(lambda: open_archive(copy).read(0), str(tif(copy, "VV")), "band VV is int32", "float32")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("band", ["VV", "VH"])
def test_values_that_are_not_finite(copy, value, band):
    def spoil(pixels: np.ndarray) -> np.ndarray:
        pixels[0, 60, 7] = value
        return pixels

    rewrite(tif(copy, band), spoil)
    refused(lambda: open_archive(copy).read(0), str(tif(copy, band)), f"band {band}", "1 NaN or infinite")


@pytest.mark.parametrize("listed", [True, False])
def test_an_s2_patch_without_its_s1_partner(copy, listed):
    if not listed:
        (copy / "train.csv").unlink()
    shutil.rmtree(copy / "BigEarthNet-S1-v1.0" / S1_NAME)
    refused(lambda: open_archive(copy), str(copy / "BigEarthNet-v1.0" / S2_NAME), "S1")


@pytest.mark.parametrize("listed", [True, False])
def test_an_s1_patch_without_its_s2_partner(copy, listed):
    if not listed:
        (copy / "train.csv").unlink()
    shutil.rmtree(copy / "BigEarthNet-v1.0" / S2_NAME)
    refused(lambda: open_archive(copy), str(copy / "BigEarthNet-v1.0" / S2_NAME), S1_NAME, "missing")


def test_labels_outside_the_nomenclature(copy):
    path = copy / "BigEarthNet-v1.0" / S2_NAME / f"{S2_NAME}_labels_metadata.json"
    path.write_text(json.dumps({"labels": ["Pastures", "Moon crater"]}))
    archive = open_archive(copy)
    for action in (lambda: archive.labels, lambda: archive.read(0)):
        refused(action, str(path), "'Moon crater'")


@pytest.mark.parametrize("text", ["{", "[]", "{}", None])
def test_a_damaged_json(copy, text):
    path = copy / "BigEarthNet-v1.0" / S2_NAME / f"{S2_NAME}_labels_metadata.json"
    path.unlink() if text is None else path.write_text(text)
    refused(lambda: open_archive(copy).read(0), str(path))


def test_a_split_list_with_a_line_of_anything_else(copy):
    (copy / "train.csv").write_text(f"patch,partner\n{S2_NAME},{S1_NAME}\n")
    refused(lambda: open_archive(copy), f"{copy / 'train.csv'} line 1", "no pair of names")


def test_a_patch_in_two_splits(copy):
    shutil.copy(copy / "train.csv", copy / "test.csv")
    refused(lambda: open_archive(copy), str(copy / "test.csv"), S2_NAME, "also in train")


def test_an_index_without_its_columns(copy):
    (copy / "index.csv").write_text("name,split\nx,train\n")
    refused(lambda: open_archive(copy), str(copy / "index.csv"), "s2_name")


def test_unknown_split_modality_band_and_augmentation(copy):
    archive = open_archive(copy)
    refused(lambda: archive.split("dev"), "'dev'", "train, val, test, all")
    refused(lambda: archive.read(0, ["s3"]), "'s3'", "s1, s2")
    refused(lambda: PairDataset(archive, modalities=["s3"]), "'s3'", "s1, s2")
    refused(lambda: stack_bands({}, "s1"), "VV, VH")
    refused(lambda: augment({}, "mixup"), "'mixup'", "none, flips, crops")

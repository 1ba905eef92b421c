"""BigEarthNet v1 as an archive: opening, pairing, splits, labels, reading. Runs on the bundled patches."""

import json
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data.archives import FORMATS, Archive, BigEarthNetV1, open_archive
from fusmae_lite.data.archives.labels import BEN19, BEN43, TO_19, convert_43_to_19

SAMPLES = Path(__file__).resolve().parents[2] / "data_samples"


@pytest.fixture(scope="module")
def archive() -> Archive:
    return open_archive(SAMPLES)


def copy_patches(archive: Archive, rows: list[int], root: Path) -> Path:
    """An archive of a few patches without any list."""
    for row in rows:
        for folder, name in (
            ("BigEarthNet-v1.0", archive.names[row]),
            ("BigEarthNet-S1-v1.0", archive.meta(row)["s1_name"]),
        ):
            shutil.copytree(SAMPLES / folder / name, root / folder / name)
    return root


def test_nomenclatures_have_their_sizes_and_fit_together():
    assert (len(BEN43), len(set(BEN43)), len(BEN19), len(set(BEN19))) == (43, 43, 19, 19)
    assert {name for name in TO_19.values() if name} == set(BEN19)  # every class can be reached
    assert sum(name is None for name in TO_19.values()) == 11  # and eleven are dropped


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["Sea and ocean", "Estuaries", "Rice fields"], ("Arable land", "Marine waters")),  # merged, in BEN19 order
        (["Transitional woodland/shrub"], ("Transitional woodland, shrub",)),
        (["Airports", "Bare rock"], ()),
        ([], ()),
    ],
)
def test_convert_43_to_19(labels, expected):
    assert convert_43_to_19(labels) == expected


def test_opens_fast_without_reading_pixels_and_few_json(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("opening an archive must not open its patches")

    read, loads = [], json.loads
    monkeypatch.setattr(rasterio, "open", refuse)
    monkeypatch.setattr(json, "loads", lambda text: read.append(text) or loads(text))
    start = time.process_time()
    archive = open_archive(str(SAMPLES))
    assert time.process_time() - start < 2  # processor seconds: the machine may be shared
    assert len(read) <= 16  # a sample of S1's json, whose partner must be that of the lists
    assert isinstance(archive, BigEarthNetV1) and len(archive) == 84


def test_without_a_folder_it_is_the_bundled_pairs(archive):
    assert open_archive().root == archive.root and open_archive().names == archive.names


def test_splits_are_disjoint_and_cover_the_samples(archive):
    parts = [archive.split(name) for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [45, 21, 18]
    assert sorted(np.concatenate(parts)) == archive.split("all").tolist()


def test_labels_agree_with_the_patches(archive):
    assert archive.labels.shape == (84, 19) and archive.labels.dtype == bool
    for row in (0, 7, 83):
        patch = archive.read(row, ["s1"])
        assert patch.labels == tuple(np.array(BEN19)[archive.labels[row]])


def test_read_gives_native_bands_in_order(archive):
    patch = archive.read(3)
    assert patch.name == archive.names[3]
    assert list(patch.bands) == ["s1", "s2"]
    for modality in (S1, S2):
        assert tuple(patch.bands[modality.name]) == modality.bands
        for band, array in patch.bands[modality.name].items():
            assert array.shape == (modality.native_side(band),) * 2 and array.dtype == modality.dtype
    assert patch.crs.startswith("EPSG:326")
    left, bottom, right, top = patch.bounds
    assert (right - left, top - bottom) == (1200, 1200)
    assert {"split", "country", "season", "s1_name", "tile", "acquisition_date"} <= set(patch.meta)


def test_reads_only_what_is_asked_for(archive, monkeypatch):
    opened = []
    original = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda path, **kw: opened.append(str(path)) or original(path, **kw))
    assert list(archive.read(0, ["s1"]).bands) == ["s1"]
    assert len(opened) == 2 and all("BigEarthNet-S1" in path for path in opened)


def test_keys_are_the_names_of_the_two_folders(archive):
    assert archive.keys(3) == {"s1": archive.meta(3)["s1_name"], "s2": archive.names[3]}


def test_both_sensors_of_every_sample_see_the_same_ground(archive):
    for row in range(len(archive)):
        radar, optical = archive.read(row, ["s1"]), archive.read(row, ["s2"])
        assert (radar.crs, radar.bounds) == (optical.crs, optical.bounds), archive.names[row]


def test_survives_pickling_for_loader_processes(archive):
    copy = pickle.loads(pickle.dumps(archive))
    assert copy.names == archive.names and copy.read(1).labels == archive.read(1).labels


def test_without_lists_the_pairing_comes_from_the_s1_json(archive, tmp_path):
    bare = open_archive(copy_patches(archive, [0, 40, 83], tmp_path))
    assert set(bare.names) == {archive.names[row] for row in (0, 40, 83)}
    for row, name in enumerate(bare.names):
        assert bare.meta(row)["s1_name"] == archive.meta(archive.names.index(name))["s1_name"]
        assert bare.meta(row)["tile"] == archive.meta(archive.names.index(name))["tile"]
        assert bare.meta(row)["acquisition_date"] == archive.meta(archive.names.index(name))["acquisition_date"]
    assert len(bare.split("all")) == 3
    with pytest.raises(InputError, match="no split lists found"):
        bare.split("train")


def test_official_lists_are_read_from_the_root_too_and_leave_other_folders_out(archive, tmp_path):
    copy_patches(archive, [0, 40, 83], tmp_path)
    (tmp_path / "test.csv").write_text(f"{archive.names[40]},{archive.meta(40)['s1_name']}\n")
    listed = open_archive(tmp_path)
    assert listed.names == (archive.names[40],) and listed.split("test").tolist() == [0]


def test_split_lists_win_over_the_index(archive, tmp_path):
    copy_patches(archive, [0, 40], tmp_path)
    lines = [f"{archive.names[row]},{archive.meta(row)['s1_name']}" for row in (0, 40)]
    (tmp_path / "index.csv").write_text("s2_name,s1_name,split\n" + "".join(f"{line},train\n" for line in lines))
    assert len(open_archive(tmp_path).split("train")) == 2
    (tmp_path / "val.csv").write_text(lines[0] + "\n")
    assert [len(open_archive(tmp_path).split(name)) for name in ("train", "val", "all")] == [0, 1, 2]


def test_a_patch_without_a_19_class_label_stays_and_is_reported(archive, tmp_path):
    root = copy_patches(archive, [0, 40], tmp_path)
    path = root / "BigEarthNet-v1.0" / archive.names[0] / f"{archive.names[0]}_labels_metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": ["Airports"]}))
    bare = open_archive(root)
    assert len(bare) == 2 and bare.read(bare.names.index(archive.names[0])).labels == ()
    assert "1 pairs carry no label" in bare.describe()


def test_describe_names_what_matters(archive):
    text = archive.describe()
    for part in ("BigEarthNet-MM v1", "84 pairs: 45 train, 21 val, 18 test", "16 of 19 classes"):
        assert part in text


def test_a_sibling_format_joins_through_the_list(archive, tmp_path, monkeypatch):
    class Numbered(Archive):
        kind, layout, classes = "numbered", "a file numbers.txt", ("odd",)

        def __init__(self, root: Path, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
            self.root, self.names = root, (root / "numbers.txt").read_text().split()

        @classmethod
        def matches(cls, root: Path) -> bool:
            return (root / "numbers.txt").is_file()

        def read(self, index, modalities=None):
            raise NotImplementedError

        @property
        def labels(self) -> np.ndarray:
            return np.array([[int(name) % 2 == 1] for name in self.names])

        def keys(self, index: int) -> dict[str, str]:
            return {"number": self.names[index]}

        def meta(self, index: int) -> dict[str, str]:
            return {"split": "train" if index else "test"}

    (tmp_path / "numbers.txt").write_text("1 2 3")
    with pytest.raises(InputError):
        open_archive(tmp_path)
    monkeypatch.setattr("fusmae_lite.data.archives.FORMATS", [*FORMATS, Numbered])
    joined = open_archive(tmp_path)
    assert joined.split("train").tolist() == [1, 2]
    assert "3 pairs: 2 train, 1 test" in joined.describe()


@pytest.mark.parametrize("name", ["country", "season", "tile", "acquisition_date", "s1_name", "unknown"])
def test_a_fact_of_every_pair_is_what_each_tells(archive, tmp_path, name):
    told = [archive.meta(row).get(name, "") for row in range(len(archive))]
    assert archive.fact(name).tolist() == told and any(told) == (name != "unknown")
    some = copy_patches(archive, [0, 40], tmp_path)  # without any table
    assert open_archive(some).fact("country").tolist() == ["", ""]

"""Synthetic archives: the same pair in every format, the measured statistics, known truth that can be found or not."""

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_archives import refused

from benchmarks.measure_statistics import band_means, cell_texture, correlation_length, looks, measure
from fusmae_lite.course.cli import main
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.archives.base import SYNTHETIC
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.names import version
from fusmae_lite.data.archives.sen12ms import IGBP10, SIDE
from fusmae_lite.data.encode import encode
from fusmae_lite.data.synthetic import Scenes, Truth, is_synthetic, read_truth, scene, synthesise, write
from fusmae_lite.data.synthetic.scene import TO_DB, block_mean, load

SAMPLES = Path(__file__).resolve().parents[2] / "data_samples"


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Archive]:
    """Eight synthetic pairs of one seed in each format."""
    root = tmp_path_factory.mktemp("synthetic")
    return {name: open_archive(synthesise(root / name, 8, format=name, seed=5)) for name in write.FORMATS}


def same(first, second) -> bool:
    """Same bands, same pixels, same types."""
    pairs = [(first.bands[m][band], second.bands[m][band]) for m in first.bands for band in first.bands[m]]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def test_every_format_opens_and_says_what_it_is(archives):
    assert [type(archive).__name__ for archive in archives.values()] == [
        "BigEarthNetV1",
        "ReBEN",
        "SEN12MS",
        "LmdbArchive",
    ]
    for name, archive in archives.items():
        assert len(archive) == 8 and is_synthetic(archive.root) and not is_synthetic(SAMPLES)
        assert (archive.root / SYNTHETIC).read_text().startswith("SYNTHETIC DATA.")
        assert name == "sen12ms" or archive.meta(0)["country"] == "Synthetic"


def test_a_pair_is_the_same_in_every_format_of_bigearthnet(archives):
    scenes = Scenes(5)
    for index in range(8):
        pair, row = scenes.pair(index), write.describe(index)
        for name in ("v1", "reben", "lmdb"):
            archive = archives[name]
            place = list(archive.names).index(row["s2v1_name"] if name == "v1" else row["patch_id"])
            patch = archive.read(place)
            assert same(patch, pair) and patch.labels == pair.labels
            assert archive.splits[place] == row["split"].removesuffix("idation")
            assert archive.keys(place)["s1"] == row["s1_name"]


def test_splits_are_60_20_20(archives):
    sizes = [[len(archives[name].split(part)) for part in ("train", "val", "test")] for name in ("v1", "reben", "lmdb")]
    assert sizes == [[6, 1, 1]] * 3


def test_sen12ms_labels_are_those_of_its_maps(archives):
    archive = archives["sen12ms"]
    scenes = Scenes(5, lookalikes=write.LOOKALIKES, side=SIDE, one_grid=True)
    for place, name in enumerate(archive.names):
        pair = scenes.pair(int(name.rpartition("_p")[2]))
        patch = archive.read(place)
        assert same(patch, pair) and {array.shape for array in patch.bands["s2"].values()} == {(SIDE, SIDE)}
        assert patch.labels == (tuple(IGBP10)[np.bincount(pair.land_cover.ravel()).argmax()],)


def test_a_pair_depends_on_seed_and_index_alone(tmp_path):
    first, again, other = Scenes(1), Scenes(1), Scenes(2)
    assert same(first.pair(9), [again.pair(2), again.pair(9)][1])
    assert not same(first.pair(9), first.pair(8)) and not same(first.pair(9), other.pair(9))
    pairs = write.CHUNK + 6
    one, two = (open_archive(synthesise(tmp_path / str(n), pairs, seed=1, workers=n)) for n in (1, 2))
    assert one.names == two.names and np.array_equal(one.labels, two.labels)
    assert all(same(one.read(row), two.read(row)) for row in (0, 9, write.CHUNK - 1, write.CHUNK, pairs - 1))


def test_names_keep_the_grammar_and_differ():
    rows = [write.describe(index) for index in (*range(0, 5_000_000, 4_999), 1, 90, 8_100)]
    assert {version(row["patch_id"]) for row in rows} == {2} and {version(row["s2v1_name"]) for row in rows} == {1}
    for names in zip(*((row["patch_id"], row["s2v1_name"], row["s1_name"]) for row in rows), strict=True):
        assert len(set(names)) == len(rows)


# The statistics


@pytest.fixture(scope="module")
def single() -> dict[str, list]:
    """Synthetic pairs of one class each, over land and over the sea."""
    scenes = Scenes(0)
    pairs = [pair for pair in map(scenes.pair, range(500)) if len(pair.labels) == 1]
    return {
        "all": pairs,
        "sea": [pair for pair in pairs if pair.labels == ("Marine waters",)],
        "land": [pair for pair in pairs if pair.labels != ("Marine waters",)][:60],
    }


def test_the_shipped_statistics_are_those_of_the_bundled_patches():
    archive = open_archive(SAMPLES)
    rows = [row for row in archive.split("train") if {archive.meta(row)[c] for c in ("snow", "bright")} == {"False"}]
    shipped, again = load(), measure(archive, rows)
    assert set(shipped) == {"about", *again} and "Copernicus" in shipped["about"]
    assert (again["looks"], again["labels_per_patch"]) == (shipped["looks"], shipped["labels_per_patch"])
    for name in BEN19:
        assert np.allclose(again["classes"][name]["mean"], shipped["classes"][name]["mean"], atol=1e-3)
    borrowed = {name for name in BEN19 if shipped["classes"][name]["source"] != "measured"}
    assert borrowed == {name for name in BEN19 if shipped["classes"][name]["patches"] == 0} and len(borrowed) == 4


def test_band_means_are_those_of_the_classes(single):
    """Of 180 pairs the mean to 0.4 deviations (five standard errors), the deviation to 40 %: texture adds some."""
    found = load()["classes"]
    off = np.array([band_means(pair.bands) - found[pair.labels[0]]["mean"] for pair in single["all"]])
    spread = np.sqrt(np.mean([np.diag(found[pair.labels[0]]["covariance"]) for pair in single["all"]], axis=0))
    assert len(off) > 120 and (np.abs(off.mean(axis=0)) < 0.4 * spread).all()
    assert (np.abs(off.std(axis=0) / spread - 1) < 0.4).all()


def test_speckle_has_the_measured_looks(single, monkeypatch):
    measured = np.median([looks(pair.bands) for pair in single["sea"]])
    assert abs(measured / load()["looks"] - 1) < 0.1
    smoother = {**load(), "looks": 2 * load()["looks"]}
    monkeypatch.setattr(scene, "load", lambda: smoother)
    wrong = [looks(Scenes(0, lookalikes={"sea": "Marine waters"}).pair(0).bands)]
    assert abs(np.median(wrong) / load()["looks"] - 1) > 0.3  # the test above could have failed


def test_texture_has_the_measured_correlation_length_and_deviation(single):
    """15 % for the length; 25 % for the deviation of the 20 m and 10 m bands, whose texture is far above one count."""
    found = load()
    lengths = [correlation_length(pair.bands) for pair in single["land"]]
    assert abs(np.mean(lengths) / found["correlation_length_metres"] - 1) < 0.15
    ratios = []
    for pair in single["land"]:
        level = np.repeat(found["classes"][pair.labels[0]]["texture_level"], [2, 12])
        ratios.append(cell_texture(pair.bands).var(axis=1) / np.exp(2 * level) / np.diag(found["texture_covariance"]))
    deviation = np.sqrt(np.median(ratios, axis=0))[3:11]
    assert (np.abs(deviation - 1) < 0.25).all(), deviation


def test_radar_and_optics_share_the_map():
    """Where land meets sea both sensors change, although their textures and speckle differ."""
    scenes = Scenes(3, lookalikes={"sea": "Marine waters", "land": "Broad-leaved forest"})
    alike = []
    for pair in (pair for pair in map(scenes.pair, range(12)) if len(pair.labels) == 2):
        radar = np.log(block_mean(10 ** (pair.bands["s1"]["VH"] / 10), 6)).ravel()
        alike.append(np.corrcoef(radar, np.log(block_mean(pair.bands["s2"]["B08"] * 1.0, 6)).ravel())[0, 1])
    assert np.median(alike) > 0.7, alike


# Known truth


def features(bands: dict) -> tuple[np.ndarray, np.ndarray]:
    """Mean and quantiles of the 60 m cells: of six directions of the VV-VH plane, and of the optical bands."""
    radar = np.stack([TO_DB * np.log(block_mean(10 ** (band / 10), 6)) for band in bands["s1"].values()])
    angle = np.deg2rad(np.arange(0, 180, 30))
    radar = np.tensordot(np.stack([np.cos(angle), np.sin(angle)], axis=1), radar, axes=1)
    optical = np.log(np.stack([block_mean(band * 1.0, len(band) // 20) for band in bands["s2"].values()]))
    cells = [image.reshape(len(image), -1) for image in (radar, optical)]
    return tuple(np.vstack([c.mean(axis=1), np.quantile(c, [0.1, 0.25, 0.75, 0.9], axis=1)]).ravel() for c in cells)


def products(first: np.ndarray, second: np.ndarray, train: int) -> np.ndarray:
    """Every product of a leading component of one sensor's features with one of the other's."""
    parts = [
        make_pipeline(StandardScaler(), PCA(count, whiten=True, svd_solver="full")).fit(x[:train]).transform(x)
        for x, count in ((first, 10), (second, 12))
    ]
    return np.einsum("ni,nj->nij", *parts).reshape(len(first), -1)


def test_each_class_is_found_where_it_shows_and_nowhere_else():
    truth, train, pairs = Truth(), 600, 900
    scenes = Scenes(0, truth=truth)
    drawn = [scenes.pair(index) for index in range(pairs)]
    radar, optical = map(np.array, zip(*(features(pair.bands) for pair in drawn), strict=True))
    views = {"radar": radar, "optical": optical, "joined": np.hstack([radar, optical])}
    views["products"] = products(radar, optical, train)
    for name, kind in zip(truth.classes, truth.kind_of(), strict=True):
        present = np.array([name in pair.labels for pair in drawn])
        share, lift = present[train:].mean(), {}
        for view, x in views.items():
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
            scores = model.fit(x[:train], present[:train]).decision_function(x[train:])
            lift[view] = (average_precision_score(present[train:], scores) - share) / (1 - share)  # 0 chance, 1 perfect
        seen = {view for view, gain in lift.items() if gain > 0.5}
        unseen = {view for view, gain in lift.items() if gain < 0.25}
        where = {"radar": {"radar", "joined"}, "optical": {"optical", "joined"}, "both": {"radar", "optical", "joined"}}
        # joining features adds what each says; only their product can tell whether exactly one sensor shows a mark
        where |= {"combination": {"products"}, "neither": set()}
        assert where[kind] <= seen, (name, kind, lift)
        blind = {"radar": {"optical"}, "optical": {"radar"}, "combination": {"radar", "optical", "joined"}}
        assert blind.get(kind, set()) <= unseen and (kind != "neither" or len(unseen) == 4), (name, kind, lift)


def test_the_truth_travels_with_the_archive(tmp_path):
    truth = Truth(radar=("Pastures",), optical=(), both=("Arable land",), combination=("Urban fabric",), neither=())
    archive = open_archive(synthesise(tmp_path / "a", 40, truth=truth, seed=1))
    assert read_truth(tmp_path / "a/truth.json") == truth
    assert json.loads((tmp_path / "a/truth.json").read_text())["about"] == "synthetic data"
    occurring = set(np.array(BEN19)[archive.labels.any(axis=0)])
    assert occurring == set(truth.classes) and 0.15 < archive.labels[:, BEN19.index("Pastures")].mean() < 0.45


def test_a_combination_class_is_independent_of_either_sensor():
    truth, rng = Truth(), np.random.default_rng(0)
    column = truth.kind_of().index("combination")
    present, radar, optical = np.array([truth.draw(rng) for _ in range(5_000)])[:, :, column].T
    assert np.array_equal(present, radar ^ optical)
    for shown in (radar, optical):
        assert abs(shown.mean() - 0.5) < 0.04 and abs(present[shown].mean() - present[~shown].mean()) < 0.06


# Bad input


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"pairs": 0}, ("pairs 0",)),
        ({"pairs": 4, "format": "hdf5"}, ("'hdf5'", "v1, reben, sen12ms, lmdb")),
        ({"pairs": 4, "seed": -1}, ("seed -1",)),
        ({"pairs": 4, "format": "sen12ms", "truth": Truth()}, ("truth", "SEN12MS")),
    ],
)
def test_refuses_before_it_writes(tmp_path, options, parts):
    refused(lambda: synthesise(tmp_path / "new", **options), *parts)
    assert not list(tmp_path.iterdir())


def test_never_overwrites(tmp_path):
    (tmp_path / "mine").mkdir()
    refused(lambda: synthesise(tmp_path / "mine", 2), str(tmp_path / "mine"), "exists")


def test_too_little_room(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    refused(lambda: synthesise(tmp_path / "new", 1000), "GB free", "fewer pairs")


@pytest.mark.parametrize("name", ["lmdb", "v1"])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch, name):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "_write_tif", full)
    monkeypatch.setattr(write, "pack", full)  # of lmdb
    refused(lambda: synthesise(tmp_path / "new", 2, format=name), "No space left")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is unreadable"),
        ("[]", "a JSON object is needed"),
        ('{"sonar": []}', "no truth table"),
        ('{"radar": ["Moon crater"]}', "'Moon crater'"),
        ('{"radar": ["Pastures"], "optical": ["Pastures"], "combination": []}', "'Pastures' is listed twice"),
        ('{"prevalence": 1.5}', "prevalence 1.5"),
        ('{"prevalence": "often"}', "often"),
        ('{"radar": 3}', "iterable"),
    ],
)
def test_truth_tables_that_are_none(tmp_path, text, part):
    (tmp_path / "truth.json").write_text(text)
    refused(lambda: read_truth(tmp_path / "truth.json"), part)


def test_the_console_command(tmp_path, capsys):
    arguments = ["synthesise", str(tmp_path / "a"), "--pairs", "3", "--seed", "4", "--truth"]
    assert main(arguments) == 0
    assert "3 synthetic pairs in" in capsys.readouterr().out
    assert len(open_archive(tmp_path / "a")) == 3 and read_truth(tmp_path / "a/truth.json") == Truth()
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_what_is_synthetic_stays_marked(tmp_path):
    made = open_archive(synthesise(tmp_path / "made", 3, format="reben"))
    encode(made, tmp_path / "copy", workers=0)
    copy = open_archive(tmp_path / "copy")
    for archive in (made, copy):
        assert "3 synthetic pairs" in archive.describe() and is_synthetic(archive.root)

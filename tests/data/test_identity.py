"""A result belongs to its data: whatever changes in the pairs under the same names is seen by everything kept."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import rasterio
import test_sen12ms as sen12ms
import torch
from small_archives import MAKERS, change_value, make_v1
from test_pretrain import variant

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import S1, register
from fusmae_lite.course.cli import main
from fusmae_lite.course.engine import Execution
from fusmae_lite.course.run import Course
from fusmae_lite.data import identity as module
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.archives.lmdb_store import release
from fusmae_lite.data.archives.splits import resplit
from fusmae_lite.data.encode import encode
from fusmae_lite.data.identity import difference, identity, identity_of
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation import frozen_features, linear_probe
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.train.pretrain import pretrain
from reproduce import load_plan
from reproduce.run import _same_plan

BOTH = ("s1", "s2")


def of(root: Path) -> str:
    return identity(open_archive(root))


def brighten(root: Path) -> None:
    """Other radar pixels under the same names, in files of the same size and time."""
    for path in sorted((root / "BigEarthNet-S1-v1.0").rglob("*.tif")):
        times = os.stat(path)
        with rasterio.open(path) as file:
            pixels, profile = file.read(), file.profile
        with rasterio.open(path, "w", **profile) as file:
            file.write(pixels + 3)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def root(archive, tmp_path) -> Path:
    """Four pairs, of every split."""
    return make_v1(tmp_path / "v1", archive)


@pytest.mark.parametrize("kind", ["v1", "reben", "sen12ms"])
def test_a_byte_of_any_file_is_another_identity_and_a_copy_is_none(kind, archive, tmp_path):
    root = tmp_path / "a"
    if kind == "sen12ms":
        for name in (sen12ms.TRAIN, sen12ms.TEST):
            sen12ms.write(root, name, sen12ms.igbp((17, 256)))
    else:
        MAKERS[kind](root, archive, (0, 15))
    shutil.copytree(root, tmp_path / "b", copy_function=shutil.copy)  # with new times
    before, opened = of(root), open_archive(root)
    assert of(tmp_path / "b") == before and "." not in before
    for path in (path for path in root.rglob("*") if path.suffix in (".tif", ".json")):
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        assert identity(opened) != before, path
        path.write_bytes(sound)
    assert identity(opened) == before
    assert identity(opened, [1, 0]) != identity(opened, [0, 1]) != identity(opened)
    assert identity(resplit(opened, opened.splits[::-1], "turned")) != before


def test_of_many_files_sizes_and_times_are_asked_and_a_copy_is_told_how_to_be_one(root, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WHOLE_FILES", 0)
    monkeypatch.setattr(module, "DRAWN", 1)
    before = of(root)
    assert before == of(root)
    path = next((root / "BigEarthNet-v1.0").rglob("*_B05.tif"))
    os.utime(path, (1, 1))
    assert "cp -a" in difference(before, of(root))[1] and difference(before, before) is None
    path.write_bytes(path.read_bytes() + b"\0")
    assert "have changed" in difference(before, of(root))[0]


@pytest.mark.parametrize("kind", ["encoded", "rico"])
def test_an_lmdb_is_known_by_its_checksums_or_its_values(kind, archive, tmp_path, monkeypatch):
    root = MAKERS[kind](tmp_path, archive)
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    opened, before = open_archive(root), of(root)
    assert of(tmp_path / "copy") == before
    monkeypatch.setattr(module, "DRAWN", 1)
    many, copied = of(root), of(tmp_path / "copy")
    assert (many == copied) == (kind == "encoded")  # without checksums only times tell
    monkeypatch.undo()
    release(opened.folder)
    change_value(opened.folder, opened.keys(3)["s1"], lambda value: value[:-1] + bytes([value[-1] ^ 1]))
    assert of(root) != before


def test_statistics_size_sensors_and_normalisation_belong_to_it(root):
    opened = open_archive(root)
    before = identity_of(PairDataset(opened, "all"))
    others = [identity_of(PairDataset(opened, "all", **change)) for change in
              ({"size": 60}, {"normalise": False}, {"modalities": ("s1",)}, {"indices": [0, 1]})]  # fmt: skip
    assert len({before, *others}) == 5
    assert identity_of(PairDataset(opened, "all", native=True)) == before
    assert identity_of(PairDataset(opened, "all"), ("s1",)) == others[2]
    register(replace(S1, mean=(-12.0, -19.0)), replace=True)
    assert identity_of(PairDataset(opened, "all")) != before


def test_files_are_looked_at_once_a_data_set(root, monkeypatch):
    looked, found = [], module._of_sensor
    monkeypatch.setattr(
        module, "_of_sensor", lambda archive, rows, name: looked.append(name) or found(archive, rows, name)
    )
    pairs = PairDataset(open_archive(root), "all")
    for sensors in (("s1",), ("s2",), BOTH, BOTH):
        identity_of(pairs, sensors)
    assert looked == ["s1", "s2"]


def test_features_of_pairs_that_changed_are_made_again_and_it_is_said_once(tiny, root, tmp_path, capsys):
    model, cache = FusMAE(tiny.architecture()), tmp_path / "cache"

    def features(sensors=BOTH):
        return frozen_features(model, open_archive(root), "train", sensors, cache)

    first = features()
    assert not first.cached and features().cached and not capsys.readouterr().out
    brighten(root)
    opened = open_archive(root)
    pairs = PairDataset(opened, "train")
    second = frozen_features(model, opened, "train", BOTH, cache, dataset=pairs)
    assert not second.cached and not torch.equal(second.x, first.x)
    assert "have changed since" in (said := capsys.readouterr().out) and said.count("\n") == 1
    assert features().cached and len(list(cache.iterdir())) == 1
    torch.nn.init.ones_(model.norm.bias)
    assert not features().cached  # weights changed in place


def test_features_come_from_the_pairs_they_say(tiny, archive, root, tmp_path):
    model, other = FusMAE(tiny.architecture()), open_archive(root)
    for dataset, words in (
        (PairDataset(other, "train"), "not of the archive given"),
        (PairDataset(archive, "test"), "not in the split 'train'"),
        (PairDataset(archive, "train", size=48), "size 48"),
        (PairDataset(archive, "train", normalise=False), "normalise False"),
        (PairDataset(archive, "train", modalities=("s1",)), "lacks sensors: s2"),
    ):
        with pytest.raises(InputError, match=words):
            frozen_features(model, archive, "train", BOTH, dataset=dataset)
    few = PairDataset(archive, indices=archive.split("train")[:3])
    some = frozen_features(model, archive, "train", BOTH, tmp_path, dataset=few)
    every = frozen_features(model, archive, "train", BOTH, tmp_path)
    assert len(some.x) == 3 and not every.cached and len(every.x) == len(archive.split("train"))
    elsewhere = frozen_features(model, other, "test", BOTH)
    with pytest.raises(InputError, match="features of archive.*if you mean it"):
        linear_probe(every, every.y, elsewhere, tiny)
    with pytest.raises(InputError, match="split train and test features of split train share patches"):
        linear_probe(every, every.y, every, tiny)


def test_a_run_goes_on_with_a_copy_and_not_with_other_pixels(tiny, root, tmp_path):
    config = variant(tiny, batch_size=1, epochs=1, max_steps=1, data_dir=str(root))
    pretrain(config, quiet=True)
    shutil.copytree(root, tmp_path / "moved", copy_function=shutil.copy)
    moved = variant(config, max_steps=0, data_dir=str(tmp_path / "moved"))
    assert pretrain(moved, quiet=True).resumed_from == 1
    brighten(root)
    with pytest.raises(InputError, match="other patches: its pairs are others, or have changed.*another run_dir") as e:
        pretrain(config, quiet=True)
    assert "\n" not in str(e.value)


def test_results_on_pairs_that_changed_are_refused(root, tmp_path):
    plan, roots = load_plan("smoke"), [str(root), ""]
    for _ in range(2):
        _same_plan(plan, tmp_path / "results", (str(root), ""), roots)
    brighten(root)
    with pytest.raises(InputError, match="pairs of .*v1 that have changed since; give another folder"):
        _same_plan(plan, tmp_path / "results", (str(root), ""), roots)


def test_a_course_runs_again_on_pairs_that_changed(tiny, root, tmp_path, capsys):
    source = nbformat.v4.new_notebook()
    nbformat.write(source, tmp_path / "00_start.ipynb")
    config, every = variant(tiny, data_dir=str(root)), [tmp_path / "00_start.ipynb"]
    tiny.folder().mkdir()
    for end in (".ipynb", ".html"):
        (tiny.folder() / f"00_start{end}").touch()
    course = Course(config, every)
    done = Execution(cells=1, seconds=1.0, peak_memory_mib=None, failure=None)
    course.store(every[0], done, course.basis(every[0], {}))
    assert Course(config, every).finished(every[0], {}) and not capsys.readouterr().out
    brighten(root)
    assert not Course(config, every).finished(every[0], {})
    assert "the pairs have changed since it ran" in capsys.readouterr().out


def test_an_encode_takes_no_pair_that_changed_for_done_and_verify_sees_it(root, tmp_path, capsys, monkeypatch):
    lmdb, names = tmp_path / "lmdb", open_archive(root).names
    damaged = root / "BigEarthNet-v1.0" / names[3] / f"{names[3]}_B05.tif"
    sound = damaged.read_bytes()
    damaged.write_bytes(sound[:300])  # so that it is not finished
    command = ["encode", str(root), str(lmdb), "--workers", "0"]
    assert main(command) == 1
    brighten(root)
    damaged.write_bytes(sound)
    assert main(command) == 0
    assert "3 pairs may have changed since they were encoded" in capsys.readouterr().out
    stored, source = (open_archive(path).read(0).bands["s1"]["VV"] for path in (lmdb, root))
    assert np.array_equal(stored, source)

    second = tmp_path / "second"
    encode(open_archive(root), second, workers=0)
    verify = ["encode", str(root), str(second), "--workers", "0", "--verify"]
    for path in root.rglob("*.tif"):
        path.touch()
    assert main(verify) == 0  # only times differ
    assert "has not changed since" in capsys.readouterr().out
    brighten(root)
    assert main(verify) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"4 pairs differ, first {names[0]}" in error and "into another folder" in error
    shutil.rmtree(root)
    assert main(verify) == 0 and "is not there: not compared" in capsys.readouterr().out

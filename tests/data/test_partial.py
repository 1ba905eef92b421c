"""partial=True takes what is whole, in every command: what is missing or damaged is left out, and that is said."""

import json
import shutil

import numpy as np
import pytest
from small_archives import MAKERS, SAMPLES, change_value, make_v1, refused

from fusmae_lite.course.cli import main
from fusmae_lite.course.doctor import report
from fusmae_lite.data import encode as encoding
from fusmae_lite.data.archives import open_archive, open_data
from fusmae_lite.data.archives.lmdb_store import release
from fusmae_lite.evaluation import evaluate
from fusmae_lite.train.pretrain import pretrain

ROWS = (0, 1, 2, 3, 4, 5, 6, 7, 15, 16)


@pytest.fixture
def damaged(archive, tmp_path):
    """Ten pairs of v1 with a truncated band, a missing band and a missing partner; and the names of the three."""
    root = make_v1(tmp_path / "v1", archive, ROWS)
    names = [archive.names[row] for row in ROWS[1:4]]
    cut = root / "BigEarthNet-v1.0" / names[0] / f"{names[0]}_B08.tif"
    cut.write_bytes(cut.read_bytes()[:6000])
    (root / "BigEarthNet-v1.0" / names[1] / f"{names[1]}_B11.tif").unlink()
    shutil.rmtree(root / "BigEarthNet-S1-v1.0" / archive.meta(ROWS[3])["s1_name"])
    return root, set(names)


def test_every_command_leaves_out_what_is_not_whole_and_says_so(damaged, archive, tiny, tmp_path, capsys):
    root, names = damaged
    refused(lambda: open_archive(root), "partial=True")
    config = tiny.model_copy(update={"data_dir": str(root), "partial": True, "epochs": 1})
    opened = open_data(config)
    assert {name for name, _ in opened.left_out} == names and len(opened) == len(ROWS) - 3
    assert len(opened.labels) == len(opened.splits) == len(opened) and not names & set(opened.names)
    rows = [archive.names.index(name) for name in opened.names]
    assert (opened.labels == archive.labels[rows]).all() and opened.splits.tolist() == archive.splits[rows].tolist()
    assert [opened.keys(i) for i in range(len(opened))] == [archive.keys(row) for row in rows]
    pretrain(config, opened)
    assert "3 left out, first " in capsys.readouterr().out
    evaluate(config, opened)
    assert "3 left out, first " in capsys.readouterr().out
    assert any("3 left out, first " in line for line in report(config)[0])
    assert main(["encode", str(root), str(tmp_path / "lmdb"), "--workers", "0", "--partial"]) == 0
    said = capsys.readouterr().out
    assert "3 were left out, first " in said and "--partial" not in said
    assert open_archive(tmp_path / "lmdb").names == opened.names


def test_without_partial_encode_advises_it(damaged, tmp_path):
    root, _ = damaged
    source = open_archive(root, partial=True, read_all=False)
    done = encoding.encode(source, tmp_path / "lmdb", workers=0)
    assert "accept it with --partial" in str(done) and len(done.skipped) == 2


@pytest.mark.parametrize("kind", MAKERS)
def test_each_format_forgets_the_rows_that_it_cannot_read(kind, archive, tmp_path):
    root = MAKERS[kind](tmp_path, archive)
    sound = open_archive(root)
    expected = [(sound.read(row), sound.meta(row), sound.keys(row)) for row in (0, 2, 3)]
    if kind in ("v1", "reben"):
        path = next(root.rglob(f"{sound.keys(1)['s1']}_VH.tif"))
        path.write_bytes(b"")
    else:
        release(sound.folder)
        change_value(sound.folder, sound.keys(1)["s1"], lambda value: value[:-1])
    left = open_archive(root, partial=True)
    assert [name for name, _ in left.left_out] == [sound.names[1]] and len(left) == 3
    assert (left.labels == sound.labels[[0, 2, 3]]).all() and left.splits.tolist() == sound.splits[[0, 2, 3]].tolist()
    for row, (patch, meta, keys) in enumerate(expected):
        assert (left.meta(row), left.keys(row)) == (meta, keys)
        assert np.array_equal(left.read(row).bands["s1"]["VV"], patch.bands["s1"]["VV"])
    if kind == "encoded":
        assert len(list(left.checksums())) == 6


def test_labels_of_another_kind_are_damage_too_and_nothing_left_is_refused(archive, tmp_path):
    root = make_v1(tmp_path / "v1", archive, (0, 6))
    paths = sorted(root.glob("BigEarthNet-v1.0/*/*.json"))
    paths[0].write_text(json.dumps({"labels": 3}))
    assert len(open_archive(root, partial=True)) == 1
    paths[1].write_text("")
    refused(lambda: open_archive(root, partial=True), root, "no pair can be read")


def test_nothing_is_left_out_of_the_bundled_pairs(archive):
    opened = open_archive(SAMPLES, partial=True, read_all=False)
    assert opened.names == archive.names and opened.said_left_out == ""

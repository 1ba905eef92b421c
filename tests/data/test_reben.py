"""reBEN in its own layout: pairing, both tables, partial archives, and the official tables in full."""

import shutil
import subprocess
import sys
import time
from itertools import compress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_archives import ROWS, make_reben, make_v1, rows_of, snow_table, write_rows

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import ReBEN, open_archive
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.metadata import METADATA, SNOW, read_metadata

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "reben-metadata"
MANY = 480_038


@pytest.fixture(scope="module")
def root(archive, tmp_path_factory):
    return make_reben(tmp_path_factory.mktemp("reben"), archive)


@pytest.fixture
def copy(root, tmp_path):
    """Same files, a table of its own."""
    shutil.copytree(root, tmp_path / "copy", copy_function=lambda a, b: Path(b).symlink_to(a))
    table = tmp_path / "copy" / METADATA
    table.unlink()
    shutil.copy(root / METADATA, table)
    return tmp_path / "copy"


def test_same_pixels_labels_splits_and_place_as_v1(root, archive):
    reben = open_archive(root)
    assert isinstance(reben, ReBEN) and reben.names == tuple(row["patch_id"] for row in rows_of(archive, ROWS))
    assert (reben.labels == archive.labels[list(ROWS)]).all()
    assert reben.splits.tolist() == archive.splits[list(ROWS)].tolist()
    for index, row in enumerate(ROWS):
        ours, v1 = reben.read(index), archive.read(row)
        assert (ours.labels, ours.crs, ours.bounds) == (v1.labels, v1.crs, v1.bounds)
        assert all(np.array_equal(ours.bands[m][b], v1.bands[m][b]) for m in v1.bands for b in v1.bands[m])
        assert reben.keys(index) == {"s1": v1.meta["s1_name"], "s2": reben.names[index]}


def test_meta_is_text_but_for_flags(root, archive):
    meta, v1 = open_archive(root).meta(2), archive.meta(ROWS[2])
    assert {name: meta[name] for name in ("split", "country", "tile", "acquisition_date", "s1_name")} == {
        name: v1[name] for name in ("split", "country", "tile", "acquisition_date", "s1_name")
    }
    assert meta["s2v1_name"] == archive.names[ROWS[2]] and meta["contains_seasonal_snow"] is False


def test_patches_of_the_second_table_are_used_on_request_only(copy):
    rows = pq.read_table(copy / METADATA).to_pylist()
    write_rows(copy / METADATA, rows[:3])
    with pytest.raises(InputError, match=f"{rows[3]['s1_name']} has files but no row.*; .*{SNOW}"):
        open_archive(copy)
    with pytest.raises(InputError, match=f"{SNOW} is missing; put"):
        open_archive(copy, snow_and_clouds=True)
    write_rows(snow_table(copy), rows[3:])
    assert len(open_archive(copy)) == 3
    snowy = open_archive(copy, snow_and_clouds=True)
    assert snowy.names == tuple(row["patch_id"] for row in rows) and snowy.read(3).labels == tuple(
        name for name in BEN19 if name in rows[3]["labels"]
    )


def test_partial_keeps_whole_pairs_and_says_what_it_left_out(copy):
    rows = pq.read_table(copy / METADATA).to_pylist()
    write_rows(copy / METADATA, rows[1:])
    whole = open_archive(copy, partial=True)
    assert whole.names == tuple(row["patch_id"] for row in rows[1:])
    assert {name for name, _ in whole.left_out} == {rows[0]["patch_id"], rows[0]["s1_name"]}
    write_rows(copy / METADATA, rows)
    shutil.rmtree(copy / "BigEarthNet-S1" / rows[1]["s1_name"].rsplit("_", 3)[0] / rows[1]["s1_name"])
    whole = open_archive(copy, partial=True)
    assert len(whole) == 3 == len(whole.labels) == len(whole.splits) and whole.read(1).name == rows[2]["patch_id"]
    assert [name for name, _ in whole.left_out] == [rows[1]["patch_id"]] and "S1" in whole.left_out[0][1]


def test_partial_v1_does_the_same(archive, tmp_path):
    root = make_v1(tmp_path, archive)
    shutil.rmtree(root / "BigEarthNet-v1.0" / archive.names[ROWS[0]])
    with pytest.raises(InputError, match=r"is missing, partner of .*partial=True"):
        open_archive(root)
    whole = open_archive(root, partial=True)
    assert len(whole) == 3 and [name for name, _ in whole.left_out] == [archive.names[ROWS[0]]]
    for split in ("train", "val", "test"):
        (root / f"{split}.csv").unlink()
    bare = open_archive(root, partial=True)
    assert set(bare.names) == set(whole.names) and len(bare.left_out) == 1


def test_v1_has_no_snow_table(archive, tmp_path):
    with pytest.raises(InputError, match="no table of patches with snow or clouds; leave"):
        open_archive(make_v1(tmp_path, archive), snow_and_clouds=True)


def generated_table(path: Path, n: int) -> None:
    """A table of n rows, made column by column; names count up, labels are drawn."""
    number = pa.array(np.arange(n)).cast(pa.string())
    join = pa.compute.binary_join_element_wise
    lengths = np.random.default_rng(0).integers(1, 4, n)
    codes = (np.arange(lengths.sum()) % 19).astype(np.int32)
    labels = pa.ListArray.from_arrays(
        np.concatenate([[0], lengths.cumsum()]).astype(np.int32), pa.array(BEN19).take(pa.array(codes))
    )
    table = pa.table(
        {
            "patch_id": join("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", number, "1", "_"),
            "labels": labels,
            "split": pa.array(["train", "validation", "test"]).take(pa.array(np.arange(n) % 3)),
            "country": pa.array(["Austria", "Ireland"]).take(pa.array(np.arange(n) % 2)),
            "s1_name": join("S1A_IW_GRDH_1SDV_20170613T165043_33UUP", number, "1", "_"),
        }
    )
    pq.write_table(table, path)


def test_a_table_of_full_size_is_read_as_columns(tmp_path):
    generated_table(tmp_path / METADATA, MANY)
    started = time.process_time()
    table = read_metadata(tmp_path / METADATA, BEN19)
    spent = time.process_time() - started
    assert spent < 10, f"{spent:.1f} s"
    assert len(table.names) == MANY and table.labels.shape == (MANY, 19)
    assert table.labels.sum(axis=1).max() == 3 and (table.splits == "val").sum() == (MANY + 1) // 3


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official tables of reBEN are not here")
def test_the_official_tables_are_read_in_seconds_and_below_a_gigabyte():
    code = f"""
import resource, time
from pathlib import Path
from fusmae_lite.data.archives.metadata import METADATA, SNOW, read_metadata
from fusmae_lite.data.archives.labels import BEN19
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
folder = Path({str(OFFICIAL)!r})
table = read_metadata(folder / METADATA, BEN19, second=folder / SNOW)
spent = time.process_time() - started
print(len(table.names), *((table.splits == name).sum() for name in ("train", "val", "test")))
print(spent, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[0] == "549488 272544 139577 137367"
    seconds, gib = map(float, out[1].split())
    assert seconds < 10 and gib < 1, out[1]  # processor seconds: the machine may be shared


def test_labels_and_splits_of_a_row_agree_with_its_patch(root):
    reben = open_archive(root)
    for index in range(len(reben)):
        patch = reben.read(index, ["s1"])
        assert patch.labels == tuple(compress(BEN19, reben.labels[index])) and list(patch.bands) == ["s1"]
        assert patch.meta["split"] == reben.splits[index]

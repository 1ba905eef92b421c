"""Random splits and their leakage, on grids whose answer can be counted, and on the official tables where at hand."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.metadata import read_metadata
from fusmae_lite.data.archives.splits import (
    archive_leakage,
    neighbour_leakage,
    random_split,
    resplit,
)
from fusmae_lite.data.pairs import PairDataset

SAMPLES = Path(__file__).resolve().parents[2] / "data_samples"
TABLES = Path(__file__).resolve().parents[3] / "shared/data/reben-metadata"


def named(*cells: tuple[int, int], day: str = "20170613", tile: str = "T33UUP") -> list[str]:
    return [f"S2A_MSIL2A_{day}T101031_N9999_R022_{tile}_{column}_{row}" for column, row in cells]


def test_sizes_are_exact_and_give_the_papers_training_set():
    names = np.arange(590_326).astype(str)
    start = time.process_time()
    parts = random_split(names, seed=0)
    assert time.process_time() - start < 5
    assert [int((parts == part).sum()) for part in ("train", "val", "test")] == [354_196, 118_065, 118_065]


def test_depends_on_the_seed_and_not_on_the_order():
    names = [f"patch_{number}" for number in range(500)]
    parts = dict(zip(names, random_split(names, seed=3), strict=True))
    assert parts == dict(zip(names[::-1], random_split(names[::-1], seed=3), strict=True))
    assert parts != dict(zip(names, random_split(names, seed=4), strict=True))
    assert set(random_split(names, seed=3, shares=(0.5, 0.0, 0.5))) == {"train", "test"}


@pytest.mark.parametrize("shares", [(0.6, 0.2, 0.3), (1.2, -0.2, 0.0)])
def test_shares_that_are_no_split(shares):
    with pytest.raises(InputError, match="add up to 1"):
        random_split(["a"], 0, shares)


def test_leakage_counts_the_nine_cells_around_a_test_patch():
    train = named((5, 5))
    around = named(*[(5 + right, 5 + down) for right in (-1, 0, 1) for down in (-1, 0, 1)], day="20170801")
    away = named((7, 5), (5, 7), (3, 5), (0, 0), (4, 7))
    splits = np.array(["train"] * len(train) + ["test"] * (len(around) + len(away)))
    assert neighbour_leakage(train + around + away, splits) == 9 / 14
    # the nine were taken on another day
    assert neighbour_leakage(train + around + away, splits, same_acquisition=True) == 0


def test_leakage_stops_at_the_tile_and_ignores_validation():
    names = named((5, 5)) + named((5, 6), tile="T34UUP") + named((20, 20)) + named((20, 21))
    assert neighbour_leakage(names, np.array(["train", "test", "val", "test"])) == 0
    assert neighbour_leakage(names, np.array(["train", "test", "train", "test"])) == 0.5


def test_v1_names_take_the_tile_from_s1():
    names = ["S2A_MSIL2A_20170613T101031_87_48", "S2A_MSIL2A_20170613T101031_88_47", "S2A_MSIL2A_20170613T101031_1_1"]
    s1_names = ["S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_88_47"]
    s1_names.append("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_1_1")
    splits = np.array(["train", "test", "test"])
    for same in (False, True):
        assert neighbour_leakage(names, splits, s1_names=s1_names, same_acquisition=same) == 0.5
    with pytest.raises(InputError, match="s1_names"):
        neighbour_leakage(names, splits)
    with pytest.raises(InputError, match="no test patch"):
        neighbour_leakage(names, np.array(["train"] * 3))
    with pytest.raises(InputError, match="does not end in"):
        neighbour_leakage(["a", "b", "c"], splits)


def test_a_full_grid_leaks_as_the_binomial_says():
    """Each test patch misses only if none of 8 neighbours is among the 60 % of training patches: 0.4 ** 8."""
    names = named(*[(column, row) for column in range(300) for row in range(300)])
    assert abs(neighbour_leakage(names, random_split(names, 1)) - (1 - 0.4**8)) < 1e-3


def test_the_bundled_patches_are_scattered():
    archive = open_archive(SAMPLES)
    assert archive_leakage(archive) == 0  # the nearest test and training patch are 20 km apart (data card)
    assert archive_leakage(archive, random_split(archive, 0)) == 0


def test_an_archive_under_a_random_split():
    archive = open_archive(SAMPLES)
    other = resplit(archive, random_split(archive, 7), "random split, seed 7")
    assert [len(other.split(part)) for part in ("train", "val", "test", "all")] == [50, 17, 17, 84]
    row = int(other.split("val")[0])
    assert other.meta(row)["split"] == other.read(row, ["s1"]).meta["split"] == "val"
    assert [len(archive.split(part)) for part in ("train", "val", "test")] == [45, 21, 18]  # the first is as it was
    assert other.keys(row) == archive.keys(row) and "random split, seed 7" in other.describe()
    assert PairDataset(pickle.loads(pickle.dumps(other)), "val")[0]["index"] == row


@pytest.mark.skipif(not TABLES.is_dir(), reason="the official reBEN tables are not at hand")
def test_official_and_random_split_of_reben():
    table = read_metadata(TABLES / "metadata.parquet", BEN19)
    names, splits = table.names, table.splits
    start = time.process_time()
    official, drawn = neighbour_leakage(names, splits), neighbour_leakage(names, random_split(names, 0))
    assert time.process_time() - start < 30
    assert len(names) == 480_038 and drawn > 0.99
    assert official == 0 and neighbour_leakage(names, splits, part="val") > 0.1  # validation patches are the moat

"""LMDB of safetensors: as the archive's own tool writes it, in loader processes, and at speed."""

import multiprocessing
import os
import pickle
import shutil
import statistics
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from small_archives import ROWS, change_value, make_rico, rows_of, snow_table, write_rows
from torch.utils.data import DataLoader

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import LmdbArchive, open_archive
from fusmae_lite.data.archives.lmdb_store import all_keys, environment, release
from fusmae_lite.data.archives.metadata import METADATA
from fusmae_lite.data.archives.pixels import pack, unpack
from fusmae_lite.data.pairs import PairDataset


@pytest.fixture(scope="module")
def root(archive, tmp_path_factory):
    return make_rico(tmp_path_factory.mktemp("rico"), archive)


def test_an_lmdb_of_the_archives_own_tool_opens_unchanged(root, archive):
    store = open_archive(root)
    assert isinstance(store, LmdbArchive)
    assert store.names == tuple(row["patch_id"] for row in rows_of(archive, ROWS))
    assert (store.labels == archive.labels[list(ROWS)]).all()
    assert store.splits.tolist() == archive.splits[list(ROWS)].tolist()
    for index, row in enumerate(ROWS):
        ours, v1 = store.read(index), archive.read(row)
        assert ours.labels == v1.labels and ours.crs is None and ours.bounds is None
        for modality, bands in v1.bands.items():
            assert list(ours.bands[modality]) == list(bands)
            for band, array in bands.items():
                assert np.array_equal(ours.bands[modality][band], array)
                assert ours.bands[modality][band].dtype == array.dtype
        assert ours.meta["tile"] == v1.meta["tile"] and ours.meta["country"] == v1.meta["country"]


def test_the_environments_folder_opens_too_with_the_table_inside_or_one_up(root, tmp_path):
    inner = root / "Encoded-BigEarthNet"
    assert open_archive(inner).names == open_archive(root).names
    shutil.copytree(inner, tmp_path / "e")
    with pytest.raises(InputError, match=r"metadata.parquet is missing; put"):
        open_archive(tmp_path / "e")
    shutil.copy(root / METADATA, tmp_path / "e")
    assert open_archive(tmp_path / "e").names == open_archive(root).names


def test_v1_names_are_legal_in_an_lmdb(archive, tmp_path):
    root = make_rico(tmp_path, archive)
    rows = pq.read_table(root / METADATA).to_pylist()
    old = {row["patch_id"]: row["s2v1_name"] for row in rows}
    write_rows(root / METADATA, [{**row, "patch_id": old[row["patch_id"]]} for row in rows])
    with pytest.raises(InputError, match="is missing"):
        open_archive(root)  # names of one version, keys of the other
    shutil.rmtree(root / "Encoded-BigEarthNet")
    import lmdb

    env = lmdb.open(str(root / "v1"), map_size=2**30)
    with env.begin(write=True) as transaction:
        for row in ROWS:
            for modality, key in archive.keys(row).items():
                transaction.put(key.encode(), pack(archive.read(row).bands[modality]))
    env.close()
    assert open_archive(root).names == tuple(archive.names[row] for row in ROWS)


def test_more_keys_than_rows(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    rows = pq.read_table(root / METADATA).to_pylist()
    write_rows(tmp_path / "copy" / METADATA, rows[1:])
    with pytest.raises(InputError, match=r"has no row in the table \(and 1 more"):
        open_archive(tmp_path / "copy")
    partial = open_archive(tmp_path / "copy", partial=True)
    assert len(partial) == 3 and len(partial.left_out) == 2
    write_rows(snow_table(tmp_path / "copy"), rows[:1])
    assert len(open_archive(tmp_path / "copy")) == 3
    assert len(open_archive(tmp_path / "copy", snow_and_clouds=True)) == 4


def test_arrays_are_their_own_and_survive_the_environment(root):
    store = open_archive(root)
    first, second = store.read(0), store.read(0)
    first.bands["s1"]["VV"][:] = 0
    release(store.folder)
    assert not np.array_equal(first.bands["s1"]["VV"], second.bands["s1"]["VV"])
    assert np.isfinite(second.bands["s1"]["VV"]).all()


def test_two_archives_of_one_folder_in_one_process(root):
    one, two = open_archive(root), open_archive(root)
    assert np.array_equal(one.read(1).bands["s2"]["B02"], two.read(1).bands["s2"]["B02"])


def _child(store, queue):
    queue.put((os.getpid(), float(store.read(2).bands["s1"]["VV"].sum())))


def test_forked_pickled_and_in_loader_processes(root):
    store = open_archive(root)
    expected = float(store.read(2).bands["s1"]["VV"].sum())
    copy = pickle.loads(pickle.dumps(store))
    assert float(copy.read(2).bands["s1"]["VV"].sum()) == expected
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(store, queue))
    process.start()
    pid, value = queue.get(timeout=60)
    process.join()
    assert pid != os.getpid() and value == expected
    plain = [item["images"]["s1"].sum() for item in PairDataset(store, "all")]
    loaded = [batch["images"]["s1"].sum() for batch in DataLoader(PairDataset(store, "all"), num_workers=2)]
    assert np.allclose(plain, loaded)


def test_our_reader_agrees_with_the_library(root):
    store = open_archive(root)
    with environment(store.folder).begin() as transaction:
        for key in sorted(all_keys(store.folder)):
            value = transaction.get(key.encode())
            expected = safetensors.numpy.load(value)
            layout = {band: (array.shape[0], array.dtype.name) for band, array in expected.items()}
            found = unpack(value, layout, key)
            assert all(np.array_equal(found[band], expected[band]) for band in expected)


def test_one_bad_value_spoils_its_own_patch_only(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    change_value(tmp_path / "copy" / "Encoded-BigEarthNet", open_archive(root).names[1], lambda value: value[:-2])
    store = open_archive(tmp_path / "copy")
    assert store.read(0).name == store.names[0]
    with pytest.raises(InputError, match=rf"data.mdb: {store.names[1]}: .*header"):
        store.read(1)
    assert list(store.read(1, ["s1"]).bands) == ["s1"]


def test_many_times_as_fast_as_geotiff(root, archive):
    """The aim is 100 times (benchmarks/reading.py measures it); 25 holds on any machine, busy or not."""
    from fusmae_lite.core.config import project_root

    store, files = open_archive(root), open_archive(project_root() / "data_samples")
    store.read(0)

    def cost(read, rows):
        started = time.process_time()
        for row in rows:
            read(row)
        return (time.process_time() - started) / len(rows)

    ratios = [cost(files.read, ROWS) / cost(store.read, list(range(4)) * 25) for _ in range(5)]
    assert statistics.median(ratios) > 25, ratios

"""fusmae encode: the same archive in another format, through kills, full disks and damaged patches."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_sen12ms as sen12ms
from small_archives import ROWS, SAMPLES, change_value, make_reben, make_v1
from test_locks import held

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.course.cli import main
from fusmae_lite.data import encode as module
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.archives.lmdb_store import JOURNAL
from fusmae_lite.data.archives.metadata import METADATA
from fusmae_lite.data.encode import encode
from fusmae_lite.data.encoded import SKIPPED, verify
from fusmae_lite.data.identity import signature


def same(one, other) -> None:
    """Assert that two archives give the same patches, bit for bit, and the same lists."""
    assert one.names == other.names and one.classes == other.classes
    assert (one.labels == other.labels).all() and (one.splits == other.splits).all()
    for row in range(len(one)):
        a, b = one.read(row), other.read(row)
        assert (a.name, a.labels, a.meta, a.crs, a.bounds) == (b.name, b.labels, b.meta, b.crs, b.bounds)
        assert one.keys(row) == other.keys(row) and list(a.bands) == list(b.bands)
        for modality in a.bands:
            assert list(a.bands[modality]) == list(b.bands[modality])
            for band, array in a.bands[modality].items():
                assert array.dtype == b.bands[modality][band].dtype
                assert np.array_equal(array, b.bands[modality][band]), (a.name, band)


def skipped(folder: Path) -> dict[str, str]:
    """Name -> reason, from skipped.csv."""
    with open(folder / SKIPPED, newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def source(archive, tmp_path) -> Path:
    return make_v1(tmp_path / "source", archive)


def test_all_bundled_pairs_are_the_same_in_either_format(archive, tmp_path):
    done = encode(archive, tmp_path / "lmdb", workers=0)
    assert (done.pairs, done.kept, done.skipped, done.left_out) == (84, 0, (), ())
    assert sorted(path.name for path in (tmp_path / "lmdb").iterdir()) == ["data.mdb", METADATA]
    same(archive, open_archive(tmp_path / "lmdb"))
    assert verify(tmp_path / "lmdb") == 84


def test_reben_too_and_back_to_the_form_of_its_table(archive, tmp_path):
    reben = open_archive(make_reben(tmp_path / "source", archive))
    encode(reben, tmp_path / "lmdb", workers=0)
    same(reben, open_archive(tmp_path / "lmdb"))
    ours, official = (pq.read_table(path / METADATA) for path in (tmp_path / "lmdb", tmp_path / "source"))
    for column in official.column_names:
        assert ours.schema.field(column).type == official.schema.field(column).type, column
        assert ours[column].to_pylist() == official[column].to_pylist() or column == "labels"


def test_flags_are_truth_values_in_either_format_and_leave_signatures_as_they_were(archive, tmp_path):
    root = make_reben(tmp_path / "reben", archive, (0, 6))
    table = pq.read_table(root / METADATA)
    flags = pa.array([True, False, *[None] * (len(table) - 2)])
    pq.write_table(table.append_column("contains_sand", flags), root / METADATA)
    source = open_archive(root)
    encode(source, tmp_path / "lmdb", workers=0)
    same(source, open_archive(tmp_path / "lmdb"))
    assert source.meta(0)["contains_sand"] is True and source.meta(0)["contains_seasonal_snow"] is False
    now, meta = signature(source, 0), source.meta(0)
    as_before = {name: {True: "true", False: "false"}.get(value, value) for name, value in meta.items()}
    source.meta = lambda row: as_before
    assert signature(source, 0) == now


def test_sen12ms_too(tmp_path):
    for name in (sen12ms.TRAIN, sen12ms.TEST):
        sen12ms.write(tmp_path / "source", name, sen12ms.igbp((17, 100), (12, 80), (14, 76)))
    source = open_archive(tmp_path / "source")
    encode(source, tmp_path / "lmdb", workers=0)
    same(source, open_archive(tmp_path / "lmdb"))


def test_processes_write_what_one_process_writes(source, tmp_path):
    encode(open_archive(source), tmp_path / "one", workers=0)
    encode(open_archive(source), tmp_path / "two", workers=2)
    same(open_archive(tmp_path / "one"), open_archive(tmp_path / "two"))
    assert pq.read_table(tmp_path / "one" / METADATA) == pq.read_table(tmp_path / "two" / METADATA)


def test_an_lmdb_can_be_encoded_again(source, tmp_path):
    encode(open_archive(source), tmp_path / "one", workers=0)
    encode(open_archive(tmp_path / "one"), tmp_path / "two", workers=0)
    same(open_archive(tmp_path / "one"), open_archive(tmp_path / "two"))


def test_nothing_is_overwritten(source, tmp_path, capsys):
    encode(open_archive(source), tmp_path / "lmdb", workers=0)
    data = (tmp_path / "lmdb" / "data.mdb").read_bytes()
    with pytest.raises(InputError, match="is an encoded archive already; choose"):
        encode(open_archive(source), tmp_path / "lmdb")
    assert main(["encode", str(source), str(tmp_path / "lmdb"), "--verify"]) == 0
    assert (tmp_path / "lmdb" / "data.mdb").read_bytes() == data
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    for folder, words in (
        ("other", "not empty"),
        ("other/thesis.tex", "is a file"),
        ("source/lmdb", "lies in"),
        (".", "lies in"),
    ):
        assert main(["encode", str(source), str(tmp_path / folder)]) == 2
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_sensors_that_share_a_key_are_refused(archive, source, tmp_path, monkeypatch):
    opened = open_archive(source)
    monkeypatch.setattr(type(opened), "keys", lambda self, row: dict.fromkeys(("s1", "s2"), self.names[row]))
    with pytest.raises(InputError, match=r"^BigEarthNet.*: sensors of .* share a key .*; name each sensor .* columns"):
        encode(opened, tmp_path / "lmdb", workers=0)
    assert not (tmp_path / "lmdb").exists()


def test_a_journal_of_another_archive_is_refused(archive, source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_table", lambda *args: (_ for _ in ()).throw(OSError("stopped")))
    with pytest.raises(RunError):
        encode(open_archive(source), tmp_path / "lmdb", workers=0)
    other = open_archive(make_v1(tmp_path / "b", archive, ROWS[:2]))
    with pytest.raises(InputError, match="begun from another archive; choose"):
        encode(other, tmp_path / "lmdb", workers=0)


@pytest.mark.parametrize(("stop", "kept"), [(2, 1), (3, 2), (4, 3)])
def test_stopped_at_any_commit_it_continues_without_decoding_again(source, tmp_path, monkeypatch, stop, kept):
    """Each pair is one commit, of its values and its record."""
    monkeypatch.setattr(module, "BATCH", 1)
    original, decode, commits, decoded = module._Store.write, module.decode, [], []

    def write(self, items):
        commits.append(len(items))
        if len(commits) == stop:
            raise KeyboardInterrupt
        original(self, items)

    monkeypatch.setattr(module._Store, "write", write)
    monkeypatch.setattr(module, "decode", lambda shared, row: decoded.append(row) or decode(shared, row))
    with pytest.raises(KeyboardInterrupt):
        encode(open_archive(source), tmp_path / "lmdb", workers=0)
    with pytest.raises(InputError, match="has not finished; run the same"):
        open_archive(tmp_path / "lmdb")
    decoded.clear()
    done = encode(open_archive(source), tmp_path / "lmdb", workers=0)
    assert (done.pairs, done.kept) == (4, kept) and len(decoded) == 4 - kept
    same(open_archive(source), open_archive(tmp_path / "lmdb"))


def test_killed_by_the_system_it_continues(tmp_path):
    """SIGKILL while processes decode: no worker stays behind, what was committed is not decoded again."""
    code = (
        "import sys, fusmae_lite.data.encode as e\n"
        "from fusmae_lite.data.archives import open_archive\n"
        "e.BATCH = 4\n"
        "e.encode(open_archive(sys.argv[1]), sys.argv[2], workers=2)\n"
    )
    lmdb_folder = tmp_path / "lmdb"
    process = subprocess.Popen([sys.executable, "-c", code, SAMPLES, lmdb_folder], start_new_session=True)
    deadline = time.monotonic() + 120
    data = lmdb_folder / "data.mdb"  # beyond 5 pairs of 280 kB the second commit of 4 is under way, the first done
    while (not data.is_file() or data.stat().st_size < 1_500_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    source = open_archive(SAMPLES)
    done = encode(source, lmdb_folder, workers=0)
    assert done.pairs == 84 and 4 <= done.kept <= 84
    same(source, open_archive(lmdb_folder))
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("worker processes outlived their parent")


def test_damaged_patches_are_skipped_listed_and_added_once_mended(source, tmp_path, capsys):
    names = open_archive(source).names
    path = source / "BigEarthNet-v1.0" / names[1] / f"{names[1]}_B05.tif"
    sound = path.read_bytes()
    path.write_bytes(sound[:300])
    arguments = ["encode", str(source), str(tmp_path / "lmdb"), "--workers", "0"]
    assert main(arguments) == 1
    assert "1 could not be read" in capsys.readouterr().out
    assert list(skipped(tmp_path / "lmdb")) == [names[1]] and str(path) in skipped(tmp_path / "lmdb")[names[1]]
    assert open_archive(tmp_path / "lmdb").names == (names[0], *names[2:])
    path.write_bytes(sound)
    assert main(arguments) == 0
    same(open_archive(source), open_archive(tmp_path / "lmdb"))
    assert not (tmp_path / "lmdb" / SKIPPED).exists() and not (tmp_path / "lmdb" / JOURNAL).exists()


def test_partial_accepts_what_is_missing(source, tmp_path):
    names = open_archive(source).names
    shutil.rmtree(source / "BigEarthNet-v1.0" / names[0])
    (source / "BigEarthNet-v1.0" / names[1] / f"{names[1]}_B05.tif").unlink()
    arguments = ["encode", str(source), str(tmp_path / "lmdb"), "--workers", "0"]
    assert main(arguments) == 2 and not (tmp_path / "lmdb").exists()
    assert main([*arguments, "--partial"]) == 0
    assert set(skipped(tmp_path / "lmdb")) == set(names[:2])
    assert open_archive(tmp_path / "lmdb").names == names[2:] and not (tmp_path / "lmdb" / JOURNAL).exists()


def test_a_changed_value_is_found(source, tmp_path):
    encode(open_archive(source), tmp_path / "lmdb", workers=0)
    name = open_archive(tmp_path / "lmdb").names[2]
    module.release(tmp_path / "lmdb")
    change_value(tmp_path / "lmdb", name, lambda value: value[:-1] + bytes([value[-1] ^ 1]))
    with pytest.raises(RunError, match=f"{name} is not what was written"):
        verify(tmp_path / "lmdb")


def test_the_map_grows_and_a_full_disk_keeps_what_is_committed(source, tmp_path):
    """A limit on the size of files stands for a full disk: the system refuses to write, as it would there."""
    code = (
        "import resource, signal, sys\n"
        "import fusmae_lite.data.encode as e\n"
        "from fusmae_lite.data.archives import open_archive\n"
        "from fusmae_lite.course.cli import main\n"
        "e.BATCH = 1\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))\n"
        "sys.exit(main(['encode', sys.argv[1], sys.argv[2], '--workers', '0']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source, tmp_path / "lmdb"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written" in done.stderr and "the same command" in done.stderr
    assert not (tmp_path / "lmdb" / METADATA).exists()
    resumed = encode(open_archive(source), tmp_path / "lmdb", workers=0)
    assert (resumed.pairs, resumed.kept) == (4, 2)
    same(open_archive(source), open_archive(tmp_path / "lmdb"))


def test_the_map_size_grows_by_itself(tmp_path, monkeypatch):
    store = module._Store(tmp_path)
    store.env.set_mapsize(2**20)
    store.write({f"key{number}": bytes(300_000) for number in range(12)})
    assert store.env.info()["map_size"] == 2**22
    with store.env.begin() as transaction:
        assert transaction.stat()["entries"] == 12
    store.close()


def test_two_encodes_into_one_folder(source, tmp_path):
    refused = pytest.raises(InputError, match="another job writes there: process .*; wait")
    with held(tmp_path / "lmdb"), refused:
        encode(open_archive(source), tmp_path / "lmdb", workers=0)
    assert encode(open_archive(source), tmp_path / "lmdb", workers=0).pairs == 4
    assert sorted(path.name for path in (tmp_path / "lmdb").iterdir()) == ["data.mdb", METADATA]

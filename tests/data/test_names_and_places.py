"""What the tables, lists and folders say: a pair is one place, a name is a name, and what systems leave is not seen."""

import csv
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_sen12ms as sen12ms
from small_archives import MAKERS, SAMPLES, change_value, make_rico, refused

from fusmae_lite.core.errors import InputError, RunError, printable
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.archives.lmdb_store import release
from fusmae_lite.data.archives.metadata import METADATA
from fusmae_lite.data.archives.names import apart, check_names, file_in
from fusmae_lite.data.encode import encode

EVIL = (
    "../../outside", "/abs/outside", "a/b", "a\\b", "..", ".", "", ".hidden", "a..b", "two\nlines", "tab\there",
    "nul\0", "\x1b[31mred", "turned\u202eround", "line\u2028end", "c:drive", " blank", "x" * 201, "\u00e9" * 101,
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(archive, tmp_path_factory) -> dict[str, Path]:
    """One sound archive per format, and v1 with an index instead of lists, and with neither."""
    made = {kind: MAKERS[kind](tmp_path_factory.mktemp(kind), archive) for kind in MAKERS}
    made["index"] = tmp_path_factory.mktemp("index") / "copy"
    shutil.copytree(made["v1"], made["index"])
    pairs = [line for path in sorted(made["index"].glob("*.csv")) for line in path.read_text().split()]
    for path in made["index"].glob("*.csv"):
        path.unlink()
    made["bare"] = tmp_path_factory.mktemp("bare") / "copy"
    shutil.copytree(made["index"], made["bare"])
    (made["index"] / "index.csv").write_text("s2_name,s1_name\n" + "".join(f"{pair}\n" for pair in pairs))
    return made


@pytest.fixture
def copy(sound, tmp_path, request) -> Path:
    shutil.copytree(sound[request.param], tmp_path / "copy")
    return tmp_path / "copy"


def move_partners(root: Path, rows: slice = slice(None)) -> None:
    """Move the S1 names of some rows by one, in whichever list or table the archive has."""

    def moved(names: list[str]) -> list[str]:
        chosen = names[rows]
        names[rows] = chosen[1:] + chosen[:1]
        return names

    for path in root.rglob(METADATA):
        table = pq.read_table(path)
        column = table.column_names.index("s1_name")
        table = table.set_column(column, "s1_name", pa.array(moved(table["s1_name"].to_pylist())))
        pq.write_table(table, path)
    lists = [path for path in sorted(root.glob("*.csv")) if path.name != "skipped.csv"]
    cells = [(path, line.split(",")) for path in lists for line in path.read_text().split() if "s1_name" not in line]
    partners = moved([pair[1] for _, pair in cells])
    for path in lists:
        lines = [f"{pair[0]},{new}\n" for (of, pair), new in zip(cells, partners, strict=True) if of == path]
        path.write_text(("s2_name,s1_name\n" if path.name == "index.csv" else "") + "".join(lines))


@pytest.mark.parametrize("copy", [*MAKERS, "index"], indirect=True)
def test_partners_moved_by_one_row_are_refused_with_both_names(copy, sound):
    names = open_archive(copy).names
    assert len(names) == 4
    move_partners(copy, slice(0, 2))
    with pytest.raises(
        InputError, match=r"S2.* is paired with S1.*, taken .* \(and 1 more like it\); correct"
    ) as caught:
        open_archive(copy)
    assert any(name in str(caught.value) for name in names)
    left = open_archive(copy, partial=True)
    assert len(left) == 2 and len(left.left_out) == 2 and all("is paired with" in why for _, why in left.left_out)
    assert [left.read(row).name for row in range(2)] == list(left.names)


@pytest.mark.parametrize("copy", ["v1"], indirect=True)
def test_the_json_of_the_radar_patch_is_asked_where_names_tell_no_tile(copy):
    path = sorted(copy.glob("*S1*/*/*.json"))[0]
    opened, told = open_archive(copy), json.loads(path.read_text())
    index = [opened.keys(i)["s1"] for i in range(4)].index(path.parent.name)
    path.write_text(json.dumps(told | {"corresponding_s2_patch": opened.names[index - 1]}))
    refused(lambda: opened.read(index), path, opened.names[index], opened.names[index - 1])
    assert opened.read(index, ["s2"]).name == opened.names[index]
    path.unlink()  # not every copy of the archive has it
    assert open_archive(copy).read(index).name == opened.names[index]


def test_v1_pairs_of_one_cell_in_two_tiles_are_asked_when_opened(tmp_path):
    s2 = ["S2A_MSIL2A_20170613T101031_5_7", "S2B_MSIL2A_20170615T101031_5_7"]
    s1 = ["S1A_IW_GRDH_1SDV_20170613T165043_33UUP_5_7", "S1A_IW_GRDH_1SDV_20170614T165043_34VER_5_7"]
    for one, two in zip(s1, s2, strict=True):
        (tmp_path / "BigEarthNet-v1.0" / two).mkdir(parents=True)
        (tmp_path / "BigEarthNet-S1-v1.0" / one).mkdir(parents=True)
        path = tmp_path / "BigEarthNet-S1-v1.0" / one / f"{one}_labels_metadata.json"
        path.write_text(json.dumps({"corresponding_s2_patch": two}))
    (tmp_path / "train.csv").write_text(f"{s2[0]},{s1[0]}\n{s2[1]},{s1[1]}\n")
    assert len(open_archive(tmp_path)) == 2
    (tmp_path / "train.csv").write_text(f"{s2[0]},{s1[1]}\n{s2[1]},{s1[0]}\n")
    refused(lambda: open_archive(tmp_path), s1[1], *s2)


def test_which_names_are_apart():
    s1, s2 = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_6_57", "S2A_MSIL2A_20170613T101031_{}6_57"
    v2 = s2.format("N9999_R022_T33UUP_0")  # version 2 writes columns and rows with two digits
    same = [(s1, s2.format("")), (s1, v2), (s1.replace("T165043", "T65043"), v2), ("radar", "optics"), (s1, "optics")]
    same += [("ROIs1158_spring_s1_1_p30", "ROIs1158_spring_s2_1_p30")]
    assert apart(*zip(*same, strict=True)) == {}
    other = [(s1, s2.format("1")), (s1, v2.replace("UUP", "UUQ")), (s1.replace("6_57", "16_57"), v2)]
    other += [(s1, v2.replace("_57", "_58")), (s1, v2.replace("20170613", "20170801"))]
    other += [("ROIs1158_spring_s1_1_p31", "ROIs1158_spring_s2_1_p30")]
    assert sorted(apart(*zip(*other, strict=True))) == list(range(len(other)))


def test_an_encoded_archive_of_another_kind_is_checked_too(tmp_path):
    for name in (sen12ms.TRAIN, sen12ms.TEST):
        sen12ms.write(tmp_path / "source", name, sen12ms.igbp((17, 100), (12, 80), (14, 76)))
    encode(open_archive(tmp_path / "source"), tmp_path / "lmdb", workers=0)
    move_partners(tmp_path / "lmdb")
    refused(lambda: open_archive(tmp_path / "lmdb"), METADATA, sen12ms.TRAIN, "at another place (and 1 more like it)")


@pytest.mark.parametrize("name", EVIL)
def test_what_is_no_name(name, tmp_path):
    refused(lambda: check_names(["good", name], "table"), "table", "is no name of a patch")
    refused(lambda: file_in(tmp_path, name, "_reconstruction.png"))


def test_what_is_a_name():
    check_names(["a", "ROIs1158_spring_s2_1_p30", "Pair 7 (north), v1.2", "Z\u00fcrich+1", "x" * 200], "table")
    assert file_in(Path("f"), "a", ".png") == Path("f/a.png")


@pytest.mark.parametrize("column", ["patch_id", "s1_name"])
def test_names_of_an_encoded_table_stay_in_their_folder(sound, tmp_path, column):
    shutil.copytree(sound["encoded"], tmp_path / "copy")
    path, evil = tmp_path / "copy" / METADATA, "../../../outside"
    table = pq.read_table(path)
    names = table[column].to_pylist()
    release(tmp_path / "copy")
    value: list[bytes] = []
    change_value(tmp_path / "copy", names[0], lambda old: value.append(old))
    import lmdb

    with lmdb.open(str(tmp_path / "copy"), lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(evil.encode(), value[0])
    column_at = table.column_names.index(column)
    pq.write_table(table.set_column(column_at, column, pa.array([evil, *names[1:]])), path)
    refused(lambda: open_archive(tmp_path / "copy"), path, evil)


def test_messages_print_no_control_characters_and_no_endless_values():
    for error in (InputError("a\x1b[31m\nb\u202e" + "v" * 20_000, "c\rd"), RunError("a\x1b\n" + "word " * 20_000)):
        assert str(error).isprintable() and len(str(error)) < 2100 and str(error).startswith("a\\x1b")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    short = printable("v" * 20_000)
    assert "20000 characters" in short and printable(short) == short
    assert printable("Z\u00fcrich\u00a0\u2026") == "Z\u00fcrich\u00a0\u2026"


def litter(root: Path) -> None:
    """What systems leave in every folder, and beside every file."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found", ".Trash-1000"):
            (folder / name / "S2A_MSIL2A_20170613T101031_1_1").mkdir(parents=True)
        for name in [path.name for path in folder.iterdir() if path.is_file()]:
            (folder / f"._{name}").write_bytes(b"\x00\x05\x16\x07")
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
            (folder / name).write_bytes(b"x")
        (folder / "._folder").mkdir()


@pytest.mark.parametrize("kind", [*MAKERS, "index", "bare", "sen12ms"])
def test_what_systems_leave_is_not_seen(sound, tmp_path, kind):
    root = tmp_path / "copy"
    if kind == "sen12ms":
        for name in (sen12ms.TRAIN, sen12ms.TEST):
            sen12ms.write(root, name, sen12ms.igbp((17, 100), (12, 80), (14, 76)))
    else:
        shutil.copytree(sound[kind], root)
    before = open_archive(root).names
    litter(root)
    after = open_archive(root)
    assert after.names == before and after.left_out == () and after.read(0).name == before[0]


def test_maps_that_rico_hdl_writes_are_no_keys_without_a_row(archive, tmp_path):
    root = make_rico(tmp_path, archive)
    folder = root / "Encoded-BigEarthNet"
    name = open_archive(root).names[0]
    release(folder)
    import lmdb

    with lmdb.open(str(folder), lock=False) as env, env.begin(write=True) as transaction:
        transaction.put(f"{name}_reference_map".encode(), b"x")
    assert len(open_archive(root)) == 4


@pytest.mark.parametrize("copy", ["v1", "index"], indirect=True)
def test_lists_as_spreadsheets_write_them(copy):
    before = open_archive(copy).names
    for path in copy.glob("*.csv"):
        header = "" if path.name == "index.csv" else "s2_name,s1_name\n"
        text = (header + path.read_text()).replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n , \r\n,\r\n\r\n")
    assert open_archive(copy).names == before


def test_an_index_with_a_column_twice(sound, tmp_path):
    shutil.copytree(sound["index"], tmp_path / "copy")
    path = tmp_path / "copy" / "index.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    path.write_text("".join(f"{','.join(row)},{row[1]}\n" for row in rows))
    refused(lambda: open_archive(tmp_path / "copy"), path, "'s1_name' occurs twice")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
@pytest.mark.parametrize("copy", ["bare"], indirect=True)
@pytest.mark.parametrize("pattern", ["index.csv", "train.csv", "*S1*/*/*.json", "*v1.0/S2*/*.json"])
def test_a_pipe_in_place_of_a_file_does_not_hang(copy, pattern):
    path = next(iter(sorted(copy.glob(pattern))), copy / pattern)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    refused(lambda: open_archive(copy).labels, path, "not a file")


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '{"labels": {}}', '{"labels": [3]}', "[" * 100_000, " " * 2**21, "\x00"]
)
def test_a_json_of_anything_else(sound, tmp_path, text):
    shutil.copytree(sound["bare"], tmp_path / "copy")
    for sensor in ("S2", "S1"):
        path = sorted((tmp_path / "copy").glob(f"*/{sensor}*/*.json"))[0]
        path.write_text(text)
        refused(lambda: open_archive(tmp_path / "copy").labels, path)


def test_the_bundled_pairs_are_each_one_place(archive):
    assert len(archive) == len(open_archive(SAMPLES)) == 84
    assert not apart([archive.keys(i)["s1"] for i in range(84)], archive.names)
    assert np.unique(archive.names).size == 84

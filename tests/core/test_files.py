"""What is written exists whole or not at all, with the permissions that the user's umask gives."""

from __future__ import annotations

import os

import pytest
import torch

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object, write_bytes, write_text, write_whole
from fusmae_lite.course.notebook import write_json
from fusmae_lite.systems.tensors import save_tensors

WRITERS = {
    "text": lambda path: write_text(path, "x\n"),
    "bytes": lambda path: write_bytes(path, b"x"),
    "json": lambda path: write_json(path, {"x": 1}),
    "tensors": lambda path: save_tensors(path, {"x": torch.zeros(3)}, {}),
    "a file of its own": lambda path: write_whole(path, lambda t: (t.unlink(), t.touch(0o600))),
}


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="no umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o027, 0o640), (0o002, 0o664), (0o077, 0o600), (0o022, 0o644)])
@pytest.mark.parametrize("writer", WRITERS)
def test_files_get_what_the_umask_gives(tmp_path, umask, writer, mask, mode):
    umask(mask)
    for name in ("new/file", "new/file"):  # also when it replaces one
        WRITERS[writer](tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    def fail(path):
        path.write_text("half")
        raise RuntimeError

    write_text(tmp_path / "file", "old")
    with pytest.raises(RuntimeError):
        write_whole(tmp_path / "file", fail)
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "[" * 100_000, "\\udcff", '{"a": ' + "1" * 5000 + "}"])
def test_what_is_no_json_object_is_one_line(tmp_path, text):
    (tmp_path / "file").write_bytes(text.encode() + (b"\xff" if text == "" else b""))
    with pytest.raises(InputError, match=r"file is unreadable \(.*\); mend it") as caught:
        read_object(tmp_path / "file", "mend it")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "file")
    with pytest.raises(InputError, match="is a pipe, not a file"):
        read_object(tmp_path / "file", "mend it")

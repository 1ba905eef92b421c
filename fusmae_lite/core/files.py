"""Reading and writing files: what is written exists whole or not at all, none that is not a file is read."""

import glob
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from fusmae_lite.core.errors import InputError

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device"}


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file, flush it and rename it to `path`, with the user's umask; makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # the umask cannot be read without changing it
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """:func:`write_whole` for UTF-8 text; line endings stay."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> Path:
    """:func:`write_whole` for bytes."""
    return write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_folder(path: Path, fill: Callable[[Path], object]) -> Path:
    """:func:`write_whole` for a folder: `fill` gets an empty one, which then replaces what is at `path`."""
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _temporary(path: Path) -> Path:
    """A hidden name beside `path`; what killed processes of this computer left under such names goes."""
    start = f".{path.name}.{socket.gethostname()}-"
    for left in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        owner = left.name.removeprefix(start).removesuffix(".tmp")
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}.tmp")


def check_output(path: Path | str, overwrite: bool, endings: Sequence[str], inputs: Iterable[Path | str] = ()) -> Path:
    """The path of a file that can be written, before hours of work; its folder is made.

    InputError for another ending, a file that exists unless `overwrite`, one of the inputs, a folder without access.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in endings:
        raise InputError(f"{path} is to be written, and has not the ending {endings[0]}", f"name it *{endings[0]}")
    if path.is_dir():
        raise InputError(f"{path} is a folder", "name the file to write")
    if path.exists() and any(Path(i).expanduser().exists() and path.samefile(Path(i).expanduser()) for i in inputs):
        raise InputError(f"{path} is an input", "write to another name")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists", "give --overwrite, or another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written to ({error.strerror})", "choose another folder") from None
    return path


def refuse_special(path: Path | str) -> None:
    """InputError for a folder, pipe, socket or device in place of a file: to open one may wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # the reader of a missing file says more
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "device")
        raise InputError(f"{path} is a {kind}, not a file", "put the file itself there")


def read_object(path: Path, cure: str) -> dict[str, Any]:
    """The JSON object in a file; :class:`InputError` with this cure if it is unreadable or holds anything else."""
    refuse_special(path)
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is unreadable ({error})", cure) from None


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object; ValueError for anything else, however deep or badly encoded."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is needed, not {type(value).__name__}")
    return value


def shorten(path: Path, *bases: Path) -> str:
    """`path` relative to the first of `bases` (then to the project) that holds it, else as it is."""
    for base in (*bases, Path(__file__).resolve().parents[2]):
        if path.resolve().is_relative_to(base.resolve()):
            return path.resolve().relative_to(base.resolve()).as_posix() or "."
    return path.as_posix()

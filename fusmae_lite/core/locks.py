"""One job per folder: a lock that the system takes back when its process ends, however it ends."""

import errno
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import line

#: Hidden file that is locked; it names its holder and is removed at the end. After a kill it stays, and is free.
LOCK = ".lock"
_FAR = 2**30  # Windows hides a locked byte from readers: lock one beyond the text
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

# The system's lock is a process's, not a caller's: a second one in this process would get it, and give it back for both
_mine: set[tuple[int, str]] = set()


@contextmanager
def only_job(folder: Path) -> Iterator[None]:
    """Hold a folder (made if absent) while the block runs; forked processes do not inherit the lock.

    :class:`InputError` if the folder cannot be made or written to, or another job holds it. Without locks in the file
    system a line says so and the block runs anyway.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:  # before hours of work, not after
            trial.write(b"0" * 4096)
    except OSError as error:
        what = f"{folder} cannot be {'written to' if folder.is_dir() else 'made'} ({error.strerror})"
        raise InputError(what, "free space, or choose another folder") from None
    path = folder / LOCK
    mine = (os.getpid(), os.path.realpath(path))
    if mine in _mine:
        raise InputError(f"{folder}: this process writes there already", "wait for it, or choose another folder")
    file = _take(path)
    _mine.add(mine)
    try:
        yield
    finally:
        _mine.discard(mine)
        if file is not None:
            _release(file, path)


def _take(path: Path) -> BinaryIO | None:
    """The locked file; None where locking is impossible."""
    while True:
        file = None
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            _lock(file)
            if _lies_at(file, path):
                break
            file.close()  # its holder removed it meanwhile: try anew
        except OSError as error:
            holder = b""
            if file is not None:
                with suppress(OSError):
                    file.seek(0)
                    holder = file.read(4096)
                file.close()
            if file is None or error.errno not in _BUSY:
                line(f"note: no lock on {path.parent} ({error.strerror}); start no second job there")
                return None
            named = holder.decode(errors="replace") or "a process that has not said which"
            what = f"{path.parent}: another job writes there: {named}"
            raise InputError(what, "wait for it, stop it, or choose another folder") from None
    with suppress(OSError):  # a full disk: held, but nameless
        _sign(file)
    return file


def _release(file: BinaryIO, path: Path) -> None:
    """Remove the file, then let go: a waiting job sees that its file is no longer the one at `path`, and tries anew."""
    with suppress(OSError):
        if _lies_at(file, path):
            path.unlink()
    file.close()
    with suppress(OSError):  # Windows removes no open file
        if os.name == "nt":
            path.unlink()


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: forked processes would inherit that one


def _lies_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(file: BinaryIO) -> None:
    program, *arguments = sys.argv or ["python"]
    command = shlex.join([os.path.basename(program), *arguments])[:200]
    since = datetime.now().isoformat(" ", "seconds")
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}, {command}, since {since}".encode(errors="replace"))
    file.flush()

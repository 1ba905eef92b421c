"""LMDB environments opened for reading: one handle per process, damage and absence told in one line."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb

from fusmae_lite.core.errors import InputError

DATA = "data.mdb"

# LMDB grants a process one handle on an environment, and a forked process none of its parent's.
# Real path -> ((process, device, inode), handle): whoever sees another identity opens afresh.
_OPEN: dict[str, tuple[tuple[int, int, int], lmdb.Environment]] = {}


def environment(folder: Path) -> lmdb.Environment:
    """This process's handle on the environment in a folder: read-only, no lock file, no read-ahead.

    Raises:
        InputError: absent, not readable, no LMDB, or shorter than it says of itself.
    """
    path = os.path.realpath(folder)
    try:
        status = os.stat(os.path.join(path, DATA))
        identity = (os.getpid(), status.st_dev, status.st_ino)
        known = _OPEN.get(path)
        if known and known[0] == identity:
            return known[1]
        release(folder)
        handle = lmdb.open(path, readonly=True, lock=False, readahead=False, create=False, max_spare_txns=4)
    except (OSError, lmdb.Error) as error:
        raise unreadable(folder, error) from None
    # LMDB maps the pages that the file claims to have; touching those a truncated copy lacks would kill the process.
    claimed = (handle.info()["last_pgno"] + 1) * handle.stat()["psize"]
    if status.st_size < claimed:
        handle.close()
        raise InputError(f"{folder / DATA}: {status.st_size} bytes of {claimed}, truncated", "copy it again")
    _OPEN[path] = (identity, handle)
    return handle


def release(folder: Path) -> None:
    """Close this process's handle, so that the folder can be written or opened by other means."""
    known = _OPEN.pop(os.path.realpath(folder), None)
    if known:
        known[1].close()


def all_keys(folder: Path) -> set[str]:
    """Every key; reads no value."""
    handle = environment(folder)
    try:
        with handle.begin() as transaction, transaction.cursor() as cursor:
            return {key.decode(errors="replace") for key in cursor.iternext(keys=True, values=False)}
    except lmdb.Error as error:
        raise unreadable(folder, error) from None


def unreadable(folder: Path, error: Exception) -> InputError:
    """The one-line error for whatever LMDB or the disk said about an environment."""
    path = folder / DATA
    if not os.path.isfile(path):
        return InputError(f"{path} is missing", "check the path and that its disk is there")
    if not os.access(path, os.R_OK):
        return InputError(f"{path}: no permission to read it", "correct the permissions (chmod a+r)")
    reason = str(error).removeprefix(f"{os.path.realpath(folder)}: ")
    return InputError(f"{path}: no readable LMDB environment ({reason})", "copy it again, or encode it again")

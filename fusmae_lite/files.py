"""Writing files so that they exist whole or not at all; reading none that is not a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fusmae_lite.errors import InputError

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device"}


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text under a temporary name, flush it to disk and rename it; makes the folder. Returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def refuse_special(path: Path | str) -> None:
    """Raise InputError for a folder, pipe, socket or device in place of a file: to open one may wait for ever.

    Whatever is missing passes: its reader knows better what to say.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "device")
        raise InputError(f"{path} is a {kind}, not a file", "put the file itself there")

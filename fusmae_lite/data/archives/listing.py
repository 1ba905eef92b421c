"""Files and folders by name: what systems leave beside the data is not seen, what is no file is not opened."""

from __future__ import annotations

import os
from pathlib import Path

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import refuse_special

#: Beside hidden files, and @eaDir of Synology's disks: macOS's archives, Windows' previews, Linux' finds.
_EXTRAS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found", "System Volume Information"})

_BIGEARTHNET = ("BigEarthNet-v1.0", "BigEarthNet-S1-v1.0", "BigEarthNet-S1", "BigEarthNet-S2")


def is_file(path: Path) -> bool:
    """Whether a file lies there; InputError for a pipe, device or folder in its place."""
    refuse_special(path)
    return path.is_file()


def require_file(path: Path, cure: str) -> None:
    """InputError unless a regular file lies there."""
    if not is_file(path):
        raise InputError(f"{path} is missing", cure)


def unopened(path: Path, what: str = "") -> InputError | None:
    """Why a file could not even be opened; None where that is not the reason. Asked after a failure only."""
    if not os.path.isfile(path):
        return InputError(f"{path}{what} is missing", "check that its disk is there, or download it again")
    if not os.access(path, os.R_OK):
        return InputError(f"{path}: no permission to read it", "correct the permissions (chmod a+r)")
    return None


def refuse_both_versions(root: Path) -> None:
    """Raise InputError where folders of BigEarthNet v1 and of reBEN lie side by side: which one is meant?"""
    names = [name for name in _BIGEARTHNET if (root / name).is_dir()]
    if {"-v1.0" in name for name in names} == {True, False}:
        what = f"{root} holds {names[0]} of BigEarthNet v1 beside {names[-1]} of reBEN"
        raise InputError(what, "keep the versions in two folders")


def listed(path: Path, folders: bool = False) -> list[str]:
    """Names in a folder (only its folders), without a look at each of them: half a million take about a second."""
    try:
        names = [entry.name for entry in os.scandir(path) if not folders or entry.is_dir()]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be listed ({error.strerror})", "check the path, the permissions and that the disk is there"
        ) from None
    return [name for name in names if not name.startswith((".", "@", "$")) and name not in _EXTRAS]


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder."""
    return listed(path, folders=True)

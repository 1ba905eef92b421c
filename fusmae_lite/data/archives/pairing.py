"""Rows against what lies on disk: the one check behind every archive of pairs, and listing folders for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fusmae_lite.core.errors import InputError, printable
from fusmae_lite.core.files import refuse_special
from fusmae_lite.data.archives.names import apart

#: (name, reason) of everything that was not taken.
LeftOut = tuple[tuple[str, str], ...]

#: Beside hidden files, and @eaDir of Synology's disks: macOS's archives, Windows' previews, Linux' finds.
_EXTRAS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found", "System Volume Information"})
#: rico-hdl also writes the land-cover map of a patch; nothing here reads it.
_MAP = "_reference_map"
COMPLETE = "complete the download, correct the lists, or open with partial=True to use the whole pairs only"


def is_file(path: Path) -> bool:
    """Whether a file lies there; InputError for a pipe, device or folder in its place."""
    refuse_special(path)
    return path.is_file()


def require_file(path: Path, cure: str) -> None:
    """InputError unless a regular file lies there."""
    if not is_file(path):
        raise InputError(f"{path} is missing", cure)


def is_extra(name: str) -> bool:
    """Whether a system or program left this beside the data, in whatever folder: no archive has such names."""
    return name.startswith((".", "@", "$")) or name in _EXTRAS


def listed(path: Path, folders: bool = False) -> list[str]:
    """Names in a folder (only its folders), without a look at each of them: half a million take about a second."""
    try:
        names = [entry.name for entry in os.scandir(path) if not folders or entry.is_dir()]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be listed ({error.strerror})", "check the path, the permissions and that the disk is there"
        ) from None
    return [name for name in names if not is_extra(name)]


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder."""
    return listed(path, folders=True)


def match(
    rows: Mapping[str, Sequence[str]],
    found: Mapping[str, set[str]],
    path: Callable[[str, str], object],
    where: object,
    *,
    partial: bool = False,
    extra: tuple[str, str] | None = None,
    spare: Callable[[], set[str]] = set,
) -> tuple[np.ndarray, LeftOut]:
    """Which rows are one place and have everything they need.

    Args:
        rows: modality -> name of each row's files (or key) in that modality; all of one length, no name twice.
        found: modality -> the names that are there.
        path: (modality, name) -> what a message calls it.
        where: the table or lists that hold the rows.
        partial: leave incomplete rows and files without a row out instead of refusing them.
        extra: reason and cure for files without a row; None where such files are legal.
        spare: gives names whose files may lie there without a row; called only if there are such files.

    Returns:
        ((n,) bool: the row is complete, what was left out). Without `partial` every row is.

    Raises:
        InputError: two names of a row tell two places, a row misses files, or files have no row: the first of them and
            how many more.
    """
    elsewhere = _elsewhere(rows, where, partial)
    # Sound archives are the rule and half a million rows long: no set is built, let alone compared, without need.
    missing = {m: set() if found[m].issuperset(names) else set(names) - found[m] for m, names in rows.items()}
    whole = np.ones(len(next(iter(rows.values()))), dtype=bool)
    left_out: list[tuple[str, str]] = []
    if any(missing.values()):
        for modality, names in rows.items():
            whole &= np.fromiter((name not in missing[modality] for name in names), bool, len(names))
        left_out = [_incomplete(rows, missing, path, int(row)) for row in np.flatnonzero(~whole)]
        _refuse(left_out, COMPLETE, partial)
    left_out += [reason for row, reason in elsewhere.items() if whole[row]]
    whole[list(elsewhere)] = False
    there = {id(names): len(names) for names in found.values()}  # an LMDB has the same keys for every modality
    if extra is not None and (left_out or sum(there.values()) != sum(map(len, rows.values()))):
        in_rows = set().union(*rows.values())
        alone = {modality: names - in_rows for modality, names in found.items()}
        if any(alone.values()):
            known = spare()
            unknown = {name: modality for modality in alone for name in alone[modality] - known}
            names = sorted(item for item in unknown.items() if not item[0].endswith(_MAP))
            odd = [(name, f"{path(modality, name)} {extra[0]}") for name, modality in names]
            _refuse(odd, extra[1], partial)
            left_out += odd
    return whole, tuple((printable(name), printable(reason)) for name, reason in left_out)


def _incomplete(
    rows: Mapping[str, Sequence[str]],
    missing: Mapping[str, set[str]],
    path: Callable[[str, str], object],
    row: int,
) -> tuple[str, str]:
    """Name of a row (its last modality's) and what it lacks."""
    absent = [modality for modality in rows if rows[modality][row] in missing[modality]]
    there = [modality for modality in rows if modality not in absent]
    name = rows[list(rows)[-1]][row]
    lacks = " and ".join(f"{modality.upper()} {path(modality, rows[modality][row])}" for modality in absent)
    verb = "is" if len(absent) == 1 else "are"
    partner = f", partner of {path(there[-1], rows[there[-1]][row])}" if there else ""
    return name, f"{lacks} {verb} missing{partner}"


def _elsewhere(rows: Mapping[str, Sequence[str]], where: object, partial: bool) -> dict[int, tuple[str, str]]:
    """Rows that are no pair -> name and reason."""
    if not {"s1", "s2"} <= rows.keys():
        return {}
    odd = {
        row: (rows["s2"][row], f"{where}: {rows['s2'][row]} is paired with {rows['s1'][row]}, taken {what}")
        for row, what in apart(rows["s1"], rows["s2"]).items()
    }
    _refuse(list(odd.values()), "correct the S1 names: both of a pair have one tile, column and row", partial)
    return odd


def _refuse(odd: list[tuple[str, str]], cure: str, partial: bool) -> None:
    if odd and not partial:
        more = f" (and {len(odd) - 1} more like it)" if len(odd) > 1 else ""
        raise InputError(odd[0][1] + more, cure)

"""Names of patches and files: what is a name at all, of which version of BigEarthNet, which place and day it tells.

A name becomes part of paths and of messages, so whatever a table, list, folder or key calls a patch is checked here.
pyarrow takes a fifth of the time of Python's re for half a million names.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import refuse_special

# Version 1 dropped leading zeros of the time in some names (T93020 for T093020).
_S2 = {
    1: r"^S2[A-Z]_MSIL2A_[0-9]{8}T[0-9]{5,6}_[0-9]{1,4}_[0-9]{1,4}$",
    2: r"^S2[A-Z]_MSIL2A_[0-9]{8}T[0-9]{5,6}_N[0-9]{4}_R[0-9]{3}_T[0-9A-Z]{5}_[0-9]{1,4}_[0-9]{1,4}$",
}
_S1 = r"^S1[A-Z]_IW_GRDH_1SDV_[0-9]{8}T[0-9]{5,6}_[0-9A-Z]{5}_[0-9]{1,4}_[0-9]{1,4}$"
_VERSIONS = {1: "BigEarthNet v1", 2: "reBEN (v2)"}
#: Day and place in either sensor's name of BigEarthNet (no tile in v1's S2 names), or of SEN12MS.
_PLACE = (
    r"^S[12][A-Z]_(?:MSIL2A|IW_GRDH_1SDV)_(?P<day>[0-9]{8})T[0-9]{5,6}(?:_N[0-9]{4}_R[0-9]{3})?"
    r"(?:_T?(?P<tile>[0-9A-Z]{5}))?_0*(?P<column>[0-9]+)_0*(?P<row>[0-9]+)$"
    r"|^ROIs[0-9]+_(?P<season>[a-z]+)_s[12]_(?P<scene>[0-9]+)_p(?P<number>[0-9]+)$"
)
#: No part of a path, nothing that a terminal or file system takes for more than a letter, no hidden file.
_NAME = r"^[^\pC\p{Zl}\p{Zp}/\\:*?\"<>|.\s][^\pC\p{Zl}\p{Zp}/\\:*?\"<>|]*$"
#: Bytes: file systems end at 255, and band, ending and the mark of a temporary file are added.
LONGEST_NAME = 200
#: The official pairs lie up to six days apart; other months show another ground.
MOST_DAYS_APART = 31
#: Beside hidden files, and @eaDir of Synology's disks: macOS's archives, Windows' previews, Linux' finds.
_EXTRAS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found", "System Volume Information"})


def check_names(names: Sequence[str], where: object) -> None:
    """InputError unless every name can be the name of a file in any folder: no path, nothing invisible."""
    column = pa.array(names, pa.string())
    short = pc.less_equal(pc.binary_length(column), LONGEST_NAME)
    good = pc.and_not(pc.and_(_fits(column, _NAME), short), pc.match_substring(column, ".."))
    cure = f"name it by letters, digits, - and _, without any path, by at most {LONGEST_NAME} bytes"
    _refuse_first(names, pc.invert(good), "{where}: {name!r} is no name of a patch", where, cure)


def file_in(folder: Path, name: str, ending: str) -> Path:
    """folder/name+ending, for writing: InputError if the name would lead out of the folder."""
    check_names([name], folder)
    return folder / f"{name}{ending}"


def version(name: str) -> int:
    """1 or 2 for an S2 name of BigEarthNet v1 or reBEN; 0 for any other name."""
    return next((number for number, pattern in _S2.items() if re.fullmatch(pattern[1:-1], name)), 0)


def check_s2_names(names: Sequence[str], where: object, wanted: int, *, others: bool = False) -> None:
    """InputError unless every S2 name is of the wanted version (1, 2); `others` lets names of neither pass."""
    mixed = f"{{where}}: {{name}} is a name of {_VERSIONS[3 - wanted]} among those of {_VERSIONS[wanted]}"
    cure = "keep the two versions apart: their patches differ in processing and split"
    _refuse_first(names, _fits(names, _S2[3 - wanted]), mixed, where, cure)
    if not others:
        what = f"{{where}}: {{name!r}} is no S2 name of {_VERSIONS[wanted]}"
        _refuse_first(names, pc.invert(_fits(names, _S2[wanted])), what, where, "correct it, or download it again")


def check_s1_names(names: Sequence[str], where: object) -> None:
    """InputError unless every name is an S1 name of BigEarthNet (both versions have the same)."""
    what, cure = "{where}: {name!r} is no S1 name", "correct it, or download the table again"
    _refuse_first(names, pc.invert(_fits(names, _S1)), what, where, cure)


def apart(s1_names: Sequence[str], s2_names: Sequence[str]) -> dict[int, str]:
    """Rows whose two names tell another place, or acquisitions too far apart -> what differs.

    What only one of the names tells is not compared; names of other archives tell nothing.
    """
    radar, optics = _places(s1_names), _places(s2_names)
    elsewhere: pa.BooleanArray | bool = False
    for field in radar.keys() - {"day"}:
        one, two = radar[field], optics[field]
        both = pc.and_(pc.not_equal(one, ""), pc.not_equal(two, ""))
        elsewhere = pc.or_(elsewhere, pc.and_(both, pc.not_equal(one, two)))
    days = (
        pc.strptime(place["day"], format="%Y%m%d", unit="s", error_is_null=True).cast(pa.int64())
        for place in (radar, optics)
    )
    far = pc.greater(pc.abs(pc.subtract(*days)), MOST_DAYS_APART * 86400)
    reasons = {f"more than {MOST_DAYS_APART} days before or after": far, "at another place": elsewhere}
    rows = {why: pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist() for why, mask in reasons.items()}
    return {row: why for why, differing in rows.items() for row in differing}


def refuse_duplicates(names: Sequence[str], where: object, field: str, cure: str = "keep one row of each") -> None:
    """InputError that names the first name which occurs twice."""
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise InputError(f"{where}: {field} {twice} occurs twice", cure)


def told_by(s1_names: Sequence[str], s2_names: Sequence[str]) -> dict[str, pa.Array]:
    """What the names of pairs tell: MGRS tile (of S1) and day (of S2) or season and scene, as ``meta`` gives them."""
    radar, optics = _places(s1_names), _places(s2_names)
    day = pc.replace_substring_regex(optics["day"], "^(....)(..)(..)$", r"\1-\2-\3")
    told = {"tile": radar["tile"], "acquisition_date": day, "season": optics["season"], "scene": optics["scene"]}
    told = {name: pc.if_else(pc.equal(column, ""), None, column) for name, column in told.items()}
    return {"s1_name": pa.array(s1_names, pa.string()), **told}


def _places(names: Sequence[str]) -> dict[str, pa.Array]:
    """The groups of `_PLACE`, a column each: empty or null where a name does not tell it."""
    found = pc.extract_regex(pa.array(names, pa.string()), _PLACE)
    return {field.name: pc.struct_field(found, field.name) for field in found.type}


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


@contextmanager
def told_if_unreadable(path: Path, kind: str, cure: str, *errors: type[Exception]) -> Iterator[None]:
    """InputError in place of what a library says while it reads a file: why it cannot be opened, or is no such kind."""
    try:
        yield
    except InputError:
        raise
    except errors as error:
        reason = str(error).removeprefix(f"{os.path.realpath(path.parent)}: ").strip().partition("\n")[0]
        damage = InputError(f"{path}: no readable {kind} ({reason or type(error).__name__})", cure)
        raise unopened(path) or damage from None


def listed(path: Path, folders: bool = False) -> list[str]:
    """Names in a folder (only its folders), without a look at each of them: half a million take about a second."""
    try:
        names = [entry.name for entry in os.scandir(path) if not folders or entry.is_dir()]
    except OSError as error:
        cure = "check the path, the permissions and that the disk is there"
        raise InputError(f"{path}: cannot be listed ({error.strerror})", cure) from None
    return [name for name in names if not name.startswith((".", "@", "$")) and name not in _EXTRAS]


def _fits(names: Sequence[str] | pa.StringArray, pattern: str) -> pa.BooleanArray:
    return pc.match_substring_regex(pa.array(names, pa.string()), pattern)


def _refuse_first(names: Sequence[str], wrong: pa.BooleanArray, what: str, where: object, cure: str) -> None:
    if (row := pc.index(wrong, True).as_py()) >= 0:
        raise InputError(what.format(where=where, name=names[row]), cure)

"""Names of patches: what is a name at all, which version of BigEarthNet it is of, which place and day it tells.

A name becomes part of paths and of messages, so whatever a table, list, folder or key calls a patch is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fusmae_lite.core.errors import InputError

# Version 1 dropped leading zeros of the time in some names (T93020 for T093020).
_S2_V1 = r"^S2[A-Z]_MSIL2A_[0-9]{8}T[0-9]{5,6}_[0-9]{1,4}_[0-9]{1,4}$"
_S2_V2 = r"^S2[A-Z]_MSIL2A_[0-9]{8}T[0-9]{5,6}_N[0-9]{4}_R[0-9]{3}_T[0-9A-Z]{5}_[0-9]{1,4}_[0-9]{1,4}$"
_S1 = r"^S1[A-Z]_IW_GRDH_1SDV_[0-9]{8}T[0-9]{5,6}_[0-9A-Z]{5}_[0-9]{1,4}_[0-9]{1,4}$"
#: Tile (absent in v1), column and row of either sensor's name; or season, scene and number of SEN12MS.
_PLACE = re.compile(
    r"S[12][A-Z]_(?:MSIL2A|IW_GRDH_1SDV)_([0-9]{8})T[0-9]{5,6}(?:_N[0-9]{4}_R[0-9]{3})?(?:_T?([0-9A-Z]{5}))?"
    r"_0*([0-9]+)_0*([0-9]+)"
)
_SCENE = re.compile(r"(ROIs[0-9]+_[a-z]+)_s[12]_([0-9]+)_p([0-9]+)")
_SHORT = 40  # S2 names of v1 are shorter, those of v2 longer
#: No part of a path, nothing that a terminal or file system takes for more than a letter, no hidden file.
_NAME = r"^[^\pC\p{Zl}\p{Zp}/\\:*?\"<>|.\s][^\pC\p{Zl}\p{Zp}/\\:*?\"<>|]*$"
#: Bytes: file systems end at 255, and band, ending and the mark of a temporary file are added.
LONGEST_NAME = 200
#: The official pairs lie up to six days apart; other months show another ground.
MOST_DAYS_APART = 31


def check_names(names: Sequence[str], where: object) -> None:
    """Raise InputError unless every name can be the name of a file in any folder: no path, nothing invisible."""
    column = pa.array(names, pa.string())
    good = pc.and_(_fits(column, _NAME), pc.less_equal(pc.binary_length(column), LONGEST_NAME))
    odd = _first(names, pc.invert(pc.and_not(good, pc.match_substring(column, ".."))))
    if odd is not None:
        raise InputError(
            f"{where}: {odd!r} is no name of a patch",
            f"name it by letters, digits, - and _, without any path, by at most {LONGEST_NAME} bytes",
        )


def file_in(folder: Path, name: str, ending: str) -> Path:
    """folder/name+ending, for writing: InputError if the name would lead out of the folder."""
    check_names([name], folder)
    return folder / f"{name}{ending}"


def version(name: str) -> int:
    """1 or 2 for an S2 name of BigEarthNet v1 or reBEN; 0 for any other name."""
    return next((number for number, kind in ((2, _S2_V2), (1, _S2_V1)) if re.fullmatch(kind[1:-1], name)), 0)


def check_s2_names(names: Sequence[str], where: object, wanted: int, *, others: bool = False) -> None:
    """Raise InputError unless every S2 name is of the wanted version (1, 2); `others` lets names of neither pass."""
    patterns = {1: _S2_V1, 2: _S2_V2}
    fits = pc.invert(_fits(names, patterns[3 - wanted])) if others else _fits(names, patterns[wanted])
    odd = _first(names, pc.invert(fits))
    if odd is None:
        return
    kinds = {1: "BigEarthNet v1", 2: "reBEN (v2)"}
    if version(odd) == 0:
        raise InputError(f"{where}: {odd!r} is no S2 name of {kinds[wanted]}", "correct it, or download it again")
    raise InputError(
        f"{where}: {odd} is a name of {kinds[version(odd)]} among those of {kinds[wanted]}",
        "keep the two versions apart: their patches differ in processing and split",
    )


def check_s1_names(names: Sequence[str], where: object) -> None:
    """Raise InputError unless every name is an S1 name of BigEarthNet (both versions have the same)."""
    odd = _first(names, pc.invert(_fits(names, _S1)))
    if odd is not None:
        raise InputError(f"{where}: {odd!r} is no S1 name", "correct it, or download the table again")


def apart(s1_names: Sequence[str], s2_names: Sequence[str]) -> dict[int, str]:
    """Rows whose two names tell another place, or acquisitions too far apart -> what differs.

    Names of BigEarthNet (v1's S2 names tell no tile) and SEN12MS tell their place; of any other nothing is known.
    """
    found: dict[int, str] = {}
    for row, (s1_name, s2_name) in enumerate(zip(s1_names, s2_names, strict=True)):
        # "33UUP_6_57": v2 ends like this, often with 06 for 6; v1 in the last two. Half a million rows: 0.3 s
        tail = s1_name[32:].lstrip("_")
        tail = tail[5:] if len(s2_name) < _SHORT else f"_T{tail}"
        same = tail and (s2_name.endswith(tail) or s2_name.replace("_0", "_").endswith(tail))
        if not same and (what := _differs(s1_name, s2_name)):
            found[row] = what
    far = pc.greater(pc.abs(pc.subtract(_seconds(s1_names, 17), _seconds(s2_names, 11))), MOST_DAYS_APART * 86400)
    for row in pc.indices_nonzero(pc.fill_null(far, False)).to_pylist():
        if _PLACE.fullmatch(s1_names[row]) and _PLACE.fullmatch(s2_names[row]):
            found.setdefault(row, f"more than {MOST_DAYS_APART} days before or after")
    return found


def _differs(s1_name: str, s2_name: str) -> str:
    one, two = _PLACE.fullmatch(s1_name), _PLACE.fullmatch(s2_name)
    if one and two:
        tiles = {tile for tile in (one[2], two[2]) if tile}
        return "at another place" if len(tiles) > 1 or one.group(3, 4) != two.group(3, 4) else ""
    one, two = _SCENE.fullmatch(s1_name), _SCENE.fullmatch(s2_name)
    return "at another place" if one and two and one.groups() != two.groups() else ""


def _seconds(names: Sequence[str], at: int) -> pa.Int64Array:
    """Where 20170613 stands in a name -> seconds of that day, null for what is no date."""
    dates = pc.utf8_slice_codeunits(pa.array(names, pa.string()), at, at + 8)
    return pc.strptime(dates, format="%Y%m%d", unit="s", error_is_null=True).cast(pa.int64())


def _fits(names: Sequence[str] | pa.StringArray, pattern: str) -> pa.BooleanArray:
    # half a million names: a fifth of the time of Python's re
    return pc.match_substring_regex(pa.array(names, pa.string()), pattern)


def _first(names: Sequence[str], odd: pa.BooleanArray) -> str | None:
    place = pc.index(odd, True).as_py()
    return None if place < 0 else names[place]


def refuse_duplicates(names: Sequence[str], where: object, field: str) -> None:
    """Raise InputError that names the first name which occurs twice."""
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    twice = next(name for name in names if name in seen or seen.add(name))
    raise InputError(f"{where}: {field} {twice} occurs twice", "keep one row for each pair")


def place_and_day(name: str, s1_name: str) -> dict[str, str]:
    """MGRS tile (from the S1 name) and acquisition date of the optical image, as ``meta`` gives them."""
    day = name.split("_")[2][:8]
    return {"tile": s1_name.split("_")[-3], "acquisition_date": f"{day[:4]}-{day[4:6]}-{day[6:]}"}

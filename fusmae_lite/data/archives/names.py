"""Names of patches: what is a name at all, which version of BigEarthNet it is of, which place and day it tells.

A name becomes part of paths and of messages, so whatever a table, list, folder or key calls a patch is checked here.
pyarrow takes a fifth of the time of Python's re for half a million names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fusmae_lite.core.errors import InputError

# Version 1 dropped leading zeros of the time in some names (T93020 for T093020).
_S2 = {
    1: r"^S2[A-Z]_MSIL2A_[0-9]{8}T[0-9]{5,6}_[0-9]{1,4}_[0-9]{1,4}$",
    2: r"^S2[A-Z]_MSIL2A_[0-9]{8}T[0-9]{5,6}_N[0-9]{4}_R[0-9]{3}_T[0-9A-Z]{5}_[0-9]{1,4}_[0-9]{1,4}$",
}
_S1 = r"^S1[A-Z]_IW_GRDH_1SDV_[0-9]{8}T[0-9]{5,6}_[0-9A-Z]{5}_[0-9]{1,4}_[0-9]{1,4}$"
#: Day and place in either sensor's name of BigEarthNet (no tile in v1's S2 names), or of SEN12MS.
_PLACE = (
    r"^S[12][A-Z]_(?:MSIL2A|IW_GRDH_1SDV)_(?P<day>[0-9]{8})T[0-9]{5,6}(?:_N[0-9]{4}_R[0-9]{3})?"
    r"(?:_T?(?P<tile>[0-9A-Z]{5}))?_0*(?P<column>[0-9]+)_0*(?P<row>[0-9]+)$"
    r"|^(?P<season>ROIs[0-9]+_[a-z]+)_s[12]_(?P<scene>[0-9]+)_p(?P<number>[0-9]+)$"
)
#: No part of a path, nothing that a terminal or file system takes for more than a letter, no hidden file.
_NAME = r"^[^\pC\p{Zl}\p{Zp}/\\:*?\"<>|.\s][^\pC\p{Zl}\p{Zp}/\\:*?\"<>|]*$"
#: Bytes: file systems end at 255, and band, ending and the mark of a temporary file are added.
LONGEST_NAME = 200
#: The official pairs lie up to six days apart; other months show another ground.
MOST_DAYS_APART = 31


def check_names(names: Sequence[str], where: object) -> None:
    """Raise InputError unless every name can be the name of a file in any folder: no path, nothing invisible."""
    column = pa.array(names, pa.string())
    short = pc.less_equal(pc.binary_length(column), LONGEST_NAME)
    good = pc.and_not(pc.and_(_fits(column, _NAME), short), pc.match_substring(column, ".."))
    if (name := _first(names, pc.invert(good))) is not None:
        raise InputError(
            f"{where}: {name!r} is no name of a patch",
            f"name it by letters, digits, - and _, without any path, by at most {LONGEST_NAME} bytes",
        )


def file_in(folder: Path, name: str, ending: str) -> Path:
    """folder/name+ending, for writing: InputError if the name would lead out of the folder."""
    check_names([name], folder)
    return folder / f"{name}{ending}"


def version(name: str) -> int:
    """1 or 2 for an S2 name of BigEarthNet v1 or reBEN; 0 for any other name."""
    return next((number for number, pattern in _S2.items() if re.fullmatch(pattern[1:-1], name)), 0)


def check_s2_names(names: Sequence[str], where: object, wanted: int, *, others: bool = False) -> None:
    """Raise InputError unless every S2 name is of the wanted version (1, 2); `others` lets names of neither pass."""
    wrong = _fits(names, _S2[3 - wanted]) if others else pc.invert(_fits(names, _S2[wanted]))
    name = _first(names, wrong)
    if name is None:
        return
    kinds = {1: "BigEarthNet v1", 2: "reBEN (v2)"}
    if version(name) == 0:
        raise InputError(f"{where}: {name!r} is no S2 name of {kinds[wanted]}", "correct it, or download it again")
    raise InputError(
        f"{where}: {name} is a name of {kinds[version(name)]} among those of {kinds[wanted]}",
        "keep the two versions apart: their patches differ in processing and split",
    )


def check_s1_names(names: Sequence[str], where: object) -> None:
    """Raise InputError unless every name is an S1 name of BigEarthNet (both versions have the same)."""
    if (name := _first(names, pc.invert(_fits(names, _S1)))) is not None:
        raise InputError(f"{where}: {name!r} is no S1 name", "correct it, or download the table again")


def apart(s1_names: Sequence[str], s2_names: Sequence[str]) -> dict[int, str]:
    """Rows whose two names tell another place, or acquisitions too far apart -> what differs.

    What only one of the names tells is not compared; names of other archives tell nothing.
    """
    radar, optics = (pc.extract_regex(pa.array(names, pa.string()), _PLACE) for names in (s1_names, s2_names))
    elsewhere: pa.BooleanArray | bool = False
    for field in ("tile", "column", "row", "season", "scene", "number"):
        one, two = pc.struct_field(radar, field), pc.struct_field(optics, field)
        told = pc.and_(pc.not_equal(one, ""), pc.not_equal(two, ""))
        elsewhere = pc.or_(elsewhere, pc.and_(told, pc.not_equal(one, two)))
    days = (
        pc.strptime(pc.struct_field(place, "day"), format="%Y%m%d", unit="s", error_is_null=True).cast(pa.int64())
        for place in (radar, optics)
    )
    far = pc.greater(pc.abs(pc.subtract(*days)), MOST_DAYS_APART * 86400)
    places = dict.fromkeys(_rows(elsewhere), "at another place")
    return dict.fromkeys(_rows(far), f"more than {MOST_DAYS_APART} days before or after") | places


def refuse_duplicates(names: Sequence[str], where: object, field: str, cure: str = "keep one row of each") -> None:
    """Raise InputError that names the first name which occurs twice."""
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    twice = next(name for name in names if name in seen or seen.add(name))
    raise InputError(f"{where}: {field} {twice} occurs twice", cure)


def place_and_day(name: str, s1_name: str) -> dict[str, str]:
    """MGRS tile (from the S1 name) and acquisition date of the optical image, as ``meta`` gives them."""
    day = name.split("_")[2][:8]
    return {"tile": s1_name.split("_")[-3], "acquisition_date": f"{day[:4]}-{day[4:6]}-{day[6:]}"}


def _fits(names: Sequence[str] | pa.StringArray, pattern: str) -> pa.BooleanArray:
    return pc.match_substring_regex(pa.array(names, pa.string()), pattern)


def _rows(mask: pa.BooleanArray) -> list[int]:
    return pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()


def _first(names: Sequence[str], mask: pa.BooleanArray) -> str | None:
    place = pc.index(mask, True).as_py()
    return None if place < 0 else names[place]

"""Names of BigEarthNet patches: which version they belong to, and what they say about place and day."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from fusmae_lite.errors import InputError

# Version 1 dropped leading zeros of the time in some names (T93020 for T093020).
_S2_V1 = r"^S2[A-Z]_MSIL2A_\d{8}T\d{5,6}_\d+_\d+$"
_S2_V2 = r"^S2[A-Z]_MSIL2A_\d{8}T\d{5,6}_N\d{4}_R\d{3}_T[0-9A-Z]{5}_\d+_\d+$"
_S1 = r"^S1[A-Z]_IW_GRDH_1SDV_\d{8}T\d{5,6}_[0-9A-Z]{5}_\d+_\d+$"


def version(name: str) -> int:
    """1 or 2 for an S2 name of BigEarthNet v1 or reBEN; 0 for any other name."""
    return 2 if re.match(_S2_V2, name) else 1 if re.match(_S2_V1, name) else 0


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


def _fits(names: Sequence[str], pattern: str) -> pa.BooleanArray:
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

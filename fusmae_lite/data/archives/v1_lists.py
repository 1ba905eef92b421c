"""Which patches belong to a BigEarthNet v1 archive: split lists and index.csv; and what a patch's json says."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object
from fusmae_lite.data.archives.base import SPLITS
from fusmae_lite.data.archives.names import check_s2_names, is_file, refuse_duplicates, require_file, told_if_unreadable

#: A patch's json has a thousand bytes.
_LARGEST_JSON = 2**20
#: What people write above a split list, whose official form has no header.
_HEADERS = (["s2_name", "s1_name"], ["s2", "s1"], ["s2_patch", "s1_patch"], ["patch_id", "s1_name"])
_AGAIN = "download the patch again"


def read_lists(root: Path) -> dict[str, dict[str, str]]:
    """index.csv and the split lists: S2 name -> s1_name, split where it has one, and further columns."""
    rows = _rows(root / "index.csv", []) if is_file(root / "index.csv") else {}
    places = {split: (root / f"splits/{split}.csv", root / f"{split}.csv") for split in SPLITS}
    lists = {split: path for split, paths in places.items() if (path := next(filter(is_file, paths), None))}
    for row in rows.values() if lists else ():  # the lists a user may replace by their own win over the column
        row.pop("split", None)
    for split, path in lists.items():
        for s2_name, listed in _rows(path, ["s2_name", "s1_name"]).items():
            row, s1_name = rows.setdefault(s2_name, listed), listed["s1_name"]
            if row.setdefault("split", split) != split:
                raise InputError(f"{path}: {s2_name} is also in {row['split']}.csv", "keep it in one split only")
            if row["s1_name"] != s1_name:
                what = f"{path}: {s2_name} is paired with {s1_name}, elsewhere with {row['s1_name']}"
                raise InputError(what, "keep one")
    refuse_duplicates([row["s1_name"] for row in rows.values()], root, "S1 name")
    return rows


def read_json(path: Path, field: str) -> Any:
    """One field of a patch's json."""
    require_file(path, _AGAIN)
    if (size := path.stat().st_size) > _LARGEST_JSON:
        raise InputError(f"{path}: {size} bytes for one patch", _AGAIN)
    record = read_object(path, _AGAIN)
    if field not in record:
        raise InputError(f"{path}: no field {field!r}", _AGAIN)
    return record[field]


def _rows(path: Path, header: list[str]) -> dict[str, dict[str, str]]:
    """S2 name -> further columns; without a `header`, the first line is one."""
    rows: dict[str, dict[str, str]] = {}
    cure, lines = "write s2_name,s1_name on each line" if header else "correct the line", _lines(path)
    if not header:
        _, header = next(lines, (0, []))
        if not {"s2_name", "s1_name"} <= set(header):
            raise InputError(f"{path}: no columns s2_name and s1_name", "add them to its header line")
        refuse_duplicates(list(map(repr, header)), path, "column", "keep one of them")
    for number, cells in lines:
        if not rows and [cell.lower() for cell in cells] in _HEADERS:
            continue
        if len(cells) != len(header):
            raise InputError(f"{path} line {number}: {len(cells)} cells for {len(header)} columns", cure)
        row = dict(zip(header, cells, strict=True))
        name = row.pop("s2_name")
        if not name.startswith("S2") or not row["s1_name"].startswith("S1"):
            raise InputError(f"{path} line {number}: {','.join(cells)!r} is no pair of names", cure)
        if row.get("split") not in (None, "", *SPLITS):
            raise InputError(f"{path} line {number}: split {row['split']!r}", f"write one of {', '.join(SPLITS)}")
        if rows.setdefault(name, row) is not row:
            raise InputError(f"{path} line {number}: {name} occurs twice", "keep one row")
    check_s2_names(list(rows), path, 1)
    return rows


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells without blanks around them) of each line that holds anything."""
    cure = "download it again, or write it as UTF-8"
    with (
        told_if_unreadable(path, "text table", cure, OSError, csv.Error, UnicodeDecodeError),
        open(path, newline="", encoding="utf-8-sig") as file,  # spreadsheets put a mark before the first letter
    ):
        reader = csv.reader(file)
        for line in reader:
            cells = [cell.strip() for cell in line]
            if any(cells):
                yield reader.line_num, cells

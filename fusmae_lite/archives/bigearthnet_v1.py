"""BigEarthNet-MM v1: one GeoTIFF per band, one folder per patch and sensor, as the official tar files unpack."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fusmae_lite.archives.base import SPLITS, Archive, Patch
from fusmae_lite.archives.geotiff import read_bands
from fusmae_lite.archives.labels import BEN19, convert_43_to_19
from fusmae_lite.errors import InputError
from fusmae_lite.sensors import get_modality

S2_FOLDER = "BigEarthNet-v1.0"
S1_FOLDER = "BigEarthNet-S1-v1.0"
COMPLETE = "complete the download, or take the patch out of the lists and folders"


class BigEarthNetV1(Archive):
    """BigEarthNet-MM v1 in its own layout; see :class:`Archive` for how a sibling format joins.

    ::

        root/BigEarthNet-v1.0/<s2>/<s2>_<band>.tif       uint16, reflectance x 10,000; 120, 60 or 20 px
                             /<s2>/<s2>_labels_metadata.json
        root/BigEarthNet-S1-v1.0/<s1>/<s1>_{VV,VH}.tif   float32 dB, 120 px
                                /<s1>/<s1>_labels_metadata.json
        root/splits/{train,val,test}.csv                 optional: s2_name,s1_name, no header (official lists)
        root/index.csv                                   optional: s2_name,s1_name and further columns, with header

    Where lists exist they decide which patches belong to the archive, and folders in no list are left out; without
    any list, all folders do, and the pairing is read from the json of every S1 patch (a minute for 590,326 of them).
    Opening looks at folder names only. `labels` reads the json of every S2 patch, once, when first asked for.

    Raises:
        InputError: a sensor's folder is missing, a patch lacks its partner, a patch is in two splits.
    """

    kind: ClassVar[str] = "BigEarthNet-MM v1"
    layout: ClassVar[str] = f"folders {S2_FOLDER} and {S1_FOLDER}"
    classes: tuple[str, ...] = BEN19

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        self.root = Path(root)
        on_disk = {"s1": self._folders(S1_FOLDER), "s2": self._folders(S2_FOLDER)}
        self._rows, self._split_of = _read_lists(self.root)
        partners = {s2: row["s1_name"] for s2, row in self._rows.items()} or self._partners_from_json(on_disk["s1"])
        self._check_partners(partners, on_disk)
        if not partners:
            raise InputError(f"{self.root / S2_FOLDER} holds no patch", "unpack the archive there")
        self.names: Sequence[str] = tuple(partners)
        self._s1_names = tuple(partners.values())

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Either sensor's folder is enough to recognise the format; a missing one is reported when opening."""
        return (root / S2_FOLDER).is_dir() or (root / S1_FOLDER).is_dir()

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one patch. See :class:`Archive`; S1 (120, 120) float32 dB, S2 uint16 at 120, 60 and 20 px."""
        name, s1_name = self.names[index], self._s1_names[index]
        bands: dict[str, dict[str, np.ndarray]] = {}
        where: dict[str, Any] = {}
        for key in modalities or ("s1", "s2"):
            folder = self._folder(key, name, s1_name)
            bands[key], where = read_bands(folder, get_modality(key))
        labels = convert_43_to_19(*self._labels43(name))
        return Patch(name=name, bands=bands, labels=labels, meta=self.meta(index), **where)

    @cached_property
    def labels(self) -> np.ndarray:  # type: ignore[override]
        """(len, 19) bool in the order of BEN19. Reads one json per patch the first time."""
        table = np.zeros((len(self), len(BEN19)), dtype=bool)
        column = {name: number for number, name in enumerate(BEN19)}
        for row, name in enumerate(self.names):
            table[row, [column[label] for label in convert_43_to_19(*self._labels43(name))]] = True
        return table

    def keys(self, index: int) -> dict[str, str]:
        """Names of the two folders: the S1 name and the S2 name."""
        return {"s1": self._s1_names[index], "s2": self.names[index]}

    def meta(self, index: int) -> dict[str, str]:
        """s1_name, split, tile and acquisition_date (both from the names), and every further column of index.csv."""
        name, s1_name = self.names[index], self._s1_names[index]
        day = name.split("_")[2][:8]
        known = {
            "s1_name": s1_name,
            "split": self._split_of.get(name, ""),
            "tile": s1_name.split("_")[-3],
            "acquisition_date": f"{day[:4]}-{day[4:6]}-{day[6:]}",
        }
        row = {field: text for field, text in self._rows.get(name, {}).items() if field not in ("s1_name", "split")}
        return {**known, **row}

    def _folder(self, modality: str, name: str, s1_name: str) -> Path:
        if modality not in ("s1", "s2"):
            raise InputError(f"{self.kind} has no modality {modality!r}", "choose from s1, s2")
        return self.root / S1_FOLDER / s1_name if modality == "s1" else self.root / S2_FOLDER / name

    def _folders(self, folder: str) -> set[str]:
        path = self.root / folder
        if not path.is_dir():
            raise InputError(f"{self.root} has no folder {folder}", "download and unpack both sensors into one folder")
        with os.scandir(path) as entries:  # no stat per entry: half a million folders take about a second
            return {entry.name for entry in entries if entry.is_dir()}

    def _partners_from_json(self, s1_names: set[str]) -> dict[str, str]:
        partners: dict[str, str] = {}
        for s1_name in sorted(s1_names):
            path = self.root / S1_FOLDER / s1_name / f"{s1_name}_labels_metadata.json"
            partners[str(_read_json(path, "corresponding_s2_patch"))] = s1_name
        return dict(sorted(partners.items()))

    def _check_partners(self, partners: dict[str, str], on_disk: dict[str, set[str]]) -> None:
        s1_folder, s2_folder = self.root / S1_FOLDER, self.root / S2_FOLDER
        for s2_name, s1_name in partners.items():
            if s2_name not in on_disk["s2"]:
                raise InputError(f"{s1_folder / s1_name}: its S2 partner {s2_folder / s2_name} is missing", COMPLETE)
            if s1_name not in on_disk["s1"]:
                raise InputError(f"{s2_folder / s2_name}: its S1 partner {s1_folder / s1_name} is missing", COMPLETE)
        alone = on_disk["s2"].difference(partners) if not self._rows else set()
        if alone:
            raise InputError(f"{s2_folder / min(alone)}: no S1 patch names it as its partner", COMPLETE)

    def _labels43(self, name: str) -> tuple[list[str], str]:
        path = self.root / S2_FOLDER / name / f"{name}_labels_metadata.json"
        return _read_json(path, "labels"), str(path)


def _read_lists(root: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """index.csv and the split lists: S2 name -> columns (s1_name at least), S2 name -> split."""
    rows: dict[str, dict[str, str]] = {}
    split_of: dict[str, str] = {}
    if (root / "index.csv").is_file():
        with open(root / "index.csv", newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not {"s2_name", "s1_name"} <= set(reader.fieldnames or ()):
                raise InputError(f"{root / 'index.csv'}: no columns s2_name and s1_name", "add them to its header line")
            rows = {row.pop("s2_name"): row for row in reader}
        split_of = {name: row["split"] for name, row in rows.items() if row.get("split")}
    found = [(split, path) for split in SPLITS if (path := _split_list(root, split))]
    if found:  # the lists a user may replace by their own win over the column
        split_of = {}
    for split, path in found:
        for s2_name, s1_name in _read_split(path):
            if split_of.setdefault(s2_name, split) != split:
                raise InputError(f"{path}: {s2_name} is also in {split_of[s2_name]}.csv", "keep it in one split only")
            rows.setdefault(s2_name, {"s1_name": s1_name})
    return rows, split_of


def _split_list(root: Path, split: str) -> Path | None:
    return next((path for path in (root / f"splits/{split}.csv", root / f"{split}.csv") if path.is_file()), None)


def _read_split(path: Path) -> list[tuple[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        pairs = [tuple(row) for row in csv.reader(file) if row]
    for line, pair in enumerate(pairs, 1):
        if len(pair) != 2 or not pair[0].startswith("S2") or not pair[1].startswith("S1"):
            raise InputError(f"{path} line {line}: {','.join(pair)!r}", "write s2_name,s1_name on each line, no header")
    return [(pair[0].strip(), pair[1].strip()) for pair in pairs]


def _read_json(path: Path, field: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))[field]
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "download the patch again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot read field {field!r} ({error})", "download the patch again") from None

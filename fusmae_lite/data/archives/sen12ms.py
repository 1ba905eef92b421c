"""SEN12MS: triplets of radar, optics and a land-cover map, 256 px, a multi-band GeoTIFF each, by season and scene.

Source: Schmitt et al., "SEN12MS", ISPRS Annals 2019; the split lists are those of its repository, schmitt-muc/SEN12MS.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import S2, Modality
from fusmae_lite.data.archives.geotiff import CODES, GeoTiffArchive, read_images
from fusmae_lite.data.archives.labels import HELD_OUT, IGBP10
from fusmae_lite.data.archives.names import listed, told_by

SIDE = 256
#: What work after the 2020 data fusion contest leaves out.
DROPPED_OF_8 = ("Savanna", "Snow/Ice")
UNCLASSIFIED = (0, 255)
BANDS_ON_DISK = {"s1": ("VV", "VH"), "s2": (*S2.bands[:10], "B10", *S2.bands[10:]), "lc": ("IGBP", "LCCS1", "2", "3")}
LAND_COVER = Modality("lc", "land cover", ("IGBP",), (10,), CODES, "uint16", (0.0,), (1.0,))
#: Its radar image holds NaN; the authors leave it out everywhere, and so do we.
NAN_TRIPLET = "ROIs1868_summer_s2_146_p202"
_NUMBER = re.compile("[0-9]{1,6}")


class SEN12MS(GeoTiffArchive):
    """SEN12MS in its own layout; a patch is named by the stem of its Sentinel-2 file.

    ::

        root/ROIs1158_spring/s1_<scene>/ROIs1158_spring_s1_<scene>_p<k>.tif   float32 dB, VV VH
                            /s2_<scene>/ROIs1158_spring_s2_<scene>_p<k>.tif   uint16, 13 bands; B10 is dropped
                            /lc_<scene>/ROIs1158_spring_lc_<scene>_p<k>.tif   uint16, 4 bands; the first is IGBP
        root/ROIs1868_summer, root/ROIs1970_fall, root/ROIs2017_winter        any of the four seasons is enough

    ``test`` is the 26 official held-out scenes, ``train`` all others; the official split has no validation set, so
    ``split("val")`` is empty: take whole scenes out of ``train`` if you need one. Each triplet has one label, the
    class most frequent after merging the 17 IGBP classes to 10; the lower class number wins a tie. With `n_classes` 8
    pixels of Savanna and Snow/Ice count for nothing, and a triplet that has no others carries no label (our reading;
    the papers do not say). `snow_and_clouds` changes nothing: these authors set nothing apart.

    Raises:
        InputError: a triplet is incomplete, a GeoTIFF lies in another's folder, `n_classes` is neither 10 nor 8.
    """

    kind: ClassVar[str] = "SEN12MS"
    layout: ClassVar[str] = f"one of the folders {', '.join(HELD_OUT)}"
    folders: ClassVar[tuple[str, ...]] = tuple(HELD_OUT)
    side: ClassVar[int | None] = SIDE

    def __init__(
        self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False, n_classes: int = 10
    ) -> None:
        if n_classes not in (8, 10):
            raise InputError(f"{self.kind} has no scheme of {n_classes} classes", "choose n_classes 10 or 8")
        self.root = Path(root)
        self.classes = tuple(name for name in IGBP10 if n_classes == 10 or name not in DROPPED_OF_8)
        on_disk: dict[str, set[str]] = {kind: set() for kind in ("s1", "lc", "s2")}
        triplets = set()
        for season, scene, kind, number in _tifs(self.root):
            on_disk[kind].add(f"{season}_{kind}_{scene}_p{number}")
            triplets.add((self.folders.index(season), len(scene), scene, int(number), season, number))
        rows = [(season, scene, number) for *_, scene, _, season, number in sorted(triplets)]
        self.columns = {
            kind: [f"{season}_{kind}_{scene}_p{number}" for season, scene, number in rows] for kind in on_disk
        }
        self.names = tuple(self.columns["s2"])
        held = {f"{season}_s2_{scene}" for season, scenes in HELD_OUT.items() for scene in scenes}
        parts = ["test" if name.rpartition("_")[0] in held else "train" for name in self.names]
        self.splits = np.array(parts, dtype="<U5")
        self.rest = told_by(self.columns["s1"], self.names)
        self._join(on_disk, self.root, partial)
        self.columns = {kind: self.columns[kind] for kind in ("s1", "s2")}
        if NAN_TRIPLET in self.names:
            row = self.names.index(NAN_TRIPLET)
            self.leave_out({row: "its radar image holds NaN; the authors leave it out too"})
        if not self.names:
            raise InputError(f"{self.root} holds no complete triplet", "unpack s1, s2 and lc of a season there")

    def _path(self, modality: str, name: str) -> Path:
        """The file of one kind that belongs to the triplet of a file of any."""
        roi, season, _, scene, patch = name.split("_")
        folder = self.root / f"{roi}_{season}" / f"{modality}_{scene}"
        return folder / f"{roi}_{season}_{modality}_{scene}_{patch}.tif"

    def _images(self, modality: str, name: str) -> dict[Path, Sequence[str]]:
        return {self._path(modality, name): BANDS_ON_DISK[modality]}

    def _beside(self, index: int, modality: str) -> list[Path]:
        return [self._path("lc", self.names[index])]

    def _labels_of(self, index: int) -> tuple[str, ...]:
        images = self._images("lc", self.names[index])
        counts = np.bincount(read_images(images, LAND_COVER, SIDE)[0]["IGBP"].ravel(), minlength=256)
        unknown = set(np.flatnonzero(counts).tolist()).difference(UNCLASSIFIED, *IGBP10.values())
        if unknown:
            what = f"{next(iter(images))}: IGBP code {min(unknown)} is not one of 1 to 17"
            raise InputError(what, "download the file again")
        merged = np.array([counts[list(IGBP10[name])].sum() for name in self.classes])
        return (self.classes[merged.argmax()],) if merged.any() else ()


def _tifs(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Season, scene, kind (s1, s2, lc) and patch number of every image, from folder and file names alone."""
    for season in filter(lambda name: (root / name).is_dir(), HELD_OUT):
        for folder in listed(root / season, folders=True):
            kind, _, scene = folder.partition("_")
            if kind not in BANDS_ON_DISK or not scene:
                continue
            if not _NUMBER.fullmatch(scene):
                raise InputError(f"{root / season}: scene {scene!r} is no number", "rename or remove its folders")
            start = f"{season}_{folder}_p"
            for name in filter(lambda name: name.endswith(".tif"), listed(root / season / folder)):
                number = name[len(start) : -len(".tif")]
                if not (name.startswith(start) and _NUMBER.fullmatch(number)):
                    where = root / season / folder / name
                    raise InputError(f"{where} is not named {start}<number>.tif", "unpack it into its folder")
                yield season, scene, kind, number

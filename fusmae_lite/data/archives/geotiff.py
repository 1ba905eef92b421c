"""Reading GeoTIFFs as archives of patches store them: header, then pixels, with what it declares applied."""

from __future__ import annotations

import logging
import math
import re
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import refuse_special
from fusmae_lite.core.progress import track
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, Modality, get_modality
from fusmae_lite.data.archives.base import Patch
from fusmae_lite.data.archives.listing import subfolders, unopened
from fusmae_lite.data.archives.pairing import PairArchive
from fusmae_lite.data.archives.pixels import (
    ADDED,
    FILL,
    check_finite,
    check_form,
    check_gaps,
    check_values,
    first_with_offset,
    offset_left,
)

# What GDAL has to say about a damaged file is in our one-line error; a log line beside it would only repeat it.
logging.getLogger("rasterio").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_CODEC = re.compile(r"missing codec(?: of code)? \w+|\S+ compression only supported|compression \S+ not supported")


@dataclass(frozen=True)
class Place:
    """Where the pixels of a file lie: None for what it does not say; bounds are left, bottom, right, top.

    `tolerance` is half a pixel of its sensor's finest bands, in the units of the bounds.
    """

    path: Path
    crs: CRS | None
    bounds: tuple[float, float, float, float] | None
    tolerance: float = 0.0

    def __str__(self) -> str:
        edges = ", ".join(f"{edge:g}" for edge in self.bounds or ())
        return f"{self.path} lies at ({edges}) in {self.crs.to_string() if self.crs else 'no reference system'}"


class GeoTiffArchive(PairArchive):
    """Pairs of radar and optics in GeoTIFFs."""

    #: Any of these is enough to recognise the format; what is missing is reported when opening.
    folders: ClassVar[tuple[str, ...]]

    @classmethod
    def matches(cls, root: Path) -> bool:
        """See :class:`Archive`."""
        return any((root / folder).is_dir() for folder in cls.folders)

    @cached_property
    def labels(self) -> np.ndarray:  # type: ignore[override]
        """(len, n_classes) bool in the order of `classes`. Reads one json or map per patch the first time."""
        table = np.zeros((len(self), len(self.classes)), dtype=bool)
        for row in track(range(len(self)), "labels"):
            table[row, [self.classes.index(name) for name in self._labels_of(row)]] = True
        return table

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one patch; see :class:`Archive`."""
        read = {modality: self._bands(modality, name) for modality, name in self._chosen(index, modalities).items()}
        bands = {modality: bands for modality, (bands, _) in read.items()}
        place = one_place([place for _, place in read.values()])
        crs = place.crs and place.crs.to_string()
        return Patch(self.names[index], bands, self._labels_of(index), self.meta(index), crs, place.bounds)

    def _subfolders(self, folder: str) -> list[str]:
        """Names of the folders in one of the `folders`."""
        if not (self.root / folder).is_dir():
            raise InputError(f"{self.root} has no folder {folder}", "download and unpack both sensors into one folder")
        return subfolders(self.root / folder)

    def _bands(self, modality: str, name: str) -> tuple[dict[str, np.ndarray], Place]:
        return read_bands(self._path(modality, name), get_modality(modality))

    @abstractmethod
    def _labels_of(self, index: int) -> tuple[str, ...]:
        """Names of one pair's classes."""


def read_bands(folder: Path, modality: Modality) -> tuple[dict[str, np.ndarray], Place]:
    """Every band of one patch at native resolution, from a file each, and the place that all of them show."""
    bands: dict[str, np.ndarray] = {}
    places: list[Place] = []
    late = modality.units == REFLECTANCE and first_with_offset([folder.name]) is not None
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # looks for no side-car files
        for band in modality.bands:
            path, side = folder / f"{folder.name}_{band}.tif", modality.native_side(band)
            pixels, place = _read(path, [band], [band], side, modality.dtype, modality, late)
            bands[band] = pixels[0]
            places.append(place)
    check_gaps(bands, modality, folder)
    return bands, one_place(places)


def read_stack(
    path: Path, on_disk: Sequence[str], wanted: Sequence[str], side: int, dtype: str, modality: Modality | None = None
) -> tuple[dict[str, np.ndarray], Place]:
    """The wanted bands of one GeoTIFF of many, all of one side, and its place; without `modality` values are any."""
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        pixels, place = _read(path, on_disk, wanted, side, dtype, modality)
    bands = dict(zip(wanted, pixels, strict=True))
    if modality is not None:
        check_gaps(bands, modality, path)
    return bands, place


def one_place(places: Sequence[Place]) -> Place:
    """The last of the places, of bands or sensors of one patch; InputError where one is another than the first.

    They may differ by half a pixel of 10 m; what a file does not say is not compared.
    """
    first = places[0]
    for other in places[1:]:
        edges = zip(first.bounds or (), other.bounds or (), strict=False)
        distance = max((abs(a - b) for a, b in edges), default=0.0)
        both = (first.crs is None) == (other.crs is None)
        if both and (first.crs != other.crs or distance > min(first.tolerance, other.tolerance)):
            raise InputError(
                f"two places in one pair: {first}, but {other}",
                "correct the pairing in the lists, or download the patch again",
            )
    return places[-1]


def _read(
    path: Path,
    on_disk: Sequence[str],
    wanted: Sequence[str],
    side: int,
    dtype: str,
    modality: Modality | None,
    late: bool = False,
) -> tuple[np.ndarray, Place]:
    """The wanted bands of one file, (bands, side, side), checked, and its place.

    What the header alone can tell is checked before pixels are read: a small file may claim to hold terabytes.
    """
    refuse_special(path)
    try:
        with rasterio.open(path, driver="GTiff") as file:
            _check_header(file, path, on_disk, side, dtype, modality)
            place = _place(file, path, modality)
            pixels = file.read([on_disk.index(band) + 1 for band in wanted])
            if modality is not None:  # else a land-cover map: codes, in which 0 is one
                pixels = _apply(file, pixels, path, modality, late)
    except InputError:
        raise
    except (RasterioError, OSError, ValueError, OverflowError, MemoryError) as error:
        kind = f"band {on_disk[0]} of {modality.title}" if modality and len(on_disk) == 1 else "the image"
        raise _explain(path, kind, error) from None
    for band, array in zip(wanted, pixels, strict=True):
        check_finite(array, path, band)
        if modality is not None:
            check_values(array, modality, band, path)
    return pixels, place


def _check_header(
    file: rasterio.DatasetReader, path: Path, on_disk: Sequence[str], side: int, dtype: str, modality: Modality | None
) -> None:
    shape, units = (file.height, file.width), modality and modality.units
    if file.count != len(on_disk):
        if len(on_disk) > 1:
            raise InputError(f"{path} has {file.count} bands, expected {len(on_disk)}", "download the file again")
        shape = (file.count, *shape)
    scaled = units == DECIBEL and (file.scales[0], file.offsets[0]) != (1, 0)
    for band, found in zip(on_disk, file.dtypes, strict=False):
        becomes = dtype if scaled and np.dtype(found).kind in "iuf" else found  # scaled decibels become float32
        check_form(shape, becomes, path, band, side, dtype, units)


def _place(file: rasterio.DatasetReader, path: Path, modality: Modality | None) -> Place:
    """CRS and bounds of a north-up grid; InputError for any other."""
    grid, bounds = file.transform, tuple(file.bounds)
    if grid.is_identity:  # what GDAL says of a file without a grid
        return Place(path, file.crs, None)
    if not all(map(math.isfinite, (*grid[:6], *bounds))):
        raise InputError(f"{path}: a grid of NaN or infinite coordinates", "download the file again")
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise InputError(f"{path}: a rotated, sheared or mirrored grid", "warp it to north up (gdalwarp), pair by pair")
    finest = max(file.width, *map(modality.native_side, modality.bands)) if modality else file.width
    return Place(path, file.crs, bounds, (bounds[2] - bounds[0]) / finest / 2)


def _apply(file: rasterio.DatasetReader, pixels: np.ndarray, path: Path, modality: Modality, late: bool) -> np.ndarray:
    """Pixels in the modality's unit: declared scale and offset applied; InputError where declared no-data occurs."""
    for value in {value for value in file.nodatavals if value is not None}:
        if gaps := int((pixels == value).sum()):
            raise InputError(f"{path}: {gaps} pixels are {value:g}, declared as no data", FILL)
    if any(MaskFlags.per_dataset in flags for flags in file.mask_flag_enums) and not file.dataset_mask().all():
        raise InputError(f"{path}: its mask declares pixels as no data", FILL)
    scale, offset = file.scales[0], file.offsets[0]
    known = "one scale and offset for all bands"
    single = len(set(zip(file.scales, file.offsets, strict=True))) == 1
    if single and math.isfinite(scale) and math.isfinite(offset) and scale != 0:
        # Sentinel-2 declares its unit, or the 1000 of processing baselines from 04.00 on
        near = math.isclose(scale, 1.0) or math.isclose(scale, 1e-4, rel_tol=1e-5)
        if modality.units == REFLECTANCE and near and math.isclose(offset / scale, -ADDED, rel_tol=1e-5):
            return np.maximum(pixels, ADDED) - pixels.dtype.type(ADDED)
        if late and near and offset == 0:
            raise offset_left(path)
        if (scale, offset) == (1.0, 0.0) or (modality.units == REFLECTANCE and near and offset == 0):
            return pixels
        if modality.units == DECIBEL:
            return (pixels.astype(np.float64) * scale + offset).astype(modality.dtype)
        known = "none"
        if modality.units == REFLECTANCE:
            known = f"(1, 0), (0.0001, 0), (1, -{ADDED}) or (0.0001, -0.1)"
    what = f"{path} declares scale {scale:g} and offset {offset:g}; known here: {known}"
    raise InputError(what, "apply them to the pixels and remove the tags (gdal_translate -unscale)")


def _explain(path: Path, what: str, error: Exception) -> InputError:
    """Why a file could not be read."""
    if reason := unopened(path, f": {what}"):
        return reason
    if codec := _CODEC.search(f"{error} {error.__cause__}"):
        cure = "write it again with deflate (gdal_translate -co COMPRESS=DEFLATE)"
        return InputError(f"{path}: this rasterio cannot decode its compression ({codec[0]})", cure)
    return InputError(f"{path}: truncated or no GeoTIFF", "download the patch again")

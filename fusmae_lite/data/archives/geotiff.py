"""Reading GeoTIFFs as archives of patches store them: header, then pixels, with what it declares applied."""

import logging
import math
import re
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import refuse_special
from fusmae_lite.core.progress import track
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, Modality, get_modality
from fusmae_lite.data.archives.base import Archive, Patch
from fusmae_lite.data.archives.names import listed, unopened
from fusmae_lite.data.archives.pixels import (
    ADDED,
    FILL,
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
#: Units of a map: no scale, offset or gap means anything there.
CODES = "class codes"
_UNSCALE = "apply them to the pixels and remove the tags (gdal_translate -unscale)"


class Place(NamedTuple):
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


class GeoTiffArchive(Archive):
    """Pairs of radar and optics in GeoTIFFs."""

    folders: ClassVar[tuple[str, ...]]  # any of these is enough to recognise the format
    side: ClassVar[int | None] = None  # of every band in pixels; None: what the sensor's resolutions give

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Any of the `folders`; what is missing is reported when opening."""
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
        bands, places = {}, []
        for modality, name in self._chosen(index, modalities).items():
            bands[modality], place = read_images(self._images(modality, name), get_modality(modality), self.side)
            places.append(place)
        place = one_place(places)
        crs = place.crs and place.crs.to_string()
        return Patch(self.names[index], bands, self._labels_of(index), self.meta(index), crs, place.bounds)

    def files(self, index: int, modality: str) -> list[str]:
        """The images of one sensor, and what else :meth:`read` opens with them."""
        if modality not in self.columns:  # told when it is read
            return []
        images = self._images(modality, self.keys(index)[modality])
        return [str(path) for path in (*images, *self._beside(index, modality))]

    def _subfolders(self, folder: str) -> list[str]:
        """Names of the folders in one of the `folders`."""
        if not (self.root / folder).is_dir():
            raise InputError(f"{self.root} has no folder {folder}", "download and unpack both sensors into one folder")
        return listed(self.root / folder, folders=True)

    def _beside(self, index: int, modality: str) -> list[Path]:
        """Files of labels and the like of one sensor of a pair."""
        return []

    @abstractmethod
    def _images(self, modality: str, name: str) -> dict[Path, Sequence[str]]:
        """The files of a name -> their bands."""

    @abstractmethod
    def _labels_of(self, index: int) -> tuple[str, ...]:
        """Names of one pair's classes."""


def band_files(folder: Path, modality: Modality) -> dict[Path, Sequence[str]]:
    """The files of a folder that holds one for each band."""
    return {folder / f"{folder.name}_{band}.tif": [band] for band in modality.bands}


def read_images(
    images: Mapping[Path, Sequence[str]], modality: Modality, side: int | None = None
) -> tuple[dict[str, np.ndarray], Place]:
    """The modality's bands at native resolution from files that may hold more, and the place that all of them show.

    InputError for damage, other forms, units, gaps or places; `side` in pixels if it is not the modality's own.
    """
    bands: dict[str, np.ndarray] = {}
    places = []
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # looks for no side-car files
        for path, on_disk in images.items():
            pixels, place = _read(path, on_disk, modality, side)
            bands |= pixels
            places.append(place)
    check_gaps(bands, modality, path if len(images) == 1 else path.parent)
    return bands, one_place(places)


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
            cure = "correct the pairing in the lists, or download the patch again"
            raise InputError(f"two places in one pair: {first}, but {other}", cure)
    return places[-1]


def _read(
    path: Path, on_disk: Sequence[str], modality: Modality, side: int | None
) -> tuple[dict[str, np.ndarray], Place]:
    """The modality's bands of one file, checked, and its place.

    What the header alone can tell is checked before pixels are read: a small file may claim to hold terabytes.
    """
    wanted = [band for band in modality.bands if band in on_disk]
    what = f": {f'band {on_disk[0]} of {modality.title}' if len(on_disk) == 1 else 'image'}"
    with open_image(path, what) as file:
        _check_header(file, path, on_disk, modality, side or modality.native_side(wanted[0]))
        place = place_of(file, path, modality)
        pixels = file.read([on_disk.index(band) + 1 for band in wanted])
        if modality.units != CODES:  # of which 0 is one
            _refuse_gaps(file, pixels, path)
            pixels = in_unit(file, pixels, path, modality)
    bands = dict(zip(wanted, pixels, strict=True))
    for band, array in bands.items():
        check_values(array, modality, band, path)
    return bands, place


@contextmanager
def open_image(path: Path, what: str = "") -> Iterator[rasterio.DatasetReader]:
    """A GeoTIFF or JPEG 2000, by its ending; InputError where it cannot be read; `what` it is, after its name."""
    refuse_special(path)
    driver = "JP2OpenJPEG" if path.suffix.lower() == ".jp2" else "GTiff"
    try:
        with rasterio.open(path, driver=driver) as file:
            yield file
    except InputError:
        raise
    except (RasterioError, OSError, ValueError, OverflowError, MemoryError) as error:
        if reason := unopened(path, what):
            raise reason from None
        if codec := _CODEC.search(f"{error} {error.__cause__}"):
            cure = "write it again with deflate (gdal_translate -co COMPRESS=DEFLATE)"
            raise InputError(f"{path}: this rasterio cannot decode its compression ({codec[0]})", cure) from None
        raise InputError(f"{path}: truncated or no GeoTIFF", "download the patch again") from None


def _check_header(
    file: rasterio.DatasetReader, path: Path, on_disk: Sequence[str], modality: Modality, side: int
) -> None:
    shape: tuple[int, ...] = (file.height, file.width)
    if file.count != len(on_disk):
        if len(on_disk) > 1:
            raise InputError(f"{path} has {file.count} bands, expected {len(on_disk)}", "download the file again")
        shape = (file.count, *shape)
    scaled = modality.units == DECIBEL and (file.scales[0], file.offsets[0]) != (1, 0)
    for band, actual in zip(on_disk, file.dtypes, strict=False):
        becomes = modality.dtype if scaled and np.dtype(actual).kind in "iuf" else actual  # as _apply makes it
        check_form(shape, becomes, path, band, side, modality.dtype, modality.units)


def place_of(file: rasterio.DatasetReader, path: Path, modality: Modality) -> Place:
    """CRS and bounds of a north-up grid; InputError for any other."""
    grid, bounds = file.transform, tuple(file.bounds)
    if grid.is_identity:  # what GDAL says of a file without a grid
        return Place(path, file.crs, None)
    if not all(map(math.isfinite, (*grid[:6], *bounds))):
        raise InputError(f"{path}: a grid of NaN or infinite coordinates", "download the file again")
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise InputError(f"{path}: a rotated, sheared or mirrored grid", "warp it to north up (gdalwarp), pair by pair")
    finest = max(file.width, *map(modality.native_side, modality.bands))
    return Place(path, file.crs, bounds, (bounds[2] - bounds[0]) / finest / 2)


def _refuse_gaps(file: rasterio.DatasetReader, pixels: np.ndarray, path: Path) -> None:
    """InputError where declared no-data occurs."""
    for value in {value for value in file.nodatavals if value is not None}:
        if gaps := int((pixels == value).sum()):
            raise InputError(f"{path}: {gaps} pixels are {value:g}, declared as no data", FILL)
    if any(MaskFlags.per_dataset in flags for flags in file.mask_flag_enums) and not file.dataset_mask().all():
        raise InputError(f"{path}: its mask declares pixels as no data", FILL)


def in_unit(file: rasterio.DatasetReader, pixels: np.ndarray, path: Path, modality: Modality) -> np.ndarray:
    """Pixels in the modality's unit: the declared scale and offset applied; InputError for others than are known."""
    declared, (scale, offset) = set(zip(file.scales, file.offsets, strict=True)), (file.scales[0], file.offsets[0])
    usable = len(declared) == 1 and math.isfinite(scale) and math.isfinite(offset) and scale != 0
    optical, accepted = modality.units == REFLECTANCE, "one scale and offset for all bands"
    if usable:
        # Sentinel-2 declares its unit, or the 1000 of processing baselines from 04.00 on
        unit = math.isclose(scale, 1.0) or (optical and math.isclose(scale, 1e-4, rel_tol=1e-5))
        if optical and unit and math.isclose(offset / scale, -ADDED, rel_tol=1e-5):
            return np.maximum(pixels, ADDED) - pixels.dtype.type(ADDED)
        if optical and unit and offset == 0 and first_with_offset([path.name]):
            raise offset_left(path)
        if (scale, offset) == (1.0, 0.0) or (optical and unit and offset == 0):
            return pixels
        if modality.units == DECIBEL:
            return (pixels.astype(np.float64) * scale + offset).astype(modality.dtype)
        accepted = f"(1, 0), (0.0001, 0), (1, -{ADDED}) or (0.0001, -0.1)" if optical else "none"
    raise InputError(f"{path} declares scale {scale:g} and offset {offset:g}; known here: {accepted}", _UNSCALE)

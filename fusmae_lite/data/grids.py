"""Grids of a scene's files: what their headers tell, and whether all of them are one."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.windows import Window, bounds

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, S2, Modality
from fusmae_lite.data.archives.geotiff import open_image, place_of
from fusmae_lite.data.archives.pixels import check_form, first_with_offset, offset_left

#: Where the products that people download keep the files of their bands.
_FOLDERS = ("*", "R[126]0m/*", "GRANULE/*/IMG_DATA/R[126]0m/*")


class Box(NamedTuple):
    """Pixels of a scene: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Of an array of the scene."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def cut(self, other: "Box") -> "Box":
        """What of it lies in the other; of no height or width if nothing does."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Box(top, left, max(top, min(self.bottom, other.bottom)), max(left, min(self.right, other.right)))

    def of(self, whole: "Box") -> "Box":
        """The same pixels, counted from the corner of `whole`."""
        return Box(*(edge - first for edge, first in zip(self, whole[:2] * 2, strict=True)))

    def window(self, ratio: int = 1) -> Window:
        """For rasterio, in pixels `ratio` times as large."""
        top, left = self.top // ratio, self.left // ratio
        return Window(left, top, -(-self.right // ratio) - left, -(-self.bottom // ratio) - top)


class Grid(NamedTuple):
    """A file's bands that are wanted, name -> index in it, and its pixels on the ground."""

    path: Path
    bands: dict[str, int]
    crs: CRS
    transform: Affine
    height: int
    width: int

    def coarser(self, ratio: float) -> Affine:
        """The transform of pixels `ratio` times as large from the same corner."""
        t = self.transform
        return Affine(t.a * ratio, 0.0, t.c, 0.0, t.e * ratio, t.f)

    def footprint(self, box: Box) -> list[tuple[float, float]]:
        """x, y of the corners of a box, counter-clockwise from the lower left."""
        left, bottom, right, top = bounds(box.window(), self.transform)
        return [(left, bottom), (right, bottom), (right, top), (left, top)]


def require_same(grid: Grid, other: Grid, size: tuple[int, int] | None = None) -> None:
    """InputError unless both lie on one grid, to half a pixel; `size` is the other's if it has larger pixels."""
    cure = f"bring it onto that grid: rio warp {other.path.name} OUT --like {grid.path.name}"
    if other.crs != grid.crs:
        what = f"{other.path} is in {other.crs.to_string()[:40]}, {grid.path} in {grid.crs.to_string()[:40]}"
        raise InputError(what, cure)
    for a, b in ((other.transform.a, grid.transform.a), (other.transform.e, grid.transform.e)):
        if abs(a / b - 1) > 0.5 / max(grid.height, grid.width):
            raise InputError(f"{other.path} has pixels of {abs(a):g}, {grid.path} of {abs(b):g}", cure)
    shifts = (other.transform.c - grid.transform.c, other.transform.f - grid.transform.f)
    if max(map(abs, shifts)) <= grid.transform.a / 2 and other[-2:] == (size or grid[-2:]):
        return
    columns, rows = shifts[0] / grid.transform.a, shifts[1] / grid.transform.e
    apart = columns >= grid.width or rows >= grid.height or columns <= -other.width or rows <= -other.height
    what, cure = ("does not overlap", "choose two images of one place") if apart else ("has another extent than", cure)
    places = (f"{g.width} x {g.height} px from ({g.transform.c:.10g}, {g.transform.f:.10g})" for g in (other, grid))
    raise InputError(f"{other.path} {what} {grid.path}: {' and '.join(places)}", cure)


def read_grid(path: Path, modality: Modality | None, band: str | None = None) -> Grid:
    """Of one file, with all bands of the sensor, only the given one, or (a mask) any one band."""
    title = modality.title if modality else "mask"
    with open_image(path, f": {title}") as file:
        sensor, count = modality or S2, 1 if modality is None or band else modality.channels
        if place_of(file, path, sensor).bounds is None or file.crs is None:
            raise InputError(f"{path} has no georeference", "warp it to UTM: gdalwarp -t_srs EPSG:326ZONE -tr 10 10")
        metres = file.transform.a * file.crs.linear_units_factor[1] if file.crs.is_projected else None
        if metres is None or (band is None and abs(metres / 10 - 1) > 0.05):
            what = f"{path} has pixels of {file.transform.a:g} {'m' if metres else 'degrees'}"
            raise InputError(what, "the models take pixels of 10 m: gdalwarp -t_srs EPSG:326ZONE -tr 10 10")
        bands = {band or "mask": 1} if count == 1 else _described(file, path, sensor)
        if file.count != count and (count == 1 or bands is None):
            names = f" ({', '.join(sensor.bands)}; or more, if described)" if count > 1 else ""
            what = f"{path} has {file.count} band{'s' * (file.count != 1)}, expected {count}{names}"
            raise InputError(what, f"give {title} there, S1 first and then S2" if count > 1 else "give one band")
        if modality is not None:
            _check_type(file, path, modality)
        return Grid(path, bands or {b: i for i, b in enumerate(sensor.bands, 1)}, file.crs, file.transform, *file.shape)


def _described(file: rasterio.DatasetReader, path: Path, modality: Modality) -> dict[str, int] | None:
    """Band -> index by the descriptions of a file; None where they name none. B2 and B02 are one."""
    found: dict[str, int] = {}
    for index, text in enumerate(file.descriptions, 1):
        for word in re.findall(r"[A-Z0-9]+", (text or "").upper()):
            name = f"B{word[1:].zfill(2)}" if re.fullmatch(r"B\d\d?", word) else word
            if name in ("HH", "HV") and modality.units == DECIBEL:
                raise InputError(f"{path}: band {index} is described as {name}", "the models take VV and VH")
            if name in modality.bands and found.setdefault(name, index) != index:
                raise InputError(f"{path}: two bands are described as {name}", "describe each band by its own name")
    if found and (missing := [band for band in modality.bands if band not in found]):
        raise InputError(f"{path}: no band is described as {', '.join(missing)}", "describe all bands, or none")
    return {band: found[band] for band in modality.bands} if found else None


def _check_type(file: rasterio.DatasetReader, path: Path, modality: Modality) -> None:
    """InputError for numbers that hold no such measurement, and for an offset that only the name tells of."""
    kind, scaled = np.dtype(file.dtypes[0]), (file.scales[0], file.offsets[0]) != (1, 0)
    if kind.kind not in ("f" if modality.units == DECIBEL and not scaled else "iuf") or kind.itemsize == 1:
        check_form((1, 1), kind.name, path, modality.bands[0], 1, modality.dtype, modality.units)
    if modality.units == REFLECTANCE and not any(file.offsets) and first_with_offset(path.absolute().parts):
        raise offset_left(path)


def band_files(folder: Path, modality: Modality) -> dict[Path, str]:
    """The one file of each band in a folder or in those of a product, by its name: *_B02.tif, *_B02_10m.jp2."""
    files, chosen = sorted(path for pattern in _FOLDERS for path in folder.glob(pattern)), {}
    for band, metres in zip(modality.bands, modality.resolution, strict=True):
        name = re.compile(rf"(?:.*_)?{band}(?:_{metres}m)?\.(?:tiff?|jp2)", re.I)
        fitting = [path for path in files if name.fullmatch(path.name)]
        if len(fitting) != 1:
            many = f"{len(fitting)} files" if fitting else "no file"
            what = f"{folder}: {many} of band {band} of {modality.title} (*_{band}.tif or *_{band}_{metres}m.jp2)"
            raise InputError(what, "keep one of each band there")
        chosen[fitting[0]] = band
    return chosen

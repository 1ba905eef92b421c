"""A scene of any size: two sensors on one grid of 10 m, read window by window; what is no data stays a mask."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rasterio.enums import MaskFlags
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import PATCH_METRES, REFLECTANCE, S1, S2, Modality
from fusmae_lite.data.archives.geotiff import in_unit, open_image
from fusmae_lite.data.archives.pixels import FILL, check_values
from fusmae_lite.data.archives.sample import DRAWN, refuse_suspicious
from fusmae_lite.data.grids import Box, Grid, band_files, read_grid, require_same

_DECLARE = "declare that value as no data (gdal_edit.py -a_nodata VALUE FILE)"
_TAGS = ("acquisition_date", "DATATAKE_1_DATATAKE_SENSING_START", "PRODUCT_START_TIME")
_DAY = re.compile(r"(?<!\d)(20\d\d)-?([01]\d)-?([0-3]\d)(?=T|_|\.|$)")


class Raster:
    """One sensor of a scene: a file of all its bands, or a folder of band files at 10, 20 and 60 m.

    InputError for what the header tells: no georeference, a rotated grid, other bands, other resolutions.
    """

    def __init__(self, path: Path | str, modality: Modality) -> None:
        self.path, self.modality = Path(path).expanduser(), modality
        files = band_files(self.path, modality) if self.path.is_dir() else {self.path: None}
        self.files = [read_grid(file, modality, band) for file, band in files.items()]
        self.grid = min(self.files, key=lambda grid: grid.transform.a)
        self.ratios = [round(grid.transform.a / self.grid.transform.a) for grid in self.files]
        for grid, ratio in zip(self.files, self.ratios, strict=True):
            size = -(-self.grid.height // ratio), -(-self.grid.width // ratio)
            require_same(self.grid, grid._replace(transform=grid.coarser(1 / ratio)), size)

    def read(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """(C, h, w) float32 in the modality's unit, 0 where no data, and (h, w) True where measured.

        Coarser bands come up bilinearly, the same for any window; where one of their pixels is no data, all it touches.
        """
        widest, grid = math.lcm(*self.ratios), self.grid
        edge = 2 * widest if widest > 1 else 0
        top, left = (start // widest * widest - edge for start in box[:2])
        around = Box(top, left, box.bottom + edge, box.right + edge).cut(Box(0, 0, grid.height, grid.width))
        shape = around.bottom - around.top, around.right - around.left
        image = torch.zeros(self.modality.channels, *shape)
        gaps, empty = torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
        for file, ratio in zip(self.files, self.ratios, strict=True):
            values, gap, zero = (_enlarged(x, ratio, shape) for x in _read(file, around.window(ratio), self.modality))
            image[[self.modality.band_index(band) for band in file.bands]] = values
            gaps |= gap[0] > 0
            empty &= zero[0] == 1
        if empty.any() and widest > 1:
            empty = F.max_pool2d(empty[None].float(), 2 * widest + 1, 1, widest)[0] > 0
        inside = box.of(around).slices
        measured = ~(gaps | empty)[inside]
        pixels = image[:, *inside].masked_fill(~measured, 0.0)
        least, most = self.modality.valid or (-math.inf, math.inf)
        if measured.any() and not (least <= pixels.min() and pixels.max() <= most):
            self.judge({b: x[measured].numpy() for b, x in zip(self.modality.bands, pixels, strict=True)})
        return pixels.numpy(), measured.numpy()

    def judge(self, bands: Mapping[str, np.ndarray]) -> None:
        """Unit and range of measured pixels, band -> (n,), as archives are held to them."""
        for band, values in bands.items():
            if self.modality.units == REFLECTANCE and 0 < values.max() <= 2:
                what = f"{self.path}: band {band} is at most {values.max():g}: reflectances from 0 to 1, by their look"
                raise InputError(what, "multiply by 10,000")
            try:
                check_values(values, self.modality, band, self.path)
            except InputError as error:
                what, cure = error.parts
                raise InputError(what, cure.replace(FILL, _DECLARE).replace("archive", "raster")) from None

    @cached_property
    def date(self) -> date | None:
        """Of the acquisition, where a tag of the file or the name of the product tells."""
        with open_image(self.grid.path) as file:
            texts = [file.tags()[name] for name in _TAGS if name in file.tags()]
        products = [name for name in self.grid.path.absolute().parts if re.match("S[12]", name)]
        for text in (*texts, self.grid.path.name, *reversed(products)):
            if found := _DAY.search(text):
                try:
                    return datetime.strptime("".join(found.groups()), "%Y%m%d").date()
                except ValueError:
                    continue
        return None


class Scene:
    """Sentinel-1 and Sentinel-2 of one place on one grid.

    Headers, and unit and range of a sample of the pixels, are checked before anything is done with them.

    Raises:
        InputError: a sensor missing or damaged, other bands, grids that differ, values in another unit.
    """

    def __init__(self, s1: Path | str, s2: Path | str) -> None:
        self.rasters = {m.name: Raster(path, m) for m, path in ((S1, s1), (S2, s2))}
        radar, self.grid = (raster.grid for raster in self.rasters.values())
        require_same(self.grid, radar)
        self.height, self.width = self.grid.height, self.grid.width
        self.whole = Box(0, 0, self.height, self.width)
        for raster in self.rasters.values():
            self._sample(raster)

    @property
    def date(self) -> date | None:
        """Day of the optical image, else of the radar image."""
        return self.rasters["s2"].date or self.rasters["s1"].date

    def read(self, box: Box) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Sensor -> (C, h, w) in physical units, and sensor -> (h, w) True where measured."""
        both = {name: raster.read(box) for name, raster in self.rasters.items()}
        return {name: pixels for name, (pixels, _) in both.items()}, {name: there for name, (_, there) in both.items()}

    def _sample(self, raster: Raster) -> None:
        side = PATCH_METRES // 10
        places = [(y, x) for y in range(0, self.height, side) for x in range(0, self.width, side)]
        drawn = np.random.default_rng(0).choice(len(places), min(DRAWN, len(places)), replace=False).tolist()
        seen: list[dict[str, np.ndarray]] = []
        for y, x in (places[i] for i in {*drawn, len(places) - 1}):  # the last: where a truncated file ends
            pixels, there = raster.read(Box(y, x, y + side, x + side).cut(self.whole))
            if there.any():
                seen.append({b: values[there] for b, values in zip(raster.modality.bands, pixels, strict=True)})
        if seen:
            raster.judge({band: np.concatenate([bands[band] for bands in seen]) for band in seen[0]})
            refuse_suspicious(raster.modality, seen, str(raster.path), "windows")


class Hidden:
    """A raster of one band on the grid of a scene, above 0 where pixels are hidden."""

    def __init__(self, path: Path | str, scene: Scene) -> None:
        self.grid = read_grid(Path(path).expanduser(), None)
        require_same(scene.grid, self.grid)

    def read(self, box: Box) -> np.ndarray:
        """(h, w) bool."""
        with open_image(self.grid.path) as file:
            values = file.read(1, window=box.window(), masked=True)
            return (values.filled(0) > 0) & ~np.isnan(values.filled(0))


def _read(file: Grid, window: Window, modality: Modality) -> Iterator[Tensor]:
    """A window of one file: values (k, h, w), and (1, h, w) of 0 and 1: declared no data, 0 in all bands."""
    with open_image(file.path) as opened:
        pixels = opened.read(list(file.bands.values()), window=window)
        gap, zero = np.zeros(pixels.shape[1:], bool), (pixels == 0).all(axis=0)
        for band, index in zip(pixels, file.bands.values(), strict=True):
            value = opened.nodatavals[index - 1]
            if pixels.dtype.kind == "f":
                gap |= ~np.isfinite(band)
            if value is not None and (value != 0 or modality.units != REFLECTANCE):  # 0 is a legal reflectance
                gap |= band == value
        if any(MaskFlags.per_dataset in flags for flags in opened.mask_flag_enums):
            gap |= opened.dataset_mask(window=window) == 0
        values = in_unit(opened, np.where(gap, pixels.dtype.type(0), pixels), file.path, modality)
    for array in (values, gap[None], zero[None]):
        yield torch.from_numpy(array.astype(np.float32))


def _enlarged(values: Tensor, ratio: int, shape: Sequence[int]) -> Tensor:
    """(k, h, w) -> (k, *shape), pixels `ratio` times as small."""
    if ratio > 1:
        values = F.interpolate(values[None], scale_factor=ratio, mode="bilinear", align_corners=False)[0]
    return values[:, : shape[0], : shape[1]]

"""Reading a patch from GeoTIFFs of one band each, as both versions of BigEarthNet store it."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from fusmae_lite.archives.base import check_band
from fusmae_lite.errors import InputError
from fusmae_lite.sensors import Modality

# What GDAL has to say about a damaged file is in our one-line error; a log line beside it would only repeat it.
logging.getLogger("rasterio").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


def read_bands(folder: Path, modality: Modality) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every band of one patch at native resolution, and its place on the ground (crs, bounds) from the first band."""
    bands: dict[str, np.ndarray] = {}
    place: dict[str, Any] = {}
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # looks for no side-car files
        for band in modality.bands:
            path = folder / f"{folder.name}_{band}.tif"
            try:
                with rasterio.open(path, driver="GTiff") as file:
                    pixels = file.read().squeeze(0) if file.count == 1 else file.read()
                    if not place:
                        place = {"crs": file.crs and file.crs.to_string(), "bounds": tuple(file.bounds)}
            except (RasterioError, OSError):
                raise _explain(path, f"band {band} of {modality.title}") from None
            bands[band] = check_band(pixels, path, band, modality.native_side(band), modality.dtype)
    return bands, place


def _explain(path: Path, what: str) -> InputError:
    """Why a file could not be read. Asked only afterwards: 14 looks before each pair would cost more than they tell."""
    if not os.path.isfile(path):
        return InputError(f"{path}: {what} is missing", "download the patch again, or check that its disk is there")
    if not os.access(path, os.R_OK):
        return InputError(f"{path}: no permission to read it", "correct the permissions (chmod a+r)")
    return InputError(f"{path}: truncated or no GeoTIFF", "download the patch again")

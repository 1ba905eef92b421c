"""What a model made of a pair, as a GeoTIFF that a GIS opens where the pair lies."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_bounds

from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Patch
from fusmae_lite.show.pictures import mask_pixels

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def write_geotiff(
    path: Path,
    made: Mapping[str, np.ndarray],
    originals: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    patch: Patch,
    tags: Mapping[str, object],
) -> None:
    """Reconstruction, input and mask of one pair as float32 GeoTIFF where `patch` lies, if it tells.

    A named layer for each band (C, H, W) of `made`, then of `originals`, then for each of `masks` (N,), 1 where hidden;
    the reconstruction's B04, B03 and B02 are its red, green and blue. `tags` say what it was made with.
    """
    layers: list[tuple[str, str, np.ndarray]] = []
    for what, images in (("reconstruction", made), ("input", originals)):
        for name, image in images.items():
            sensor = get_modality(name)
            layers += [
                (f"{name.upper()} {b} {what}", sensor.units, v) for b, v in zip(sensor.bands, image, strict=True)
            ]
    height, width = layers[0][2].shape
    layers += [(f"{name.upper()} hidden", "1 where hidden", mask_pixels(m, height, width)) for name, m in masks.items()]
    options = {"driver": "GTiff", "dtype": "float32", "count": len(layers), "height": height, "width": width}
    if patch.crs and patch.bounds:
        options |= {"crs": patch.crs, "transform": from_bounds(*patch.bounds, width, height)}
    colours = {f"S2 {band} reconstruction": c for band, c in zip(("B04", "B03", "B02"), _RGB, strict=True)}
    with rasterio.open(path, "w", compress="deflate", photometric="MINISBLACK", **options) as file:
        file.colorinterp = [colours.get(name, ColorInterp.undefined) for name, _, _ in layers]
        file.write(np.stack([values for _, _, values in layers]).astype(np.float32))
        file.descriptions = [name for name, _, _ in layers]
        file.units = [unit for _, unit, _ in layers]
        file.update_tags(**{name: str(value) for name, value in tags.items()})

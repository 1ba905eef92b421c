"""Scenes of bundled pairs side by side, for tests to read and to damage; the place is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from fusmae_lite.core.sensors import S1, S2, Modality
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.pairs import stack_bands

CRS, LEFT, TOP = "EPSG:32633", 500_000, 5_300_040
#: Sound pairs without a 0 in all bands, 2 x 3.
ROWS = ((0, 1, 2), (3, 4, 5))


def native(modality: Modality, rows=ROWS) -> dict[str, np.ndarray]:
    """Band -> pixels at native resolution of pairs side by side."""
    archive = open_archive()
    patches = [[archive.read(row, [modality.name]).bands[modality.name] for row in line] for line in rows]
    return {band: np.block([[patch[band] for patch in line] for line in patches]) for band in modality.bands}


def images(modality: Modality, rows=ROWS) -> np.ndarray:
    """(C, 120 * rows, 120 * columns) at 10 m, each pair resampled for itself."""
    archive = open_archive()
    patches = [[archive.read(row, [modality.name]).bands[modality.name] for row in line] for line in rows]
    stacked = [
        [stack_bands({b: torch.from_numpy(x)[None] for b, x in patch.items()}, modality)[0].numpy() for patch in line]
        for line in patches
    ]
    return np.concatenate([np.concatenate(line, axis=2) for line in stacked], axis=1)


def write(
    path: Path, pixels: np.ndarray, metres: float = 10, tags: dict[str, str] | None = None, **changes: Any
) -> Path:
    """A GeoTIFF of (C, h, w); `changes` to its profile, its descriptions, scales or offsets."""
    bands = {name: changes.pop(name) for name in ("descriptions", "scales", "offsets") if name in changes}
    profile = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    profile |= {"dtype": pixels.dtype, "crs": CRS, "transform": from_origin(LEFT, TOP, metres, metres)} | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        for name, values in bands.items():
            setattr(file, name, values)
        file.update_tags(**(tags or {}))
    return path


def write_scene(folder: Path, height: int = 240, width: int = 300) -> tuple[Path, Path]:
    """S1 as one file, S2 as a folder of band files."""
    s1 = write(folder / "s1.tif", images(S1)[:, :height, :width], nodata=np.nan)
    name = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"
    for band, pixels in native(S2).items():
        ratio = S2.resolution[S2.band_index(band)] // 10
        cut = pixels[None, : -(-height // ratio), : -(-width // ratio)]
        write(folder / name / f"{name}_{band}.tif", cut, 10 * ratio)
    return s1, folder / name

"""What is made of scenes and archives, in formats that a GIS opens: GeoParquet of vectors, Cloud-Optimised GeoTIFF."""

import json
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import rasterio.shutil
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_whole
from fusmae_lite.core.sensors import Modality
from fusmae_lite.data.grids import Box

_BLOCK = 128
Corners = Sequence[tuple[float, float]]  # x, y of a footprint, counter-clockwise


class Row(NamedTuple):
    """One vector and what it is of."""

    name: str
    footprint: Corners | None
    day: date | None
    labels: Sequence[str] | None
    seen: float  # share of the pixels that the encoder saw
    vector: np.ndarray  # (D,) float32


def write_geoparquet(path: Path, rows: Iterable[Sequence[Row]], crs: CRS | None, facts: Mapping[str, Any]) -> int:
    """Rows, some at a time, as GeoParquet 1.1; returns how many. `facts` stand as JSON under ``fusmae-lite``.

    Without a `crs` footprints are longitude and latitude (OGC:CRS84, GeoParquet's default). InputError for no row.
    """
    count, edges = 0, np.array([np.inf, np.inf, -np.inf, -np.inf])

    def about() -> dict[str, str]:
        return {"geo": json.dumps(_geo(crs, edges)), "fusmae-lite": json.dumps(facts)}

    def write(temporary: Path) -> None:
        nonlocal count
        writer = None
        try:
            for some in (some for some in rows if some):
                table = _table(some)
                if writer is None:  # in Arrow's schema too, which some readers look at alone
                    writer = pq.ParquetWriter(temporary, table.schema.with_metadata(about()), compression="zstd")
                writer.write_table(table)
                count += len(some)
                places = np.array([xy for row in some for xy in row.footprint or ()]).reshape(-1, 2)
                if len(places):
                    edges[:2], edges[2:] = np.minimum(edges[:2], places.min(0)), np.maximum(edges[2:], places.max(0))
            if writer is None:
                raise InputError(f"{path}: nothing to write: no image shows a whole patch", "all is no data: check it")
            writer.add_key_value_metadata(about())  # now with the bounds of all
        finally:
            if writer is not None:
                writer.close()

    write_whole(path, write)
    return count


def _table(rows: Sequence[Row]) -> pa.Table:
    vectors = np.stack([row.vector for row in rows]).astype(np.float32)
    columns = {
        "geometry": pa.array([row.footprint and _polygon(row.footprint) for row in rows], pa.binary()),
        "name": pa.array([row.name for row in rows], pa.string()),
        "date": pa.array([row.day for row in rows], pa.date32()),
        "labels": pa.array([row.labels for row in rows], pa.list_(pa.string())),
        "seen": pa.array([row.seen for row in rows], pa.float32()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }
    return pa.table(columns)


def _polygon(corners: Corners) -> bytes:
    """Well-known binary, little-endian: type 3, one ring, closed."""
    ring = [*corners, corners[0]]
    return struct.pack(f"<BIII{2 * len(ring)}d", 1, 3, 1, len(ring), *(value for xy in ring for value in xy))


def _geo(crs: CRS | None, edges: np.ndarray) -> dict[str, Any]:
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "orientation": "counterclockwise"}
    if np.isfinite(edges).all():
        column["bbox"] = edges.tolist()
    if crs is not None:
        column["crs"] = crs.to_dict(projjson=True)
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


class Layer(NamedTuple):
    """A band of an output: its name, its unit, and what a value is multiplied with to be in it."""

    name: str
    unit: str = ""
    scale: float = 1.0


def layers_of(sensor: Modality) -> list[Layer]:
    """The bands of a sensor as they lie on disk."""
    return [Layer(band, sensor.unit, 1 / sensor.scale) for band in sensor.bands]


def write_cog(
    path: Path,
    parts: Iterable[tuple[Box, np.ndarray]],
    shape: tuple[int, int],
    place: tuple[CRS, Affine],
    layers: Sequence[Layer],
    tags: Mapping[str, object],
) -> None:
    """Parts (Box, (C, h, w)) of a raster of that (height, width) as float32 COG, NaN where no data.

    `tags` are read when all parts are written. The parts go to a plain file beside it first.
    """
    options = {"height": shape[0], "width": shape[1], "count": len(layers), "dtype": "float32", "nodata": np.nan}
    options |= {"crs": place[0], "transform": place[1], "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK}

    def write(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            plain = Path(folder) / "plain.tif"
            # band by band, or building overviews in little memory would write each compressed block once per band
            with rasterio.open(plain, "w", driver="GTiff", interleave="band", bigtiff="if_safer", **options) as file:
                for box, values in parts:
                    file.write(values, window=box.window())
                file.descriptions = [layer.name for layer in layers]
                file.units = [layer.unit for layer in layers]
                file.scales = [layer.scale for layer in layers]
                file.update_tags(**{k: v if isinstance(v, str) else json.dumps(v) for k, v in tags.items()})
                levels = [2**i for i in range(1, 16) if max(shape) > _BLOCK * 2 ** (i - 1)]
                file.build_overviews(levels, Resampling.average)
            cog = {"compress": "deflate", "predictor": "yes", "blocksize": _BLOCK, "bigtiff": "if_safer"}
            rasterio.shutil.copy(plain, temporary, driver="COG", **cog)

    write_whole(path, write)

"""Vectors of a scene's or an archive's images as rows of GeoParquet, with place, day and labels."""

from collections.abc import Iterator
from datetime import date
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from rasterio.crs import CRS
from rasterio.warp import transform
from torch.utils.data import default_collate

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import followed
from fusmae_lite.data.archives import Archive, Patch
from fusmae_lite.data.archives.sample import check_archive
from fusmae_lite.data.loader import each
from fusmae_lite.data.outputs import Corners, Row
from fusmae_lite.data.pairs import assemble
from fusmae_lite.data.scenes import Scene
from fusmae_lite.model.system import System
from fusmae_lite.systems.scenes import BATCH, embed
from fusmae_lite.systems.weights import digest_of


def facts_of(model: System, name: str) -> dict[str, Any]:
    """What an output says of the model that made it."""
    return {"model": name, "digest": digest_of(model.state_dict()), "image_size": model.config.image_size}


def scene_rows(model: System, scene: Scene) -> Iterator[list[Row]]:
    """:func:`~fusmae_lite.systems.scenes.embed` as rows, named after the optical file and the corner in pixels."""
    stem, day = scene.rasters["s2"].path.stem, scene.date
    for boxes, values, seen in embed(model, scene):
        yield [
            Row(f"{stem}_{box.top}_{box.left}", scene.grid.footprint(box), day, None, share, vector)
            for box, vector, share in zip(boxes, values.numpy(), seen, strict=True)
        ]


def archive_rows(model: System, archive: Archive, workers: int = 0) -> Iterator[list[Row]]:
    """A row for each pair, in their order; footprints are longitude and latitude, whatever each pair's own system."""
    sensors, device = model.config.modalities, next(model.parameters()).device
    check_archive(archive, sensors)
    read = partial(type(archive).read, modalities=sensors)
    patches_of_all = followed(each(read, archive, range(len(archive)), workers), "embed", len(archive))
    while patches := list(islice(patches_of_all, BATCH)):
        bands = default_collate([patch.bands for patch in patches])
        with torch.inference_mode():
            z = model.encode(assemble(bands, model.config.image_size, device=device)).pooled(model.pooling)
        yield [_row(patch, vector) for patch, vector in zip(patches, z.float().cpu().numpy(), strict=True)]


def _row(patch: Patch, vector: np.ndarray) -> Row:
    day = patch.meta.get("acquisition_date", "")
    try:
        when = date.fromisoformat(day) if day else None
    except ValueError:
        raise InputError(f"{patch.name}: acquisition_date {day!r} is no date", "write it as 2017-06-13") from None
    return Row(patch.name, _footprint(patch), when, patch.labels, 1.0, vector)


def _footprint(patch: Patch) -> Corners | None:
    """Longitude and latitude; None where the files do not tell."""
    if patch.crs is None or patch.bounds is None:
        return None
    left, bottom, right, top = patch.bounds
    xs, ys = transform(CRS.from_string(patch.crs), "OGC:CRS84", [left, right, right, left], [bottom, bottom, top, top])
    return list(zip(xs, ys, strict=True))

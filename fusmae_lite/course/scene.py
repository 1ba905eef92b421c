"""The commands ``fusmae embed`` and ``fusmae predict``: scenes and archives in, files for a GIS out."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import check_output

if TYPE_CHECKING:
    import numpy as np

    from fusmae_lite.data.grids import Box
    from fusmae_lite.data.scenes import Scene
    from fusmae_lite.model.system import System

WHOSE = "xae-lite, xad-lite, hf-hub:owner/name, a .safetensors file or its folder."
Weights = Annotated[str, Option(help=WHOSE, metavar="NAME|PATH")]
Overwrite = Annotated[bool, Option(help="Replace an output that exists.")]
#: Megabytes that GDAL keeps of blocks.
CACHE = 64


def embed(
    sources: Annotated[list[str], Argument(help="S1 and S2, or one archive.", metavar="S1 S2|ARCHIVE OUT")],
    tokens: Annotated[str, Option(help="Also each patch's embedding, as COG.", metavar="TIF")] = "",
    weights: Weights = "xae-lite",
    workers: Annotated[int, Option(help="Processes that read an archive; 0: this one.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Write a vector for each image as GeoParquet.

    S1: a GeoTIFF of VV and VH in dB. S2: one of twelve bands, or a folder of band files. Or an archive, or an LMDB.
    """
    *inputs, out = sources
    if len(inputs) not in (1, 2):
        raise InputError(f"{len(sources)} paths", "give S1, S2 and OUT.parquet, or an archive and OUT.parquet")
    if len(inputs) == 1 and not Path(inputs[0]).expanduser().is_dir():
        cure = "give both, S1 S2 OUT.parquet; or the folder of an archive"
        raise InputError(f"{inputs[0]} is one file: a scene needs both sensors", cure)
    path = check_output(out, overwrite, (".parquet", ".geoparquet"), inputs)
    if tokens and len(inputs) == 1:
        raise InputError("--tokens with an archive: its pairs make no raster", "give a scene, or leave --tokens out")
    cog = check_output(tokens, overwrite, (".tif", ".tiff"), inputs) if tokens else None
    from fusmae_lite.data.archives import open_archive
    from fusmae_lite.data.outputs import write_geoparquet
    from fusmae_lite.data.scenes import Scene
    from fusmae_lite.systems.vectors import archive_rows, facts_of

    model = _model(weights)
    facts = {**facts_of(model, weights), "pooling": model.pooling, "sources": inputs}
    with _bounded_memory():
        if len(inputs) == 2:
            scene = Scene(*inputs)
            _write_vectors(path, model, scene, facts)
            if cog:
                _write_tokens(cog, model, scene, facts)
            return
        archive = open_archive(inputs[0])
        count = write_geoparquet(path, archive_rows(model, archive, workers), None, facts)
        print(f"{count} vectors of {archive.kind_of_pairs} in {path}")


def _write_vectors(path: Path, model: System, scene: Scene, facts: dict[str, object]) -> None:
    from fusmae_lite.data.outputs import write_geoparquet
    from fusmae_lite.systems.vectors import scene_rows

    cut, side = Counter(), model.config.image_size

    def rows() -> Iterator[list]:
        for some in scene_rows(model, scene):
            cut.update(row.seen < 1 for row in some)
            yield some

    count = write_geoparquet(path, rows(), scene.grid.crs, facts)
    lost = -(-scene.height // side) * -(-scene.width // side) - count
    print(f"{count} vectors in {path}; no data or the edge cuts {cut[True]} of their images, {lost} more show nothing")


def _write_tokens(path: Path, model: System, scene: Scene, facts: dict[str, object]) -> None:
    import numpy as np

    from fusmae_lite.data.outputs import Layer, write_cog
    from fusmae_lite.systems.scenes import embed_tokens

    side, empty = model.config.patch_size, 0
    shape = scene.height // side, scene.width // side

    def parts() -> Iterator[tuple[Box, np.ndarray]]:
        nonlocal empty
        for box, values in embed_tokens(model, scene):
            empty += int(np.isnan(values[0]).sum())
            yield box, values

    layers = [Layer(f"embedding {i}") for i in range(model.config.width)]
    write_cog(path, parts(), shape, (scene.grid.crs, scene.grid.coarser(side)), layers, facts)
    print(f"{shape[0]} x {shape[1]} tokens of {side} px in {path}: {empty} without data are NaN")


def predict(
    s1: Annotated[str, Argument(help="GeoTIFF of VV and VH in dB.", metavar="S1")],
    s2: Annotated[str, Argument(help="GeoTIFF of twelve bands, or a folder of band files.", metavar="S2")],
    out: Annotated[str, Argument(help="To write, a COG.", metavar="OUT")],
    sensor: Annotated[Literal["s1", "s2"], Option(help="Whose pixels are predicted.")] = "s2",
    hidden: Annotated[str, Option(help="Above 0 where pixels are to be predicted.", metavar="TIF")] = "",
    weights: Weights = "xae-lite",
    overwrite: Overwrite = False,
) -> None:
    """Fill hidden pixels of a scene from what remains.

    Hidden is what a mask on the same grid says, or the scene's own no-data. Visible pixels stay as they are.
    """
    path = check_output(out, overwrite, (".tif", ".tiff"), [s1, s2, *[hidden] * bool(hidden)])
    import numpy as np

    from fusmae_lite.core.sensors import get_modality
    from fusmae_lite.data.outputs import layers_of, write_cog
    from fusmae_lite.data.scenes import Hidden, Scene
    from fusmae_lite.systems import scenes
    from fusmae_lite.systems.vectors import facts_of

    model = _model(weights)
    with _bounded_memory():
        scene = Scene(s1, s2)
        mask = Hidden(hidden, scene) if hidden else None
        tags: dict[str, object] = {**facts_of(model, weights), "sensor": sensor, "seed": "none, nothing is drawn"}
        asked = filled = 0

        def parts() -> Iterator[tuple[Box, np.ndarray]]:
            nonlocal asked, filled
            for box, values, wanted in scenes.predict(model, scene, sensor, mask):
                asked += int(wanted.sum())
                filled += int((wanted & ~np.isnan(values[0])).sum())
                yield box, values
            if not filled:
                why = f"{sensor} shows nothing near a hidden pixel" if asked else "no pixel is hidden"
                raise InputError(f"{path}: nothing to predict: {why}", "give another mask with --hidden")
            tags["hidden_share"] = asked / (scene.height * scene.width)

        place = scene.grid.crs, scene.grid.transform
        write_cog(path, parts(), (scene.height, scene.width), place, layers_of(get_modality(sensor)), tags)
    far = f"; {asked - filled} lie too far from any that {sensor} shows" if asked > filled else ""
    print(f"{filled} of {asked} hidden pixels predicted in {path}{far}")


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Memory that does not grow with the scene: few blocks kept, and where glibc is, large arrays given back whole.

    It keeps a freed array of up to 32 MB for the next one, in pieces that fit ever less.
    """
    import rasterio

    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        yield


def _model(weights: str) -> System:
    from fusmae_lite.systems.weights import load_pretrained
    from fusmae_lite.train.optimise import choose_device

    return load_pretrained(weights).to(choose_device(RunConfig()))

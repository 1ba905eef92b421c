"""Scenes: seams, footprints, and memory that does not grow with them.

    python benchmarks/scenes.py BLOCK --record benchmarks/scenes.json

BLOCK is an archive of neighbouring pairs; without it memory alone is measured, and what stands in the record for other
sizes and commands stays. Each size of --sizes is a process of its own that embeds or fills a synthetic
scene of so many pixels a side, of which 2,000 x 2,000 px are drawn and repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

from fusmae_lite.core.files import write_text
from fusmae_lite.core.progress import line
from fusmae_lite.core.sensors import S1, S2
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.pairs import stack_bands
from fusmae_lite.data.scenes import Hidden, Scene
from fusmae_lite.data.synthetic import Scenes
from fusmae_lite.systems import scenes
from fusmae_lite.systems.weights import load_pretrained

WEIGHTS, SIDE, HALF = "xae-lite", 2000, 4
#: What one process does: the model first, then the command; the high-water mark of its memory after each, in MiB.
PROBE = """
import json, sys, torch
import rasterio, pyarrow.parquet
from fusmae_lite.course import scene
def peak():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024
model = scene._model("{weights}")
side = model.config.image_size
with torch.inference_mode():
    model.encode({{"s1": torch.zeros(1, 2, side, side), "s2": torch.zeros(1, 12, side, side)}})
before = peak()
getattr(scene, sys.argv[1])(**json.loads(sys.argv[2]))
print(json.dumps([before, peak()]))
"""


def write(path: Path, side: tuple[int, int], place: tuple, source: np.ndarray, nodata: float | None) -> Path:
    """A GeoTIFF of (height, width) that repeats (C, h, w), in blocks of 512."""
    options = {"driver": "GTiff", "height": side[0], "width": side[1], "count": len(source), "dtype": source.dtype}
    options |= {"crs": place[0], "transform": place[1], "nodata": nodata, "tiled": True, "compress": "lzw"}
    with rasterio.open(path, "w", blockxsize=512, blockysize=512, **options) as file:
        for top in range(0, side[0], 512):
            rows = np.arange(top, min(top + 512, side[0])) % source.shape[1]
            columns = np.arange(side[1]) % source.shape[2]
            file.write(source[:, rows][:, :, columns], window=Window(0, top, side[1], len(rows)))
    return path


def mosaic(block: Path, folder: Path) -> tuple[Path, Path, list[tuple[float, ...]]]:
    """The pairs of an archive as one scene, and their bounds."""
    archive = open_archive(block)
    patches = [archive.read(row) for row in range(len(archive))]
    edges = np.array([patch.bounds for patch in patches])
    left, top = edges[:, 0].min(), edges[:, 3].max()
    width, height = round((edges[:, 2].max() - left) / 10), round((top - edges[:, 1].min()) / 10)
    paths = []
    for sensor, gap in ((S1, np.nan), (S2, 0)):
        whole = np.full((sensor.channels, height, width), gap, sensor.dtype)
        for patch, (x, _, _, y) in zip(patches, edges, strict=True):
            native = {band: torch.from_numpy(array)[None] for band, array in patch.bands[sensor.name].items()}
            row, column = round((top - y) / 10), round((x - left) / 10)
            image = stack_bands(native, sensor)[0].numpy()
            whole[:, row : row + 120, column : column + 120] = np.rint(image) if sensor is S2 else image
        place = patches[0].crs, from_origin(left, top, 10, 10)
        paths.append(write(folder / f"{sensor.name}.tif", (height, width), place, whole, gap))
    return *paths, edges.tolist()


def synthetic() -> list[np.ndarray]:
    """Both sensors of one synthetic scene of :data:`SIDE` pixels."""
    bands = Scenes(0, side=SIDE, one_grid=True).pair(0).bands
    return [np.stack([bands[m.name][b] for b in m.bands]).astype(m.dtype) for m in (S1, S2)]


def seams(s1: Path, s2: Path, folder: Path, blend: bool) -> dict[str, float]:
    """Error of hidden pixels within `HALF` of the edge of a tile, and of the others; half of the patches are hidden."""
    model, scene = load_pretrained(WEIGHTS), Scene(s1, s2)
    side, stride = model.config.patch_size, scenes._stride
    shape = -(-scene.height // side), -(-scene.width // side)
    mask = (np.random.default_rng(0).random(shape) < 0.5).repeat(side, 0).repeat(side, 1)
    mask = mask[: scene.height, : scene.width].astype(np.uint8)[None]
    hidden = Hidden(
        write(folder / "mask.tif", mask.shape[1:], (scene.grid.crs, scene.grid.transform), mask, None), scene
    )
    step, size = stride(model) if blend else model.config.image_size, model.config.image_size
    scenes._stride = lambda _: step
    sums = np.zeros((2, 2))
    for box, made, wanted in scenes.predict(model, scene, "s2", hidden):
        pixels, there = (part["s2"] for part in scene.read(box))
        error = np.square((made - pixels) / np.array(S2.std)[:, None, None]).mean(axis=0)
        near = [np.zeros(n, bool) for n in error.shape]
        for axis, (first, count) in zip(near, ((box.top, box.bottom), (box.left, box.right)), strict=True):
            at = np.arange(first, count)
            for edge in (0, size % step):
                axis |= np.abs((at - edge + step // 2 + 0.5) % step - step // 2) < HALF
        near = near[0][:, None] | near[1]
        known = there & wanted & np.isfinite(error)
        for row, where in enumerate((known & near, known & ~near)):
            sums[row] += error[where].sum(), where.sum()
    scenes._stride = stride
    at, inside = sums[:, 0] / sums[:, 1]
    return {"at_seams": round(at, 4), "inside": round(inside, 4), "ratio": round(at / inside, 3)}


def footprints(s1: Path, s2: Path, edges: list[tuple[float, ...]]) -> float:
    """Largest distance in pixels of a vector's footprint from the pair that lies there."""
    scene = Scene(s1, s2)
    boxes = [box for made in scenes.embed(load_pretrained(WEIGHTS), scene) for box in made.boxes]
    found = np.array([[*np.min(c, axis=0), *np.max(c, axis=0)] for c in (scene.grid.footprint(box) for box in boxes)])
    assert len(found) == len(edges), "a vector for each pair and none for the gaps"
    return float(max(np.abs(found - edge).max(axis=1).min() for edge in np.array(edges)) / 10)


def memory(command: str, size: int, source: list[np.ndarray], folder: Path) -> dict[str, float]:
    """Peak memory of `fusmae embed` or `fusmae predict`, in MiB."""
    place = "EPSG:32633", from_origin(400_000, 5_300_000, 10, 10)
    s1, s2 = (
        write(folder / f"{n}.tif", (size, size), place, x, None) for n, x in zip(("s1", "s2"), source, strict=True)
    )
    options = {"sources": [str(s1), str(s2), str(folder / "v.parquet")]}
    if command == "predict":
        cloud = np.zeros((1, SIDE, SIDE), np.uint8)
        cloud[:, 300:400, 500:700] = 1
        mask = write(folder / "mask.tif", (size, size), place, cloud, None)
        options = {"s1": str(s1), "s2": str(s2), "out": str(folder / "out.tif"), "hidden": str(mask)}
    arguments = [sys.executable, "-c", PROBE.format(weights=WEIGHTS), command, json.dumps(options)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    before, peak = json.loads(done.stdout.splitlines()[-1])
    return {"px": size, "model_mib": round(before), "peak_mib": round(peak), "beyond_mib": round(peak - before)}


def places(block: Path, source: list[np.ndarray], folder: Path) -> dict[str, object]:
    """Footprints and seams."""
    s1, s2, edges = mosaic(block, folder)
    place = "EPSG:32633", from_origin(400_000, 5_300_000, 10, 10)
    pair = [write(folder / f"{n}.tif", (SIDE, SIDE), place, x, None) for n, x in zip("ab", source, strict=True)]
    errors = {
        "mosaic of real pairs": seams(s1, s2, folder, True),
        "the same, tiles side by side": seams(s1, s2, folder, False),
        f"synthetic, {SIDE} px": seams(*pair, folder, True),
    }
    return {"footprints_px": footprints(s1, s2, edges), "seams": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", type=Path, nargs="?")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 2000, 5000, 10000])
    parser.add_argument("--commands", nargs="*", default=["embed", "predict"])
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="8 GB for 10,000 px")
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    report: dict[str, object] = {"weights": WEIGHTS, "cores": os.cpu_count()}
    source = synthetic()
    if given.block:
        with tempfile.TemporaryDirectory(dir=given.scratch) as name:
            report |= places(given.block, source, Path(name))
        line(json.dumps(report, indent=1))
    elif given.record and given.record.is_file():
        report |= json.loads(given.record.read_text(encoding="utf-8"))
    for command in given.commands:
        for size in given.sizes:
            with tempfile.TemporaryDirectory(dir=given.scratch) as name:
                row = memory(command, size, source, Path(name))
            rows = [*(row for row in report.get(command, []) if row["px"] != size), row]
            report[command] = sorted(rows, key=lambda row: row["px"])
            line(f"{command} {json.dumps(row)}")
            if given.record:
                write_text(given.record, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

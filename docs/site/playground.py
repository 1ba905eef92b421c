"""What the playground in the page needs: the shipped model as ONNX, some held-out pairs, and onnxruntime-web.

Every file is a script that hands over its content, compressed and in base64: a page from disk may load scripts, but
not fetch files.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import npm
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import RunError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.tokens import patchify
from fusmae_lite.show.panels import ERROR_MAP, MATRIX_MAP
from fusmae_lite.show.pictures import Composite, colour_of, composites_of
from fusmae_lite.systems.weights import load_pretrained
from fusmae_lite.train.heldout import METHODS, WIDTHS, best, hidden_pairs

WEIGHTS = "xae-lite"
#: Held-out pairs, by the end of their Sentinel-2 names, and what they show.
PAIRS = {
    "20170818T103021_43_48": "a river between fields",
    "20170701T093031_77_24": "a winding river and wetland",
    "20180525T94030_47_82": "lakes in a forest",
    "20170617T113321_48_5": "fields and pastures",
    "20171002T112112_10_57": "the edge of a town",
    "20171121T112351_61_0": "a reservoir among hills",
    "20180318T093031_13_9": "fish ponds and reed",
    "20171101T094131_55_69": "a lake under clouds",
}
RUNTIME = {
    "runtime": "dist/ort.wasm.min.js",
    "glue": "dist/ort-wasm-simd-threaded.mjs",
    "wasm": "dist/ort-wasm-simd-threaded.wasm",
}
#: What stands in the page: a sentence for readers without a script, and room for the rest.
FRAGMENT = """\
<link rel="stylesheet" href="../_static/playground/playground.css">
<div id="playground" class="playground">
<p role="status">This picture stands still: the playground needs JavaScript and WebAssembly.</p>
<div class="live" hidden></div>
</div>
<script src="../_static/playground/playground.js"></script>"""
STEP = 2**-11  # of a stored pixel, in standard deviations


def obstacle() -> str:
    """Why the playground cannot be built here; empty where it can."""
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        return f"{' and '.join(missing)} not installed"
    try:
        npm.archive("onnxruntime-web")
    except RunError as error:
        return str(error)
    return ""


def write_assets(folder: Path) -> None:
    """Write everything but the page's own script into `folder`."""
    model, archive = load_pretrained(WEIGHTS).eval(), open_archive()
    folder.mkdir(parents=True, exist_ok=True)
    _put(folder, "model", to_onnx(model))
    for name, member in RUNTIME.items():
        _put(folder, name, npm.read("onnxruntime-web", member))
    config = load_preset("laptop", **{f: getattr(model.config, f) for f in type(model.config).model_fields})
    rows = [next(i for i, name in enumerate(archive.names) if name.endswith(end)) for end in PAIRS]
    facts = {
        "grid": model.config.grid,
        "side": model.config.patch_size,
        "heads": model.config.heads,
        "step": STEP,
        "weights": WEIGHTS,
        "sensors": [_sensor(name, width) for name, width in kernel_widths(archive, config).items()],
        "pairs": [_title(archive, row, what) for row, what in zip(rows, PAIRS.values(), strict=True)],
        "maps": {"error": _colours(ERROR_MAP), "attention": _colours(MATRIX_MAP)},
    }
    _put(folder, "facts", json.dumps(facts).encode())
    pairs = PairDataset(archive, indices=rows, modalities=model.config.modalities)
    for number in range(len(pairs)):
        patches = [patchify(image[None], model.config.patch_size) for image in pairs[number]["images"].values()]
        stored = [(x / STEP).round().clamp(-(2**15), 2**15 - 1).numpy().astype("<i2") for x in patches]
        _put(folder, f"pair{number}", b"".join(x.tobytes() for x in stored))


class Graph(nn.Module):
    """`model` for two sensors, with indices of what is visible in place of masks."""

    def __init__(self, model: FusMAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Pixels (1, n, C * P * P) and indices (1, n) of each sensor's visible patches, one sensor after the other.

        Returns predictions (1, N, C * P * P) of each sensor, then the softmax of eq. 5 of each, (1, H, n, n of the
        other).
        """
        model, tokens, indices = self.model, {}, {}
        for name, pixels, index in zip(model.config.modalities, inputs[::2], inputs[1::2], strict=True):
            projection = model.projections[name].proj
            tokens[name] = F.linear(pixels, projection.weight.flatten(1), projection.bias) + model.positions(index)
            indices[name] = index
        z = model._append_cls(model.xattn_encoder(tokens))
        latents = model._split(model.norm(model.blocks(z)), tokens).tokens
        patches = [model.decoders[name](x, indices[name]) for name, x in latents.items()]
        return (*patches, *model.xattn_encoder.maps(tokens).values())


@torch.no_grad()
def to_onnx(model: FusMAE) -> bytes:
    """:class:`Graph` of a Fus-MAE XAE as ONNX; inputs ``pixels_<sensor>``, ``index_<sensor>``, outputs ``patches_``,
    ``attention_``."""
    names, config, rng = model.config.modalities, model.config, torch.Generator().manual_seed(0)
    inputs, dims = [], []
    for visible, name in enumerate(names, start=config.tokens // 4):  # not the same number for each: they would be tied
        inputs.append(torch.randn(1, visible, config.channels[name] * config.patch_size**2, generator=rng))
        inputs.append(torch.arange(visible)[None])
        dims += [{1: torch.export.Dim(f"n_{name}", min=1, max=config.tokens)}] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own insides
        program = torch.onnx.export(
            Graph(model),
            tuple(inputs),
            dynamo=True,
            dynamic_shapes=(tuple(dims),),
            input_names=[f"{what}_{name}" for name in names for what in ("pixels", "index")],
            output_names=[f"{what}_{name}" for what in ("patches", "attention") for name in names],
            verbose=False,
        )
    buffer = io.BytesIO()
    program.save(buffer, external_data=False)
    return buffer.getvalue()


def kernel_widths(archive: Archive, config: RunConfig) -> dict[str, float]:
    """Width in patches of the kernel that interpolates each sensor best on the training pairs."""
    train = list(hidden_pairs(archive, config, archive.split("train")))
    ways = METHODS["kernel"]
    return {name: WIDTHS[ways.index(best("kernel", train, name).way)] for name in config.modalities}


def _sensor(name: str, width: float) -> dict[str, Any]:
    sensor = get_modality(name)
    composites = [{"title": c.title, "gamma": c.gamma, "layers": _layers(c)} for c in composites_of(name).values()]
    return {"name": name, "title": sensor.title, "colour": colour_of(name), "channels": sensor.channels,
            "width": width, "composites": composites}  # fmt: skip


def _layers(recipe: Composite) -> list[dict[str, Any]]:
    """Red, green and blue in 0..1 as an offset plus shares of normalised channels."""
    sensor, layers = get_modality(recipe.modality), []
    for layer, (low, high) in recipe.layers.items():
        offset, shares = -low, []
        for sign, band in zip((1, -1), layer.split("-"), strict=False):
            channel = sensor.band_index(band)
            offset += sign * sensor.mean[channel] / sensor.scale
            shares.append([channel, sign * sensor.std[channel] / sensor.scale / (high - low)])
        layers.append({"offset": offset / (high - low), "shares": shares})
    return layers * (3 // len(layers))


def _title(archive: Archive, row: int, what: str) -> dict[str, Any]:
    meta = archive.meta(row)
    title = f"{what[0].upper()}{what[1:]}, {meta['country']}, {meta['acquisition_date']} ({meta['split']})"
    return {"row": row, "title": title}


def _colours(name: str) -> Sequence[int]:
    """256 colours of a matplotlib map, 3 bytes each."""
    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(int).flatten().tolist()


def _put(folder: Path, name: str, content: bytes) -> None:
    """A script that hands `content` over."""
    text = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
    write_text(folder / f"{name}.js", f'playground.put("{name}", "{text}");\n')

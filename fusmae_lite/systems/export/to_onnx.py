"""An encoder as an ONNX graph, with any number of images a batch, for one sensor or several."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import write_whole
from fusmae_lite.model.system import System
from fusmae_lite.systems.export.common import TOLERANCE, facts, gap, named_tokens, sensor_names, trial_images

NEEDED = ("onnx", "onnxscript", "onnxruntime")


class Graph(nn.Module):
    """``encode`` with tensors in and tensors out: features, then the tokens of :func:`named_tokens`."""

    def __init__(self, model: System, names: tuple[str, ...], pooling: str) -> None:
        super().__init__()
        self.model, self.names, self.pooling = model, names, pooling

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) of each sensor -> (B, F), (B, N, D), .."""
        latents = self.model.encode(dict(zip(self.names, images, strict=True)))
        return latents.pooled(self.pooling), *named_tokens(latents).values()


def to_onnx(model: System, path: Path, sensors: str | Sequence[str], pooling: str = "mean") -> Path:
    """Write ``model.encode`` as ONNX; returns `path`.

    Inputs are named after the sensors, (batch, C, H, W) float32, normalised. Outputs: ``features`` (batch, F) and
    ``tokens_<sensor>`` (batch, N, D), or ``tokens`` where one token holds every sensor. Metadata as in
    ``export/common.py``. Before the file gets its name, onnxruntime runs it on another number of images
    and is compared with PyTorch.

    Args:
        model: any system; put into evaluation mode, on the CPU.
        path: the file, replaced in one step if it exists.
        sensors: what the graph takes, ``"s2"`` or ``("s1", "s2")``.
        pooling: of ``features``.

    Raises:
        InputError: a sensor or a pooling the model lacks, or packages missing.
        RunError: the graph cannot be written, or does not give what the model gives.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{missing[0]} is not installed", "python -m pip install 'fusmae-lite[export]'")
    names, path = sensor_names(model, sensors), Path(path)
    graph = Graph(model, names, pooling).cpu().eval()
    images = trial_images(model, names, 2)
    with torch.no_grad():
        latents = model.encode(images)
    latents.pooled(pooling)  # refused here, in one line
    outputs, metadata = ["features", *named_tokens(latents)], facts(model, names) | {"pooling": pooling}

    def write(temporary: Path) -> None:
        _write(graph, tuple(images.values()), outputs, temporary, metadata)
        _compare(graph, temporary, outputs)

    try:
        return write_whole(path, write)
    except OSError as error:
        raise RunError(f"{path} could not be written ({error}); free space on that disk or choose another") from None


def _write(graph: Graph, images: tuple[Tensor, ...], outputs: list[str], path: Path, metadata: dict[str, str]) -> None:
    batch = torch.export.Dim("batch")
    shapes = {"images": tuple({0: batch} for _ in images)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about torch's own insides
        program = torch.onnx.export(
            graph, images, dynamo=True, dynamic_shapes=shapes, input_names=list(graph.names), output_names=outputs,
            verbose=False,
        )  # fmt: skip
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def _compare(graph: Graph, path: Path, outputs: list[str]) -> None:
    """Three images through both; RunError where they differ by more than rounding, or the batch has become fixed."""
    import onnxruntime

    images = trial_images(graph.model, graph.names, 3)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(outputs, {name: image.numpy() for name, image in images.items()})
    except Exception as error:  # onnxruntime has a dozen classes of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunError(f"onnxruntime refuses the exported graph ({reason})") from None
    with torch.no_grad():
        wanted = graph(*images.values())
    for name, array, tensor in zip(outputs, found, wanted, strict=True):
        difference = gap(torch.from_numpy(array), tensor)
        if not difference < TOLERANCE:
            raise RunError(f"{name} of the exported graph differs from the model's by {difference:.1g}")

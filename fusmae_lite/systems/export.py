"""Encoders for other people's code: weights of timm's VisionTransformer, and ONNX.

What leaves takes images as ``core/sensors.py`` says: bands in that order, in those units, minus the mean, over the
deviation. Every file written here says so in its metadata: ``sensors`` (band order, mean, deviation), ``units``,
``resampling`` and ``config``.
"""

import copy
import importlib.util
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import root
from timm.layers import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fusmae_lite.core.architecture import as_tuple
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import write_whole
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.cross_attention import concatenate
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.system import Latents, System
from fusmae_lite.systems import ImageNetViT, LateFusion
from fusmae_lite.systems.tensors import save_tensors
from fusmae_lite.systems.weights import describe_sensors

#: Largest difference between the export and the model, over the largest number they give, that counts as rounding.
TOLERANCE = 1e-4
STARTS, TOKEN_TOLERANCE = 100, 1e-10  # of token_before


#: How bands of other sizes become the model's, see :mod:`fusmae_lite.data.pairs`.
RESAMPLING = "up: bilinear, pixels are areas; down: mean of the area, decibels in linear power"


def sensor_names(model: System, sensors: str | Sequence[str]) -> tuple[str, ...]:
    """The sensors asked for, ``"s2"`` or ``("s1", "s2")``, in the model's order; InputError for one it lacks."""
    asked = as_tuple(sensors)
    names = tuple(name for name in model.config.modalities if name in asked)
    if not names or set(asked) - set(names):
        raise InputError(f"sensors {asked!r} are not this model's", f"choose from {', '.join(model.config.modalities)}")
    return names


def named_tokens(latents: Latents) -> dict[str, Tensor]:
    """Patch tokens: ``tokens_<sensor>`` -> (B, N, D), or ``tokens`` where a token holds every sensor."""
    return {"tokens" if "+" in name else f"tokens_{name}": value for name, value in latents.tokens.items()}


def _noise(model: System, names: Sequence[str], batch: int) -> dict[str, Tensor]:
    """Images to try an export on, modality -> (batch, C, H, W), on the model's device."""
    rng, c, device = torch.Generator().manual_seed(0), model.config, next(model.parameters()).device
    shapes = {name: (batch, c.channels[name], c.image_size, c.image_size) for name in names}
    return {name: torch.randn(shape, generator=rng).to(device) for name, shape in shapes.items()}


def _gap(result: Tensor, wanted: Tensor) -> float:
    """Largest difference, over the largest number of `wanted` or 1."""
    return float((result - wanted).abs().max() / wanted.abs().max().clamp_min(1))


def _facts(model: System, names: Sequence[str]) -> dict[str, str]:
    units = {name: get_modality(name).units for name in names}
    facts = {"sensors": describe_sensors(names), "units": units, "resampling": RESAMPLING}
    return {**{key: json.dumps(value) for key, value in facts.items()}, "config": model.config.model_dump_json()}


@torch.no_grad()
def to_timm(model: System, sensors: str | Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and arguments for timm: ``VisionTransformer(**arguments).load_state_dict(state)``.

    ``vit(x)`` is then ``model.encode({sensor: x}).pooled("mean")``, (B, D); ``vit.forward_features(x)`` are CLS (where
    the system has one) and the N patch tokens in our order. Systems that stack channels take several sensors.

    InputError: a sensor the model lacks, several for a model that does not stack them, or an encoder that timm's
    VisionTransformer cannot be (compared on noise). Puts the model into evaluation mode.
    """
    names = sensor_names(model, sensors)
    if isinstance(model, LateFusion | FusMAE) and len(names) > 1:
        what = f"{' and '.join(names)} have a projection each, timm's ViT has one"
        raise InputError(what, "export one sensor, or both as onnx")
    images, config = _noise(model.eval(), names, 2), model.config
    latents = model.encode(images)
    arguments = {"img_size": config.image_size, "patch_size": config.patch_size, "embed_dim": config.width,
                 "depth": config.depth, "num_heads": config.heads, "mlp_ratio": config.mlp_ratio,
                 "in_chans": sum(config.channels[name] for name in names), "num_classes": 0,
                 "class_token": "cls" in latents.vectors, "global_pool": "avg",
                 "fc_norm": False}  # fmt: skip  # the norm comes before the mean, as here
    vit = VisionTransformer(**arguments, weight_init="skip").eval()
    if isinstance(model, ImageNetViT):
        keys = vit.load_state_dict(model.vit.state_dict(), strict=False)
        if misfits := [*keys.unexpected_keys, *keys.missing_keys]:
            raise InputError(f"{misfits[0]} is not as in timm's plain VisionTransformer", "export it as onnx")
    else:
        _fill(vit, model.encoders[names[0]] if isinstance(model, LateFusion) else model.to_fine_tune(), names)
    tokens = [latents.cls[:, None]] if vit.cls_token is not None else []
    wanted = torch.cat([*tokens, concatenate(latents.tokens)], dim=1).cpu()
    difference = _gap(vit.forward_features(concatenate(images).cpu()), wanted)
    if not difference < TOLERANCE:
        what = f"timm's ViT with these weights differs from the model by {difference:.1g}"
        raise InputError(what, "export it as onnx")
    return vit.state_dict(), arguments


def _fill(vit: VisionTransformer, encoder: System, names: Sequence[str]) -> None:
    """Give timm's ViT the weights of an encoder of these sensors.

    Attention does not care about order: CLS may come first, without a position. XAttnEncoder on one sensor (eq. 2) is a
    block without attention. A sensor filled with zeros is a projection without its channels.
    """
    blocks, cls = list(vit.blocks), getattr(encoder, "cls_token", None)
    if isinstance(encoder, FusMAE):
        projection, crossing = encoder.projections[names[0]].proj, encoder.xattn_encoder
        kernel, bias = projection.weight, projection.bias
        if crossing is not None:
            cls, first = token_before(crossing.norm, crossing.mlp, cls), blocks.pop(0)
            for parameter in first.attn.parameters():
                parameter.zero_()
            first.norm2.load_state_dict(crossing.norm.state_dict())
            first.mlp.load_state_dict(crossing.mlp.state_dict())
    else:
        kernel, bias = encoder.projection_of(names)
    vit.patch_embed.proj.weight.copy_(kernel)
    vit.patch_embed.proj.bias.copy_(bias)
    vit.pos_embed.zero_()[:, vit.num_prefix_tokens :] = encoder.positions.table
    if cls is not None:
        vit.cls_token.copy_(cls)
    for block, source in zip([*blocks, vit.norm], [*encoder.blocks, encoder.norm], strict=True):
        block.load_state_dict(source.state_dict())


@torch.no_grad()
def token_before(norm: nn.LayerNorm, mlp: Mlp, wanted: Tensor) -> Tensor:
    """c (D,) in float64 with c + MLP(LN(c)) = `wanted`, to 1e-10; InputError if no start leads there.

    Fus-MAE appends CLS after XAttnEncoder (eq. 6), timm puts it before the first block. c -> `wanted` - MLP(LN(c)) is
    continuous and bounded, hence has a fixed point (Brouwer).
    """
    wanted = wanted.detach().double().flatten().cpu()
    block = copy.deepcopy(nn.Sequential(norm, mlp)).double().cpu().requires_grad_(False)

    def excess(c: Tensor) -> Tensor:
        return c + block(c) - wanted

    slope, rng, nearest = torch.func.jacrev(excess), torch.Generator().manual_seed(0), torch.inf
    for start in range(STARTS):
        noise = torch.randn(len(wanted), generator=rng, dtype=torch.float64)
        result = root(
            lambda c: excess(torch.from_numpy(c)).numpy(),
            wanted - block(noise) if start else wanted,
            jac=lambda c: slope(torch.from_numpy(c)).numpy(),
            tol=1e-14,
        )
        nearest = min(nearest, abs(result.fun).max())
        if nearest < TOKEN_TOLERANCE:
            return torch.from_numpy(result.x)
    what = f"no CLS token found that timm's first block turns into this model's (nearest {nearest:.1g} away)"
    raise InputError(what, "export it as onnx, which keeps XAttnEncoder as it is")


def save_timm(path: Path, model: System, sensors: str | Sequence[str]) -> Path:
    """Write :func:`to_timm` as safetensors, its arguments in the metadata ``timm`` (JSON); returns `path`."""
    state, arguments = to_timm(model, sensors)
    metadata = {"format": "timm VisionTransformer", "timm": json.dumps(arguments)}
    save_tensors(Path(path), state, metadata | _facts(model, sensor_names(model, sensors)))
    return Path(path)


class Graph(nn.Module):
    """``encode`` with tensors in and tensors out."""

    def __init__(self, model: System, names: tuple[str, ...], pooling: str) -> None:
        super().__init__()
        self.model, self.names, self.pooling = model, names, pooling

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) of each sensor -> features (B, F), tokens (B, N, D) as in :func:`named_tokens`."""
        latents = self.model.encode(dict(zip(self.names, images, strict=True)))
        return latents.pooled(self.pooling), *named_tokens(latents).values()


@torch.no_grad()
def to_onnx(model: System, path: Path, sensors: str | Sequence[str], pooling: str = "mean") -> Path:
    """Write ``model.encode`` as an ONNX graph with any number of images a batch; returns `path`.

    Inputs are named after the sensors, (batch, C, H, W) float32, normalised. Outputs: ``features`` (batch, F), pooled
    as `pooling` says, and ``tokens_<sensor>`` (batch, N, D), or ``tokens`` where one token holds every sensor. The
    model is put into evaluation mode, on the CPU.

    Raises:
        InputError: a sensor or a pooling the model lacks, or packages missing.
        RunError: the graph cannot be written, or does not give what the model gives.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{package} is not installed", "python -m pip install 'fusmae-lite[export]'")
    names, path = sensor_names(model, sensors), Path(path)
    graph = Graph(model, names, pooling).cpu().eval()
    latents = model.encode(_noise(model, names, 2))
    latents.pooled(pooling)  # refused here, in one line
    outputs, metadata = ["features", *named_tokens(latents)], _facts(model, names) | {"pooling": pooling}
    try:
        return write_whole(path, lambda temporary: _write(graph, outputs, metadata, temporary))
    except OSError as error:
        raise RunError(f"{path} could not be written ({error}); free space on that disk or choose another") from None


def _write(graph: Graph, outputs: list[str], metadata: dict[str, str], path: Path) -> None:
    """Write the graph and run it; RunError where it differs by more than rounding, or the batch has become fixed."""
    import onnxruntime

    traced = tuple(_noise(graph.model, graph.names, 2).values())
    shapes = {"images": tuple({0: torch.export.Dim("batch")} for _ in traced)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own insides
        program = torch.onnx.export(
            graph, traced, dynamo=True, dynamic_shapes=shapes, input_names=list(graph.names), output_names=outputs,
            verbose=False,
        )  # fmt: skip
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)
    images = _noise(graph.model, graph.names, 3)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        results = session.run(outputs, {name: image.numpy() for name, image in images.items()})
    except Exception as error:  # onnxruntime has a dozen classes of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunError(f"onnxruntime refuses the exported graph ({reason})") from None
    for name, result, wanted in zip(outputs, results, graph(*images.values()), strict=True):
        difference = _gap(torch.from_numpy(result), wanted)
        if not difference < TOLERANCE:
            raise RunError(f"{name} of the exported graph differs from the model's by {difference:.1g}")

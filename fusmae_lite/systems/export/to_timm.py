"""An encoder as weights of timm's VisionTransformer, equal to ``model.encode`` for images of one sensor.

Why it works: attention does not care about the order of tokens, so CLS may come first; our CLS has no position, so
timm's gets zeros; a sensor that is alone finds nobody to attend to in XAttnEncoder (eq. 2), which is then a block
without attention. Stacked systems fill a missing sensor with zeros, which is a projection without its channels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.model.cross_attention import XAttnEncoder, concatenate
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.system import System
from fusmae_lite.systems import DINO, ImageNetViT, LateFusion
from fusmae_lite.systems.export.cls_token import token_before
from fusmae_lite.systems.export.common import TOLERANCE, facts, gap, sensor_names, trial_images
from fusmae_lite.systems.weights import save_tensors

State = dict[str, Tensor]


def to_timm(model: System, sensors: str | Sequence[str]) -> tuple[State, dict[str, Any]]:
    """State dict and arguments for timm: ``VisionTransformer(**arguments).load_state_dict(state)``.

    ``vit(x)`` is then ``model.encode({sensor: x}).pooled("mean")``, (B, D); ``vit.forward_features(x)`` are CLS (where
    the system has one) and the N patch tokens in our order, after the last norm. The pair is built and compared with
    the model on noise before it is returned.

    Args:
        model: Fus-MAE of any fusion, late fusion, SatViT, DINO-MM or an ImageNet ViT; put into evaluation mode.
        sensors: one of the model's sensors; systems that stack channels take several, ``("s1", "s2")``.

    Raises:
        InputError: a sensor the model lacks, several for a model that does not stack them, or an encoder that
            timm's VisionTransformer cannot be.
    """
    names = sensor_names(model, sensors)
    model.eval()
    if isinstance(model, ImageNetViT):
        state, config = dict(model.vit.state_dict()), model.config
        if names != config.modalities:
            raise InputError(
                f"this ImageNet ViT is fitted to {', '.join(config.modalities)}, not {', '.join(names)}",
                "name all of them, or fit one to these",
            )
    else:
        encoder = _encoder(model, names)
        state, config = _renamed(encoder, names), encoder.config
    state = {name: tensor.detach().cpu().clone() for name, tensor in state.items() if not name.startswith("head.")}
    arguments = _arguments(config, names, "cls_token" in state)
    _compare(model, names, _build(state, arguments))
    return state, arguments


def save_timm(path: Path, model: System, sensors: str | Sequence[str]) -> Path:
    """Write :func:`to_timm` as safetensors; returns `path`.

    Metadata: ``timm``, the arguments (JSON); ``sensors``, band order and statistics; ``config``, where it came from.
    """
    state, arguments = to_timm(model, sensors)
    metadata = {"format": "timm VisionTransformer", "timm": json.dumps(arguments)}
    save_tensors(Path(path), state, metadata | facts(model, sensor_names(model, sensors)))
    return Path(path)


def _build(state: State, arguments: dict[str, Any]) -> VisionTransformer:
    """timm's ViT with these weights, in evaluation mode; InputError names a weight that it has no place for."""
    vit = VisionTransformer(**arguments, weight_init="skip")
    keys = vit.load_state_dict(state, strict=False)
    if odd := [*keys.unexpected_keys, *keys.missing_keys]:
        raise InputError(f"{odd[0]} is not as in timm's plain VisionTransformer", "export it as onnx")
    return vit.eval()


def _encoder(model: System, names: tuple[str, ...]) -> System:
    """The part of a system that encodes these sensors."""
    if isinstance(model, LateFusion | FusMAE) and len(names) > 1:
        raise InputError(
            f"{' and '.join(names)} have a projection each, timm's ViT has one",
            "export one sensor, or both as onnx",
        )
    if isinstance(model, LateFusion):
        return model.encoders[names[0]]
    return model.teacher.backbone if isinstance(model, DINO) else model


def _renamed(model: System, names: tuple[str, ...]) -> State:
    """timm's names for the weights that these sensors' encoder consists of."""
    blocks, cls, crossing = [block.state_dict() for block in model.blocks], getattr(model, "cls_token", None), None
    if isinstance(model, FusMAE):
        crossing, projection = model.xattn_encoder, model.projections[names[0]].proj
        kernel, bias = projection.weight, projection.bias
    else:
        kernel, bias = model.projection_of(names)
    if crossing is not None:
        blocks.insert(0, _without_attention(crossing))
        cls = token_before(crossing.norm, crossing.mlp, cls).to(cls.dtype).view(1, 1, -1)
    state = {"pos_embed": model.positions.table[None], "patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias}
    if cls is not None:
        state |= {"cls_token": cls, "pos_embed": torch.cat([torch.zeros_like(cls), state["pos_embed"]], dim=1)}
    for number, block in enumerate(blocks):
        state |= {f"blocks.{number}.{name}": tensor for name, tensor in block.items()}
    return state | {f"norm.{name}": tensor for name, tensor in model.norm.state_dict().items()}


def _without_attention(encoder: XAttnEncoder) -> State:
    """XAttnEncoder on one sensor, x + MLP(LN(x)), as a block whose attention adds nothing."""
    width, like = encoder.mlp.fc1.in_features, encoder.norm.weight
    state = {"norm1.weight": like.new_ones(width), "norm1.bias": like.new_zeros(width)}
    for name, rows in (("qkv", 3 * width), ("proj", width)):
        state |= {f"attn.{name}.weight": like.new_zeros(rows, width), f"attn.{name}.bias": like.new_zeros(rows)}
    state |= {f"norm2.{name}": tensor for name, tensor in encoder.norm.state_dict().items()}
    return state | {f"mlp.{name}": tensor for name, tensor in encoder.mlp.state_dict().items()}


def _arguments(config: ModelConfig, names: tuple[str, ...], class_token: bool) -> dict[str, Any]:
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": sum(config.channels[name] for name in names),
        "num_classes": 0,
        "global_pool": "avg",
        "fc_norm": False,  # the norm comes before the mean, as here
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": config.mlp_ratio,
        "class_token": class_token,
    }


@torch.no_grad()
def _compare(model: System, names: tuple[str, ...], vit: VisionTransformer) -> None:
    """Both on the same noise; InputError where they differ by more than rounding."""
    images = trial_images(model, names, 2)
    latents = model.encode(images)
    wanted = concatenate(latents.tokens)
    if "cls" in latents.vectors:
        wanted = torch.cat([latents.cls[:, None], wanted], dim=1)
    difference = gap(vit.forward_features(torch.cat([images[n].cpu() for n in names], dim=1)), wanted.cpu())
    if not difference < TOLERANCE:
        what = f"timm's ViT with these weights differs from the model by {difference:.1g}"
        raise InputError(what, "export it as onnx")

"""Weights of timm's VisionTransformer, ImageNet's for example, as the start of a Fus-MAE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.seeding import derive
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.fusmae import FusMAE


@dataclass
class Imported:
    """What :func:`from_timm` returns.

    Args:
        model: in evaluation mode.
        initialised: names of the weights that no ViT holds and that are random: other sensors, decoders, XAttnDecoder.
    """

    model: FusMAE
    initialised: tuple[str, ...]


def from_timm(state: Mapping[str, Tensor], config: ModelConfig, sensor: str, seed: int = 0) -> Imported:
    """A Fus-MAE whose blocks, norm, CLS, positions and projection of `sensor` are a ViT's; the inverse of ``to_timm``.

    Channels, patches and positions must fit already. timm's own functions make them fit::

        vit = imagenet_encoder(("s2",), patch_size=8).vit
        config = ModelConfig(fusion="xad", positions="learned")
        from_timm(vit.state_dict(), config, "s2")

    Args:
        state: of a plain VisionTransformer with or without a CLS token; a classifier head is left out. Heads of
            attention cannot be told from weights: give ``config.heads`` as the ViT's.
        config: fusion none or xad; ``positions="learned"`` unless the ViT has the fixed sine-cosine ones.
        sensor: whose projection the ViT's becomes.
        seed: of whatever stays random.

    Raises:
        InputError: a fusion that a ViT cannot start, another width, depth, patch or number of channels, positions that
            the configuration says are fixed others, or weights that a plain ViT has not.
    """
    if config.system != "fusmae" or config.fusion not in ("none", "xad"):
        what = f"fusion {config.fusion}" if config.system == "fusmae" else f"system {config.system}"
        raise InputError(f"{what} cannot start from a ViT's weights", "choose system=fusmae with fusion none or xad")
    if sensor not in config.modalities:
        raise InputError(f"sensor {sensor!r} is not one of this configuration's", f"choose from {config.modalities}")
    _check_sizes(state, config, sensor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("initialise", seed))
        model = FusMAE(ModelConfig(**config.model_dump(include=set(ModelConfig.model_fields))))
    own = model.state_dict()
    taken = _renamed(state, config, sensor)
    _check_names(state, taken, own)
    if config.positions == "sincos" and not torch.allclose(taken["positions.table"], own["positions.table"], atol=1e-6):
        raise InputError("the ViT's positions are not the fixed sine-cosine ones", "set positions=learned")
    model.load_state_dict(own | taken)
    return Imported(model.eval(), tuple(name for name in own if name not in taken))


def _renamed(state: Mapping[str, Tensor], config: ModelConfig, sensor: str) -> dict[str, Tensor]:
    """Our names for a ViT's weights."""
    taken = {name: value for name, value in state.items() if re.match(r"(blocks|norm)\.", name)}
    taken |= {
        f"projections.{sensor}.proj.{part}": state[key]
        for part in ("weight", "bias")
        if (key := f"patch_embed.proj.{part}") in state
    }
    positions = state["pos_embed"][0]
    if "cls_token" in state:
        prefix = len(positions) - config.tokens  # 1: CLS has a position, which is fixed and may as well be its own
        taken["cls_token"] = state["cls_token"] + (positions[:1] if prefix else 0)
        positions = positions[prefix:]
    taken["positions.table"] = positions
    return taken


def _check_sizes(state: Mapping[str, Tensor], config: ModelConfig, sensor: str) -> None:
    kernel, positions = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    if kernel is None or positions is None:
        missing = "patch_embed.proj.weight" if kernel is None else "pos_embed"
        raise InputError(f"{missing} is missing", "give the state dict of timm's VisionTransformer")
    width, channels, side = kernel.shape[:3]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    refit = f"fit it with imagenet_encoder(({sensor!r},), patch_size={config.patch_size})"
    for what, found, wanted, cure in (
        ("width", width, config.width, f"set width={width}"),
        ("depth", depth, config.depth, f"set depth={depth}"),
        ("channels", channels, get_modality(sensor).channels, refit),
        ("patch_size", side, config.patch_size, f"set patch_size={side}, or {refit}"),
    ):
        if found != wanted:
            raise InputError(f"this ViT has {what} {found}, not {wanted}", cure)
    if positions.shape[1] - config.tokens not in ((0, 1) if "cls_token" in state else (0,)):
        raise InputError(f"this ViT has {positions.shape[1]} positions for {config.tokens} patches", refit)


def _check_names(state: Mapping[str, Tensor], taken: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Everything the ViT computes with has a place here, of the same shape, and no block is half filled."""
    known = ("blocks.", "norm.", "head.", "patch_embed.proj.", "pos_embed", "cls_token")
    odd = [name for name in state if not name.startswith(known)] + [name for name in taken if name not in own]
    if odd:
        raise InputError(f"{odd[0]} has no place in a Fus-MAE", "give a plain VisionTransformer")
    needed = [name for name in own if re.match(r"(blocks|norm)\.", name)]
    absent = [name for name in needed if name not in taken] + [n for n in ("patch_embed.proj.bias",) if n not in state]
    if absent:
        raise InputError(f"{absent[0]} is missing", "give a plain VisionTransformer with qkv_bias")
    for name, tensor in taken.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            raise InputError(f"{name} has shape {shapes}", "set mlp_ratio and width as in the ViT")
    if not torch.isfinite(torch.stack([tensor.float().sum() for tensor in taken.values()])).all():
        raise InputError("the ViT's weights hold NaN or infinite values", "give another checkpoint")

"""What both exports need: which sensors, images to try them on, tokens whatever the system calls them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.systems import Encoder, Pooled
from fusmae_lite.systems.late import JoinedLatents
from fusmae_lite.systems.weights import describe_sensors


def sensor_names(model: Encoder, sensors: str | Sequence[str]) -> tuple[str, ...]:
    """The sensors asked for, ``"s2"`` or ``("s1", "s2")``, in the model's order; InputError for one it has not."""
    given = tuple(part.strip() for part in sensors.split(",")) if isinstance(sensors, str) else tuple(sensors)
    known = model.config.modalities
    odd = [name for name in given if name not in known]
    if odd or not given:
        what = f"sensor {odd[0]!r} is not one of this model's" if odd else "no sensor is named"
        raise InputError(what, f"choose from {', '.join(known)}")
    return tuple(name for name in known if name in given)


def trial_images(model: Encoder, names: Sequence[str], batch: int) -> dict[str, Tensor]:
    """Normal noise of the size of normalised images, modality -> (batch, C, H, W), on the model's device."""
    rng, side = torch.Generator().manual_seed(0), model.config.image_size
    device = next(model.parameters()).device
    shapes = {name: (batch, get_modality(name).channels, side, side) for name in names}
    return {name: torch.randn(shape, generator=rng).to(device) for name, shape in shapes.items()}


def named_tokens(latents: Pooled) -> dict[str, Tensor]:
    """Patch tokens of any system: ``tokens_<sensor>`` -> (B, N, D), or ``tokens`` where a token holds every sensor."""
    if isinstance(latents, JoinedLatents):
        return {key: value for each in latents.each.values() for key, value in named_tokens(each).items()}
    tokens: Tensor | dict[str, Tensor] = latents.tokens  # type: ignore[attr-defined]
    if isinstance(tokens, Tensor):
        return {"tokens": tokens}
    return {"tokens" if "+" in name else f"tokens_{name}": value for name, value in tokens.items()}


def facts(model: Encoder, names: tuple[str, ...]) -> dict[str, str]:
    """Metadata of an exported file, JSON text: ``sensors`` (band order, mean, deviation) and the model's ``config``."""
    return {"sensors": json.dumps(describe_sensors(names)), "config": model.config.model_dump_json()}

"""What both exports need: which sensors, images to try them on, names of tokens, metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.model.system import Latents, System
from fusmae_lite.systems.weights import describe_sensors

#: Largest difference between the export and the model, over the largest number they give, that counts as rounding.
TOLERANCE = 1e-4


def sensor_names(model: System, sensors: str | Sequence[str]) -> tuple[str, ...]:
    """The sensors asked for, ``"s2"`` or ``("s1", "s2")``, in the model's order; InputError for one it lacks."""
    asked = tuple(part.strip() for part in sensors.split(",")) if isinstance(sensors, str) else tuple(sensors)
    known = model.config.modalities
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        what = f"sensor {unknown[0]!r} is not one of this model's" if unknown else "no sensor is named"
        raise InputError(what, f"choose from {', '.join(known)}")
    return tuple(name for name in known if name in asked)


def trial_images(model: System, names: Sequence[str], batch: int) -> dict[str, Tensor]:
    """Normal noise of the size of normalised images, modality -> (batch, C, H, W), on the model's device."""
    rng, c = torch.Generator().manual_seed(0), model.config
    device = next(model.parameters()).device
    shapes = {name: (batch, c.channels[name], c.image_size, c.image_size) for name in names}
    return {name: torch.randn(shape, generator=rng).to(device) for name, shape in shapes.items()}


def gap(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, over the largest number of `wanted` or 1."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1))


def named_tokens(latents: Latents) -> dict[str, Tensor]:
    """Patch tokens: ``tokens_<sensor>`` -> (B, N, D), or ``tokens`` where a token holds every sensor."""
    return {"tokens" if "+" in name else f"tokens_{name}": value for name, value in latents.tokens.items()}


def facts(model: System, names: tuple[str, ...]) -> dict[str, str]:
    """Metadata of an exported file, JSON text: ``sensors`` (band order, mean, deviation) and the model's ``config``."""
    return {"sensors": json.dumps(describe_sensors(names)), "config": model.config.model_dump_json()}

"""What viewers ask of models: loading, masks from a few numbers, predictions in physical units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.data.pairs import denormalise
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.masking import sample_masks
from fusmae_lite.model.tokens import patchify, unpatchify
from fusmae_lite.systems.weights import load_pretrained

#: The choice of the cross-sensor control that leaves masks alone.
AS_DRAWN = "as drawn"


def cross_choices(modalities: Sequence[str]) -> dict[str, tuple[tuple[str, ...] | None, str | None]]:
    """What the cross-sensor control offers -> (sensors encoded, None: all; sensor reduced to one visible patch)."""
    hidden = {f"{name.upper()} hidden but one patch": (None, name) for name in modalities}
    alone = {f"{name.upper()} encoded alone": ((name,), None) for name in modalities}
    return {AS_DRAWN: (None, None), **hidden, **alone}


def load_models(models: Sequence[str | FusMAE] | Mapping[str, str | FusMAE]) -> dict[str, FusMAE]:
    """Name -> model on the CPU, all with one patch grid and the same sensors.

    Given are shipped names, paths of checkpoints, or models; a mapping says what each is called.
    """
    if not models:
        raise InputError("no model to look at", 'give one, for example models=("xae-lite",)')
    loaded: dict[str, FusMAE] = {}
    named = models.items() if isinstance(models, Mapping) else ((name_of(model), model) for model in models)
    for number, (name, model) in enumerate(named, start=1):
        name = name or f"model {number}"
        name = name if name not in loaded else f"{name} ({number})"
        model = model if isinstance(model, FusMAE) else load_pretrained(str(model))
        if not isinstance(model, FusMAE):
            raise InputError(f"{name} is a {type(model).__name__}", "give a Fus-MAE: what this viewer shows is its own")
        loaded[name] = model.eval().cpu()
    first, *rest = (model.config for model in loaded.values())
    for config in rest:
        for field in ("modalities", "image_size", "patch_size"):
            if getattr(config, field) != getattr(first, field):
                raise InputError(
                    f"models differ in {field}: {getattr(first, field)!r} and {getattr(config, field)!r}",
                    "compare models that share it",
                )
    return loaded


def name_of(model: str | FusMAE) -> str:
    """What a model is called that was given without a name: the end of its path, but not just ``model.safetensors``."""
    if isinstance(model, FusMAE):
        return ""
    path = PurePath(model)
    return path.parent.name if path.name == "model.safetensors" else path.name


def draw_masks(config: ModelConfig, strategy: str, percent: int, seed: int, cross: str = AS_DRAWN) -> dict[str, Tensor]:
    """Masks of a single pair: modality -> bool (1, N), True where hidden.

    `percent` of each sensor's patches are hidden, but one always stays; `cross` is a key of :func:`cross_choices`.
    """
    names, choices = config.modalities, cross_choices(config.modalities)
    if cross not in choices:
        raise InputError(f"no choice {cross!r} for {', '.join(names)}", f"choose one of {', '.join(choices)}")
    alone, reduced = choices[cross]
    kept = max(1, round(config.tokens * (100 - percent) / 100))
    masks = sample_masks(strategy, 1, config.tokens, kept, names, torch.Generator().manual_seed(seed))
    if reduced:
        first = int((~masks[reduced][0]).nonzero()[0])
        masks[reduced] = torch.ones_like(masks[reduced])
        masks[reduced][0, first] = False
    return {name: mask for name, mask in masks.items() if alone is None or name in alone}


@torch.inference_mode()
def predict(model: FusMAE, images: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A model's prediction of one pair at every patch: modality -> (C, H, W) in physical units.

    `masks` says which sensors the model gets. A model trained on patch-normalised targets predicts only structure: mean
    and deviation are then those of the true patch, and whoever draws it must say so.
    """
    inputs = {name: images[name] for name in masks}
    predictions = {}
    for name, patches in model(inputs, dict(masks)).patches.items():
        if model.config.normalize_target:
            truth = patchify(inputs[name], model.config.patch_size)
            mean, var = truth.mean(dim=-1, keepdim=True), truth.var(dim=-1, keepdim=True)
            patches = patches * (var + 1e-6).sqrt() + mean
        predictions[name] = physical(unpatchify(patches, model.config.patch_size, inputs[name].shape[1]), name)
    return predictions


def physical(image: Tensor, name: str) -> np.ndarray:
    """A normalised batch of one (1, C, H, W) in dB or reflectance x 10,000: (C, H, W)."""
    return denormalise(image, name)[0].numpy()

"""What viewers ask of models and archives: a pair, masks from a few numbers, predictions in physical units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.pairs import PairDataset, denormalise
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.masking import STRATEGIES, sample_masks
from fusmae_lite.model.tokens import patchify, unpatchify
from fusmae_lite.systems.weights import load_pretrained

#: The choice of the cross-sensor control that leaves masks alone.
AS_DRAWN = "as drawn"


def cross_choices(modalities: Sequence[str]) -> dict[str, tuple[tuple[str, ...] | None, str | None]]:
    """What the cross-sensor control offers -> (sensors encoded, None: all; sensor reduced to one visible patch)."""
    hidden = {f"{name.upper()} hidden but one patch": (None, name) for name in modalities}
    alone = {f"{name.upper()} encoded alone": ((name,), None) for name in modalities}
    return {AS_DRAWN: (None, None), **hidden, **alone}


class Pairs:
    """The pairs of an archive as normalised batches of one; keeps the last one read."""

    def __init__(self, archive: Archive, config: ModelConfig) -> None:
        self.data = PairDataset(archive, "all", modalities=config.modalities, size=config.image_size)
        self._index, self._images = -1, {}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """modality -> (1, C, H, W), normalised."""
        if index != self._index:
            images = self.data[index]["images"]
            self._index, self._images = index, {name: image[None] for name, image in images.items()}
        return self._images


@dataclass(frozen=True)
class Prediction:
    """What one model made of one pair, in physical units (dB; reflectance x 10,000).

    Args:
        original: modality -> (C, H, W).
        raw: the same, predicted at every patch.
        pasted: the same, with the input at visible patches, where the prediction is untrained.
        masks: modality -> bool (N,), True where hidden.
        losses: modality -> mean squared error at hidden patches, in normalised units.
    """

    original: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]
    pasted: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    losses: dict[str, float]


def load_models(models: Sequence[str | FusMAE] | Mapping[str, str | FusMAE]) -> dict[str, FusMAE]:
    """Name -> model on the CPU, all with one patch grid and the same sensors.

    Args:
        models: shipped names, paths of checkpoints, or models at hand; a mapping says what each is called.
    """
    if not models:
        raise InputError("no model to look at", 'give one, for example models=("xae-lite",)')
    named, loaded = isinstance(models, Mapping), {}
    for number, (name, model) in enumerate(models.items() if named else ((name_of(m), m) for m in models)):
        name = name or f"model {number + 1}"
        name = name if name not in loaded else f"{name} ({number + 1})"
        found = model if isinstance(model, FusMAE) else load_pretrained(str(model))
        if not isinstance(found, FusMAE):
            raise InputError(f"{name} is a {type(found).__name__}", "give a Fus-MAE: what this viewer shows is its own")
        loaded[name] = found.eval().cpu()
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


def kept_of(config: ModelConfig, percent: int) -> int:
    """Visible patches of a sensor when `percent` are hidden; at least one, as the encoder needs."""
    return max(1, round(config.tokens * (100 - percent) / 100))


def draw_masks(config: ModelConfig, strategy: str, percent: int, seed: int, cross: str = AS_DRAWN) -> dict[str, Tensor]:
    """Masks of a single pair: modality -> bool (1, N), True where hidden.

    Args:
        config: of the model.
        strategy: ``independent`` or ``consistent``.
        percent: share of each sensor's patches that is hidden, 0 to 100; one patch always stays.
        seed: of the draw.
        cross: key of :func:`cross_choices`.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown masking {strategy!r}", f"choose one of {', '.join(STRATEGIES)}")
    names = config.modalities
    choices = cross_choices(names)
    if cross not in choices:
        raise InputError(f"no choice {cross!r} for {', '.join(names)}", f"choose one of {', '.join(choices)}")
    alone, reduced = choices[cross]
    rng = torch.Generator().manual_seed(seed)
    masks = sample_masks(strategy, 1, config.tokens, kept_of(config, percent), names, rng)
    if reduced:
        first = int((~masks[reduced][0]).nonzero()[0])
        masks[reduced] = torch.ones_like(masks[reduced])
        masks[reduced][0, first] = False
    return {name: mask for name, mask in masks.items() if alone is None or name in alone}


@torch.inference_mode()
def predict(model: FusMAE, images: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Prediction:
    """Run a model on one pair; `masks` says which sensors it gets.

    A model trained on patch-normalised targets predicts only structure: mean and deviation are then those of the true
    patch, and whoever draws it must say so.
    """
    given = {name: images[name] for name in masks}
    made = model(given, dict(masks))
    raw, pasted = {}, {}
    for name, patches in made.patches.items():
        truth = patchify(given[name], model.config.patch_size)
        if model.config.normalize_target:
            mean, var = truth.mean(dim=-1, keepdim=True), truth.var(dim=-1, keepdim=True)
            patches = patches * (var + 1e-6).sqrt() + mean
        both = patches, torch.where(made.masks[name].unsqueeze(-1), patches, truth)
        channels = given[name].shape[1]
        raw[name], pasted[name] = (physical(unpatchify(x, model.config.patch_size, channels), name) for x in both)
    original = {name: physical(image, name) for name, image in given.items()}
    hidden = {name: mask[0].numpy() for name, mask in masks.items()}
    losses = {name: float(loss) for name, loss in made.losses.items()}
    return Prediction(original, raw, pasted, hidden, losses)


def physical(image: Tensor, name: str) -> np.ndarray:
    """A normalised batch of one (1, C, H, W) in dB or reflectance x 10,000: (C, H, W)."""
    return denormalise(image, name)[0].numpy()

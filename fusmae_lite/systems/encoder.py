"""What a protocol in :mod:`fusmae_lite.evaluation` needs of a system: images in, one vector per sample out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.model.masking import sample_masks


class Pooled(Protocol):
    """What `encode` returns; :class:`~fusmae_lite.model.fusmae.Latents` is one."""

    def pooled(self, how: str = "mean") -> Tensor:
        """(B, width of the features); InputError for a pooling the system does not have."""
        ...


class Encoder(Protocol):
    """A system as the protocols see it: an ``nn.Module`` that says what it takes and encodes it.

    `config` names the sensors and the side of the images. The systems trained here take any non-empty subset of their
    sensors; what one does about a sensor that is missing (leave its tokens out, fill zeros in) is its method's choice.

    A system that is no masked autoencoder tells the loop so by any of these attributes, and needs nothing else:

    - ``draw(batch, generator)``: the random part of a step, name -> tensor with a row per sample, instead of masks;
      ``forward(images, drawn)`` gets its rows and returns a ``loss`` and ``losses``;
    - ``loss_names``: keys of these ``losses``, where they are not the modalities;
    - ``after_step(step, steps, reduce)``: called after each optimiser step; `reduce` sums over processes;
    - ``to_fine_tune()``: a trainable copy of the part that encodes;
    - ``default_pooling``: how its own method makes one vector of the tokens, where that is not their mean.
    """

    config: ModelConfig

    def encode(self, images: Mapping[str, Tensor]) -> Pooled:
        """Modality -> (B, C, H, W), normalised; nothing is masked."""
        ...

    def train(self, mode: bool = True) -> nn.Module: ...
    def eval(self) -> nn.Module: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...


def draw_step(model: nn.Module, config: ModelConfig, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    """What a step hides of a batch, a row per sample: masks (B, N) by modality, or what the system's own draw says."""
    if hasattr(model, "draw"):
        return model.draw(batch, generator)
    return sample_masks(config.masking, batch, config.tokens, config.kept, config.modalities, generator)


def loss_names(model: nn.Module, config: ModelConfig) -> tuple[str, ...]:
    """Keys of ``losses`` in what the model returns: the modalities, or the system's own."""
    return getattr(model, "loss_names", config.modalities)


def pooling_of(model: Encoder) -> str:
    """How the system's own method pools: the mean of the patch tokens, or what it says."""
    return getattr(model, "default_pooling", "mean")


TITLES = {"late": "late fusion", "satvit": "SatViT", "dino": "DINO-MM", "imagenet": "ImageNet"}


def system_title(config: ModelConfig) -> str:
    """What a table calls the system of this configuration, for example ``Fus-MAE XAE``."""
    if config.system != "fusmae":
        return TITLES[config.system]
    return "MultiMAE-style" if config.fusion == "none" else f"Fus-MAE {config.fusion.upper()}"

"""Late fusion: a masked autoencoder for each sensor, never looking at the other; only their features are joined.

It is the control for every claim that fusing earlier helps: whatever is found here, a classifier on top found alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.model.fusmae import FusMAE, Images, Latents, Reconstruction
from fusmae_lite.model.inputs import check_images
from fusmae_lite.model.masking import sample_masks


@dataclass
class JoinedLatents:
    """Latents of each sensor's own encoder: modality -> :class:`Latents` of that modality alone."""

    each: dict[str, Latents]

    def pooled(self, how: str = "mean") -> Tensor:
        """(B, sensors present x D): what each encoder's own pooling gives, side by side."""
        return torch.cat([latents.pooled(how) for latents in self.each.values()], dim=1)


class LateFusion(nn.Module):
    """One encoder a sensor, each of the configured width and depth.

    Sized to match Fus-MAE in work, not in weights: a sensor's tokens pass through blocks of the same width and number,
    so a step costs about the same, while two encoders have twice the weights and two sensors twice the features.

    Args:
        config: as for :class:`~fusmae_lite.model.fusmae.FusMAE`, with ``system="late"``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        alone = {**config.model_dump(), "system": "fusmae", "fusion": "none"}
        self.encoders = nn.ModuleDict(
            {name: FusMAE(ModelConfig(**{**alone, "modalities": (name,)})) for name in config.modalities}
        )

    @property
    def recompute(self) -> bool:
        """Whether activations are recomputed in the backward pass, as in FusMAE."""
        return all(encoder.recompute for encoder in self.encoders.values())

    @recompute.setter
    def recompute(self, value: bool) -> None:
        for encoder in self.encoders.values():
            encoder.recompute = value

    def forward(
        self, images: Images, masks: Mapping[str, Tensor] | None = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Each sensor reconstructed from its own visible patches; arguments as in ``FusMAE.forward``."""
        images, config = check_images(images, self, masks), self.config
        names = list(images)
        if masks is None:
            batch = images[names[0]].shape[0]
            masks = sample_masks(config.masking, batch, config.tokens, config.kept, names, generator)
        each = [
            self.encoders[name]({name: images[name]}, {name: masks[name]} if name in masks else {}) for name in names
        ]
        losses, patches, drawn, targets = (
            {name: value for result in each for name, value in getattr(result, part).items()}
            for part in ("losses", "patches", "masks", "targets")
        )
        return Reconstruction(sum(losses.values()), losses, patches, drawn, targets, config.patch_size)

    def encode(self, images: Images, masks: Mapping[str, Tensor] | None = None) -> JoinedLatents:
        """Latents of each sensor present; a missing one contributes no features."""
        images = check_images(images, self, masks)
        return JoinedLatents({n: self.encoders[n].encode({n: image}, _own(masks, n)) for n, image in images.items()})

    def target(self, images: Tensor) -> Tensor:
        """As ``FusMAE.target``."""
        return next(iter(self.encoders.values())).target(images)


def _own(masks: Mapping[str, Tensor] | None, name: str) -> dict[str, Tensor] | None:
    """The masks that concern one encoder; it complains itself about one that is not there."""
    return None if masks is None else {key: mask for key, mask in masks.items() if key == name}

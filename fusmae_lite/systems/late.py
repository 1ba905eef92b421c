"""Late fusion: a masked autoencoder for each sensor, never looking at the other; only their features are joined.

It is the control for every claim that fusing earlier helps: whatever is found here, a classifier on top found alone.
"""

from __future__ import annotations

import torch
from torch import nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.model.fusmae import FusMAE, Masks, Reconstruction
from fusmae_lite.model.inputs import Checked, check_images
from fusmae_lite.model.system import Images, Latents, System


class LateFusion(System):
    """One encoder a sensor, each of the configured width and depth.

    Sized to match Fus-MAE in work, not in weights: a step costs about the same, two encoders have twice the weights.
    """

    title = "late fusion"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        alone = {**config.model_dump(), "system": "fusmae", "fusion": "none"}
        self.encoders = nn.ModuleDict(
            {name: FusMAE(ModelConfig(**{**alone, "modalities": (name,)})) for name in config.modalities}
        )

    def forward(
        self, images: Images, masks: Masks | None = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Each sensor reconstructed from its own visible patches; arguments as in ``FusMAE.forward``."""
        images = check_images(images, self, masks)
        drawn = masks if masks is not None else self.draw_for(images, generator)
        each = [self.encoders[name](Checked({name: image}), {name: drawn[name]}) for name, image in images.items()]
        losses, patches, hidden, targets = (
            {name: value for result in each for name, value in getattr(result, part).items()}
            for part in ("losses", "patches", "masks", "targets")
        )
        return Reconstruction(sum(losses.values()), losses, patches, hidden, targets, self.config.patch_size)

    def encode(self, images: Images, masks: Masks | None = None) -> Latents:
        """Latents of each sensor present, pooled side by side; a missing one contributes no features."""
        images = check_images(images, self, masks)
        each = [self.encoders[name].encode(Checked({name: image}), masks) for name, image in images.items()]
        vectors = {how: torch.cat([z.pooled(how) for z in each], dim=1) for how in ("mean", "cls")}
        return Latents({name: tokens for z in each for name, tokens in z.tokens.items()}, vectors)

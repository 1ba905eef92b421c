"""SatViT: a masked autoencoder over S1 and S2 stacked along the channels. Source: Fuller et al., GRSL 2022 [14].

No CLS token, features are the mean of the patch tokens, targets are normalised patch by patch, 75 % is hidden. Its
fusion happens in one matrix, the patch projection: the paper's section 3.1 argues that this cannot be enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.model.blocks import initialise
from fusmae_lite.model.fusmae import Decoder, Masks, Reconstruction, masked_mse
from fusmae_lite.model.inputs import check_images, stack
from fusmae_lite.model.masking import visible_indices
from fusmae_lite.model.system import Images, Latents
from fusmae_lite.systems.stack import StackedViT


class SatViT(StackedViT):
    """A ViT over N stacked patches and one decoder; half the tokens of Fus-MAE at the same width and depth.

    The mask is shared by the sensors.
    """

    title = "SatViT"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.drop_path)
        self.decoder = Decoder(config, sum(config.channels.values()))
        initialise(self)

    def forward(
        self, images: Images, masks: Masks | None = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Hide stacked patches, encode the rest, reconstruct what was hidden; arguments as in ``FusMAE.forward``.

        The loss is the mean over all hidden numbers, so a sensor weighs as many as its bands; `losses` tell it apart.
        """
        images, config = check_images(images, self, masks), self.config
        stacked, names = stack(images, self), list(images)
        mask = _shared(masks if masks is not None else self.draw_for(images, generator), names)
        index = visible_indices(mask).to(stacked.device, non_blocking=True)
        patches = self._by_sensor(self.decoder(self._encode(stacked, index), index), names)
        targets = self._by_sensor(self.target(stacked), names)
        losses = {name: masked_mse(patches[name], targets[name], mask) for name in names}
        bands = sum(config.channels[name] for name in names)
        loss = sum(losses[name] * (config.channels[name] / bands) for name in names)
        hidden = dict.fromkeys(names, mask.to(stacked.device, non_blocking=True))
        return Reconstruction(loss, losses, patches, hidden, targets, config.patch_size)

    def encode(self, images: Images, masks: Masks | None = None) -> Latents:
        """Tokens of the visible patches, of all without `masks`; a missing sensor is filled with zeros."""
        images = check_images(images, self, masks)
        stacked = stack(images, self)
        index = None if masks is None else visible_indices(_shared(masks, list(images))).to(stacked.device)
        return Latents({self.name: self._encode(stacked, index)})

    def _encode(self, stacked: Tensor, index: Tensor | None) -> Tensor:
        return self.norm(self.blocks(self.projection(stacked, index) + self.positions(index)))

    def _by_sensor(self, patches: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """(B, N, all channels * P * P) cut by sensor: a patch is flattened channel first, so they lie side by side."""
        counts = self.config.channels
        parts = patches.split([count * self.config.patch_size**2 for count in counts.values()], dim=-1)
        return {name: part for name, part in zip(counts, parts, strict=True) if name in names}


def _shared(masks: Masks, names: Sequence[str]) -> Tensor:
    """The one mask (B, N) of all sensors present; InputError where they differ."""
    if not all(torch.equal(masks[name], masks[names[0]]) for name in names):
        raise InputError("masks differ between sensors that share their tokens", "use masking=consistent")
    return masks[names[0]]

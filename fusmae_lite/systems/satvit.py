"""A ViT over sensors stacked along the channels, the earliest fusion there is, and SatViT, which masks and decodes it.

Source: Fuller et al., GRSL 2022 [14]. Fusion happens in one matrix, the patch projection: the paper's section 3.1
argues that this cannot be enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.model.blocks import Blocks, initialise
from fusmae_lite.model.cross_attention import SelfAttention
from fusmae_lite.model.fusmae import Decoder, Masks, Reconstruction, masked_mse
from fusmae_lite.model.inputs import check_images, stack
from fusmae_lite.model.masking import visible_indices
from fusmae_lite.model.system import Images, Latents, System
from fusmae_lite.model.tokens import PatchProjection, Positions


class StackedViT(System):
    """Projection, positions, blocks and norm for patches of all sensors together; SatViT and DINO-MM share it."""

    def __init__(self, config: ModelConfig, drop_path: float, attention: type[nn.Module] = SelfAttention) -> None:
        super().__init__(config)
        width = config.width
        self.name = "+".join(config.modalities)  # what its tokens hold
        self.projection = PatchProjection(sum(config.channels.values()), width, config.patch_size)
        self.positions = Positions.of(config, width)
        self.blocks = Blocks(config.depth, width, config.heads, config.mlp_ratio, drop_path, attention)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def channels_of(self, sensors: Sequence[str]) -> list[int]:
        """Which of the stacked channels belong to these sensors."""
        owners = [name for name, count in self.config.channels.items() for _ in range(count)]
        return [channel for channel, owner in enumerate(owners) if owner in sensors]

    def projection_of(self, sensors: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the projection for these sensors alone."""
        return self.projection.proj.weight[:, self.channels_of(sensors)], self.projection.proj.bias


class SatViT(StackedViT):
    """A masked autoencoder over N stacked patches, half the tokens of Fus-MAE; one mask for all sensors, no CLS."""

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
        images, channels = check_images(images, self, masks), self.config.channels
        stacked, names = stack(images, self), list(images)
        mask = _shared(masks if masks is not None else self.draw_for(images, generator), names)
        index = visible_indices(mask).to(stacked.device, non_blocking=True)
        patches = self._by_sensor(self.decoder(self._encode(stacked, index), index), names)
        targets = self._by_sensor(self.target(stacked), names)
        losses = {name: masked_mse(patches[name], targets[name], mask) for name in names}
        bands = sum(channels[name] for name in names)
        loss = sum(losses[name] * (channels[name] / bands) for name in names)
        hidden = dict.fromkeys(names, mask.to(stacked.device, non_blocking=True))
        return Reconstruction(loss, losses, patches, hidden, targets, self.config.patch_size)

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
    """The one mask (B, N) of all sensors present."""
    if not all(torch.equal(masks[name], masks[names[0]]) for name in names):
        raise InputError("masks differ between sensors that share their tokens", "use masking=consistent")
    return masks[names[0]]

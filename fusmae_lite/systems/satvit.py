"""SatViT: a masked autoencoder over S1 and S2 stacked along the channels. Source: Fuller et al., GRSL 2022 [14].

No CLS token, features are the mean of the patch tokens, targets are normalised patch by patch, 75 % is hidden. Its
fusion happens in one matrix, the patch projection: the paper's section 3.1 argues that this cannot be enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.cross_attention import SelfAttention
from fusmae_lite.model.fusmae import Decoder, Images, Reconstruction, masked_mse, patch_targets
from fusmae_lite.model.masking import sample_masks, visible_indices
from fusmae_lite.model.tokens import PatchProjection, Positions
from fusmae_lite.systems.stack import stack, stacked_channels


@dataclass
class StackLatents:
    """Latents of stacked patches, (B, n, D): one token holds every sensor."""

    tokens: Tensor

    def pooled(self, how: str = "mean") -> Tensor:
        """(B, D), the mean of all tokens; InputError for ``cls``, which SatViT has not."""
        if how != "mean":
            raise InputError(f"SatViT has no pooling {how!r}", "choose mean")
        return self.tokens.mean(dim=1)


class SatViT(nn.Module):
    """A ViT over N stacked patches and one decoder; half the tokens of Fus-MAE at the same width and depth.

    Args:
        config: as for :class:`FusMAE`, with ``system="satvit"``; the mask is shared by the sensors.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        channels, width = stacked_channels(config), config.width
        self.projection = PatchProjection(channels, width, config.patch_size)
        self.positions = Positions.of(config, width)
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        norm = partial(nn.LayerNorm, eps=1e-6)  # said here, whatever timm's default becomes
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, True, drop_path=r, norm_layer=norm, attn_layer=SelfAttention)
            for r in rates
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder = Decoder(config, channels)
        for module in self.modules():  # as in FusMAE
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.decoder.mask_token, std=0.02)

    def forward(
        self, images: Images, masks: Mapping[str, Tensor] | None = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Hide stacked patches, encode the rest, reconstruct what was hidden; arguments as in ``FusMAE.forward``.

        The loss is the mean over all hidden numbers, so a sensor weighs as many as its bands; `losses` tell it apart.
        """
        config = self.config
        stacked = stack(images, self, masks)
        names = [name for name in config.modalities if name in images]
        if masks is None:
            masks = sample_masks("consistent", len(stacked), config.tokens, config.kept, names, generator)
        mask = self._shared(masks, names)
        index = visible_indices(mask).to(stacked.device, non_blocking=True)
        predicted = self._by_sensor(self.decoder(self._encode(stacked, index), index))
        targets = self._by_sensor(self.target(stacked))
        losses = {name: masked_mse(predicted[name], targets[name], mask) for name in names}
        bands = {name: get_modality(name).channels for name in names}
        loss = sum(losses[name] * (bands[name] / sum(bands.values())) for name in names)
        patches, targets = ({name: part[name] for name in names} for part in (predicted, targets))
        moved = mask.to(stacked.device, non_blocking=True)
        return Reconstruction(loss, losses, patches, dict.fromkeys(names, moved), targets, config.patch_size)

    def encode(self, images: Images, masks: Mapping[str, Tensor] | None = None) -> StackLatents:
        """Tokens of the visible patches, of all without `masks`; a missing sensor is filled with zeros."""
        stacked = stack(images, self, masks)
        if masks is None:
            return StackLatents(self._encode(stacked, None))
        mask = self._shared(masks, [name for name in self.config.modalities if name in images])
        return StackLatents(self._encode(stacked, visible_indices(mask).to(stacked.device)))

    def target(self, images: Tensor) -> Tensor:
        """What the decoder must predict for (B, C, H, W): its patches, each normalised if configured."""
        return patch_targets(images, self.config)

    def _encode(self, stacked: Tensor, index: Tensor | None) -> Tensor:
        z = self.projection(stacked, index) + self.positions(index)
        for block in self.blocks:
            z = checkpoint(block, z, use_reentrant=False) if self.recompute and self.training else block(z)
        return self.norm(z)

    def _by_sensor(self, patches: Tensor) -> dict[str, Tensor]:
        """(B, N, all channels * P * P) cut by sensor: a patch is flattened channel first, so they lie side by side."""
        sizes = [get_modality(name).channels * self.config.patch_size**2 for name in self.config.modalities]
        return dict(zip(self.config.modalities, patches.split(sizes, dim=-1), strict=True))

    def _shared(self, masks: Mapping[str, Tensor], names: list[str]) -> Tensor:
        """The one mask (B, N) of all sensors present; InputError where they differ."""
        if not all(torch.equal(masks[name], masks[names[0]]) for name in names):
            raise InputError("masks differ between sensors that share their tokens", "use masking=consistent")
        return masks[names[0]]

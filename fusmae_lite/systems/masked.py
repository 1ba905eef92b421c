"""Masked autoencoders beside Fus-MAE: late fusion, which never fuses, and SatViT, which fuses in the patch projection.

Late fusion is the control for every claim that fusing earlier helps: its encoders never see each other, so what a probe
gains from two sensors it gains by itself. SatViT is Fuller et al., GRSL 2022 [14]; the paper's section 3.1 argues that
one matrix cannot be enough.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.model.blocks import Blocks, initialise
from fusmae_lite.model.cross_attention import SelfAttention
from fusmae_lite.model.fusmae import Decoder, FusMAE, Masks, Reconstruction, masked_mse
from fusmae_lite.model.inputs import Checked, check_images, stack
from fusmae_lite.model.masking import visible_indices
from fusmae_lite.model.system import Images, Latents, System
from fusmae_lite.model.tokens import PatchProjection, Positions


class LateFusion(System):
    """One encoder a sensor, of the configured width and depth: Fus-MAE's work a step, with twice the weights."""

    title = "late fusion"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        alone = {**config.model_dump(), "system": "fusmae", "fusion": "none"}
        each = {name: ModelConfig(**{**alone, "modalities": (name,)}) for name in config.modalities}
        self.encoders = nn.ModuleDict({name: FusMAE(single) for name, single in each.items()})

    def forward(self, images: Images, masks: Masks | None = None, generator: Generator | None = None) -> Reconstruction:
        """Each sensor reconstructed from its own visible patches; arguments as in ``FusMAE.forward``."""
        images = check_images(images, self, masks)
        drawn = masks if masks is not None else self.draw_for(images, generator)
        each = [self.encoders[name](Checked({name: image}), drawn) for name, image in images.items()]
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

    def forward(self, images: Images, masks: Masks | None = None, generator: Generator | None = None) -> Reconstruction:
        """Hide stacked patches, encode the rest, reconstruct what was hidden; arguments as in ``FusMAE.forward``.

        The loss is the mean over all hidden numbers, so a sensor weighs as many as its bands; `losses` tell it apart.
        """
        images, channels = check_images(images, self, masks), self.config.channels
        drawn = masks if masks is not None else self.draw_for(images, generator)
        stacked, mask, index = self._stack(images, drawn)
        patches = self._by_sensor(self.decoder(self._encode(stacked, index), index), images)
        targets = self._by_sensor(self.target(stacked), images)
        losses = {name: masked_mse(patches[name], targets[name], mask) for name in images}
        bands = sum(channels[name] for name in images)
        loss = sum(losses[name] * (channels[name] / bands) for name in images)
        hidden = dict.fromkeys(images, mask.to(stacked.device, non_blocking=True))
        return Reconstruction(loss, losses, patches, hidden, targets, self.config.patch_size)

    def encode(self, images: Images, masks: Masks | None = None) -> Latents:
        """Tokens of the visible patches, of all without `masks`; a missing sensor is filled with zeros."""
        stacked, _, index = self._stack(check_images(images, self, masks), masks)
        return Latents({self.name: self._encode(stacked, index)})

    def _stack(self, images: Images, masks: Masks | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Checked images (B, C, H, W) and, with masks, the one (B, N) of all sensors and its visible patches (B, n)."""
        stacked = stack(images, self)
        if masks is None:
            return stacked, None, None
        mask, *rest = (masks[name] for name in images)
        if not all(torch.equal(mask, other) for other in rest):
            raise InputError("masks differ between sensors that share their tokens", "use masking=consistent")
        return stacked, mask, visible_indices(mask).to(stacked.device, non_blocking=True)

    def _encode(self, stacked: Tensor, index: Tensor | None) -> Tensor:
        return self.norm(self.blocks(self.projection(stacked, index) + self.positions(index)))

    def _by_sensor(self, patches: Tensor, images: Images) -> dict[str, Tensor]:
        """(B, N, all channels * P * P) cut by sensor: a patch is flattened channel first, so they lie side by side."""
        counts = self.config.channels
        parts = patches.split([count * self.config.patch_size**2 for count in counts.values()], dim=-1)
        return {name: part for name, part in zip(counts, parts, strict=True) if name in images}

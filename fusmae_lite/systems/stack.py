"""A ViT over sensors stacked along the channels, the earliest fusion there is: what SatViT and DINO-MM share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.model.blocks import Blocks
from fusmae_lite.model.cross_attention import SelfAttention
from fusmae_lite.model.system import System
from fusmae_lite.model.tokens import PatchProjection, Positions


class StackedViT(System):
    """Projection, positions, blocks and norm for patches of all sensors together."""

    def __init__(self, config: ModelConfig, drop_path: float, attention: type[nn.Module] = SelfAttention) -> None:
        super().__init__(config)
        width = config.width
        self.projection = PatchProjection(sum(config.channels.values()), width, config.patch_size)
        self.positions = Positions.of(config, width)
        self.blocks = Blocks(config.depth, width, config.heads, config.mlp_ratio, drop_path, attention)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @property
    def name(self) -> str:
        """What its tokens hold, ``s1+s2``."""
        return "+".join(self.config.modalities)

    def projection_of(self, sensors: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the projection for these sensors alone."""
        return self.projection.proj.weight[:, channels_of(self.config, sensors)], self.projection.proj.bias


def channels_of(config: ModelConfig, sensors: Sequence[str]) -> list[int]:
    """Which of the stacked channels belong to these sensors."""
    owners = [name for name, count in config.channels.items() for _ in range(count)]
    return [channel for channel, owner in enumerate(owners) if owner in sensors]

"""The plain Transformer blocks of an encoder, and how weights start."""

from collections.abc import Iterator
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusmae_lite.model.cross_attention import SelfAttention


class Blocks(nn.ModuleList):
    """timm's pre-norm blocks, one after the other; stochastic depth grows linearly, as in timm's own ViT."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        attention: type[nn.Module] = SelfAttention,
    ) -> None:
        norm = partial(nn.LayerNorm, eps=1e-6)  # said here, whatever timm's default becomes
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        super().__init__(
            Block(width, heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=norm, attn_layer=attention)
            for rate in rates
        )
        self.recompute = False

    def outputs(self, z: Tensor) -> Iterator[Tensor]:
        """What each block makes of (B, L, D), from the first to the last."""
        for block in self:
            z = checkpoint(block, z, use_reentrant=False) if self.recompute and torch.is_grad_enabled() else block(z)
            yield z

    def forward(self, z: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        for output in self.outputs(z):
            z = output
        return z


def initialise(model: nn.Module) -> None:
    """Xavier-uniform for every Linear, as in MAE; small normal noise for CLS and mask tokens."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)

"""Equation 1: from images to unimodal tokens, and back from patches to images."""

from typing import get_args

from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from fusmae_lite.core.architecture import Embedding, ModelConfig
from fusmae_lite.core.errors import InputError


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Non-overlapping patches, row by row: (B, C, H, W) -> (B, N, C * P * P); token index = row * (W / P) + column.

    A patch is flattened as a Conv2d kernel is (channel, row, column), so that
    ``patchify(x) @ conv.weight.flatten(1).T`` equals the convolution of eq. 1. InputError unless P divides H and W.
    """
    batch, channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise InputError(
            f"an image of {height} x {width} px cannot be cut into patches of {patch_size} px",
            "resample the image or change patch_size so that it divides both sides",
        )
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)


def unpatchify(patches: Tensor, patch_size: int, channels: int) -> Tensor:
    """Inverse of :func:`patchify` for square images: (B, N, C * P * P) -> (B, C, H, W)."""
    batch, tokens, _ = patches.shape
    side = round(tokens**0.5)
    grid = patches.reshape(batch, side, side, channels, patch_size, patch_size)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, side * patch_size, side * patch_size)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by position: (B, N, D) and (B, n) -> (B, n, D)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def sincos_positions(grid: int, width: int, temperature: float) -> nn.Parameter:
    """Fixed 2-D sine-cosine, (N, D). On a grid of 15, most columns of the usual 10,000 are almost constant."""
    table = build_sincos2d_pos_embed([grid, grid], width, temperature=temperature)
    return nn.Parameter(table, requires_grad=False)


def learned_positions(grid: int, width: int, temperature: float) -> nn.Parameter:
    """Learned from that start, (N, D)."""
    return sincos_positions(grid, width, temperature).requires_grad_()


EMBEDDINGS = {name: globals()[f"{name}_positions"] for name in get_args(Embedding)}


class Positions(nn.Module):
    """E_emb of eq. 1, shared by every modality; `kind` is one of :data:`EMBEDDINGS`."""

    def __init__(self, grid: int, width: int, kind: Embedding = "sincos", temperature: float = 10_000) -> None:
        super().__init__()
        self.table = EMBEDDINGS[kind](grid, width, temperature)

    @classmethod
    def of(cls, config: ModelConfig, width: int) -> "Positions":
        """The positions of a configuration, at its encoder's or its decoders' width."""
        return cls(config.grid, width, config.positions, config.position_temperature)

    def forward(self, index: Tensor | None = None) -> Tensor:
        """Positions of all patches, (N, D), or of the chosen ones: index (B, n) -> (B, n, D)."""
        return self.table if index is None else self.table[index]


class PatchProjection(nn.Module):
    """Conv2d_i of eq. 1 with kernel and stride P, applied only to the patches that stay visible.

    Stored as a convolution, as timm's, applied as a matrix: a masked pixel is never multiplied with anything.
    """

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)
        # MAE's choice: initialise the kernel like the Linear layer it really is.
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))
        nn.init.zeros_(self.proj.bias)

    def forward(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and optional visible positions (B, n) -> (B, n, D); without `index`, all N."""
        patches = patchify(images, self.patch_size)
        if index is not None:
            patches = gather_tokens(patches, index)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)

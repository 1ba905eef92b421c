"""Fus-MAE: equations 6-9. Read :meth:`FusMAE.forward` first; it is the paper's section 3 from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.cross_attention import SelfAttention, XAttnDecoder, XAttnEncoder, self_attention_map
from fusmae_lite.model.inputs import check_images
from fusmae_lite.model.masking import sample_masks, visible_indices
from fusmae_lite.model.tokens import PatchProjection, Positions, patchify, unpatchify

Images = Mapping[str, Tensor]  # modality -> (B, C, H, W), normalised


@dataclass
class Latents:
    """z_N of eqs. 7-8, split by modality again, and the global token.

    Args:
        tokens: modality -> (B, n_i, D), only the visible patches.
        cls: (B, D).
    """

    tokens: dict[str, Tensor]
    cls: Tensor

    def pooled(self, how: str = "mean") -> Tensor:
        """One vector per sample, (B, D): the mean of all patch tokens, or the CLS token."""
        if how == "cls":
            return self.cls
        if how != "mean":
            raise InputError(f"unknown pooling {how!r}", "choose mean or cls")
        return torch.cat(list(self.tokens.values()), dim=1).mean(dim=1)


@dataclass
class Reconstruction:
    """What :meth:`FusMAE.forward` returns.

    Args:
        loss: scalar, the sum over modalities.
        losses: modality -> scalar, mean squared error over masked patches only.
        patches: modality -> (B, N, C * P * P), the prediction for every patch.
        masks: modality -> (B, N), True where the encoder saw nothing.
        targets: modality -> (B, N, C * P * P), what `losses` compares with.
        patch_size: P.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    patches: dict[str, Tensor]
    masks: dict[str, Tensor]
    targets: dict[str, Tensor]
    patch_size: int

    def images(self, paste_visible: bool = False) -> dict[str, Tensor]:
        """Predictions as images, modality -> (B, C, H, W).

        Predictions at visible patches are untrained, because the loss never looks at them: with `paste_visible` the
        input stands there instead. In units of the target: normalised bands, or patch-normalised ones when the
        model was built with ``normalize_target``.
        """
        images = {}
        for name, patches in self.patches.items():
            if paste_visible:
                patches = torch.where(self.masks[name].unsqueeze(-1), patches, self.targets[name].to(patches.dtype))
            images[name] = unpatchify(patches, self.patch_size, get_modality(name).channels)
        return images


class Decoder(nn.Module):
    """D_i of eq. 9: Linear to a small width, mask tokens and positions, a few blocks, Linear to pixels."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = Positions.of(config, width)
        self.blocks = nn.Sequential(*_blocks(config.decoder_depth, width, config.decoder_heads, config.mlp_ratio))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, channels * config.patch_size**2)

    def forward(self, latents: Tensor, index: Tensor) -> Tensor:
        """Latents (B, n, D) of the patches at `index` (B, n) -> predictions (B, N, C * P * P)."""
        visible = self.embed(latents)
        batch, _, width = visible.shape
        canvas = self.mask_token.to(visible.dtype).expand(batch, len(self.positions.table), width)
        tokens = canvas.scatter(1, index.unsqueeze(-1).expand(-1, -1, width), visible) + self.positions()
        return self.head(self.norm(self.blocks(tokens)))


class FusMAE(nn.Module):
    """A masked autoencoder that fuses sensors by cross-attention.

    ``config.fusion`` chooses the paper's variants: ``xae`` puts an XAttnEncoder in place of the first block (eq. 6),
    ``xad`` an XAttnDecoder before the decoders (eq. 10), ``both`` does both and ``none`` neither, which leaves the
    joint self-attention of MultiMAE.

    Args:
        config: see :class:`~fusmae_lite.core.config.ModelConfig`; the defaults are the paper's size.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # keep only each block's input for the backward pass: less memory, a third more time
        names, width = config.modalities, config.width
        early, late = config.fusion in ("xae", "both"), config.fusion in ("xad", "both")
        self.projections = nn.ModuleDict(
            {name: PatchProjection(get_modality(name).channels, width, config.patch_size) for name in names}
        )
        self.positions = Positions.of(config, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.xattn_encoder = XAttnEncoder(names, width, config.heads, config.mlp_ratio) if early else None
        self.blocks = nn.ModuleList(
            _blocks(config.depth - int(early), width, config.heads, config.mlp_ratio, config.drop_path)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.xattn_decoder = XAttnDecoder(names, width, config.heads, config.mlp_ratio) if late else None
        self.decoders = nn.ModuleDict({name: Decoder(config, get_modality(name).channels) for name in names})
        self._initialise()

    def forward(
        self, images: Images, masks: Mapping[str, Tensor] | None = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Mask, encode what is visible, reconstruct the rest.

        Args:
            images: modality -> (B, C, H, W), normalised; any non-empty subset of the configured modalities.
            masks: modality -> bool (B, N), True where hidden; drawn by ``config.masking`` if absent. Leave them on the
                CPU when the images are on a GPU: checking them there would make the processor wait for it.
            generator: CPU generator for that draw.
        """
        images = check_images(images, self, masks)
        names = list(images)
        if masks is None:
            batch = images[names[0]].shape[0]
            kept = self.config.kept
            masks = sample_masks(self.config.masking, batch, self.config.tokens, kept, names, generator)
        latents = self._encode(images, masks).tokens  # eqs. 1-8
        if self.xattn_decoder is not None:
            latents = self.xattn_decoder(latents)  # eqs. 10-11
        patches = {name: self.decoders[name](z, _visible(masks[name], z)) for name, z in latents.items()}  # eq. 9
        targets = {name: self.target(images[name]) for name in names}
        losses = {name: masked_mse(patches[name], targets[name], masks[name]) for name in names}
        masks = {name: masks[name].to(images[name].device, non_blocking=True) for name in names}
        return Reconstruction(sum(losses.values()), losses, patches, masks, targets, self.config.patch_size)

    def encode(self, images: Images, masks: Mapping[str, Tensor] | None = None) -> Latents:
        """Latents of the visible patches; of all patches without `masks`. Eqs. 1-8.

        Args:
            images: modality -> (B, C, H, W), normalised; any non-empty subset of the configured modalities. A sensor
                that is missing contributes no tokens and nobody attends to it.
            masks: modality -> bool (B, N), True where hidden.
        """
        return self._encode(check_images(images, self, masks), masks)

    def _encode(self, images: Images, masks: Mapping[str, Tensor] | None) -> Latents:
        tokens = self._embed(images, masks)
        z = self._fuse(tokens)
        for block in self.blocks:
            z = checkpoint(block, z, use_reentrant=False) if self.recompute and self.training else block(z)
        z = self.norm(z)
        parts = z[:, :-1].split([x.shape[1] for x in tokens.values()], dim=1)
        return Latents(dict(zip(tokens, parts, strict=True)), z[:, -1])

    def embed(self, images: Images, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Eq. 1 for each modality present: modality -> z_0,i (B, n_i, D), visible patches only."""
        return self._embed(check_images(images, self, masks), masks)

    def _embed(self, images: Images, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        if masks is None:
            return {name: self.projections[name](image) + self.positions() for name, image in images.items()}
        index = {name: _visible(masks[name], image) for name, image in images.items()}
        return {
            name: self.projections[name](x, index[name]) + self.positions(index[name]) for name, x in images.items()
        }

    def target(self, images: Tensor) -> Tensor:
        """What the decoder must predict for (B, C, H, W): its patches, (B, N, C * P * P), normalised if configured."""
        return patch_targets(images, self.config)

    @torch.no_grad()
    def attention_maps(self, images: Images, masks: Mapping[str, Tensor] | None = None) -> dict[str, object]:
        """Every softmax of the encoder for these images.

        Returns:
            ``cross``: modality -> (B, H, n_i, n of the others), from XAttnEncoder (empty without one);
            ``decoder``: the same from XAttnDecoder (empty without one);
            ``self``: one (B, H, L, L) for each plain block, L = all patch tokens and CLS last;
            ``slices``: modality or ``cls`` -> slice of L.
        """
        tokens = self._embed(check_images(images, self, masks), masks)
        slices, start = {}, 0
        for name, x in tokens.items():
            slices[name] = slice(start, start + x.shape[1])
            start += x.shape[1]
        slices["cls"] = slice(start, start + 1)
        cross = self.xattn_encoder.maps(tokens) if self.xattn_encoder is not None else {}
        z, maps = self._fuse(tokens), []
        for block in self.blocks:
            maps.append(self_attention_map(block, z))
            z = block(z)
        z = self.norm(z)
        latents = {name: z[:, slices[name]] for name in tokens}
        decoder = self.xattn_decoder.maps(latents) if self.xattn_decoder is not None else {}
        return {"cross": cross, "decoder": decoder, "self": maps, "slices": slices}

    def _fuse(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """z_0 of eq. 6: the input tokens, fused or merely concatenated, with CLS appended last."""
        z = torch.cat(list(tokens.values()), dim=1) if self.xattn_encoder is None else self.xattn_encoder(tokens)
        cls = self.cls_token.to(z.dtype).expand(z.shape[0], -1, -1)  # len(z) would freeze the batch of an ONNX export
        return torch.cat([z, cls], dim=1)

    def _initialise(self) -> None:
        """Xavier-uniform for every Linear, as in MAE; small normal noise for the learned tokens."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.cls_token, std=0.02)
        for decoder in self.decoders.values():
            nn.init.normal_(decoder.mask_token, std=0.02)


def patch_targets(images: Tensor, config: ModelConfig) -> Tensor:
    """Patches of (B, C, H, W) as a decoder must predict them: (B, N, C * P * P), each normalised if configured."""
    target = patchify(images, config.patch_size)
    if config.normalize_target:
        mean, var = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        target = (target - mean) / (var + 1e-6).sqrt()
    return target


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the masked patches only: (B, N, K), (B, N, K), (B, N) -> scalar (section 3.2)."""
    # bf16 predictions meet the target in the target's own precision: squares of small errors would underflow.
    error = (prediction.to(target.dtype) - target).square().mean(dim=-1)
    mask = mask.to(error.device, non_blocking=True)
    # A weighted mean, not error[mask]: picking would make a GPU report how many there are, and the processor wait.
    return (error * mask).sum() / mask.sum().clamp(min=1)


def _visible(mask: Tensor, beside: Tensor) -> Tensor:
    """Visible positions, found where the mask lies and moved to the device of `beside`."""
    return visible_indices(mask).to(beside.device, non_blocking=True)


def _blocks(depth: int, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> list[Block]:
    """timm's pre-norm Transformer blocks; stochastic depth grows linearly as in timm's own ViT."""
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    return [
        Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=_LayerNorm, drop_path=rate, attn_layer=SelfAttention)
        for rate in rates
    ]


class _LayerNorm(nn.LayerNorm):
    """LayerNorm with ViT's epsilon, as a class because timm's Block wants one to construct."""

    def __init__(self, width: int, **kwargs: object) -> None:
        super().__init__(width, eps=1e-6, **kwargs)

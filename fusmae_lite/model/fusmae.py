"""Fus-MAE. Read :meth:`FusMAE.forward` first; it is the paper's section 3 from top to bottom."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.model.blocks import Blocks, initialise
from fusmae_lite.model.cross_attention import XAttnDecoder, XAttnEncoder, concatenate
from fusmae_lite.model.inputs import check_images
from fusmae_lite.model.masking import visible_indices
from fusmae_lite.model.system import Images, Latents, Losses, System
from fusmae_lite.model.tokens import PatchProjection, Positions, unpatchify

Masks = Mapping[str, Tensor]  # modality -> bool (B, N), True where hidden


@dataclass
class Reconstruction(Losses):
    """What a masked autoencoder returns: `loss`, the sum over modalities, and `losses`, errors of masked patches."""

    patches: dict[str, Tensor]  # (B, N, C * P * P), the prediction for every patch
    masks: dict[str, Tensor]  # (B, N), True where the encoder saw nothing
    targets: dict[str, Tensor]  # (B, N, C * P * P), what `losses` compares with
    patch_size: int  # P

    def images(self, paste_visible: bool = False) -> dict[str, Tensor]:
        """Predictions as images, modality -> (B, C, H, W), in units of the target.

        Predictions at visible patches are untrained, because the loss never looks at them: with `paste_visible` the
        input stands there instead.
        """
        images = {}
        for name, patches in self.patches.items():
            if paste_visible:
                patches = torch.where(self.masks[name].unsqueeze(-1), patches, self.targets[name].to(patches.dtype))
            images[name] = unpatchify(patches, self.patch_size, patches.shape[-1] // self.patch_size**2)
        return images


class Decoder(nn.Module):
    """D_i of eq. 9: Linear to a small width, mask tokens and positions, a few blocks, Linear to pixels."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = Positions.of(config, width)
        self.blocks = nn.Sequential(*Blocks(config.decoder_depth, width, config.decoder_heads, config.mlp_ratio))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, channels * config.patch_size**2)

    def forward(self, latents: Tensor, index: Tensor) -> Tensor:
        """Latents (B, n, D) of the patches at `index` (B, n) -> predictions (B, N, C * P * P)."""
        visible = self.embed(latents)
        batch, _, width = visible.shape
        canvas = self.mask_token.to(visible.dtype).expand(batch, len(self.positions.table), width)
        tokens = canvas.scatter(1, index.unsqueeze(-1).expand(-1, -1, width), visible) + self.positions()
        return self.head(self.norm(self.blocks(tokens)))


class FusMAE(System):
    """A masked autoencoder that fuses sensors by cross-attention.

    ``config.fusion`` chooses the paper's variants: ``xae`` puts an XAttnEncoder in place of the first block (eq. 6),
    ``xad`` an XAttnDecoder before the decoders (eq. 10), ``both`` does both and ``none`` neither, which leaves the
    joint self-attention of MultiMAE.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        names, width, heads, ratio = config.modalities, config.width, config.heads, config.mlp_ratio
        early, late = config.fusion in ("xae", "both"), config.fusion in ("xad", "both")
        self.projections = nn.ModuleDict(
            {name: PatchProjection(count, width, config.patch_size) for name, count in config.channels.items()}
        )
        self.positions = Positions.of(config, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.xattn_encoder = XAttnEncoder(names, width, heads, ratio) if early else None
        self.blocks = Blocks(config.depth - int(early), width, heads, ratio, config.drop_path)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.xattn_decoder = XAttnDecoder(names, width, heads, ratio) if late else None
        self.decoders = nn.ModuleDict({name: Decoder(config, count) for name, count in config.channels.items()})
        initialise(self)

    @property
    def title(self) -> str:
        """``Fus-MAE XAE``, for example."""
        return "MultiMAE-style" if self.config.fusion == "none" else f"Fus-MAE {self.config.fusion.upper()}"

    def forward(
        self, images: Images, masks: Masks | None = None, generator: torch.Generator | None = None
    ) -> Reconstruction:
        """Mask, encode what is visible, reconstruct the rest.

        Args:
            images: modality -> (B, C, H, W), normalised; any non-empty subset of the configured modalities.
            masks: modality -> bool (B, N), True where hidden; drawn by ``config.masking`` if absent. Leave them on the
                CPU when the images are on a GPU: checking them there would make the processor wait for it.
            generator: CPU generator for that draw.
        """
        images = check_images(images, self, masks)
        drawn = masks if masks is not None else self.draw_for(images, generator)  # section 3.3
        visible = where_visible(images, drawn)

        tokens = self._project(images, visible)  # eq. 1
        z = self._append_cls((self.xattn_encoder or concatenate)(tokens))  # eqs. 2-6
        latents = self._split(self.norm(self.blocks(z)), tokens).tokens  # eqs. 7-8
        crossed = self.xattn_decoder(latents) if self.xattn_decoder else latents  # eqs. 10-11
        patches = {name: self.decoders[name](x, visible[name]) for name, x in crossed.items()}  # eq. 9

        targets = {name: self.target(image) for name, image in images.items()}
        hidden = {name: drawn[name].to(image.device, non_blocking=True) for name, image in images.items()}
        losses = {name: masked_mse(patches[name], targets[name], hidden[name]) for name in images}  # section 3.2
        return Reconstruction(sum(losses.values()), losses, patches, hidden, targets, self.config.patch_size)

    def encode(self, images: Images, masks: Masks | None = None) -> Latents:
        """Latents of the visible patches; of all patches without `masks`. Eqs. 1-8.

        A sensor that is missing contributes no tokens and nobody attends to it. Arguments as in :meth:`forward`.
        """
        tokens = self.embed(images, masks)
        z = self._append_cls((self.xattn_encoder or concatenate)(tokens))
        return self._split(self.norm(self.blocks(z)), tokens)

    def embed(self, images: Images, masks: Masks | None = None) -> dict[str, Tensor]:
        """Eq. 1 for each modality present: modality -> z_0,i (B, n_i, D), visible patches only."""
        images = check_images(images, self, masks)
        return self._project(images, where_visible(images, masks))

    @torch.no_grad()
    def attention_maps(self, images: Images, masks: Masks | None = None) -> dict[str, object]:
        """Every softmax of the encoder for these images.

        Returns:
            ``cross``: modality -> (B, H, n_i, n of the others), from XAttnEncoder (empty without one);
            ``decoder``: the same from XAttnDecoder (empty without one);
            ``self``: one (B, H, L, L) for each plain block, L = all patch tokens and CLS last;
            ``slices``: modality or ``cls`` -> slice of L.
        """
        tokens = self.embed(images, masks)
        slices, start = {}, 0
        for name, length in [*((name, x.shape[1]) for name, x in tokens.items()), ("cls", 1)]:
            slices[name] = slice(start, start + length)
            start += length
        z = self._append_cls((self.xattn_encoder or concatenate)(tokens))
        inputs = [z, *self.blocks.outputs(z)]
        normed = [block.norm1(x) for block, x in zip(self.blocks, inputs, strict=False)]
        latents = self._split(self.norm(inputs[-1]), tokens).tokens
        return {
            "cross": self.xattn_encoder.maps(tokens) if self.xattn_encoder else {},
            "decoder": self.xattn_decoder.maps(latents) if self.xattn_decoder else {},
            "self": [block.attn.map(x, x) for block, x in zip(self.blocks, normed, strict=True)],
            "slices": slices,
        }

    def _project(self, images: Images, visible: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Eq. 1 for checked images."""
        return {n: self.projections[n](x, visible[n]) + self.positions(visible[n]) for n, x in images.items()}

    def _append_cls(self, z: Tensor) -> Tensor:
        """z_0 of eq. 6: CLS comes last."""
        cls = self.cls_token.to(z.dtype).expand(z.shape[0], -1, -1)  # len(z) would freeze the batch of an ONNX export
        return torch.cat([z, cls], dim=1)

    def _split(self, z: Tensor, tokens: Mapping[str, Tensor]) -> Latents:
        """Eq. 8: z_N cut where the tokens were joined, CLS set aside."""
        parts = z[:, :-1].split([x.shape[1] for x in tokens.values()], dim=1)
        return Latents(dict(zip(tokens, parts, strict=True)), {"cls": z[:, -1]})


def where_visible(images: Images, masks: Masks | None) -> dict[str, Tensor | None]:
    """Positions of the visible patches of each sensor, (B, n) on its device; None without masks: all of them.

    Computed on the mask's own device: a mask on the CPU needs no answer from a GPU.
    """
    if masks is None:
        return dict.fromkeys(images)
    return {name: visible_indices(masks[name]).to(x.device, non_blocking=True) for name, x in images.items()}


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the masked patches only: (B, N, K), (B, N, K), (B, N) -> scalar (section 3.2)."""
    # bf16 predictions meet the target in the target's own precision: squares of small errors would underflow.
    error = (prediction.to(target.dtype) - target).square().mean(dim=-1)
    mask = mask.to(error.device, non_blocking=True)
    # A weighted mean, not error[mask]: picking would make a GPU report how many there are, and the processor wait.
    return (error * mask).sum() / mask.sum().clamp(min=1)

"""What every model here is, Fus-MAE and those it is compared with: a :class:`System`, and what it returns."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.model.blocks import Blocks
from fusmae_lite.model.masking import sample_masks
from fusmae_lite.model.tokens import patchify

Images = Mapping[str, Tensor]  # modality -> (B, C, H, W), normalised


@dataclass
class Latents:
    """z_N of eqs. 7-8, split by modality again, and vectors that stand for a whole sample."""

    tokens: dict[str, Tensor]  # (B, n_i, D), visible patches only; ``s1+s2`` where a token holds both sensors
    vectors: dict[str, Tensor] = field(default_factory=dict)  # pooling -> (B, F): ``cls``, or what a system offers

    @property
    def cls(self) -> Tensor:
        """The global token, (B, D)."""
        return self.pooled("cls")

    def pooled(self, how: str = "mean") -> Tensor:
        """One vector per sample, (B, F): the ``mean`` of all patch tokens, or one of `vectors`.

        ``sensors``: the mean of each sensor's tokens, side by side; ``moments``: their mean and deviation.
        """
        if how in self.vectors:
            return self.vectors[how]
        if how == "mean":
            return torch.cat(list(self.tokens.values()), dim=1).mean(dim=1)
        if how == "sensors":
            return torch.cat([tokens.mean(dim=1) for tokens in self.tokens.values()], dim=1)
        if how == "moments":
            both = [torch.std_mean(tokens, dim=1, correction=0) for tokens in self.tokens.values()]
            return torch.cat([part for std, mean in both for part in (mean, std)], dim=1)
        poolings = ", ".join(dict.fromkeys([*self.vectors, "mean", "sensors", "moments"]))
        raise InputError(f"unknown pooling {how!r} for this system", f"choose one of {poolings}")


@dataclass
class Losses:
    """What ``forward`` returns at least: the scalar to minimise, and the parts that a log shows, by name."""

    loss: Tensor
    losses: dict[str, Tensor]


class System(nn.Module):
    """A model as the training loop and the protocols of evaluation see it.

    A masked autoencoder defines ``encode`` and ``forward``; other methods override the rest. How to treat a missing
    sensor (leave its tokens out, fill in zeros) is a system's own choice.
    """

    #: What a table calls it.
    title: str = ""
    #: How its own method makes one vector of the tokens, see :meth:`Latents.pooled`.
    pooling = "mean"
    #: Whether it predicts pixels.
    reconstructs = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Keys of ``losses`` in what ``forward`` returns."""
        return self.config.modalities

    def encode(self, images: Images) -> Latents:
        """Latents of whole images."""
        raise NotImplementedError

    def draw(
        self, batch: int, generator: torch.Generator | None = None, config: ModelConfig | None = None
    ) -> dict[str, Tensor]:
        """The random part of a step, a row per sample: masks (B, N), as `config` wants them or the model's own."""
        c = config or self.config
        return sample_masks(c.masking, batch, c.tokens, c.kept, c.modalities, generator)

    def draw_for(self, images: Images, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Masks for the sensors of these images."""
        c, batch = self.config, next(iter(images.values())).shape[0]
        return sample_masks(c.masking, batch, c.tokens, c.kept, list(images), generator)

    def target(self, images: Tensor) -> Tensor:
        """What must be predicted for (B, C, H, W): its patches (B, N, C * P * P), each normalised if configured."""
        patches = patchify(images, self.config.patch_size)
        if self.config.normalize_target:
            mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
            patches = (patches - mean) / (var + 1e-6).sqrt()
        return patches

    def after_step(self, step: int, steps: int, reduce: Callable[[Tensor], Tensor]) -> None:
        """Called after optimiser step `step` of `steps`; `reduce` sums a tensor over processes."""

    def to_fine_tune(self) -> "System":
        """A trainable copy of the part that encodes."""
        return copy.deepcopy(self)

    def recompute(self, on: bool = True) -> None:
        """Keep only the input of each encoder block for the backward pass: less memory, a third more time."""
        for module in self.modules():
            if isinstance(module, Blocks):
                module.recompute = on

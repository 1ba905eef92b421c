"""DINO-MM: self-distillation over S1 and S2 stacked along the channels, with sensors dropped from views.

Sources: Wang, Albrecht, Zhu, "Self-supervised vision transformers for joint SAR-optical representation learning",
IGARSS 2022 [DINO-MM]; Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021 [DINO].
Nothing is masked or reconstructed: a student that sees any view of a pair must say what its teacher, a moving average
of itself, says of another, large view.

DINO-MM is a ViT-S/8: ``-p width=384 -p depth=12 -p heads=6``. By default it is as wide and deep as Fus-MAE, to be
compared at equal size. DINO's learning rate is 5e-4 x batch / 256: give it, ``-p learning_rate=7.8125e-4`` for the
paper preset's 400, because presets carry Fus-MAE's; DINO warms up for 10 epochs of 100.

The network sees, and the views are made of, images in the archive's own units (:meth:`Backbone.standardise`): zeros
stand for a dropped sensor, and in BigEarthNet's units they are four deviations off on an archive of low contrast. They
are all that a network sees then, two views of a pair have nothing in common, and training drifts to the uniform output.

Ours: one norm of all gradients is clipped (DINO clips tensor by tensor), the head's last layer is not frozen in the
first epoch, positions and CLS do not decay, the teacher's temperature is constant (DINO's default; its longer recipes
warm it up), and small models have small heads (:class:`Head`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.schedule import cosine
from fusmae_lite.model.blocks import initialise
from fusmae_lite.model.inputs import stack
from fusmae_lite.model.system import Images, Latents, Losses, System
from fusmae_lite.systems.stack import StackedViT, channels_of
from fusmae_lite.systems.views import draw_views, make_views

STUDENT_TEMPERATURE = 0.1
#: Share that a moving average over steps keeps once it has seen enough of them: the centre, and the bands' moments.
CENTRE_MOMENTUM, BAND_MOMENTUM = 0.9, 0.999
LEAST_SPREAD = 1e-2  # of a band, in normalised units; one that hardly varies is not blown up
#: Blocks whose CLS tokens DINO's linear evaluation joins; all of them in a shallower model.
LAST_BLOCKS = 4


class Backbone(StackedViT):
    """A ViT over stacked patches with a CLS token, for images of several sides."""

    title, pooling = "DINO-MM", "cls4"

    def __init__(self, config: ModelConfig, drop_path: float = 0.0) -> None:
        super().__init__(config, drop_path, Attention)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        #: Mean and mean square of each band in normalised units, as the training images have them.
        self.register_buffer("moments", torch.tensor([[0.0], [1.0]]).repeat(1, sum(config.channels.values())))
        initialise(self)

    def forward(self, stacked: Tensor, last: int = 1) -> list[Tensor]:
        """Outputs of the `last` blocks, each after the final norm, (B, 1 + (s / P)^2, D), CLS first.

        `stacked` (B, C, s, s) is standardised, see :meth:`standardise`.
        """
        z = self.projection(stacked) + self.positions_of(stacked.shape[-1] // self.config.patch_size)
        z = torch.cat([self.cls_token.to(z.dtype).expand(z.shape[0], -1, -1), z], dim=1)
        first = len(self.blocks) - last
        return [self.norm(output) for number, output in enumerate(self.blocks.outputs(z)) if number >= first]

    def positions_of(self, grid: int) -> Tensor:
        """(grid^2, D): the table of the whole image, brought to fewer patches bicubically, as DINO does."""
        table, side = self.positions(), self.config.grid
        if grid == side:
            return table
        square = table.view(1, side, side, -1).permute(0, 3, 1, 2)
        return F.interpolate(square, (grid, grid), mode="bicubic", align_corners=False).flatten(2)[0].T

    def standardise(self, stacked: Tensor, sensors: Sequence[str]) -> Tensor:
        """Normalised (B, C, H, W) in the units of the training images, each band with mean 0 and deviation 1.

        Bands of other sensors than these become 0.
        """
        mean, spread = self.band_scale()
        present = torch.zeros_like(spread)
        present[channels_of(self.config, sensors)] = 1.0
        return (stacked - mean[:, None, None]) * (present / spread)[:, None, None]

    def projection_of(self, sensors: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Kernel and bias for images that nobody standardises."""
        mean, spread = (x[channels_of(self.config, sensors), None, None] for x in self.band_scale())
        kernel, bias = super().projection_of(sensors)
        return kernel / spread, bias - (kernel / spread * mean).sum(dim=(1, 2, 3))

    def band_scale(self) -> tuple[Tensor, Tensor]:
        """(C,) mean and (C,) deviation of each band of the training images; 0 and 1 before the first step."""
        mean, square = self.moments
        return mean, (square - mean.square()).clamp(min=LEAST_SPREAD**2).sqrt()

    def encode(self, images: Images) -> Latents:
        """Patch tokens of whole images; ``cls4`` joins CLS of the last four blocks, as DINO does.

        A sensor that is missing has the mean of each band, as in training.
        """
        outputs = self(self.standardise(stack(images, self), tuple(images)), LAST_BLOCKS)
        each = [z[:, 0] for z in outputs]
        return Latents({self.name: outputs[-1][:, 1:]}, {"cls4": torch.cat(each, dim=1), "cls": each[-1]})


class Head(nn.Module):
    """DINO's projection head: a 3-layer MLP to 256 numbers, scaled to length 1, and K weight-normalised outputs.

    K is ``config.head_outputs``. At 0 it follows the size: DINO's 65,536 and hidden 2,048 from ViT-S (width 384) on,
    below that 8 x width and 4 x width. The last layer's rows have length 1 throughout (DINO's ``norm_last_layer``).
    """

    def __init__(self, config: ModelConfig, bottleneck: int = 256) -> None:
        super().__init__()
        width, large = config.width, config.width >= 384
        hidden = 2048 if large else 4 * width
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last = nn.Parameter(torch.empty(config.head_outputs or (65536 if large else 8 * width), bottleneck))
        for module in self.mlp[::2]:
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        nn.init.normal_(self.last)  # only directions count

    def forward(self, cls: Tensor) -> Tensor:
        """(B, D) -> (B, K), each a cosine."""
        return F.linear(F.normalize(self.mlp(cls), dim=-1), F.normalize(self.last, dim=-1))


class Branch(nn.Module):
    """Backbone and head: the student, or the teacher."""

    def __init__(self, config: ModelConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(config, drop_path), Head(config)

    def forward(self, views: Tensor) -> Tensor:
        """Views of one side, (B, V, C, s, s) -> (B, V, K)."""
        return self.head(self.backbone(views.flatten(0, 1))[0][:, 0]).unflatten(0, views.shape[:2])


class DINO(System):
    """Student, teacher and centre; what is evaluated is the teacher's backbone."""

    title, pooling, reconstructs = Backbone.title, Backbone.pooling, False
    loss_names = ("entropy", "kl")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.student, self.teacher = Branch(config, config.drop_path), Branch(config)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(len(self.student.head.last)))
        self._said: Tensor | None = None  # sums over this step's images, see forward; the last is how many they are

    def draw(
        self, batch: int, generator: torch.Generator | None = None, config: ModelConfig | None = None
    ) -> dict[str, Tensor]:
        """The views of a whole batch, a row per sample; see :func:`~fusmae_lite.systems.views.draw_views`."""
        return draw_views(self.config, batch, generator)

    def forward(
        self, images: Images, drawn: Mapping[str, Tensor] | None = None, generator: torch.Generator | None = None
    ) -> Losses:
        """Make views, let the student see all and the teacher the global ones, compare.

        Args:
            images: modality -> (B, C, H, W), normalised.
            drawn: what :meth:`draw` gave, for these rows; drawn here if absent.
            generator: CPU generator for that draw.
        """
        stacked = stack(images, self)
        drawn = self.draw(len(stacked), generator) if drawn is None else drawn
        views = make_views(self.teacher.backbone.standardise(stacked, tuple(images)), drawn, self.config)
        student = torch.cat([self.student(part) for part in views], dim=1).float()
        with torch.no_grad():
            teacher = self.teacher(views[0]).float()
        if self.training:
            pixels = stacked.float()
            moments = torch.cat([pixels.mean(dim=(2, 3)), pixels.square().mean(dim=(2, 3))], dim=1)
            said = torch.cat([teacher.mean(dim=1), moments, moments.new_ones(len(moments), 1)], dim=1).sum(dim=0)
            self._said = said if self._said is None else self._said + said
        return distil(student, teacher, self.centre, self.config.teacher_temperature)

    @torch.no_grad()
    def after_step(self, step: int, steps: int, reduce: Callable[[Tensor], Tensor]) -> None:
        """Move the teacher towards the student, the centre and the bands' moments towards the means of this step.

        Both averages are those of all steps at first. (DINO's centre starts at 0 and keeps 0.9 of it from the first
        step on: for ten steps the loss is that of what all outputs have in common, far too low, then it jumps.)
        """
        momentum = momentum_at(step, steps, self.config.teacher_momentum)
        for kept, learned in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            kept.mul_(momentum).add_(learned, alpha=1 - momentum)
        assert self._said is not None  # a step has run the model
        said, self._said = reduce(self._said), None
        outputs = len(self.centre)
        means = said[:-1] / said[-1]
        self.centre.lerp_(means[:outputs], 1 - min(CENTRE_MOMENTUM, step / (step + 1)))
        for backbone in (self.student.backbone, self.teacher.backbone):
            backbone.moments.lerp_(means[outputs:].view(2, -1), 1 - min(BAND_MOMENTUM, step / (step + 1)))

    def encode(self, images: Images) -> Latents:
        """Latents of whole images by the teacher, which DINO evaluates."""
        return self.teacher.backbone.encode(images)

    def to_fine_tune(self) -> Backbone:
        """A trainable copy of the teacher's backbone: no student, no head."""
        backbone = copy.deepcopy(self.teacher.backbone)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name != "positions.table" or self.config.positions == "learned")
        return backbone


def distil(student: Tensor, teacher: Tensor, centre: Tensor, temperature: float) -> Losses:
    """DINO's loss (its eqs. 1-3 and algorithm 1): the student on every view against the teacher on every other one.

    Args:
        student: (B, V, K), global views first.
        teacher: (B, G, K), the same global views.
        centre: (K,), taken off the teacher's outputs against collapse to one of them.
        temperature: the teacher's; the student's is 0.1.

    Returns:
        their cross-entropy, and its two parts: ``entropy`` of the teacher and ``kl``, divergence of the student from it
        (DINO, section 5.3). An entropy of log K is collapse to the uniform, one of 0 collapse to one output.
    """
    (batch, views), n_global = student.shape[:2], teacher.shape[1]
    log_p = F.log_softmax((teacher - centre) / temperature, dim=-1)
    log_q = F.log_softmax(student / STUDENT_TEMPERATURE, dim=-1)
    p = log_p.exp()
    cross = -torch.einsum("bgk,bvk->gv", p, log_q) / batch
    other = 1 - torch.eye(n_global, views, device=cross.device)
    loss = (cross * other).sum() / (n_global * (views - 1))
    entropy = -(p * log_p).sum(dim=-1).mean()
    return Losses(loss, {"entropy": entropy, "kl": loss.detach() - entropy})


def momentum_at(step: int, steps: int, start: float) -> float:
    """Share of itself that the teacher keeps after optimiser step `step` of `steps`: a cosine from `start` to 1."""
    return 1 - (1 - start) * cosine(step / steps)

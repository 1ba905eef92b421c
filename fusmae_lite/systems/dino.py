"""DINO-MM: self-distillation over S1 and S2 stacked along the channels, with sensors dropped from views.

Sources: Wang, Albrecht, Zhu, "Self-supervised vision transformers for joint SAR-optical representation learning",
IGARSS 2022 [DINO-MM]; Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021 [DINO].
A student that sees any view of a pair must say what its teacher, a moving average of itself, says of a large one.

DINO-MM is a ViT-S/8: ``-p width=384 -p depth=12 -p heads=6``; by default it is as large as Fus-MAE. DINO's learning
rate is 5e-4 x batch / 256, with 10 epochs of warm-up; presets carry Fus-MAE's.

Ours: images are first brought to the archive's own units, because the zeros of a dropped sensor may lie four deviations
off in BigEarthNet's, and training drifts to the uniform output; one norm of all gradients is clipped; the head's last
layer is not frozen in the first epoch; positions and CLS do not decay; the teacher's temperature is constant.
"""

import copy
from collections import deque
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from timm.layers import Attention, resample_abs_pos_embed
from torch import Generator, Tensor, nn

from fusmae_lite.core.architecture import DinoConfig, ModelConfig
from fusmae_lite.core.schedule import cosine
from fusmae_lite.model.blocks import initialise
from fusmae_lite.model.inputs import stack
from fusmae_lite.model.system import Images, Latents, Losses, System
from fusmae_lite.systems.masked import StackedViT
from fusmae_lite.systems.views import Drawn, draw_views, make_views

STUDENT_TEMPERATURE = 0.1
#: Share that a moving average over steps keeps once it has seen enough of them: the centre, and the bands' moments.
CENTRE_MOMENTUM, BAND_MOMENTUM = 0.9, 0.999
LEAST_SPREAD = 1e-2  # of a band, in normalised units; one that hardly varies is not blown up
LAST_BLOCKS = 4  # whose CLS tokens DINO's linear evaluation joins; all of them in a shallower model


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
        """Standardised (B, C, s, s) -> the `last` blocks' outputs after the final norm, (B, 1 + N, D), CLS first."""
        z = self.projection(stacked) + self.positions_of(stacked.shape[-1] // self.config.patch_size)
        z = torch.cat([self.cls_token.to(z.dtype).expand(z.shape[0], -1, -1), z], dim=1)
        return [self.norm(output) for output in deque(self.blocks.outputs(z), maxlen=last)]

    def positions_of(self, grid: int) -> Tensor:
        """(1, grid^2, D): the table of the whole image, brought to fewer patches bicubically, as DINO does."""
        return resample_abs_pos_embed(self.positions()[None], [grid, grid], num_prefix_tokens=0, antialias=False)

    def standardise(self, stacked: Tensor, sensors: Sequence[str]) -> Tensor:
        """Normalised (B, C, H, W) with mean 0 and deviation 1 in each band of the training images, 0 in others."""
        mean, spread = self.band_scale()
        present = torch.zeros_like(spread)
        present[self.channels_of(sensors)] = 1.0
        return (stacked - mean[:, None, None]) * (present / spread)[:, None, None]

    def projection_of(self, sensors: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Kernel and bias for images that are not standardised."""
        mean, spread = (x[self.channels_of(sensors), None, None] for x in self.band_scale())
        kernel, bias = super().projection_of(sensors)
        return kernel / spread, bias - (kernel / spread * mean).sum(dim=(1, 2, 3))

    def band_scale(self) -> tuple[Tensor, Tensor]:
        """(C,) mean and (C,) deviation of each band of the training images; 0 and 1 before the first step."""
        mean, square = self.moments
        return mean, (square - mean.square()).clamp(min=LEAST_SPREAD**2).sqrt()

    def encode(self, images: Images) -> Latents:
        """Patch tokens and ``cls4``, CLS of the last four blocks; a sensor that is missing has each band's mean."""
        outputs = self(self.standardise(stack(images, self), tuple(images)), LAST_BLOCKS)
        each = [z[:, 0] for z in outputs]
        return Latents({self.name: outputs[-1][:, 1:]}, {"cls4": torch.cat(each, dim=1), "cls": each[-1]})


class Head(nn.Module):
    """DINO's projection head: a 3-layer MLP to 256 numbers, scaled to length 1, and K weight-normalised outputs.

    K is ``config.head_outputs``, or follows the size: DINO's from ViT-S (width 384) on, smaller below.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        width = config.width
        hidden, outputs = (2048, 65536) if width >= 384 else (4 * width, 8 * width)
        layers = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 256)
        self.mlp = nn.Sequential(*layers)
        self.last = nn.Parameter(torch.empty(config.head_outputs or outputs, 256))
        for module in self.mlp[::2]:
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        nn.init.normal_(self.last)  # only directions count

    def forward(self, cls: Tensor) -> Tensor:
        """(B, D) -> (B, K), each a cosine."""
        return F.linear(F.normalize(self.mlp(cls), dim=-1), F.normalize(self.last, dim=-1))


class Branch(nn.Module):
    """Backbone and head: the student, or the teacher."""

    def __init__(self, config: DinoConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(config, drop_path), Head(config)

    def forward(self, views: Tensor) -> Tensor:
        """Views of one side, (B, V, C, s, s) -> (B, V, K)."""
        return self.head(self.backbone(views.flatten(0, 1))[0][:, 0]).unflatten(0, views.shape[:2])


class DINO(System):
    """Student, teacher and centre; what is evaluated is the teacher's backbone."""

    title, pooling, reconstructs = Backbone.title, Backbone.pooling, False
    loss_names = ("entropy", "kl")

    def __init__(self, config: DinoConfig) -> None:
        super().__init__(config)
        self.student, self.teacher = Branch(config, config.drop_path), Branch(config)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(len(self.student.head.last)))
        self._sums: Tensor | None = None  # over this step's images: teacher's outputs, bands' moments, how many

    def draw(self, batch: int, generator: Generator | None = None, config: ModelConfig | None = None) -> Drawn:
        """The views of a whole batch, a row per sample."""
        return draw_views(self.config, batch, generator)

    def forward(self, images: Images, drawn: Drawn | None = None, generator: Generator | None = None) -> Losses:
        """The student on all views, against the teacher on the global ones; `drawn` as :meth:`draw` gave it."""
        stacked = stack(images, self)
        drawn = self.draw(len(stacked), generator) if drawn is None else drawn
        views = make_views(self.teacher.backbone.standardise(stacked, tuple(images)), drawn, self.config)
        student = torch.cat([self.student(part) for part in views], dim=1).float()
        with torch.no_grad():
            teacher = self.teacher(views[0]).float()
        if self.training:
            pixels = stacked.float()
            moments = [pixels.mean(dim=(2, 3)), pixels.square().mean(dim=(2, 3))]
            sums = torch.cat([teacher.mean(dim=1), *moments, pixels.new_ones(len(pixels), 1)], dim=1).sum(dim=0)
            self._sums = sums if self._sums is None else self._sums + sums
        return distil(student, teacher, self.centre, self.config.teacher_temperature)

    @torch.no_grad()
    def after_step(self, step: int, steps: int, reduce: Callable[[Tensor], Tensor]) -> None:
        """Move the teacher towards the student, the centre and the bands' moments towards the means of this step.

        Centre and moments are at first averages of all steps. (DINO's centre starts at 0, and for ten steps the loss
        is that of what all outputs have in common.)
        """
        momentum = 1 - (1 - self.config.teacher_momentum) * cosine(step / steps)
        for kept, learned in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            kept.mul_(momentum).add_(learned, alpha=1 - momentum)
        assert self._sums is not None  # a step has run the model
        sums, self._sums = reduce(self._sums), None
        centre, moments = (sums[:-1] / sums[-1]).tensor_split([len(self.centre)])
        self.centre.lerp_(centre, 1 - min(CENTRE_MOMENTUM, step / (step + 1)))
        for backbone in (self.student.backbone, self.teacher.backbone):
            backbone.moments.lerp_(moments.view(2, -1), 1 - min(BAND_MOMENTUM, step / (step + 1)))

    def encode(self, images: Images) -> Latents:
        """Latents of whole images by the teacher, which DINO evaluates."""
        return self.teacher.backbone.encode(images)

    def to_fine_tune(self) -> Backbone:
        """A trainable copy of the teacher's backbone: no student, no head."""
        backbone = copy.deepcopy(self.teacher.backbone).requires_grad_(True)
        backbone.positions.requires_grad_(self.config.positions == "learned")
        return backbone


def distil(student: Tensor, teacher: Tensor, centre: Tensor, temperature: float) -> Losses:
    """Cross-entropy of the student (B, V, K) on every view and the teacher (B, G, K) on every other, global, one.

    DINO's eqs. 1-3, algorithm 1. `centre` (K,) is taken off the teacher's outputs against collapse to one of them. The
    parts are the teacher's ``entropy`` (log K: collapse to the uniform; 0: to one output) and the student's ``kl``.
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

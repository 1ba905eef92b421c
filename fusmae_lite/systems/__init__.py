"""The systems Fus-MAE is compared with, all behind :class:`Encoder`: late fusion, SatViT, DINO-MM, ImageNet."""

from fusmae_lite.systems.dino import DINO
from fusmae_lite.systems.encoder import Encoder, Pooled, draw_step, loss_names, pooling_of, system_title
from fusmae_lite.systems.imagenet import ImageNetViT, imagenet_encoder
from fusmae_lite.systems.late import LateFusion
from fusmae_lite.systems.registry import build_model
from fusmae_lite.systems.satvit import SatViT

__all__ = [
    "DINO", "Encoder", "ImageNetViT", "LateFusion", "Pooled", "SatViT", "build_model", "draw_step", "imagenet_encoder",
    "loss_names", "pooling_of", "system_title",
]  # fmt: skip

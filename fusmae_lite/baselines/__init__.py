"""The systems Fus-MAE is compared with, all behind :class:`Encoder`: late fusion, SatViT, ImageNet."""

from fusmae_lite.baselines.encoder import Encoder, Pooled, system_title
from fusmae_lite.baselines.imagenet import ImageNetViT, imagenet_encoder
from fusmae_lite.baselines.late import LateFusion
from fusmae_lite.baselines.registry import build_model
from fusmae_lite.baselines.satvit import SatViT

__all__ = [
    "Encoder", "ImageNetViT", "LateFusion", "Pooled", "SatViT", "build_model", "imagenet_encoder", "system_title",
]  # fmt: skip

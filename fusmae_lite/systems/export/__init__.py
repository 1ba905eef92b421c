"""Encoders for other people's code: timm's VisionTransformer, and ONNX.

What leaves takes images as ``core/sensors.py`` says: bands in that order, in those units, minus the mean, over
the deviation. Order and statistics lie in the metadata of every file written here.
"""

from fusmae_lite.systems.export.to_onnx import to_onnx
from fusmae_lite.systems.export.to_timm import save_timm, to_timm

__all__ = ["save_timm", "to_onnx", "to_timm"]

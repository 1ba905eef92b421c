"""Synthetic archives of any size with known properties, always labelled as synthetic. See :func:`synthesise`."""

from __future__ import annotations

from fusmae_lite.archives.base import is_synthetic
from fusmae_lite.synthetic.scene import Scenes, SyntheticPair
from fusmae_lite.synthetic.truth import Truth, read_truth
from fusmae_lite.synthetic.write import synthesise

__all__ = ["Scenes", "SyntheticPair", "Truth", "is_synthetic", "read_truth", "synthesise"]

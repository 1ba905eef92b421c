"""Synthetic archives of any size with known properties, always labelled as synthetic. See :func:`synthesise`."""

from fusmae_lite.data.archives.base import is_synthetic
from fusmae_lite.data.synthetic.scene import Scenes, SyntheticPair
from fusmae_lite.data.synthetic.truth import Truth, read_truth
from fusmae_lite.data.synthetic.write import synthesise

__all__ = ["Scenes", "SyntheticPair", "Truth", "is_synthetic", "read_truth", "synthesise"]

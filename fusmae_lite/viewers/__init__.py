"""Viewers to play with in a notebook: controls on top, one picture below, and what it shows in words.

    from fusmae_lite.viewers import ReconstructionViewer
    ReconstructionViewer()

Controls only choose a state; pure functions draw it (:mod:`fusmae_lite.panels`, :mod:`fusmae_lite.pictures`). Where no
kernel runs, a stored viewer is its last picture. Each works by mouse and by keyboard.
"""

from __future__ import annotations

from fusmae_lite.viewers.attention import AttentionViewer
from fusmae_lite.viewers.mask import MaskViewer
from fusmae_lite.viewers.patch import PatchViewer
from fusmae_lite.viewers.reconstruction import ReconstructionViewer
from fusmae_lite.viewers.training import TrainingMonitor

__all__ = ["AttentionViewer", "MaskViewer", "PatchViewer", "ReconstructionViewer", "TrainingMonitor"]

"""Viewers to play with in a notebook: controls on top, one picture below, and what it shows in words.

    from fusmae_lite.show.viewers import ReconstructionViewer
    ReconstructionViewer()

Controls only choose a state; pure functions draw it. Where no kernel runs, a stored viewer is its last picture. Each
works by mouse and by keyboard.
"""

from __future__ import annotations

from fusmae_lite.show.viewers.attention import AttentionViewer
from fusmae_lite.show.viewers.mask import MaskViewer
from fusmae_lite.show.viewers.patch import PatchViewer
from fusmae_lite.show.viewers.reconstruction import ReconstructionViewer
from fusmae_lite.show.viewers.training import TrainingMonitor

__all__ = ["AttentionViewer", "MaskViewer", "PatchViewer", "ReconstructionViewer", "TrainingMonitor"]

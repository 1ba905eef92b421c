"""Viewers to play with in a notebook: controls on top, panels below, and what they show in words.

Each works by mouse and by keyboard; where no kernel runs, a stored viewer is its last picture. They open `archive` (an
archive or its folder; the bundled patches if absent) at row `pair`, or the first held-out one; bad input raises
InputError.
"""

from fusmae_lite.show.viewers.attention import AttentionViewer
from fusmae_lite.show.viewers.patch import PatchViewer
from fusmae_lite.show.viewers.reconstruction import ReconstructionViewer
from fusmae_lite.show.viewers.search import SearchViewer
from fusmae_lite.show.viewers.training import TrainingMonitor

__all__ = ["AttentionViewer", "PatchViewer", "ReconstructionViewer", "SearchViewer", "TrainingMonitor"]

"""The curve that learning rates, weight decay and a teacher's momentum follow."""

import math


def cosine(share: float) -> float:
    """Half a cosine from 1 where nothing is done (share 0) to 0 where all is (share 1, and beyond)."""
    return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

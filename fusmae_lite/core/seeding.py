"""Randomness that depends on where a run is, not on how it got there: what makes resuming exact."""

import numpy as np
import torch

#: One stream for each kind of choice, so that a change in one leaves the others as they were.
STREAMS = {
    "order": 0, "masks": 1, "augment": 2, "dropout": 3, "initialise": 4, "validate": 5, "probe": 6, "jitter": 7,
    "sensors": 8, "scenes": 9,
}  # fmt: skip


def derive(stream: str, *counters: int) -> int:
    """A seed from a stream and counters such as (seed, step); distinct arguments give unrelated seeds."""
    return int(np.random.SeedSequence([STREAMS[stream], *counters]).generate_state(1, np.uint64)[0] >> 1)


def generator(stream: str, *counters: int) -> torch.Generator:
    """A CPU generator seeded by :func:`derive`."""
    return torch.Generator().manual_seed(derive(stream, *counters))

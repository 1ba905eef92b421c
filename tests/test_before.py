"""Files written before the rooms were built still open: a checkpoint, an LMDB, and the weights that ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusmae_lite import PairDataset, load_pretrained, open_archive

BEFORE = Path(__file__).parent / "before"


def test_an_lmdb_of_before_holds_the_bundled_pairs():
    lmdb, bundled = open_archive(BEFORE / "lmdb"), open_archive()
    rows = [bundled.names.index(name) for name in lmdb.names]
    for row, item in zip(rows, PairDataset(lmdb), strict=True):
        expected = PairDataset(bundled)[row]
        assert all(torch.equal(item["images"][m], expected["images"][m]) for m in ("s1", "s2"))
        assert (lmdb.labels == bundled.labels[rows]).all()


def test_a_checkpoint_of_before_gives_the_same_latents():
    model = load_pretrained(BEFORE / "checkpoint" / "model.safetensors").eval()
    images = {m: image[None] for m, image in PairDataset(open_archive(BEFORE / "lmdb"))[0]["images"].items()}
    with torch.no_grad():
        latents = model.encode(images)
    assert latents.tokens["s1"].mean().item() == pytest.approx(-0.000266, abs=1e-5)
    assert latents.tokens["s2"][0, 7, 3].item() == pytest.approx(0.99185, abs=1e-4)

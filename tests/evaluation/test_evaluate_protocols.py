"""`evaluate` by both protocols of Table 1 and on an archive with one class a patch, for systems that pool otherwise."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.synthetic import synthesise
from fusmae_lite.evaluation import as_markdown, evaluate
from fusmae_lite.systems import build_model
from fusmae_lite.systems.tensors import read_tensors
from fusmae_lite.systems.weights import save_model


def prepared(folder, system: str = "fusmae", **changes) -> tuple[RunConfig, object]:
    """A configuration of a tiny system, and a file with its untrained weights."""
    config = load_preset("smoke", system=system, run_dir=str(folder), **{**TINY, "image_size": 48, **changes})
    torch.manual_seed(0)
    save_model(folder / "model.safetensors", build_model(config))
    return config, folder / "model.safetensors"


def test_fine_tuning_fills_the_left_half(tmp_path, archive):
    config, weights = prepared(tmp_path, protocol="finetune", finetune_epochs=1, finetune_batch_size=15)
    rows = evaluate(config, archive, weights)
    assert rows.system[1:4].tolist() == ["band statistics", "supervised from scratch", "Fus-MAE XAE"]
    assert all(
        0 < r.low <= r.micro <= r.high <= 1 and (r.train, r.test, r.seeds) == (45, 18, 2) for r in rows[1:].itertuples()
    )
    assert "| supervised from scratch | S1+S2 |" in (tmp_path / "evaluation" / "table-finetune.md").read_text()


def test_one_class_a_patch_gives_the_columns_of_table_2(tmp_path, archive):
    root = synthesise(tmp_path / "sen12ms", 40, format="sen12ms", seed=3)
    config, weights = prepared(tmp_path, system="dino", local_crops=2, head_outputs=16)
    rows = evaluate(config, open_archive(root), weights)
    assert rows.system.tolist() == ["band statistics", "random encoder", "DINO-MM"] * 2
    assert rows.sensors.tolist() == ["S1"] * 3 + ["S2"] * 3
    assert all(r.recall == pytest.approx(r.top1) and r.top1 <= r.top3 <= 1 for r in rows.itertuples())
    assert "Top-3" in as_markdown(rows)
    with pytest.raises(InputError, match="protocol=linear"):
        evaluate(config.model_copy(update={"protocol": "finetune"}), open_archive(root), weights)


def test_each_system_pools_as_its_method_does(tmp_path, archive):
    """DINO-MM's features are its four last CLS tokens: a probe on them is as wide as that."""
    config, weights = prepared(tmp_path, system="dino", local_crops=2, head_outputs=16, depth=3)
    rows = evaluate(config, archive, weights)
    assert rows.system[rows.sensors == "S2"].tolist() == ["band statistics", "random encoder", "DINO-MM"]
    widths = {read_tensors(path)[0]["x"].shape[1] for path in (tmp_path / "evaluation" / "features").iterdir()}
    assert widths == {3 * config.width, 4, 24, 28}, "and band statistics of S1, of S2 and of both"

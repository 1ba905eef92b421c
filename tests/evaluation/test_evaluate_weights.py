"""Evaluation scores the weights that were asked for, says which those are, and refuses whatever contradicts them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY
from small_archives import refused

import fusmae_lite
from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.sensors import Modality, register
from fusmae_lite.course.cli import main
from fusmae_lite.evaluation import as_markdown, evaluate, find_weights
from fusmae_lite.evaluation.chosen import choose_weights
from fusmae_lite.evaluation.table import sensor_sets, write_table
from fusmae_lite.systems import build_model
from fusmae_lite.systems.weights import digest_of, save_model, shipped_weights

SMALL = {**TINY, "image_size": 48, "probe_seeds": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with a checkpoint of an untrained model."""
    folder = tmp_path_factory.mktemp("run")
    config = load_preset("smoke", **{**SMALL, "fusion": "xad"})
    checkpoint = folder / "pretrain" / "checkpoints" / "step-00000007"
    torch.manual_seed(0)
    save_model(checkpoint / "model.safetensors", build_model(config))
    (checkpoint / "state.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return folder


def of(folder: Path, **given) -> RunConfig:
    return load_preset("smoke", run_dir=str(folder), **given)


def test_a_run_without_a_checkpoint_is_refused_and_nothing_is_scored_in_its_place(tmp_path, archive, capsys):
    refused(lambda: evaluate(of(tmp_path / "mistyped"), archive), "no checkpoint", tmp_path / "mistyped", "--weights")
    assert main(["evaluate", "-p", f"run_dir={tmp_path / 'mistyped'}", "-p", "fusion=xad"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no checkpoint in ") and error.count("\n") == 1 and "xae-lite" in error
    assert not (tmp_path / "mistyped").exists()
    assert find_weights(of(tmp_path), otherwise="xae-lite") == shipped_weights()["xae-lite"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("fusion", "xae"), ("image_size", 240), ("patch_size", 12), ("width", 32), ("depth", 3), ("mask_ratio", 0.5),
     ("masking", "consistent"), ("system", "satvit"), ("epochs", 9), ("learning_rate", 1e-5)],
)  # fmt: skip
def test_a_given_field_that_contradicts_the_weights_is_refused(run, field, value):
    now = value if isinstance(value, int | float) else repr(value)
    refused(lambda: choose_weights(of(run, **{field: value})), f"weights are of {field}", f"not {now}", "step-00000007")


def test_what_was_not_given_or_agrees_or_is_evaluations_own_passes(run):
    for given in ({}, {"fusion": "xad", "width": 16, "epochs": 3}, {"seed": 5, "probe_epochs": 2, "augment": "none"}):
        assert choose_weights(of(run, **given)).name == "pretrain/checkpoints/step-00000007"
    assert choose_weights(load_preset("paper"), "xae-lite").model.config.width != 768, "the preset's width is no wish"
    refused(
        lambda: choose_weights(load_preset("paper", width=768), "xae-lite"),
        "xae-lite: the weights are of width",
        "not 768",
    )


def test_weights_are_found_by_name_file_checkpoint_and_run(run, tmp_path):
    checkpoint = run / "pretrain" / "checkpoints" / "step-00000007"
    digests = {
        choose_weights(of(tmp_path), place).digest
        for place in (run, str(run), run / "pretrain" / "checkpoints", checkpoint, checkpoint / "model.safetensors")
    }
    assert len(digests) == 1
    assert choose_weights(of(tmp_path), "xad-lite").model.config.fusion == "xad"
    refused(lambda: choose_weights(of(tmp_path), "xae-light"), "model 'xae-light'", "did you mean 'xae-lite'?")
    refused(lambda: choose_weights(of(tmp_path), tmp_path / "run"), f"{tmp_path / 'run'}", "xad-lite, xae-lite")
    refused(lambda: choose_weights(of(tmp_path), tmp_path), f"no checkpoint in {tmp_path}")


def test_the_digest_follows_every_tensor(run):
    chosen = choose_weights(of(run))
    assert chosen.digest == digest_of(chosen.model.state_dict()) == choose_weights(of(run)).digest
    with torch.no_grad():
        next(iter(chosen.model.decoders.parameters())).flatten()[-1] += 1e-3
    assert digest_of(chosen.model.state_dict()) != chosen.digest


def test_some_sensors_of_the_weights_are_scored_alone(run, archive, tmp_path):
    config = of(run, modalities="s1", **{key: SMALL[key] for key in ("probe_epochs", "probe_seeds", "cache", "device")})
    rows = evaluate(config, archive)
    assert set(rows.sensors) == {"none", "S1"}
    one = of(tmp_path, **{**SMALL, "modalities": "s1", "fusion": "none"})
    save_model(tmp_path / "s1.safetensors", build_model(one))
    refused(
        lambda: choose_weights(of(tmp_path, modalities="s1,s2"), tmp_path / "s1.safetensors"), "modalities", "s1,s2"
    )


def test_the_table_says_what_it_rests_on(run, archive):
    config = of(run, **{**SMALL, "fusion": "xad"}, label_fraction=0.6)
    table = evaluate(config, archive)
    folder, digest = run / "evaluation", choose_weights(config).digest
    kept = json.loads((folder / "table-linear.json").read_text())
    wanted = {
        "weights": "pretrain/checkpoints/step-00000007", "fusion": "xad", "digest": digest, "protocol": "linear",
        "archive": "BigEarthNet-MM v1, data_samples", "label_fraction": 0.6, "version": fusmae_lite.__version__,
    }  # fmt: skip
    assert {key: kept[key] for key in wanted} == wanted and len(kept["rows"]) == len(table) == 10
    with open(folder / "table-linear.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and all(row[key] == str(value) for row in rows for key, value in wanted.items())
    text = (folder / "table-linear.md").read_text()
    assert text == as_markdown(table) and "60 % of the training labels" in text
    assert all(part in text.splitlines()[-1] for part in (digest, "fusion xad", "data_samples", "step-00000007"))
    assert "95 % interval of micro, over test patches and seeds" in text.splitlines()[0]
    for row in table.itertuples():
        assert row.low <= row.micro <= row.high and row.macro_low <= row.macro <= row.macro_high
        assert f"{100 * row.macro_low:.1f} - {100 * row.macro_high:.1f}" in text


def test_protocols_do_not_overwrite_each_other(tmp_path):
    table = pd.DataFrame([{"system": "x", "sensors": "S1", "micro": 0.5, "low": 0.4, "high": 0.6}])
    for protocol in ("linear", "finetune"):
        table.attrs = dict.fromkeys(("weights", "fusion", "digest", "archive", "version"), "x")
        table.attrs |= {"protocol": protocol, "label_fraction": 1.0}
        write_table(table, tmp_path)
    names = {f"table-{protocol}.{end}" for protocol in ("linear", "finetune") for end in ("json", "md", "csv")}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_third_sensor_has_its_columns_and_its_choices():
    from fusmae_lite.show.viewers.reconstruction import cross_choices, draw_masks

    register(Modality("dem", "Elevation", ("height",), (10,), "m", "float32", (200.0,), (100.0,)))
    names = ("s1", "s2", "dem")
    assert sensor_sets(names) == [("s1",), ("s2",), ("dem",), names] and sensor_sets(("s1",)) == [("s1",)]
    config = load_preset("smoke", modalities=names, patch_size=24).architecture()
    masks = draw_masks(config, "independent", 75, 0, "DEM hidden but one patch")
    assert {name: int((~mask).sum()) for name, mask in masks.items()} == {"s1": 6, "s2": 6, "dem": 1}
    assert list(draw_masks(config, "independent", 75, 0, "DEM encoded alone")) == ["dem"]
    assert len(cross_choices(names)) == 10
    refused(lambda: draw_masks(config, "independent", 75, 0, "S9 encoded alone"), "S9 encoded alone", "DEM encoded")

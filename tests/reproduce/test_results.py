"""The results: cells with known answers, honest comparisons, and the whole way from a plan to a page on a tiny plan."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.course.cli import main
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.systems.weights import save_tensors
from reproduce import load_plan, paper, run_results, tables
from reproduce.page import fill
from reproduce.plan import PLANS, SYSTEMS
from reproduce.scores import Scores

CELL = tables.cell_key("linear", tables.BOTH)


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return (torch.rand(120, 19, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def keep(folder: Path, key: str, seed: int, labels: torch.Tensor, scores: torch.Tensor) -> None:
    """A finished track with one cell."""
    save_tensors(folder / f"made-{key}-seed{seed}.safetensors",
                 {"labels": labels, "training labels": labels.clone(), CELL: scores.clone()}, {})  # fmt: skip
    facts = {"data": "made", "key": key, "seed": seed, "history": [2.0, 1.0], "counts": {CELL: [50, len(labels)]},
             "classes": {"labels": list(BEN19)}, "refused": {}, "losses": {}}  # fmt: skip
    (folder / f"made-{key}-seed{seed}.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def made(tmp_path_factory, labels) -> Scores:
    """xae knows everything, late nearly so, satvit's scores are shuffled labels, random has one seed only."""
    folder = tmp_path_factory.mktemp("tracks")
    for seed in (0, 1, 2):
        rng = torch.Generator().manual_seed(seed)
        noise = torch.rand(labels.shape, generator=rng)
        keep(folder, "xae", seed, labels, labels)
        keep(folder, "late", seed, labels, labels + 1.2 * noise)
        keep(folder, "satvit", seed, labels, labels[torch.randperm(len(labels), generator=rng)] + 1e-3 * noise)
    keep(folder, "random", 0, labels, torch.rand(labels.shape, generator=torch.Generator().manual_seed(9)))
    return Scores(folder, "made", redraws=100)


def test_known_answers(made, labels):
    perfect, shuffled = made.micro("xae", CELL), made.micro("satvit", CELL)
    assert perfect.each.tolist() == [1, 1, 1] and perfect.mean == 1 and perfect.interval == (1, 1)
    assert abs(shuffled.mean - float(labels.mean())) < 0.03  # what a ranking that knows nothing scores
    low, high = shuffled.interval
    assert low < shuffled.mean < high < 0.5
    assert made.macro("xae", CELL).tolist() == [1, 1, 1]
    assert tables.with_deviation(perfect.each) == "100.0 ± 0.0"
    assert perfect.train == 50 and perfect.test == 120 and perfect.seeds == 3


def test_better_is_said_only_where_the_interval_says_so(made):
    perfect, near, shuffled = (made.micro(key, CELL) for key in ("xae", "late", "satvit"))
    assert perfect.minus(perfect) == (0, 0, 0)
    assert perfect.minus(perfect).verdict == "not told apart"
    assert perfect.minus(shuffled).verdict == "better" and shuffled.minus(perfect).verdict == "worse"
    assert 0.9 < near.mean < 1  # else it could not be told apart, or would not be near
    gap, low, high = perfect.minus(near)
    assert gap == pytest.approx(1 - near.mean) and 0 < low < gap < high < 0.2
    assert perfect.minus(near).verdict == "better" and near.minus(perfect).verdict == "worse"
    assert near.minus(shuffled).verdict == "better"
    with pytest.raises(InputError, match="same seeds"):
        perfect.minus(made.micro("random", CELL))


def test_a_single_seed_and_a_missing_cell_are_said_not_filled_with_nan(made):
    assert tables.with_deviation(made.macro("random", CELL)).endswith("(one seed)")
    assert made.micro("xae", tables.cell_key("finetuned", "S1")) is None
    text = tables.table_1(load_plan("laptop"), made, "linear", 1.0)
    assert "nan" not in text and "–" in text  # S1 and S2 were not run
    assert "| Fus-MAE XAE | – | – | 100.0 (100.0 to 100.0) | *57.5* / *68.0* / *70.0* |" in text
    comparison = tables.comparison(load_plan("laptop"), made)
    assert "nan" not in comparison and "seeds" in next(row for row in comparison.splitlines() if "random" in row)
    with pytest.raises(InputError, match="no finished track"):
        Scores(made.folder, "elsewhere")


def test_plans_are_checked():
    for preset in PLANS:
        plan = load_plan(preset)
        for key in (*plan.systems, *plan.ablations):
            if key != "imagenet":
                assert plan.config(key).system == dict(SYSTEMS.get(key, plan.system(key)).fields).get(
                    "system", "fusmae"
                )
    own = load_plan("paper", own_sizes=True).config("dino")
    assert (own.width, own.depth, own.heads) == (384, 12, 6) and load_plan("paper").config("dino").width == 768
    with pytest.raises(InputError, match="'resnet'"):
        load_plan("smoke", systems=("resnet",))
    with pytest.raises(InputError, match="seeds"):
        load_plan("smoke", seeds=(1, 1))
    with pytest.raises(InputError, match="choose one of"):
        load_plan("huge")
    with pytest.raises(InputError, match="keep"):
        load_plan("smoke", fractions=(0.5,))


def test_the_papers_tables_contradict_its_text_where_we_say():
    said = paper.contradictions()
    assert len(said) == 5
    assert "58.7 beside 58.8" in said[1] and "in accuracy xad (58.8) is behind satvit (59.1)" in said[2]
    assert all("behind imagenet (75.2) and satvit (75.2)" in line for line in said[3:])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Three systems, two seeds, 60 synthetic pairs and 40 triplets, a few steps each."""
    plan = load_plan("smoke", systems=("supervised", "dino", "xae"), ablations=("xae-consistent",), pairs=60,
                     triplets=40, synthetic_epochs=1, fractions=(0.01, 1.0), sparse=0.01, real=False,
                     redraws=20)  # fmt: skip
    plan = replace(plan, run={**plan.run, "width": 16, "decoder_width": 16, "image_size": 24, "mask_ratio": 0.6})
    folder = tmp_path_factory.mktemp("results")
    return plan, folder, run_results(plan, folder, workers=1)


def test_every_table_and_picture_is_there(tiny):
    plan, _, report = tiny
    names = {"finetuned-truth", "linear-truth-100", "macro-truth", "comparison-truth", "losses-truth", "kinds-linear",
             "kinds-finetuned", "transfer-S1", "transfer-S2", "ablations", "refused-truth"}  # fmt: skip
    assert names <= set(report.tables)
    for name, text in report.tables.items():
        assert "nan" not in text and (report.folder / f"{name}.md").read_text() == text
    assert {p.stem for p in report.folder.glob("*.png")} >= {"losses-truth", "classes-truth", "curves-truth", "kinds",
                                                              "confusion"}  # fmt: skip
    assert "supervised ViT from scratch" in report.tables["finetuned-truth"]
    assert "supervised" not in report.tables["linear-truth-100"]  # it has no frozen features
    assert "XAE, consistent masking" in report.tables["ablations"]
    rows = list(csv.DictReader((report.folder / "cells.csv").open()))
    assert {row["system"] for row in rows} == {"supervised", "dino", "xae", "xae-consistent"}
    assert all(0 < float(row["low"]) <= float(row["high"]) <= 1 and row["seeds"] == "2" for row in rows)


def test_a_fraction_of_no_label_is_said(tiny):
    assert "1.00% of 36 training patches is none" in tiny[2].tables["refused-truth"]


def test_finished_tracks_are_kept_and_other_plans_refused(tiny):
    plan, folder, report = tiny
    before = {p: p.stat().st_mtime_ns for p in (folder / "tracks").iterdir()}
    assert run_results(plan, folder, workers=1).tables == report.tables
    assert {p: p.stat().st_mtime_ns for p in (folder / "tracks").iterdir()} == before
    with pytest.raises(InputError, match="another plan"):
        run_results(replace(plan, synthetic_epochs=2), folder)


def test_a_page_is_filled_and_one_that_asks_for_more_is_refused(tiny):
    page = "a\n<!-- table kinds-linear -->\nold\n<!-- end -->\nb\n"
    filled = fill(page, tiny[2].tables)
    assert "old" not in filled and "combination" in filled and filled.startswith("a\n") and filled.endswith("b\n")
    assert fill(filled, tiny[2].tables) == filled
    with pytest.raises(InputError, match="'nothing'"):
        fill("<!-- table nothing -->\n<!-- end -->", tiny[2].tables)


def test_the_console_says_what_is_missing(capsys, tmp_path):
    assert main(["results", "--preset", "paper", "--run-dir", str(tmp_path)]) == 2
    assert "-p data_dir=" in capsys.readouterr().err
    assert main(["results", "-p", f"data_dir={tmp_path}", "--run-dir", str(tmp_path / "x")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_results_page_holds_the_recorded_tables():
    """RESULTS.md is what the recorded tables say, and its pictures exist."""
    root = project_root()
    text = (root / "RESULTS.md").read_text(encoding="utf-8")
    made = {path.stem: path.read_text(encoding="utf-8") for path in (root / "docs" / "results").glob("*.md")}
    assert len(made) > 10 and fill(text, made) == text
    for picture in re.findall(r"\]\((docs/results/[\w-]+\.png)\)", text):
        assert (root / picture).is_file(), picture
    assert np.isfinite([float(r["micro"]) for r in csv.DictReader((root / "docs/results/cells.csv").open())]).all()

"""The results: cells with known answers, honest comparisons, and the whole way from a plan to a page on a tiny plan."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.course.cli import main
from fusmae_lite.evaluation.metrics import average_precision
from fusmae_lite.systems.tensors import save_tensors
from reproduce import load_plan, paper, run_results, tables
from reproduce.page import fill
from reproduce.plan import PLANS, SYSTEMS
from reproduce.scenes import TRUTH, make_scenes
from reproduce.scores import Scores

BASE = {"data": "scenes", "protocol": "converged", "sensors": "S1+S2", "pooling": "sensors", "labels": 100,
        "train": 100, "test": 120, "width": 128, "unlabelled": 0, "macro": 0.5}  # fmt: skip


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    return (torch.rand(120, 19, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def keep(folder: Path, key: str, seed: int, labels: torch.Tensor, scores: dict[str, torch.Tensor]) -> None:
    """A finished track with one cell for each of some weights."""
    rows = [
        {**BASE, "system": key, "weights": weights, "seed": seed, "cell": f"{i:03d}",
         "micro": average_precision(labels, logits).micro}
        for i, (weights, logits) in enumerate(scores.items())
    ]  # fmt: skip
    tensors = {f"{i:03d}": logits.clone() for i, logits in enumerate(scores.values())}
    save_tensors(folder / f"scenes-{key}-seed{seed}.safetensors", {"labels": labels.clone(), **tensors}, {})
    (folder / f"scenes-{key}-seed{seed}.json").write_text(json.dumps({"rows": rows, "seconds": 1.0}))


@pytest.fixture(scope="module")
def made(tmp_path_factory, labels) -> tables.Tables:
    """xae knows everything, its control nearly so; satvit's scores are shuffled labels; late has one seed only."""
    folder = tmp_path_factory.mktemp("tracks")
    for seed in (0, 1, 2):
        rng = torch.Generator().manual_seed(seed)
        noise = torch.rand(labels.shape, generator=rng)
        near, lost = labels + 1.2 * noise, labels[torch.randperm(len(labels), generator=rng)] + 1e-3 * noise
        keep(folder, "xae", seed, labels, {"pretrained": labels, "untrained": near})
        keep(folder, "satvit", seed, labels, {"pretrained": lost, "untrained": near})
        keep(folder, "floors", seed, labels, {"statistics": near, "texture": lost})
    keep(folder, "late", 0, labels, {"pretrained": torch.rand(labels.shape, generator=rng)})
    return tables.Tables(load_plan("laptop", labels=(100,)), Scores(folder, redraws=100))


def test_known_answers(made, labels):
    perfect, shuffled = made.cell("xae", "pretrained", 100), made.cell("satvit", "pretrained", 100)
    assert perfect.each.tolist() == [1, 1, 1] and perfect.mean == 1 and perfect.interval == (1, 1)
    assert abs(shuffled.mean - float(labels.mean())) < 0.03  # what a ranking that knows nothing scores
    low, high = shuffled.interval
    assert low < shuffled.mean < high < 0.5
    assert made.best_floor(100)[0] == "statistics"


def test_a_gap_is_bold_only_where_its_interval_says_so(made):
    perfect, near, shuffled = (
        made.cell(*cell, 100) for cell in (("xae", "pretrained"), ("xae", "untrained"), ("satvit", "pretrained"))
    )
    assert perfect.minus(perfect) == (0, 0, 0) and "**" not in tables.gap(perfect, perfect)
    gap, low, high = perfect.minus(near)
    assert gap == pytest.approx(1 - near.mean) and 0 < low < gap < high < 0.2
    assert tables.gap(perfect, near).startswith("**+") and tables.gap(shuffled, near).startswith("**-")
    assert tables.gap(perfect, made.cell("late", "pretrained", 100)) == tables.DASH, "other seeds are not compared"
    with pytest.raises(InputError, match="same seeds"):
        perfect.minus(made.cell("late", "pretrained", 100))


def test_a_missing_cell_is_a_dash(made, tmp_path):
    assert made.cell("xae", "pretrained", 30) is None
    text = made.linear()
    assert "nan" not in text and "| Fus-MAE XAE, pretrained | – | – | 100.0 (100.0 to 100.0) |" in text
    assert "late fusion, untrained" not in text and "Fus-MAE XAD" not in text, "no row without a cell"
    assert "| SatViT | **-" in made.pays() and "| Fus-MAE XAE | **+" in made.pays()
    with pytest.raises(InputError, match="no finished track"):
        Scores(tmp_path)


def test_plans_are_checked():
    for preset in PLANS:
        plan = load_plan(preset)
        for key in plan.systems:
            if key != "imagenet":
                assert plan.config(key, 100).system == dict(SYSTEMS[key].fields).get("system", "fusmae")
    laptop = load_plan("laptop")
    steps = [laptop.config("xae", pairs).epochs * -(-pairs // 16) for pairs in (64, 1000, 3000)]
    assert max(steps) - min(steps) <= 188, "as many steps whatever the number of pairs, to an epoch"
    own = load_plan("paper", own_sizes=True).config("dino")
    assert (own.width, own.depth, own.heads) == (384, 12, 6) and load_plan("paper").config("dino").width == 768
    for changes, said in (
        ({"systems": ("resnet",)}, "'resnet'"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"labels": ()}, "labels"),
    ):
        with pytest.raises(InputError, match=said):
            load_plan("smoke", **changes)
    with pytest.raises(InputError, match="choose one of"):
        load_plan("huge")


def test_the_papers_tables_contradict_its_text_where_we_say():
    said = paper.contradictions()
    assert len(said) == 5
    assert "58.7 beside 58.8" in said[1] and "in accuracy xad (58.8) is behind satvit (59.1)" in said[2]
    assert all("behind imagenet (75.2) and satvit (75.2)" in line for line in said[3:])


def test_pairs_in_memory_are_standardised_by_their_own_training_split(tmp_path):
    pairs = make_scenes(tmp_path / "scenes.safetensors", (30, 10, 10), 24, 5)
    images, labels = pairs.of("train")
    for image in images.values():
        assert image.mean(dim=(0, 2, 3)).abs().max() < 1e-2 and (image.std(dim=(0, 2, 3)) - 1).abs().max() < 0.1
    again = make_scenes(tmp_path / "scenes.safetensors", (30, 10, 10), 24, 5)
    assert all(torch.equal(again.images[name], image) for name, image in pairs.images.items())
    assert labels.shape == (30, 19) and len(pairs.only(8).split("train")) == 8 and len(pairs.only(8)) == 28
    with pytest.raises(InputError, match="holds 50 pairs, not 60"):
        make_scenes(tmp_path / "scenes.safetensors", (40, 10, 10), 24, 5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two systems and a change, two seeds, 100 synthetic pairs and 40 triplets, a few steps each."""
    plan = load_plan("smoke", systems=("dino", "xae", "xae-consistent"), scenes=(60, 30, 30), labels=(30, 60),
                     tuned_labels=(30,), truth=(60, 30, 30), triplets=40, steps=4, truth_steps=4, redraws=20,
                     leakage_redraws=0, real_curve=())  # fmt: skip
    plan = replace(plan, run={**plan.run, "width": 16, "decoder_width": 16})
    folder = tmp_path_factory.mktemp("results")
    return plan, folder, run_results(plan, folder, workers=1)


def test_every_table_and_picture_is_there(tiny):
    plan, _, report = tiny
    names = {"pays", "floors", "against-floors", "linear", "probes", "ranking", "budget", "fusion", "changes", "tuned",
             "curve", "kinds", "kinds-single", "transfer-S1", "transfer-S2", "transfer-paper"}  # fmt: skip
    assert names == set(report.tables)
    for name, text in report.tables.items():
        assert "nan" not in text and (report.folder / f"{name}.md").read_text() == text
    assert {p.stem for p in report.folder.glob("*.png")} == {"labels", "break-even", "losses"}
    assert "XAE, consistent masking" in report.tables["changes"] and "texture" in report.tables["kinds"]
    assert "random convolutions" in report.tables["floors"] and "60 synthetic" in report.tables["curve"]
    rows = pd.read_csv(report.folder / "scores.csv")
    assert set(rows["system"]) == {"dino", "xae", "xae-consistent", "floors"} and rows["micro"].between(0, 1).all()
    assert set(rows["protocol"]) >= {"converged", "paper", "nearest", "factors", "fine-tuned, probe"}
    assert len(set(TRUTH.classes)) == 13, "each class of one kind"


def test_finished_tracks_are_kept_and_other_plans_refused(tiny):
    plan, folder, report = tiny
    before = {p: p.stat().st_mtime_ns for p in (folder / "tracks").iterdir()}
    assert run_results(plan, folder, workers=1).tables == report.tables
    assert {p: p.stat().st_mtime_ns for p in (folder / "tracks").iterdir()} == before
    with pytest.raises(InputError, match="another plan"):
        run_results(replace(plan, steps=5), folder)


def test_a_page_is_filled_and_one_that_asks_for_more_is_refused(tiny):
    page = "a\n<!-- table kinds -->\nold\n<!-- end -->\nb\n"
    filled = fill(page, tiny[2].tables)
    assert "old" not in filled and "radar" in filled and filled.startswith("a\n") and filled.endswith("b\n")
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
    recorded = {path.stem: path.read_text(encoding="utf-8") for path in (root / "docs" / "results").glob("*.md")}
    assert len(recorded) > 10 and fill(text, recorded) == text
    assert recorded["transfer-paper"] == tables.transfer_paper() and text.count("*94.3*") == 1, "the paper's, once"
    empty = [row for row in text.splitlines() if row.count("| – ") > 4]
    assert not empty, "a row without a figure of ours"
    for picture in re.findall(r"\]\((docs/results/[\w-]+\.png)\)", text):
        assert (root / picture).is_file(), picture
    assert np.isfinite(pd.read_csv(root / "docs/results/scores.csv")["micro"]).all()

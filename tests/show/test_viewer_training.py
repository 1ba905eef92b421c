"""TrainingMonitor driven from Python: a run that grows, one that is broken, losses of any name."""

from __future__ import annotations

import gc
import json

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from viewer_helpers import holds_still

from fusmae_lite import InputError
from fusmae_lite.show.charts import show_loss_curves
from fusmae_lite.show.viewers import TrainingMonitor
from fusmae_lite.show.viewers.training import read_metrics


def write_metrics(folder, epochs: int, end: str = "") -> None:
    rows = [{"step": 6 * e, "epoch": e, "loss_s1": 1 / e, "loss_s2": 2 / e} for e in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + end, encoding="utf-8")


def test_a_growing_run_is_followed(tmp_path):
    monitor = TrainingMonitor(tmp_path)
    assert monitor.said.startswith("error: no ") and monitor.picture()
    (tmp_path / "pretrain").mkdir()
    seen = [monitor.picture()]
    for epochs in (3, 5):
        write_metrics(tmp_path / "pretrain", epochs)
        monitor.play.value += 1  # what the browser does while the run is followed
        assert f"Epoch {epochs}, step {6 * epochs}" in monitor.description and monitor.said == ""
        assert monitor.picture() not in seen
        seen.append(monitor.picture())
    monitor.again.click()
    assert monitor.picture() == seen[-1]


def test_each_control_of_the_monitor_changes_the_picture(tmp_path):
    write_metrics(tmp_path, 20)
    monitor = TrainingMonitor(tmp_path / "metrics.jsonl")
    holds_still(monitor, monitor.x, ("epoch",))
    holds_still(monitor, monitor.skip, (50, 95))
    holds_still(monitor, monitor.logarithmic, (True,))
    assert not monitor.play.playing
    monitor.follow.value = True
    assert monitor.play.playing, "the browser then counts, and each count reads the file"


def test_validation_losses_are_drawn_where_a_run_has_them(tmp_path):
    rows = [{"step": e, "epoch": e, "loss_s1": 9 / e} | ({"val_loss_s1": 10 / e} if e % 2 else {}) for e in range(1, 8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "Last validation loss: S1 1.429." in TrainingMonitor(tmp_path).description
    (axis,) = show_loss_curves(rows, log=True).axes
    assert list(axis.lines[1].get_xdata()) == [1, 3, 5, 7] and axis.get_yscale() == "log"
    plt.close("all")


def test_half_a_row_waits_and_a_broken_file_is_told(tmp_path):
    write_metrics(tmp_path, 2, end='{"step": 18, "loss_s1"')
    monitor = TrainingMonitor(tmp_path)
    assert "Epoch 2" in monitor.description and monitor.said == ""
    write_metrics(tmp_path, 2, end='{"loss": NaN, "step": 18}\nbroken\n{}\n')
    monitor.refresh()
    assert "line 4 is no row of metrics" in monitor.message.value and "Epoch 2" in monitor.description
    with pytest.raises(InputError, match="positive"):
        TrainingMonitor(tmp_path, every=0)


@pytest.mark.parametrize("garbage", ["[1]", '{"loss_s1": "low"}', '{"loss_s1": [1]}', "null", "[" * 5000])
def test_a_line_of_another_type_is_named(tmp_path, garbage):
    write_metrics(tmp_path, 2, end=f"{garbage}\n{{}}\n")
    with pytest.raises(InputError, match="line 3 is no row of metrics"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_monitor_keeps_no_figure(tmp_path):
    write_metrics(tmp_path, 8)
    monitor = TrainingMonitor(tmp_path)
    gc.collect()
    assert not plt.get_fignums() and monitor.picture()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Figure)]


def test_every_loss_of_a_run_is_drawn(tmp_path):
    rows = [{"step": e, "epoch": e, "loss": 9 / e, "loss_dino": 9 / e, "grad_norm": 1.0} for e in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monitor = TrainingMonitor(tmp_path)
    assert monitor.said == "" and "DINO 9.000 to 1.800" in monitor.description
    (axis,) = show_loss_curves(rows, x="epoch").axes
    assert axis.get_title() == "DINO" and list(axis.lines[0].get_ydata()) == [9, 4.5, 3, 2.25, 1.8]
    plt.close("all")

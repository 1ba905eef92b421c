"""The course runner on tiny notebooks: what it refuses, what it writes, how it fails, how it continues."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError
from PIL import Image
from small_archives import ROWS, make_v1

from fusmae_lite.core import progress
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.course import run as course_run
from fusmae_lite.course.cli import main
from fusmae_lite.course.engine import without_widgets
from fusmae_lite.course.notebook import begin, record, refuse_injected
from fusmae_lite.course.pages import described, headline, pictures, write_html, write_index
from fusmae_lite.course.parameters import check, declared, find_notebooks, parse
from fusmae_lite.course.run import Course, run_course
from fusmae_lite.data.archives import Archive

PARAMETERS = """preset: str = "smoke"  # smoke, laptop or paper
data_dir: str = ""  # empty: the bundled patches
run_dir: str = ""  # empty: runs/<preset>
seed: int = -1  # -1: as the preset says"""
PICTURE = """import base64
from IPython.display import Image
Image(base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="))
"""


def write(folder: Path, name: str, *code: str, parameters: str = PARAMETERS) -> Path:
    """A notebook with a title, a parameters cell and code cells."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.metadata["language_info"] = {"name": "python"}
    first = nbformat.v4.new_markdown_cell(f"# Title of {name}\n\nA *promise* in `one` line.\n\n## You will")
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook.cells = [first, tagged, *(nbformat.v4.new_code_cell(source) for source in code)]
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


fingerprint = course_run.package.__wrapped__  # the real one, afresh at each call


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small package in place of ours, which somebody may be editing while the tests run; its fingerprint is real."""
    folder = tmp_path / "package" / "sub"
    folder.mkdir(parents=True)
    for name in ("code.py", "preset.toml", "statistics.json", "weights.safetensors", "notes.md"):
        (folder / name).write_text("1")
    monkeypatch.setattr(course_run, "package", lambda: fingerprint(folder.parent))
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Three notebooks: a picture, one that trains and records, one that reads what it left."""
    folder = tmp_path / "notebooks {braces}"
    folder.mkdir()
    write(folder, "00_start", PICTURE)
    train = (
        "from pathlib import Path\nimport json\nfolder = Path(run_dir)\n"
        "(folder / 'metrics').mkdir(exist_ok=True)\n"
        "(folder / 'metrics/01.json').write_text(json.dumps({'loss': 0.5, 'rate': learning_rate}))\n"
        "(folder / 'weights').write_text(Path.cwd().name)"
    )
    extra = PARAMETERS + "\nlearning_rate: float = -1  # of AdamW\naugment: str = ''  # none, flips or crops"
    write(folder, "01_train", train, parameters=extra)
    figure = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    write(folder, "02_use", figure, "print((__import__('pathlib').Path(run_dir) / 'weights').read_text())")
    return folder


def course(sources: Path, target: Path, **options) -> Course:
    return run_course(notebooks=sources, run_dir=target, **options)


def test_course_writes_everything_then_skips_then_follows_changes(sources: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in sources.iterdir()}
    target = tmp_path / "run {x}"
    result = course(sources, target, parameters={"learning_rate": "1e-4"})
    assert result.executed == ("00_start", "01_train", "02_use") and result.folder == target
    assert {path.name: path.read_bytes() for path in sources.iterdir()} == before
    expected = {f"{stem}{end}" for stem in result.executed for end in (".ipynb", ".html")}
    expected |= {"metrics.json", "index.html", "course.json", "metrics", "weights"}
    expected |= {"mathjax.js"} if find_spec("sphinx-mathjax-offline") else set()
    assert {path.name for path in target.iterdir()} == expected
    assert "notebooks {braces}" in nbformat.read(target / "02_use.ipynb", 4).cells[-1].outputs[0].text

    metrics = json.loads((target / "metrics.json").read_text())
    train = metrics["notebooks"]["01_train"]
    assert train["metrics"] == {"loss": 0.5, "rate": 1e-4} and train["seconds"] > 0 and train["peak_memory_mib"] > 10
    assert metrics["configuration"]["learning_rate"] == 1e-4 and "learning_rate" not in str(metrics["machine"])
    page = (target / "index.html").read_text()
    assert "Title of 00_start" in page and "A promise in one line." in page and 'href="02_use.html"' in page
    assert page.count("data:image/webp") == 2 and "http" not in page

    again = course(sources, target, parameters={"learning_rate": "0.0001"})
    assert again.executed == () and again.skipped == result.executed
    write(sources, "01_train", "print('changed')")
    assert course(sources, target).executed == ("01_train", "02_use")


def test_a_changed_package_runs_everything_again(sources: Path, tmp_path: Path, package: Path) -> None:
    for path in sorted(sources.iterdir())[1:]:
        path.unlink()
    assert course(sources, tmp_path / "run").executed == ("00_start",)
    (package / "code.py").write_text("2")
    assert course(sources, tmp_path / "run").executed == ("00_start",)
    (package / "notes.md").write_text("2")
    assert course(sources, tmp_path / "run").skipped == ("00_start",)


def test_the_fingerprint_of_the_package_is_that_of_all_that_changes_a_result(package: Path) -> None:
    seen = {fingerprint(package)}
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "code.pyc").write_text("1")
    (package / "notes.md").write_text("2")
    assert fingerprint(package) in seen
    for number, name in enumerate(("code.py", "preset.toml", "statistics.json", "weights.safetensors"), 2):
        (package / name).write_text("2")
        seen.add(fingerprint(package))
        assert len(seen) == number, name
    (package / "code.py").rename(package / "other.py")
    assert fingerprint(package) not in seen
    (package / "other.py").unlink()
    assert fingerprint(package) not in seen
    ours = Path(course_run.__file__).parents[1]
    assert fingerprint(ours) == fingerprint(ours) not in seen


def test_failure_names_the_cell_and_a_second_call_continues(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (sources / "01_train.ipynb").read_bytes()
    write(sources, "01_train", "x = 1", "raise ValueError('first\\nlast line')", "y = 2")
    target = tmp_path / "run"
    with pytest.raises(RunError) as caught:
        course(sources, target)
    assert progress._now["doing"] == ', 01 train: cell 5/6, the code cell [4], under "You will"', "for the heartbeat"
    failed = target / "01_train.failed.ipynb"
    assert str(caught.value) == (
        f'01 train stopped in cell 5/6, the code cell [4], under "You will": ValueError: last line; see {failed}'
    )
    assert failed.is_file() and not (target / "01_train.ipynb").exists()
    assert "stopped in cell 5" in (target / "index.html").read_text()
    out = capsys.readouterr().out.splitlines()
    assert (
        out[0] == "00 start (1 of 3): 4 cells ..."
        and out[1].startswith("00 start: 4 cells in ")
        and out[1].endswith(" MiB")
    )

    monkeypatch.setattr(course_run, "NEEDS", {"02": ("01",)})
    with pytest.raises(RunError, match="2 of 3 notebooks: 01 train stopped.*; 02 use was not run: it needs 01"):
        course(sources, target, keep_going=True)

    (sources / "01_train.ipynb").write_bytes(good)
    result = course(sources, target)
    assert result.skipped == ("00_start",) and result.executed == ("01_train", "02_use")
    assert not failed.exists()


ENTRY = {
    "made_from": "",
    "finished": 1.0,
    "cells": 1,
    "seconds": 1.0,
    "peak_memory_mib": None,
    "failure": None,
}
STATES = [
    "",
    "null",
    "[]",
    "{}",
    '{"notebooks": 3}',
    '{"notebooks": {"00_start": null}}',
    '{"notebooks": {"00_start": {}}}',
]
STATES += [
    json.dumps({"notebooks": {"00_start": {**ENTRY, name: value}}})
    for name, value in (("finished", "x"), ("seconds", None), ("cells", "many"), ("failure", 3), ("metrics", [1]))
]


@pytest.mark.parametrize("state", STATES)
def test_a_damaged_state_is_one_line_before_anything_runs(sources: Path, tmp_path: Path, state: str) -> None:
    path = tmp_path / "run" / "course.json"
    path.parent.mkdir()
    path.write_text(state)
    with pytest.raises(InputError, match=r"course.json is .*; remove it, and every notebook runs again") as caught:
        course(sources, path.parent)
    assert "\n" not in str(caught.value) and path.read_text() == state


def test_only_runs_one_and_later_ones_follow(sources: Path, tmp_path: Path) -> None:
    target = tmp_path / "run"
    course(sources, target)
    assert course(sources, target, only=["01"]).executed == ()
    assert course(sources, target, only=["1"], force=True).executed == ("01_train",)
    assert course(sources, target).executed == ("02_use",)


def test_dead_kernel_is_a_failed_run(sources: Path, tmp_path: Path) -> None:
    write(sources, "00_start", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RunError, match="00 start stopped in cell 4/4, the code cell .*: DeadKernelError.*memory"):
        course(sources, tmp_path / "run")
    assert (tmp_path / "run" / "00_start.failed.ipynb").is_file()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epoch": "3"}, "unknown parameter 'epoch'; those that exist: preset, data_dir, run_dir, seed, learning_rate"),
        ({"learning_rate": "fast"}, "'learning_rate': 'fast' is refused"),
        ({"seed": "1.5"}, "'seed': '1.5' is refused"),
        ({"seed": "-2"}, "'seed'"),
        ({"augment": "crop"}, "'augment': 'crop' is refused.*'none', 'flips' or 'crops'"),
        ({"preset": "huge"}, "unknown preset 'huge'; choose one of smoke, laptop, paper, paper-small, paper-large"),
    ],
)
def test_refused_before_anything_runs(sources: Path, tmp_path: Path, parameters: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        course(sources, tmp_path / "run", parameters=parameters)
    assert not (tmp_path / "run").exists()


def test_parameters_reach_only_the_notebooks_that_declare_them(sources: Path) -> None:
    types = {path.stem: declared(path) for path in find_notebooks(sources)}
    given = {"preset": "laptop", "learning_rate": "1e-4", "seed": "7", "augment": "", "data_dir": "x"}
    config, typed = check(given, types)
    assert (config.preset, config.learning_rate, config.seed, config.augment) == ("laptop", 1e-4, 7, "crops")
    assert typed["01_train"]["learning_rate"] == 1e-4 and "learning_rate" not in typed["00_start"]
    assert "augment" not in typed["01_train"] and typed["02_use"]["data_dir"] == str(Path("x").resolve())


def test_types_are_those_of_the_notebook(tmp_path: Path) -> None:
    lines = "preset: str = 'smoke'  # p\nfast: bool = False  # f\nrate: float = 1.0  # r\nlist_: list = []  # l"
    with pytest.raises(InputError, match="parameter 'list_' has no type the course knows"):
        declared(write(tmp_path, "00_a", parameters=lines))
    types = declared(write(tmp_path, "00_a", parameters=lines.rsplit("\n", 1)[0]))
    assert types == {"preset": str, "fast": bool, "rate": float}
    _, typed = check({"preset": "smoke", "fast": "true", "rate": "1e-4"}, {"00": types})
    assert typed["00"] == {"preset": "smoke", "fast": True, "rate": 1e-4}
    with pytest.raises(InputError, match="'fast': 'perhaps' is refused; give a value of type bool"):
        check({"preset": "smoke", "fast": "perhaps"}, {"00": types})


def test_unknown_notebook_and_empty_folder(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no notebook '09' in .*; those that exist: 00, 01, 02"):
        find_notebooks(sources, ["9"])
    with pytest.raises(InputError, match="no notebooks in"):
        find_notebooks(tmp_path / "none")
    assert parse(["a=1", "b = x=y "]) == {"a": "1", "b": "x=y"}
    with pytest.raises(InputError, match="'a' is refused; write -p name=value"):
        parse(["a"])
    for text in ("epochs=", "epochs=-1", "data_dir= "):
        with pytest.raises(InputError, match="says nothing; leave it out"):
            parse([text])
    with pytest.raises(InputError, match="'seed' is given twice, '1' and '2'"):
        parse(["seed=1", "seed=2"])


def test_a_parameter_that_no_chosen_notebook_has_is_refused(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'learning_rate' does not exist in notebook 00; .* that has it: 01"):
        course(sources, tmp_path / "run", only=["00"], parameters={"learning_rate": "1e-4"})
    with pytest.raises(InputError, match="did you mean 'learning_rate'"):
        course(sources, tmp_path / "run", parameters={"lerning_rate": "1e-4"})


def test_papermill_alone_refuses_a_parameter_that_the_notebook_does_not_have(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"
    with pytest.raises(PapermillExecutionError) as caught:
        execute_notebook(source, tmp_path / "out.ipynb", {"sead": 3}, cwd=source.parent, progress_bar=False)
    assert caught.value.ename == "InputError" and "did you mean 'seed'" in caught.value.evalue


def test_what_was_injected_is_compared_with_what_is_declared() -> None:
    declared_cell, plain = "seed: int = 0  # help\nrate: float = -1.0  # help", "%matplotlib inline"
    refuse_injected([declared_cell, "# Parameters\nseed = 3\nrate = 1e-4\n", plain])
    refuse_injected(["x = 1", declared_cell, plain, "note: str = 'an annotation later on'"])
    with pytest.raises(InputError, match="no parameter 'rats'; did you mean 'rate'"):
        refuse_injected([declared_cell, "# Parameters\nseed = 3\nrats = 1\n"])


def test_begin_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSMAE_RUN_DIR", str(tmp_path / "there"))
    config, archive = begin("05", preset="smoke", data_dir="", run_dir="", seed="3", epochs=-1)
    first = torch.rand(1)
    assert config.folder() == tmp_path / "there" and len(archive) > 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and line.startswith("notebook 05, preset smoke, seed 3, ")
    begin("05", seed=3)
    assert torch.equal(first, torch.rand(1))
    path = record(config, "05", loss=np.float32(0.5), curve=torch.tensor([1.0, float("nan")]))
    record(config, "05", steps=2)
    assert path == tmp_path / "there" / "metrics" / "05.json"
    assert json.loads(path.read_text()) == {"loss": 0.5, "curve": [1.0, None], "steps": 2}
    with pytest.raises(InputError, match="05.json: .PosixPath. .*; record numbers, strings, and"):
        record(config, "05", path=path)
    begin("05", preset="smoke")
    assert not path.exists()
    with pytest.raises(InputError, match="unknown parameter 'epoch'"):
        begin("05", epoch=3)


def test_an_archive_that_lacks_a_split_gets_a_random_one(
    tmp_path: Path, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_v1(tmp_path / "a", archive, [row for row in range(12) if archive.splits[row] != "test"])
    config, opened = begin("05", data_dir=str(root), run_dir=str(tmp_path / "r"))
    assert set(opened.splits) == {"train", "val", "test"} and config.split == "random"
    said = capsys.readouterr().out
    assert "no test split" in said and "text tells what the bundled pairs show" in said
    again, whole = begin("05", data_dir=str(make_v1(tmp_path / "b", archive)), run_dir=str(tmp_path / "r"))
    assert again.split == "official" and "at random" not in capsys.readouterr().out
    assert whole.splits.tolist() == archive.splits[list(ROWS)].tolist()


def test_headline_and_pictures() -> None:
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["gallery"]})
    data = [nbformat.v4.new_output("display_data", {"image/png": text}) for text in ("YQ==", "Yg==", "YQ==")]
    plain, cell.outputs = nbformat.v4.new_code_cell("y", outputs=data[:1]), data[1:]
    notebook.cells = [nbformat.v4.new_markdown_cell("# 03 · A **b**: [c](d)\nSee `e`,\nand *f*."), plain, cell]
    assert headline(notebook, "") == ("A b: c", "See e, and f.")
    assert pictures(notebook) == [(b"b", ""), (b"a", "")]


def test_pictures_get_the_words_before_them_unless_they_have_their_own() -> None:
    notebook = nbformat.v4.new_notebook()
    png = {"image/png": "YQ=="}
    own = nbformat.v4.new_output("display_data", png, metadata={"image/png": {"alt": "A viewer: its words"}})
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", dict(png)), own])
    text = "## 2. Masks\n\nAn aside.\n\n**Predict**, then run. The coast stays when *half* the sea is hidden. More."
    text += "\n\n<details><summary>Answer</summary>\n\nThe answer stays folded in alternative texts, too.\n\n</details>"
    notebook.cells = [nbformat.v4.new_markdown_cell(text), cell]
    words = [output.metadata["image/png"]["alt"] for output in described(notebook).cells[1].outputs]
    assert words == [
        "Figure in the section 2. Masks: The coast stays when half the sea is hidden.",
        "A viewer: its words",
    ]


LOSSES = {"loss_s1": 2.1, "interpolation_s1": 0.25, "mean_s1": 1.76, "loss_s2": 0.2, "interpolation_s2": 0.27}


def test_run_pages_need_no_network_lead_with_the_loss_and_lead_to_each_other(sources: Path, tmp_path: Path) -> None:
    every = [sources / f"{stem}.ipynb" for stem in ("00_start", "01_train", "02_use")]
    link = nbformat.v4.new_markdown_cell("# T\n\n[a](../docs/scale.md) and [b](01_train.ipynb#x), $x^2$")
    for path in (every[0], every[2]):  # 01 has not been run
        nbformat.write(nbformat.v4.new_notebook(cells=[link]), path)
        write_html(path, tmp_path / f"{path.stem}.html")
    entry = {"cells": 1, "seconds": 1.0, "peak_memory_mib": None, "failure": None, "metrics": None}
    metrics = {"preset": "smoke", "machine": {"summary": "m"}, "notebooks": {"00_start": entry}}
    for _ in range(2):  # again on the same pages
        write_index(tmp_path, every, metrics)
    page = (tmp_path / "00_start.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=.https?:", page)
    assert re.search(r'<nav class="pager">(.*?)</nav>', page)[1].count("<a ") == 2 and 'href="02_use.html"' in page
    target = re.search(r'href="([^"]*docs/scale.md)"', page)[1]
    assert (tmp_path / target).is_file() and 'href="01_train.html#x"' in page
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "No held-out loss yet" in index and "PRESET=laptop" in index and 'href="metrics.json"' in index
    metrics["notebooks"] = {"05_pretraining": {**entry, "metrics": {**LOSSES, "mean_s2": 1.5}}}
    write_index(tmp_path, every, metrics)
    rows = re.findall(r"<tr>.*?</tr>", (tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "2.100</b>, above" in rows[1] and "0.200</b>, below" in rows[2] and "0.270" in rows[2]


def test_store_executes_in_place_and_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "FUSMAE_RUN_DIR"):  # what it sets ends with this test
        monkeypatch.setenv(name, "1")
    (tmp_path / "notebooks").mkdir()
    store = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "store.py"))["store"]
    path = write(tmp_path / "notebooks", "00_start", "print(1 + 1)", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(RunError, match="00_start.ipynb stopped in cell 4/4, .*: ZeroDivisionError: division by zero"):
        store(tmp_path)
    assert path.read_bytes() == before
    write(tmp_path / "notebooks", "00_start", "print(1 + 1)")
    notebook, folded = nbformat.read(path, as_version=4), {"cellView": "form", "jupyter": {"source_hidden": True}}
    notebook.cells[-1].metadata |= {**folded, "collapsed": False}
    nbformat.write(notebook, path)
    store(tmp_path, ["00"])
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[-1].metadata == folded, "folded cells stay folded"
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert notebook.cells[-1].outputs[0].text == "2\n" and notebook.cells[1].metadata == {"tags": ["parameters"]}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    write(tmp_path / "notebooks", "00_start", "import matplotlib.pyplot as plt\n%matplotlib inline\nplt.imshow([[1]])")
    store(tmp_path, ["00"])
    drawn = nbformat.read(path, as_version=4).cells[-1].outputs[-1]
    assert Image.open(io.BytesIO(base64.b64decode(drawn.data["image/png"]))).mode == "P", "few colours, few bytes"
    assert len(drawn.metadata["image/png"]["alt"]) > 15
    notebook.metadata["widgets"] = {}
    assert "widgets" not in without_widgets(notebook).metadata


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["course", "-p", "nonsense=1"], 2, "error: "),
        (["pretrain", "-p", "epochs=many"], 2, "error: parameter 'epochs'"),
        (["evaluate", "--preset", "huge"], 2, "error: unknown preset 'huge'"),
        (["pretrain", "-p", "data_dir=/no/such"], 2, "error: data folder /no/such does not exist"),
    ],
)
def test_command_line_errors(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_what_the_parser_refuses_and_says(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, part in ((["cours"], "'course'"), (["course", "--forc"], "--force"), (["encode"], "'SRC'")):
        assert main(arguments) == 2
        assert part in capsys.readouterr().err
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("fusmae-lite ")
    assert main([]) == 0 and {"course", "results", "export"} <= set(capsys.readouterr().out.split())


def test_help_asks_for_no_torch() -> None:
    code = "import sys; from fusmae_lite.course.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_help_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("course", "pretrain", "evaluate", "doctor"):
        assert main([command, "--help"]) == 0
    assert main(["doctor"]) == 0
    assert main(["doctor", "-p", "data_dir=/no/such"]) == 1
    out = capsys.readouterr().out
    assert main(["results", "--help"]) == 0 and "overnight" in capsys.readouterr().out
    assert "hf-hub:owner/name" in re.sub(r"-\s+", "-", out), "where weights may lie"
    assert "mask_ratio" in out and "BigEarthNet-MM v1" in out and "data folder /no/such does not exist" in out


def test_interrupt(sources: Path, tmp_path: Path) -> None:
    write(
        sources,
        "00_start",
        "import os, time\nprint(os.getpid(), file=open(run_dir + '/pid', 'w'), flush=True)\ntime.sleep(600)",
    )
    code = (
        "import sys; from pathlib import Path; from fusmae_lite.course import cli, run as course_run\n"
        "folder = Path(sys.argv.pop())\n"
        "course_run.project_root = lambda: folder.parent\n"
        "sys.exit(cli.main(['course', '--run-dir', str(folder.parent / 'run')]))"
    )
    sources = sources.rename(tmp_path / "notebooks")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(sources)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C and hands that down; the child is to behave like a foreground one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid = tmp_path / "run" / "pid"
    deadline = time.monotonic() + 300
    while not (pid.is_file() and pid.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert error.splitlines()[-1].startswith("error: interrupted") and "DeadKernelError" not in error, error
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_viewer_is_exported_as_its_last_picture(tmp_path: Path) -> None:
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0", "version_major": 2}, "image/png": png}
    cell = nbformat.v4.new_code_cell("viewer", outputs=[nbformat.v4.new_output("display_data", view)])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    nbformat.write(notebook, tmp_path / "viewer.ipynb")
    write_html(tmp_path / "viewer.ipynb", tmp_path / "viewer.html")
    page = (tmp_path / "viewer.html").read_text(encoding="utf-8")
    assert png[:60] in page and "application/vnd.jupyter.widget-view+json" not in page

"""The console command ``fusmae``.

Exit status: 0 done, 1 the run failed, 2 bad input, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).

Each subcommand is a function: typer reads its arguments from the signature and its help from the docstring.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Exit, Option, Typer

from fusmae_lite import __version__
from fusmae_lite.core.config import PRESETS, RunConfig, describe_fields, load_preset
from fusmae_lite.core.errors import InputError, exit_status
from fusmae_lite.core.progress import pulse
from fusmae_lite.course.parameters import parse
from fusmae_lite.course.scene import WHOSE, embed, predict

Preset = Annotated[str, Option(help=f"One of {', '.join(PRESETS)}.", metavar="NAME")]
Assignments = Annotated[
    list[str], Option("-p", "--parameter", help="Replace one parameter; may be repeated.", metavar="name=value")
]
FIELDS = f"""Examples:
  fusmae pretrain --preset laptop -p fusion=xad -p seed=1
  fusmae evaluate --weights xae-lite -p modalities=s1
  fusmae doctor --preset paper -p data_dir=/data/reben.lmdb

Parameters of -p:

{describe_fields()}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    commands = Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    commands.callback(invoke_without_command=True)(fusmae)
    for run in (course, export, encode, synthesise, embed, predict):
        add(commands, run)
    for run in (pretrain, evaluate, doctor):
        add(commands, run, FIELDS)
    for command in entry_points(group="fusmae_lite.commands"):  # results, of reproduce/: no import from here
        command.load()(commands, add)

    def run() -> int:
        try:
            return commands(arguments, prog_name="fusmae") or 0
        except SystemExit as stopped:
            return stopped.code

    words = sys.argv[1:2] if arguments is None else ()
    with pulse(f"fusmae {words[0]}") if words else nullcontext():
        return exit_status(run)  # for what typer itself writes


def add(commands: Typer, run: Callable[..., int | None], more: str = "") -> None:
    """Add a function as a subcommand; `more` stands below its help."""

    @functools.wraps(run)
    def command(**options: object) -> None:
        raise Exit(exit_status(run, **options))

    blocks = more.replace("\n\n", "\n\n\b\n")  # or click would fill lines up
    commands.command(epilog=f"\b\n{blocks}")(command)


def fusmae(context: Context, version: Annotated[bool, Option("--version", help="Show the version.")] = False) -> None:
    """Fus-MAE taught and implemented in notebooks."""
    if version:
        print(f"fusmae-lite {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def course(
    preset: Preset = "smoke",
    parameter: Assignments = (),
    only: Annotated[list[str], Option(help="Only this notebook; may be repeated.", metavar="NN")] = (),
    run_dir: Annotated[str, Option(help="Where results go instead of runs/<preset>/.", metavar="DIR")] = "",
    force: Annotated[bool, Option(help="Run notebooks again that finished before.")] = False,
    keep_going: Annotated[bool, Option(help="After a failure run the others that do not need it.")] = False,
) -> None:
    """Run the notebooks into a folder.

    Results go to runs/<preset>/, sources stay untouched.
    """
    from fusmae_lite.course.run import run_course  # papermill and nbconvert take a second to import

    done = run_course(preset, parse(parameter), only=only, run_dir=run_dir, force=force, keep_going=keep_going)
    print(f"{len(done.executed)} notebooks run, {len(done.skipped)} skipped; open {done.folder / 'index.html'}")


def pretrain(preset: Preset = "smoke", parameter: Assignments = ()) -> None:
    """Pretrain a model, continuing a run found in its folder."""
    from fusmae_lite.train.launch import launch

    result = launch(_config(preset, parameter))
    for name, value in result.heldout.items():
        print(f"held-out {name} {value:.4g}")
    print(f"checkpoint {result.checkpoint}")


def evaluate(
    preset: Preset = "smoke",
    parameter: Assignments = (),
    weights: Annotated[str | None, Option(help=f"Not the run's own: {WHOSE[:-1]}, or that of a run.")] = None,
    features: Annotated[
        str | None, Option(help="Vectors instead: columns name (or patch_id) and embedding.", metavar="FILE.parquet")
    ] = None,
) -> None:
    """Score the model of a run.

    The table has the model, a random encoder and the class prior, by linear probe or fine-tuning.
    """
    from fusmae_lite import evaluation

    config = _config(preset, parameter)
    if features is not None and (weights is not None or not features.endswith(".parquet")):
        raise InputError(f"--features {features}", "give one .parquet file, and no --weights")
    print(evaluation.as_markdown(evaluation.evaluate(config, weights=features or weights)), end="")
    print(f"written to {config.folder() / 'evaluation'}")


def export(
    checkpoint: Annotated[str, Argument(help=WHOSE)],
    format: Annotated[Literal["timm", "onnx", "hf"], Option(help="Of the file; hf: a folder for the hub.")],
    output: Annotated[str, Option(help="Replaced in one step if it exists; a new folder for hf.", metavar="FILE")],
    sensors: Annotated[str, Option(help="s1, s2 or s1,s2; hf takes the whole model.", metavar="NAMES")] = "s1,s2",
) -> None:
    """Write an encoder for timm or ONNX, a model for Hugging Face.

    timm's VisionTransformer takes one sensor. The file is checked before it exists.
    """
    from fusmae_lite.systems.export import save_timm, to_onnx
    from fusmae_lite.systems.weights import load_pretrained, save_folder

    model, path = load_pretrained(checkpoint), Path(output).expanduser()
    if format == "hf":
        save_folder(path, model)
    elif path.is_dir():
        raise InputError(f"{path} is a folder", "name the file to write")
    elif format == "timm":
        save_timm(path, model, sensors)
    else:
        to_onnx(model, path, sensors)
    print(f"written to {path}")


def encode(
    source: Annotated[str, Argument(help="Folder of an archive.", metavar="SRC")],
    destination: Annotated[str, Argument(help="To write; new, empty, or of a stopped encode.", metavar="DST")],
    workers: Annotated[int | None, Option(help="Processes that decode (default: one per processor).")] = None,
    partial: Annotated[bool, Option(help="Accept missing and damaged patches: exit status 0.")] = False,
    snow_and_clouds: Annotated[bool, Option(help="Also the patches of reBEN's second table.")] = False,
    verify: Annotated[bool, Option(help="If DST is finished, check it, and whether SRC has changed.")] = False,
) -> int:
    """Write an archive into an LMDB.

    Continues one that was stopped. Native bands are then read 122 times as fast as GeoTIFF (benchmarks/reading.py).
    """
    from fusmae_lite.data import encode as lmdb
    from fusmae_lite.data import encoded
    from fusmae_lite.data.archives import open_archive

    checked = verify and encoded.finished(destination)
    if checked:
        print(f"{encoded.verify(destination)} pairs read back, all as they were written")
        if not Path(source).expanduser().is_dir():
            print(f"{source} is not there: not compared with it")
            return 0
    archive = open_archive(source, partial=partial, snow_and_clouds=snow_and_clouds, read_all=False)
    if checked:
        encoded.compare(destination, archive, workers)
        print(f"{source} has not changed since")
        return 0
    done = lmdb.encode(archive, destination, workers=workers, partial=partial)
    print(done)
    return 1 if done.skipped and not partial else 0


def synthesise(
    destination: Annotated[str, Argument(help="Folder to make; must not exist.", metavar="DST")],
    pairs: Annotated[int, Option(help="How many (lmdb: 275 KB each).")],
    format: Annotated[str, Option(help="v1, reben, sen12ms or lmdb.")] = "lmdb",
    seed: Annotated[int, Option(help="Decides every pixel.")] = 0,
    truth: Annotated[bool, Option(help="Known truth: classes that only one sensor shows, and so on.")] = False,
    truth_file: Annotated[str, Option(help="Known truth of another archive's truth.json.", metavar="FILE")] = "",
    workers: Annotated[int, Option(help="Processes; 0: one per processor.")] = 0,
) -> None:
    """Write an archive of synthetic pairs.

    Labelled as such, with statistics measured on the bundled real ones.
    """
    from fusmae_lite.data import synthetic

    classes = synthetic.read_truth(Path(truth_file)) if truth_file else synthetic.Truth() if truth else None
    folder = synthetic.synthesise(destination, pairs, format=format, seed=seed, truth=classes, workers=workers)
    print(f"{pairs} synthetic pairs in {folder}")


def doctor(
    preset: Preset = "smoke",
    parameter: Assignments = (),
    check: Annotated[bool, Option(help="Also read a sample of the pairs: unit, range, no data.")] = False,
    all: Annotated[bool, Option(help="Also read every pair.")] = False,
) -> int:
    """Versions, device, data and weights found, what would run."""
    from fusmae_lite.course.doctor import report

    config = _config(preset, parameter)
    lines, good = report(config)
    print("\n".join(lines))
    if check or all:
        from fusmae_lite.data.archives import open_data
        from fusmae_lite.data.archives.sample import check_up

        lines, sound = check_up(open_data(config), all)
        print("\n".join(lines))
        good = good and sound
    return 0 if good else 1


def _config(preset: str, assignments: Sequence[str]) -> RunConfig:
    return load_preset(**{"preset": preset, **parse(assignments)})


if __name__ == "__main__":
    sys.exit(main())

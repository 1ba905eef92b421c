"""The console command ``fusmae``. Exit status: 0 done, 1 the run failed, 2 bad input, 130 interrupted.

Each subcommand is a function: its docstring is the help, its signature the arguments (see :func:`add`).
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, get_args

from fusmae_lite.core.config import PRESETS, RunConfig, describe_fields, load_preset
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.course.parameters import parse

Preset = Annotated[str, f"one of {', '.join(PRESETS)} (default smoke)", {"metavar": "NAME"}]
Assignments = Annotated[
    Sequence[str],
    "replace one parameter; may be repeated",
    {"flags": ("-p", "--parameter"), "action": "append", "metavar": "name=value"},
]
FIELDS = f"parameters of -p, with their defaults before the preset:\n{describe_fields()}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand."""
    options = vars(_parser().parse_args(arguments))
    try:
        return exit_status(options.pop("run"), **options)
    except KeyboardInterrupt:
        print("error: interrupted; the same command continues", file=sys.stderr)
        return 130


def exit_status(run: Callable[..., int | None], *arguments: object, **options: object) -> int:
    """Call a function; an error that a user can mend becomes one line on stderr."""
    try:
        return run(*arguments, **options) or 0
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1


def course(
    *,
    preset: Preset = "smoke",
    parameter: Assignments = (),
    only: Annotated[Sequence[str], "only this notebook; may be repeated", {"action": "append", "metavar": "NN"}] = (),
    run_dir: Annotated[str, "where results go instead of runs/<preset>/", {"metavar": "DIR"}] = "",
    force: Annotated[bool, "run notebooks again that finished before"] = False,
) -> None:
    """Run the notebooks; results go to runs/<preset>/, sources stay untouched."""
    from fusmae_lite.course.run import run_course  # papermill and nbconvert take a second to import

    folder, executed, skipped = run_course(preset, parse(parameter), only=only, run_dir=run_dir, force=force)
    print(f"{len(executed)} notebooks run, {len(skipped)} skipped; open {folder / 'index.html'}")


def pretrain(*, preset: Preset = "smoke", parameter: Assignments = ()) -> None:
    """Pretrain a model, continuing a run found in its folder."""
    from fusmae_lite.train.launch import launch

    result = launch(_config(preset, parameter))
    for name, value in result.heldout.items():
        print(f"held-out {name} {value:.4g}")
    print(f"checkpoint {result.checkpoint}")


def evaluate(
    *,
    preset: Preset = "smoke",
    parameter: Assignments = (),
    weights: Annotated[
        str | None,
        "instead of the checkpoint in run_dir: xae-lite, xad-lite, a .safetensors file, or the folder of a run",
        {"metavar": "NAME"},
    ] = None,
) -> None:
    """The table: the run's model, a random encoder and the class prior, by linear probe or fine-tuning."""
    from fusmae_lite import evaluation

    config = _config(preset, parameter)
    print(evaluation.as_markdown(evaluation.evaluate(config, weights=weights)), end="")
    print(f"written to {config.folder() / 'evaluation'}")


def export(
    checkpoint: Annotated[str, "xae-lite, xad-lite, or a .safetensors file", {"metavar": "CHECKPOINT"}],
    *,
    format: Annotated[str, "of the file", {"choices": ("timm", "onnx")}],
    sensors: Annotated[str, "s1, s2 or s1,s2 (default s1,s2)", {"metavar": "NAMES"}] = "s1,s2",
    output: Annotated[str, "replaced in one step if it exists", {"metavar": "FILE"}],
) -> None:
    """Write an encoder for other programs: timm's VisionTransformer (one sensor) or ONNX, checked before it exists."""
    from fusmae_lite.systems.export import save_timm, to_onnx
    from fusmae_lite.systems.weights import load_pretrained

    model, path = load_pretrained(checkpoint), Path(output).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder", "name the file to write")
    if format == "timm":
        save_timm(path, model, sensors)
    else:
        to_onnx(model, path, sensors)
    print(f"written to {path}")


def encode(
    source: Annotated[str, "folder of an archive", {"metavar": "SRC"}],
    destination: Annotated[str, "folder to write; new, empty, or of a stopped encode", {"metavar": "DST"}],
    *,
    workers: Annotated[int | None, "processes that decode (default: one per processor)", {"metavar": "N"}] = None,
    partial: Annotated[bool, "accept missing and damaged patches: exit status 0"] = False,
    snow_and_clouds: Annotated[bool, "also the patches of reBEN's second table"] = False,
    verify: Annotated[bool, "if DST is finished, check it, and whether SRC has changed"] = False,
) -> int:
    """Write an archive into an LMDB that is read a hundred times as fast; continues one that was stopped."""
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
    destination: Annotated[str, "folder to make; must not exist", {"metavar": "DST"}],
    *,
    pairs: Annotated[int, "how many (lmdb: 275 KB each)", {"metavar": "N"}],
    format: Annotated[str, "v1, reben, sen12ms or lmdb (default lmdb)"] = "lmdb",
    seed: Annotated[int, "decides every pixel (default 0)"] = 0,
    truth: Annotated[
        str | None,
        "known truth: classes that only one sensor shows, and so on",
        {"nargs": "?", "const": "", "metavar": "FILE"},
    ] = None,
    workers: Annotated[int, "processes (default: one per processor)", {"metavar": "N"}] = 0,
) -> None:
    """Write an archive of synthetic pairs, labelled as such, with statistics measured on the bundled real ones."""
    from fusmae_lite.data import synthetic

    known = None if truth is None else synthetic.read_truth(Path(truth)) if truth else synthetic.Truth()
    folder = synthetic.synthesise(destination, pairs, format=format, seed=seed, truth=known, workers=workers)
    print(f"{pairs} synthetic pairs in {folder}")


def doctor(
    *,
    preset: Preset = "smoke",
    parameter: Assignments = (),
    check: Annotated[bool, "also read a sample of the pairs: unit, range, no data"] = False,
    all: Annotated[bool, "also read every pair"] = False,
) -> int:
    """Versions, device, data and weights found, what would run."""
    from fusmae_lite.course.doctor import report

    config = _config(preset, parameter)
    lines, good = report(config)
    print("\n".join(lines))
    if check or all:
        from fusmae_lite.data.archives import open_data
        from fusmae_lite.data.checkup import check_up

        lines, sound = check_up(open_data(config), all)
        print("\n".join(lines))
        good = good and sound
    return 0 if good else 1


def add(commands: argparse._SubParsersAction, run: Callable[..., int | None], more: str = "") -> None:
    """Add a subcommand: a function whose parameters are ``name: Annotated[type, help, add_argument's own] = default``.

    Keyword-only parameters are options (bool: flags), the others arguments; `more` stands below the help.
    """
    text = inspect.getdoc(run)
    form = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(run.__name__, help=text, description=text, epilog=more, formatter_class=form)
    parser.set_defaults(run=run)
    for name, parameter in inspect.signature(run, eval_str=True).parameters.items():
        kind, said, *own = get_args(parameter.annotation)
        typed = {"action": "store_true"} if kind is bool else {"type": int} if int in (kind, *get_args(kind)) else {}
        options = {"help": said, **typed, **(own[0] if own else {})}
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parser.add_argument(name, **options)
            continue
        flags = options.pop("flags", (f"--{name.replace('_', '-')}",))
        options["required"] = parameter.default is parameter.empty
        options["default"] = list(parameter.default) if parameter.default == () else parameter.default
        parser.add_argument(*flags, dest=name, **options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fusmae", description="Fus-MAE taught and implemented in notebooks.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    add(commands, course)
    add(commands, pretrain, FIELDS)
    add(commands, evaluate, FIELDS)
    for command in entry_points(group="fusmae_lite.commands"):  # results, of reproduce/: no import from here
        command.load()(commands, add)
    for run in (export, encode, synthesise):
        add(commands, run)
    add(commands, doctor, FIELDS)
    return parser


def _config(preset: str, assignments: Sequence[str]) -> RunConfig:
    return load_preset(**{"preset": preset, **parse(assignments)})


if __name__ == "__main__":
    sys.exit(main())

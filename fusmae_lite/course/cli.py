"""The console command ``fusmae``. Exit status: 0 done, 1 the run failed, 2 bad input, 130 interrupted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from fusmae_lite.core.config import PRESETS, RunConfig, describe_fields, load_preset
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.course.parameters import parse

Handler = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; errors that a user can mend become one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return options.handler(options)
    except InputError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command continues", 130)


def _complain(error: object, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


def _course(options: argparse.Namespace) -> int:
    from fusmae_lite.course.run import run_course  # papermill and nbconvert take a second to import

    result = run_course(
        options.preset,
        parse(options.parameter),
        only=options.only,
        run_dir=options.run_dir,
        force=options.force,
    )
    print(f"{len(result.executed)} notebooks run, {len(result.skipped)} skipped; open {result.folder / 'index.html'}")
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    from fusmae_lite.train.launch import launch

    result = launch(_config(options))
    for name, value in result.heldout.items():
        print(f"held-out {name} {value:.4g}")
    print(f"checkpoint {result.checkpoint}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from fusmae_lite.evaluation import as_markdown, evaluate

    config = _config(options)
    print(as_markdown(evaluate(config, weights=options.weights)), end="")
    print(f"written to {config.folder() / 'evaluation'}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from fusmae_lite.systems.export import save_timm, to_onnx
    from fusmae_lite.systems.weights import load_pretrained

    model, path = load_pretrained(options.checkpoint), Path(options.output).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder", "name the file to write")
    if options.format == "timm":
        save_timm(path, model, options.sensors)
    else:
        to_onnx(model, path, options.sensors)
    print(f"written to {path}")
    return 0


def _encode(options: argparse.Namespace) -> int:
    from fusmae_lite.data.archives import open_archive
    from fusmae_lite.data.encode import compare, encode, finished, report, verify

    checked = options.verify and finished(options.destination)
    if checked:
        print(f"{verify(options.destination)} pairs read back, all as they were written")
        if not Path(options.source).expanduser().is_dir():
            print(f"{options.source} is not there: not compared with it")
            return 0
    source = open_archive(
        options.source, partial=options.partial, snow_and_clouds=options.snow_and_clouds, read_all=False
    )
    if checked:
        compare(options.destination, source, options.workers)
        print(f"{options.source} has not changed since")
        return 0
    done = encode(source, options.destination, workers=options.workers, partial=options.partial)
    print(report(done))
    return 1 if done.skipped and not options.partial else 0


def _synthesise(options: argparse.Namespace) -> int:
    from fusmae_lite.data.synthetic import Truth, read_truth, synthesise

    truth = None if options.truth is None else read_truth(Path(options.truth)) if options.truth else Truth()
    folder = synthesise(
        options.destination,
        options.pairs,
        format=options.format,
        seed=options.seed,
        truth=truth,
        workers=options.workers,
    )
    print(f"{options.pairs} synthetic pairs in {folder}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from fusmae_lite.course.doctor import report

    config = _config(options)
    lines, good = report(config)
    print("\n".join(lines))
    if options.check or options.all:
        from fusmae_lite.data.archives import open_data
        from fusmae_lite.data.checkup import check_up

        found, sound = check_up(open_data(config), options.all)
        print("\n".join(found))
        good = good and sound
    return 0 if good else 1


def _config(options: argparse.Namespace) -> RunConfig:
    return load_preset(**{"preset": options.preset, **parse(options.parameter)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fusmae", description="Fus-MAE taught and implemented in notebooks.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    course = add(commands, "course", _course, "run the notebooks; results go to runs/<preset>/, sources stay untouched")
    course.add_argument("--only", action="append", default=[], metavar="NN", help="only this notebook; may be repeated")
    course.add_argument("--run-dir", default="", metavar="DIR", help="where results go instead of runs/<preset>/")
    course.add_argument("--force", action="store_true", help="run notebooks again that finished before")
    fields = f"parameters of -p, with their defaults before the preset:\n{describe_fields()}"
    add(commands, "pretrain", _pretrain, "pretrain a model, continuing a run found in its folder", fields)
    _add_evaluate(commands, fields)
    for command in entry_points(group="fusmae_lite.commands"):  # results, of reproduce/: no import from here
        command.load()(commands, add)
    _add_export(commands)
    _add_encode(commands)
    _add_synthesise(commands)
    doctor = add(commands, "doctor", _doctor, "versions, device, data and weights found, what would run", fields)
    doctor.add_argument("--check", action="store_true", help="also read a sample of the pairs: unit, range, no data")
    doctor.add_argument("--all", action="store_true", help="also read every pair")
    return parser


def _add_evaluate(commands: argparse._SubParsersAction, fields: str) -> None:
    text = "the table: the run's model, a random encoder and the class prior, by linear probe or fine-tuning"
    parser = add(commands, "evaluate", _evaluate, text, fields)
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="instead of the checkpoint in run_dir: xae-lite, xad-lite, a .safetensors file, or the folder of a run",
    )


def _add_export(commands: argparse._SubParsersAction) -> None:
    text = (
        "write an encoder for other programs: timm's VisionTransformer (one sensor) or ONNX, checked before it is there"
    )
    parser = commands.add_parser("export", help=text, description=text)
    parser.set_defaults(handler=_export)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="xae-lite, xad-lite, or a .safetensors file")
    parser.add_argument("--format", required=True, choices=("timm", "onnx"))
    parser.add_argument("--sensors", default="s1,s2", metavar="NAMES", help="s1, s2 or s1,s2 (default s1,s2)")
    parser.add_argument("--output", required=True, metavar="FILE", help="replaced in one step if it exists")


def _add_synthesise(commands: argparse._SubParsersAction) -> None:
    text = "write an archive of synthetic pairs, labelled as such, with statistics measured on the bundled real ones"
    parser = commands.add_parser("synthesise", help=text, description=text)
    parser.set_defaults(handler=_synthesise)
    parser.add_argument("destination", metavar="DST", help="folder to make; must not exist")
    parser.add_argument("--pairs", type=int, required=True, metavar="N", help="how many (lmdb: 275 KB each)")
    parser.add_argument("--format", default="lmdb", help="v1, reben, sen12ms or lmdb (default lmdb)")
    parser.add_argument("--seed", type=int, default=0, help="decides every pixel (default 0)")
    parser.add_argument(
        "--truth",
        nargs="?",
        const="",
        metavar="FILE",
        help="known truth: classes that only one sensor shows, and so on",
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one per processor)")


def _add_encode(commands: argparse._SubParsersAction) -> None:
    text = "write an archive into an LMDB that is read a hundred times as fast; continues one that was stopped"
    parser = commands.add_parser("encode", help=text, description=text)
    parser.set_defaults(handler=_encode)
    parser.add_argument("source", metavar="SRC", help="folder of an archive")
    parser.add_argument("destination", metavar="DST", help="folder to write; new, empty, or of a stopped encode")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: one per processor)")
    parser.add_argument("--partial", action="store_true", help="accept missing and damaged patches: exit status 0")
    parser.add_argument("--snow-and-clouds", action="store_true", help="also the patches of reBEN's second table")
    parser.add_argument(
        "--verify", action="store_true", help="if DST is finished, check it, and whether SRC has changed"
    )


def add(
    commands: argparse._SubParsersAction, name: str, handler: Handler, text: str, more: str = ""
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(handler=handler)
    parser.add_argument(
        "--preset", default="smoke", metavar="NAME", help=f"one of {', '.join(PRESETS)} (default smoke)"
    )
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="name=value",
        help="replace one parameter; may be repeated",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

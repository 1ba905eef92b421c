"""End every command in every way, start it again, and count how often it ended as documented and went on.

    python benchmarks/endings.py --times 2 --record benchmarks/endings.json
    python benchmarks/endings.py --commands encode,pretrain --endings term,interrupt

Endings: `kill` (SIGKILL to the process), `term` (SIGTERM to it), `interrupt` (SIGINT to the whole group, as a terminal
sends it), each at a random moment of the time an undisturbed run takes; `full` (a tmpfs too small for the results,
which needs the right to mount one, else files of at most 4 KB by RLIMIT_FSIZE), `readonly` (a folder that cannot be
written: immutable by chattr for root, by its mode for others), `pipe` (a reader that leaves after one line),
`devfull` (stdout is /dev/full), `files` (at most 20, 40 or 64 open files, in turn).

Held means: the status is the one documented, stderr holds one line and no traceback, nothing of the process group runs
three seconds later, and the same command then ends with 0, leaves what an undisturbed run leaves and no litter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil

from fusmae_lite.core.files import write_text

ROOT = Path(__file__).resolve().parents[1]
FUSMAE = [sys.executable, "-m", "fusmae_lite.course.cli"]
TINY = "width=16 depth=2 heads=2 decoder_width=8 decoder_depth=1 decoder_heads=2 patch_size=24 device=cpu"
TINY_RUN = [word for field in [*TINY.split(), "batch_size=8", "precision=fp32"] for word in ("-p", field)]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}
ENDINGS = [*SIGNALS, "full", "readonly", "pipe", "devfull", "files"]
OPEN_FILES = (20, 40, 64)
LONGEST = 900  # seconds: whatever runs longer hangs
ERRORS = re.compile(r"Traceback|\[IPKernelApp\]|Exception in|Error in")


@dataclass(frozen=True)
class Command:
    """Arguments for a folder to write to, and what there says that the result is the same."""

    arguments: Callable[[Path], list[str]]
    result: str = ""  # glob of the files that are compared; empty: only that there are some
    writes: bool = True
    script: str = ""  # run in a copy of the checkout instead of `fusmae`


def _pretrain(folder: Path, processes: int) -> list[str]:
    fields = [f"run_dir={folder}", "epochs=8", "checkpoint_every=1", "image_size=48", f"processes={processes}"]
    return ["pretrain", *TINY_RUN, *(word for field in fields for word in ("-p", field))]


def _results(folder: Path) -> list[str]:
    chosen = ["--systems", "xae", "--seeds", "0", "--workers", "2"]
    return ["results", *chosen, "--run-dir", str(folder)]


COMMANDS = {
    "course": Command(lambda f: ["course", "--only", "09", "--run-dir", str(f)], "metrics/*.json"),
    "store": Command(lambda f: ["09"], script="docs/store.py"),
    "export timm": Command(
        lambda f: ["export", "xae-lite", "--format", "timm", "--sensors", "s2", "--output", f"{f}/vit.safetensors"],
        "vit*",
    ),
    "export onnx": Command(lambda f: ["export", "xae-lite", "--format", "onnx", "--output", f"{f}/vit.onnx"], "vit*"),
    "encode": Command(
        lambda f: ["encode", str(ROOT / "data_samples"), f"{f}/lmdb", "--workers", "2"], "lmdb/*.parquet"
    ),
    "synthesise": Command(
        lambda f: ["synthesise", f"{f}/made", "--pairs", "300", "--format", "v1", "--workers", "2"], "made/**/*.tif"
    ),
    "pretrain": Command(lambda f: _pretrain(f, 1), "pretrain/checkpoints/step-*48/*.safetensors"),
    "pretrain, 2 processes": Command(lambda f: _pretrain(f, 2)),
    "evaluate": Command(
        lambda f: ["evaluate", "--weights", "xae-lite", "-p", f"run_dir={f}", "-p", "probe_epochs=2"],
        "evaluation/*.csv",
    ),
    "results": Command(_results, "tables/*.md"),
    "doctor": Command(lambda f: ["doctor"], writes=False),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", default=",".join(name for name in COMMANDS if "," not in name))
    parser.add_argument("--endings", default=",".join(ENDINGS))
    parser.add_argument("--times", type=int, default=2, help="of each signal, command by command")
    parser.add_argument("--once", type=float, help="at a moment in so many seconds, and not started again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="added to what is recorded there")
    given = parser.parse_args()
    names = [name for name in COMMANDS if name.partition(",")[0] in given.commands.split(",")]
    kept = json.loads(given.record.read_text()) if given.record and given.record.is_file() else {"trials": []}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            command, draw = COMMANDS[name], random.Random(f"{given.seed} {name}")
            whole, began = _fresh(command, Path(scratch, "whole")), time.monotonic()
            first = {"status": 0} if given.once else _run(command, whole)
            seconds, digest = given.once or time.monotonic() - began, None if given.once else _digest(command, whole)
            if first["status"]:
                sys.exit(f"{name}: undisturbed it ended with {first}")
            print(f"{name}: {seconds:.0f} s", flush=True)
            for ending in given.endings.split(","):
                times = len(OPEN_FILES) if ending == "files" else given.times if ending in SIGNALS else 1
                if not command.writes and ending in ("full", "readonly"):
                    continue
                for number in range(times):
                    folder = _fresh(command, Path(scratch, "run"))
                    trial = {"command": name, "ending": ending, "number": number}
                    trial |= _try(command, ending, number, folder, draw.uniform(0, seconds), digest)
                    kept["trials"] = [old for old in kept["trials"] if not _same(old, trial)] + [trial]
                    print(f"  {ending}: {trial['broken'] or 'held'} {trial['said'][-1:]}", flush=True)
                    shutil.rmtree(folder, ignore_errors=True)
                    if given.record:
                        write_text(given.record, json.dumps(kept, indent=1) + "\n")
            shutil.rmtree(whole)
    print(table(kept["trials"]))
    return int(any(trial["broken"] for trial in kept["trials"]))


def _same(one: dict, other: dict) -> bool:
    return all(one[key] == other[key] for key in ("command", "ending", "number"))


def _fresh(command: Command, folder: Path) -> Path:
    """An empty folder or, for a command that works in its checkout, a copy of that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if command.script:
        for name in ("fusmae_lite", "notebooks", "data_samples", "reproduce", "docs", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
    return folder


def _run(command: Command, folder: Path, ending: str = "", number: int = 0, moment: float = 0.0) -> dict:
    """Start it, end it; status, lines of stderr, who still ran three seconds later, whether it ended by itself."""
    environment = {**os.environ, "PYTHONPATH": str(folder if command.script else ROOT), "OMP_NUM_THREADS": "1"}

    def limits() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        if ending == "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES[number], OPEN_FILES[number]))
        if ending == "full" and not os.path.ismount(folder):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    with (
        open("/dev/full", "w") if ending == "devfull" else nullcontext(subprocess.PIPE) as out,
        tempfile.TemporaryFile("w+") as error,
    ):
        where = folder if command.script else ROOT
        output = out if ending else subprocess.DEVNULL
        options = {"env": environment, "cwd": where, "start_new_session": True, "preexec_fn": limits}
        program = [sys.executable, str(folder / command.script)] if command.script else FUSMAE
        arguments = [*program, *command.arguments(folder)]
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=error, **options)
        if ending == "pipe":
            process.stdout.readline()
        early, family = True, []
        if ending in SIGNALS:
            try:
                process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                early, family = False, _family(process)
                send = os.killpg if ending == "interrupt" else os.kill
                send(process.pid, SIGNALS[ending])
        elif process.stdout:
            process.stdout.close() if ending == "pipe" else None
        try:
            process.communicate(timeout=LONGEST) if process.stdout and not process.stdout.closed else process.wait(
                LONGEST
            )
            hung = False
        except subprocess.TimeoutExpired:
            hung = True
        time.sleep(0 if ending == "" else 3)
        left = {p for p in psutil.process_iter() if _of(p, process.pid)} | {p for p in family if p.is_running()}
        for p in left:
            p.kill()
        error.seek(0)
        lines = [text for text in error.read().splitlines() if text.strip()]
    return {
        "status": process.returncode,
        "said": lines[-3:],
        "all": lines,
        "orphans": len(left),
        "hung": hung,
        "early": early,
    }


def _family(process: subprocess.Popen) -> list[psutil.Process]:
    """All that a command has started so far, in whatever session: a kernel has its own."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def _of(process: psutil.Process, session: int) -> bool:
    """Whether a process is of the session that a command began."""
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def _try(command: Command, ending: str, number: int, folder: Path, moment: float, digest: str | None) -> dict:
    """End it once and run it again; what did not hold, or nothing."""
    place = {"full": _small, "readonly": _locked}.get(ending, lambda _: nullcontext(""))
    with place(folder) as how:
        ended = _run(command, folder, ending, number, moment)
    broken, lines = [], ended.pop("all")
    expected = {"kill": (-9,), "term": (143, -15), "interrupt": (130, -2), "pipe": (0, 1, 141), "devfull": (1,)}
    allowed = expected.get(ending, (0, 1, 2))
    if ended["early"] and ending in SIGNALS:
        allowed = (0,)
    errors = [text for text in lines if ERRORS.search(text)]
    if ended["hung"]:
        broken.append("hung")
    if ended["status"] not in allowed:
        broken.append(f"status {ended['status']}")
    if errors:
        broken.append(f"said {errors[0][:80]!r}")
    if ended["orphans"]:
        broken.append(f"{ended['orphans']} orphans")
    whole = digest not in (None, "") and _digest(command, folder) == digest
    again = {"status": 0} if digest is None or whole else _run(command, folder)  # encode refuses what is finished
    if again["status"]:
        broken.append(f"again: status {again['status']}, {again['said'][-1:]}")
    elif digest not in (None, _digest(command, folder)):
        broken.append("again: another result")
    litter = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix == ".tmp"]
    if litter and (digest is not None or ending != "kill"):  # what a kill leaves goes at the next start
        broken.append(f"litter {litter[:2]}")
    said = [text.replace(str(folder), "FOLDER").replace(str(ROOT), "CHECKOUT") for text in ended["said"]]
    return {
        **ended,
        "again": digest is not None,
        "said": [text[:200] for text in said],
        "how": how,
        "moment": round(moment, 2),
        "broken": broken,
    }


@contextmanager
def _small(folder: Path) -> Iterator[str]:
    """A disk of 128 KB at the folder for a while, where this process may mount one."""
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], stderr=subprocess.DEVNULL
    ).returncode
    try:
        yield "tmpfs of 128 KB" if mounted else "files of at most 4 KB"
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


@contextmanager
def _locked(folder: Path) -> Iterator[str]:
    """A folder in which nothing can be made."""
    immutable = os.geteuid() == 0 and not subprocess.run(["chattr", "+i", folder], stderr=subprocess.DEVNULL).returncode
    folder.chmod(0o555) if not immutable else None
    try:
        yield "immutable" if immutable else "mode 555"
    finally:
        subprocess.run(["chattr", "-i", folder], check=True) if immutable else folder.chmod(0o755)


def _digest(command: Command, folder: Path) -> str:
    """Hash of the result's files; their names alone where they hold times."""
    value = hashlib.sha256()
    for path in sorted(folder.glob(command.result)) if command.result else []:
        value.update(str(path.relative_to(folder)).encode())
        if path.suffix not in (".parquet", ".json"):
            value.update(path.read_bytes())
    return value.hexdigest()


def table(trials: list[dict]) -> str:
    """Markdown: a row a command, a column an ending, held of tried."""
    lines = [["command", *ENDINGS], ["---"] * (1 + len(ENDINGS))]
    for name in COMMANDS:
        own = {end: [t for t in trials if (t["command"], t["ending"]) == (name, end)] for end in ENDINGS}
        if any(own.values()):
            cells = [f"{sum(not t['broken'] for t in ts)} of {len(ts)}" if ts else "-" for ts in own.values()]
            lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())

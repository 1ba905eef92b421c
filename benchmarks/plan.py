"""Time, disk and money of the paper's whole recipe, from measured figures, and where more cards stop helping.

    python benchmarks/plan.py --price 2.50 --write docs/scale.md

What is measured comes from the JSON files beside this script (each names its command); what is not is a parameter with
its default printed as an assumption. Nothing here was timed on the cards it plans for, except the paper's own pair: the
share of the data sheet's rate that they reached stands beside the assumed one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from fusmae_lite.core.files import write_text
from fusmae_lite.core.sensors import S1, S2

HERE = Path(__file__).parent
PAIRS, EPOCHS, BATCH = 354_196, 100, 400  # section 4 of the paper; the batch is our reading of it
PARAMETERS = 91.9e6  # XAE at paper size; tests/model/test_model.py counts them
PAPER_RATE = PAIRS * EPOCHS / (60 * 3600)  # two RTX 3090 Ti, 60 hours
COUNTS = (1, 8, 40, 80)  # cards; each divides the batch, as a run demands


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet: dense bf16 TFLOP/s, and GB/s to its neighbours in one machine and in another."""

    name: str
    tflops: float
    inside: float
    between: float


CARDS = (
    Card("RTX 3090 Ti", 80, 12, 1.2),
    Card("A100 80 GB", 312, 300, 25),
    Card("H100 SXM", 989, 450, 50),
)


def bytes_per_pair() -> int:
    """Native bands of one pair: what crosses to the device, and but for a header what an LMDB holds."""
    size = {"float32": 4, "uint16": 2}
    return sum(size[m.dtype] * m.native_side(band) ** 2 for m in (S1, S2) for band in m.bands)


@dataclass(frozen=True)
class Step:
    """Seconds of one optimiser step of the whole batch on so many cards."""

    compute: float
    exchange: float
    overhead: float

    @property
    def seconds(self) -> float:
        # Gradients travel while the backward pass (two thirds of the work) computes; what is longer counts.
        return max(self.overhead, self.compute / 3 + max(self.compute * 2 / 3, self.exchange))


def step(card: Card, cards: int, per_machine: int, gflop: float, share: float, overhead: float) -> Step:
    """Ring all-reduce sends each gradient (4 bytes) twice, less a share; the slowest link on the ring sets the pace."""
    compute = BATCH * gflop / (cards * card.tflops * 1e3 * share)
    link = card.inside if cards <= per_machine else card.between
    exchange = 0.0 if cards == 1 else 2 * (cards - 1) / cards * PARAMETERS * 4 / (link * 1e9)
    return Step(compute, exchange, overhead)


def table(given: argparse.Namespace, gflop: float) -> list[str]:
    """Markdown rows for one card, eight, and machines of eight, at the assumed share and at the paper's."""
    shares = {share: f"at {share:.0%}" for share in (given.share, paper_share(gflop))}
    hours_and_costs = " | ".join(f"{what} {at}" for what in ("hours", "cost") for at in shares.values())
    lines = [
        f"| card | cards | pairs a card and step | {hours_and_costs} | step | pairs/s | of ideal | reading |",
        "|---" + "|--:" * 10 + "|",
    ]
    for card in CARDS:
        single = step(card, 1, 8, gflop, given.share, given.overhead).seconds
        for cards in COUNTS:
            fast, slow = (step(card, cards, 8, gflop, share, given.overhead).seconds for share in shares)
            hours = [PAIRS * EPOCHS / BATCH * seconds / 3600 for seconds in (fast, slow)]
            costs = [f"{value * cards * given.price:,.0f}" for value in hours]
            rate = BATCH / fast
            cells = [card.name, str(cards), str(BATCH // cards), *(f"{value:.1f}" for value in hours), *costs]
            cells += [f"{fast * 1e3:.1f} ms", f"{rate:,.0f}", f"{single / fast / cards:.0%}"]
            lines.append(f"| {' | '.join(cells)} | {rate * bytes_per_pair() / 1e9:.1f} GB/s |")
    return lines


def paper_share(gflop: float) -> float:
    """Share of the data sheet's rate that the paper's run reached, if its model has the size of ours."""
    return PAPER_RATE / 2 * gflop / CARDS[0].tflops / 1e3


def report(given: argparse.Namespace) -> str:
    measured = json.loads((HERE / "train_step.json").read_text(encoding="utf-8"))
    gflop = next(row["gflop_per_pair"] for row in measured["rows"] if row["fusion"] == "xae")
    cpu = {row["precision"]: row["pairs_per_second"] for row in measured["rows"] if row["fusion"] == "xae"}
    reading = _reading()
    disk = PAIRS * bytes_per_pair() / 1e9
    lines = [
        "# What the whole recipe costs",
        "",
        f"Written by `python benchmarks/plan.py --share {given.share} --overhead {given.overhead} --price {given.price}"
        " --write docs/scale.md`.",
        "",
        f"The recipe: {EPOCHS} epochs over {PAIRS:,} pairs in batches of {BATCH}, {PAIRS // BATCH * EPOCHS:,} steps.",
        "",
        "**Measured or counted**",
        "",
        f"- {gflop} GFLOP a pair, forward and backward, XAE at paper size (torch's counter,"
        f" `benchmarks/train_step.py`); {PAIRS * EPOCHS * gflop / 1e9:.2f} EFLOP for the recipe.",
        f"- {bytes_per_pair() / 1e3:.1f} kB of native bands a pair, {disk:.0f} GB for {PAIRS:,}: what an LMDB takes on"
        " disk and what fits into the memory of a larger machine.",
        f"- {PARAMETERS / 1e6:.1f} M parameters: {PARAMETERS * 4 / 1e6:.0f} MB of gradients to exchange in each step.",
        *reading,
        f"- Two cores without a GPU (`{measured['machine']['vector_instructions']}`): "
        + ", ".join(
            f"{rate:.1f} pairs/s in {name} ({PAIRS * EPOCHS / rate / 86400:.0f} days)" for name, rate in cpu.items()
        )
        + ". The notebooks train a smaller model for this reason.",
        f"- The paper's own run, the only one known: 60 h on two RTX 3090 Ti, {PAPER_RATE:.0f} pairs/s,"
        f" {paper_share(gflop):.0%} of their data sheet's rate. The paper does not say why (fp32? reading?).",
        "",
        "**Assumed**, until `benchmarks/train_step.py` was run on such a card",
        "",
        f"- Steps reach {given.share:.0%} of the data sheet's dense bf16 rate,"
        f" {given.share / paper_share(gflop):.0f} times what the paper's reached; the table has both."
        f" None is shorter than {given.overhead * 1e3:.0f} ms: launching some thousand kernels takes that long.",
        f"- A card costs {given.price} an hour, in whatever money that is.",
        "- Eight cards a machine; links as the data sheets say.",
        "",
        *table(given, gflop),
        "",
        f"The last four columns are at {given.share:.0%}. Cards times `accumulate` must divide the batch of {BATCH}:"
        " 40 and 80 cards do, with `-p accumulate=1`, 32 and 64 do not.",
        "",
        "**Where it stops.** The batch is part of the recipe, so more cards mean fewer pairs on each. A step cannot be"
        " shorter than launching its kernels, nor than exchanging the gradients, which does not shrink with the number"
        " of cards. In the table that is where *of ideal* falls: on the fastest card between one and eight, on slower"
        " links where a second machine joins. Beyond it, take a larger batch and scale the learning rate with it"
        " (1e-4 x batch / 256), or train several models at once, one a card: the paper has two of them and several"
        " seeds are worth more than minutes.",
        "",
        "**Reading** must keep up with the last column. GeoTIFF takes a process for every 40 to 100"
        " pairs a second (14 files a pair);"
        " from an LMDB a few processes do, if the archive lies in memory or on a local disk of that rate."
        " `waiting_for_data` in `metrics.jsonl` says whether it does.",
        "",
    ]
    return "\n".join(lines)


def _reading() -> list[str]:
    path = HERE / "reading.json"
    if not path.is_file():
        return ["- Reading: not measured yet (`benchmarks/reading.py`)."]
    rows = {row["way"]: row["pairs_per_second"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in rows.items())
    return [f"- Reading in one process, pairs/s (`benchmarks/reading.py`): {rates}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.4, help="share of the data sheet's rate that a step reaches")
    parser.add_argument("--overhead", type=float, default=0.015, help="seconds that no step is shorter than")
    parser.add_argument("--price", type=float, default=2.5, help="of a card for an hour")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    text = report(given)
    print(text)
    if given.write:
        write_text(given.write, text)


if __name__ == "__main__":
    main()

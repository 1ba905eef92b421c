"""Pivots of the long table, each a table of RESULTS.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.synthetic.truth import KINDS
from fusmae_lite.evaluation.floors import FLOORS
from reproduce import paper
from reproduce.markdown import DASH, gap, markdown, percent, shown
from reproduce.plan import SYSTEMS, Plan
from reproduce.scenes import TRUTH
from reproduce.scores import Cell, Scores

SENSORS = paper.SENSORS
BOTH = "S1+S2"
WEIGHTS = ("pretrained", "untrained")
TRANSFER = {"top1": "Top-1", "top3": "Top-3", "precision": "precision", "recall": "recall", "f1": "F1"}
PROBES = {"paper": "the paper's 20 epochs", "converged": "converged", "nearest": "5 nearest neighbours"}


class Tables:
    """Every table of one run; :meth:`all` names them."""

    def __init__(self, plan: Plan, scores: Scores) -> None:
        self.plan, self.scores, self.data = plan, scores, scores.main
        systems = scores.table["system"].unique()
        self.systems = [key for key in plan.systems if key in systems]
        self.base = [key for key in self.systems if not SYSTEMS[key].base]

    def all(self) -> Iterator[tuple[str, str]]:
        """(name, Markdown) of every table that has a row."""
        makers: dict[str, Callable[[], str]] = {
            "pays": self.pays, "floors": self.floors, "against-floors": self.against_floors,
            "linear": self.linear, "probes": self.probes, "ranking": self.ranking, "budget": self.budget,
            "fusion": self.fusion, "changes": self.changes, "tuned": self.tuned, "curve": self.curve,
            "kinds": self.kinds, "kinds-single": self.kinds_single,
            "transfer-S1": lambda: self.transfer("S1"), "transfer-S2": lambda: self.transfer("S2"),
            "transfer-paper": transfer_paper,
        }  # fmt: skip
        for name, make in makers.items():
            text = make()
            if text.count("\n") > 2:
                yield name, text

    def cell(self, system: str, weights: str, labels: float, **more: Any) -> Cell | None:
        """A cell of the main archive by the converged probe, unless said otherwise."""
        facts = {"data": self.data, "protocol": "converged", "sensors": BOTH, "pooling": "sensors", **more}
        return self.scores.cell(system=system, weights=weights, labels=labels, **facts)

    def best_floor(self, labels: float, **more: Any) -> tuple[str, Cell] | None:
        """The floor that scores highest at so many labels."""
        cells = {name: self.cell("floors", name, labels, **more) for name in FLOORS}
        cells = {name: cell for name, cell in cells.items() if cell is not None}
        return max(cells.items(), key=lambda item: item[1].mean) if cells else None

    def _encoders(self) -> list[tuple[str, str, str]]:
        """(system, weights, title) of each, untrained before pretrained."""
        return [(key, w, f"{self.plan.title(key)}, {w}") for key in self.base for w in reversed(WEIGHTS)]

    def _heads(self) -> list[str]:
        return [f"{labels:g} labels" if labels > 1 else f"{labels:.0%} of labels" for labels in self.plan.labels]

    def pays(self, pooling: str = "sensors") -> str:
        """Pretrained minus the same architecture untrained, S1+S2."""
        rows = []
        for key in self.base:
            cells = [[self.cell(key, w, n, pooling=pooling) for w in WEIGHTS] for n in self.plan.labels]
            rows.append([self.plan.title(key), *(gap(*pair) for pair in cells)])
        return markdown(["pretrained minus own random encoder", *self._heads()], rows)

    def floors(self) -> str:
        """What needs no training, beside encoders read by mean and deviation, S1+S2."""
        rows = [[FLOORS[name], *(shown(self.cell("floors", name, n)) for n in self.plan.labels)] for name in FLOORS]
        for key, weights, title in self._encoders():
            cells = [self.cell(key, weights, n, pooling="moments") for n in self.plan.labels]
            rows.append([title, *map(shown, cells)])
        return markdown(["system", *self._heads()], rows)

    def against_floors(self) -> str:
        """Pretrained, mean and deviation, minus the best floor at each number of labels."""
        floors = [self.best_floor(n) for n in self.plan.labels]
        if None in floors:
            return ""
        rows = [["best floor", *(FLOORS[name] for name, _ in floors)]]
        for key in self.base:
            cells = [self.cell(key, "pretrained", n, pooling="moments") for n in self.plan.labels]
            pairs = zip(cells, floors, strict=True)
            rows.append([f"{self.plan.title(key)} minus best floor", *(gap(cell, floor[1]) for cell, floor in pairs)])
        return markdown(["", *self._heads()], rows)

    def linear(self) -> str:
        """Table 1's right half: each set of sensors, fewest and most labels, and the paper's figures."""
        ends = (min(self.plan.labels), max(self.plan.labels))
        columns = [(n, sensors) for n in ends for sensors in SENSORS]
        rows = []
        for system, weights, title in [*(("floors", *floor) for floor in FLOORS.items()), *self._encoders()]:
            cells = [shown(self.cell(system, weights, n, sensors=sensors)) for n, sensors in columns]
            quoted = " / ".join(f"*{value}*" for value in paper.LINEAR.get(system, ()) if weights == "pretrained")
            if any(cell != DASH for cell in cells):
                rows.append([title, *cells, quoted])
        head = [f"{sensors}, {n:g} labels" if n > 1 else f"{sensors}, {n:.0%}" for n, sensors in columns]
        return markdown(["system", *head, "*the paper's, 1 %: S1 / S2 / S1+S2*"], rows)

    def probes(self) -> str:
        """The same features under three probes: what the system gains over its random control by each."""
        rows = []
        for key in self.base:
            for weights in ("untrained", "pretrained"):
                cells = [self.cell(key, weights, n, protocol=p) for n in self.probe_labels() for p in PROBES]
                rows.append([f"{self.plan.title(key)}, {weights}", *(percent(c.mean) if c else DASH for c in cells)])
            both = [[self.cell(key, w, n, protocol=p) for w in WEIGHTS] for n in self.probe_labels() for p in PROBES]
            rows.append(["difference", *(gap(*pair) for pair in both)])
        head = [f"{PROBES[p]}, {n:g} labels" for n in self.probe_labels() for p in PROBES]
        return markdown(["system", *head], rows)

    def probe_labels(self) -> list[float]:
        """A few labels and many: where tables have no room for all."""
        labels = sorted(self.plan.labels)
        return [labels[len(labels) // 3], labels[-1]] if len(labels) > 1 else labels

    def ranking(self) -> str:
        """Kendall's tau between the rankings of all encoders, pretrained and not, by two probes."""
        rows = []
        for one, other in combinations(PROBES, 2):
            taus = []
            for n in self.plan.labels:
                pairs = [[self.cell(key, w, n, protocol=p) for p in (one, other)] for key in self.base for w in WEIGHTS]
                means = [(a.mean, b.mean) for a, b in pairs if a and b]
                taus.append(f"{kendalltau(*zip(*means, strict=True)).statistic:+.2f}" if len(means) > 2 else DASH)
            rows.append([f"{PROBES[one]} and {PROBES[other]}", *taus])
        return markdown(["Kendall's tau", *self._heads()], rows)

    def budget(self) -> str:
        """Share of the variance of micro AP that each factor explains alone, and all pairs of them together."""
        table = self.scores.table
        rows = table[table["protocol"] == "factors"]
        if not len(rows):
            return ""
        names = {"system": "system", "weights": "pretrained or not", "layer": "layer (last, middle)",
                 "pooling": "pooling (mean, per sensor, and deviation)", "scaled": "features standardised or not",
                 "seed": "seed"}  # fmt: skip
        centred = rows["micro"] - rows["micro"].mean()
        total = float((centred**2).sum())
        shares = {n: float((centred.groupby(rows[n]).transform("mean") ** 2).sum()) / total for n in names}
        lines = [[names[n], f"{100 * share:.0f}"] for n, share in sorted(shares.items(), key=lambda item: -item[1])]
        lines.append(["their interactions", f"{100 * (1 - sum(shares.values())):.0f}"])
        return markdown(["factor", "% of the variance of micro AP"], lines)

    def fusion(self) -> str:
        """Fus-MAE XAE minus every other system, S1+S2."""
        rows = []
        for key in self.base:
            cells = [[self.cell(k, "pretrained", n) for k in ("xae", key)] for n in self.plan.labels]
            width = next((other.rows["width"].iloc[0] for _, other in cells if other), 0)
            if key != "xae" and width:
                rows.append([self.plan.title(key), f"{width:.0f}", *(gap(*pair) for pair in cells)])
        return markdown(["Fus-MAE XAE minus", "features", *self._heads()], rows)

    def changes(self) -> str:
        """Each change of one thing against the system it changes, S1+S2 and each sensor alone at the most labels."""
        rows, most = [], max(self.plan.labels)
        for key in self.systems:
            if base := SYSTEMS[key].base:
                places = [(n, BOTH) for n in self.plan.labels] + [(most, s) for s in ("S1", "S2")]
                cells = [[self.cell(k, "pretrained", n, sensors=s) for k in (key, base)] for n, s in places]
                rows.append([self.plan.title(key), *(gap(*pair) for pair in cells)])
        head = [*self._heads(), *(f"{s} alone, {most:g} labels" for s in ("S1", "S2"))]
        return markdown(["change", *head], rows)

    def tuned(self) -> str:
        """Fine-tuned from pretrained and from untrained weights, S1+S2."""
        rows = []
        for key in self.base:
            for n in self.plan.tuned_labels:
                facts = {"data": self.data, "system": key, "labels": n}
                new, probe, scratch = (
                    self.scores.cell(weights=weights, protocol=f"fine-tuned, {start}", **facts)
                    for weights, start in (("pretrained", "prior"), ("pretrained", "probe"), ("untrained", "prior"))
                )
                cells = [shown(scratch), shown(new), shown(probe), gap(new, scratch), gap(probe, new)]
                rows.append([self.plan.title(key), f"{n:g}", *cells])
        for n in self.plan.tuned_labels:
            if floor := self.best_floor(n):
                title = f"{FLOORS[floor[0]]}, converged probe (the best floor)"
                rows.append([title, f"{n:g}", DASH, shown(floor[1]), *[DASH] * 3])
        head = ["system", "labels", "from scratch", "pretrained", "pretrained, head from the probe",
                "pretrained minus scratch", "head from the probe minus new head"]  # fmt: skip
        return markdown(head, rows, left=2)

    def curve(self) -> str:
        """Break-even: XAE by the number of unlabelled pairs, against its random control and the best floor."""
        rows = []
        for data in ("curve", "real-curve"):
            for pairs in sorted(self.scores.where(data=data)["unlabelled"].unique()):
                rows.append(self._curve_row(data, pairs, "real" if data == "real-curve" else "synthetic"))
        if rows:
            rows.append(self._curve_row(self.data, 0, "synthetic"))
        labels = self.probe_labels()
        head = [f"minus {what}, {n:g} labels" for n in labels for what in ("own random encoder", "best floor")]
        return markdown(["unlabelled pairs", *head], rows)

    def _curve_row(self, data: str, pairs: int, kind: str) -> list[str]:
        texts = []
        for n in self.probe_labels():
            trained, control = (self.some(data, "xae", weights, n, pairs) for weights in WEIGHTS)
            floor = self.best_floor(n)
            best = self.some(self.data, "floors", floor[0], n, 0) if floor else None
            texts += [gap(trained, control), gap(trained, best)]
        return [f"{pairs or self.plan.scenes[0]:,} {kind}", *texts]

    def some(self, data: str, system: str, weights: str, labels: float, pairs: int) -> Cell | None:
        """A cell of the seeds of the break-even curve alone, S1+S2."""
        facts = {"data": data, "system": system, "weights": weights, "labels": labels, "unlabelled": pairs}
        rows = self.scores.where(protocol="converged", sensors=BOTH, pooling="sensors", **facts)
        rows = rows[rows["seed"].isin(self.plan.curve_seeds)]
        return Cell(self.scores, rows, facts) if len(rows) else None

    def kinds(self) -> str:
        """Known truth, S1+S2, most labels: micro AP of each kind of class one sensor shows, then of all of them."""
        return self._kinds([kind for kind in KINDS if kind not in ("combination", "neither")])

    def kinds_single(self) -> str:
        """The kinds that no single place in one sensor shows, and the control."""
        return self._kinds([kind for kind in KINDS if kind in ("combination", "neither")])

    def _kinds(self, kinds: Sequence[str]) -> str:
        rows, most = [], max(self.plan.labels)
        for system, weights, title in [*(("floors", *floor) for floor in FLOORS.items()), *self._encoders()]:
            if (cell := self.cell(system, weights, most, data="truth")) is not None:
                means = [cell.redraws(tuple(BEN19.index(name) for name in getattr(TRUTH, kind)))[0] for kind in kinds]
                rows.append([title, *map(percent, means)])
        return markdown([f"known truth, {BOTH}, {most:g} labels", *kinds], rows)

    def transfer(self, sensors: str) -> str:
        """Table 2 for one sensor, means over seeds."""
        rows = [row for fact in self.scores.facts.values() for row in fact.get("transfer", {}).get("rows", ())]
        if not rows:
            return ""
        table = pd.DataFrame(rows)
        table = table[table["sensors"] == sensors]
        means = table.groupby(["system", "weights"])[list(TRANSFER)].agg(["mean", "std"])
        lines = []
        for key, weights, title in self._encoders():
            if (key, weights) in means.index:
                row = means.loc[(key, weights)]
                texts = [f"{percent(row[n, 'mean'])} ± {percent(np.nan_to_num(row[n, 'std']))}" for n in TRANSFER]
                lines.append([title, *texts])
        return markdown([f"system, {sensors}", *TRANSFER.values()], lines)


def transfer_paper() -> str:
    """Table 2 as the paper prints it, once: it does not name the sensor."""
    rows = [[SYSTEMS[key].title, *(f"*{value}*" for value in values)] for key, values in paper.TRANSFER.items()]
    return markdown(["*the paper's, sensor not named*", *TRANSFER.values()], rows)


def leakage(measured: dict[str, list[float]]) -> str:
    """Both splits, and their difference draw by draw."""
    draws = {f"{name} split": np.array(values) for name, values in measured.items()}
    draws["difference, draw by draw"] = draws["random split"] - draws["disjoint split"]
    rows = [[name, percent(values.mean()), percent(values.std(ddof=1))] for name, values in draws.items()]
    return markdown(["", "micro AP, mean over draws", "deviation over draws"], rows)

"""Known truth: which class shows in which sensor. Made for asking whether a fusion finds what is there to be found."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object
from fusmae_lite.data.archives.labels import BEN19

KINDS = {
    "radar": "shows in Sentinel-1 only; Sentinel-2 alone cannot do better than the class's share",
    "optical": "shows in Sentinel-2 only",
    "both": "shows in both sensors, each alone is enough",
    "texture": "stronger texture on its ground in both sensors; no band's mean moves",
    "context": "two marks in both sensors, one around the other (present) or apart (absent): only their places differ",
    "combination": "present where exactly one sensor shows its mark (exclusive or): each sensor alone knows nothing",
    "neither": "shows in no sensor: a control, whose score must stay at the class's share",
}
RADAR_MARK = 6.0  # dB
OPTICAL_MARK = 1.6  # length of a mark in ln reflectance over the 12 bands


@dataclass(frozen=True)
class Truth:
    """Classes of BEN19 by where they show (see :data:`KINDS`); a class in no list does not occur.

    Each class is present with probability `prevalence`, independently of all others. A class that shows adds its
    mark to a fifth of the patch: in radar a shift of `strength` x 6 dB in its own direction of the VV-VH plane, in
    optics a spectrum of its own. For a combination class a fair coin decides whether radar shows the mark; optics
    then shows it if that and the presence differ, so that either sensor alone is independent of the label. A texture
    class has no mark: on its fifth the texture is 1 + `strength` times as strong. A context class always shows its
    mark on a tenth and the opposite mark on another, which lies around the first if the class is present.

    Raises:
        InputError: a class that is none of the 19, or is listed twice; a prevalence not between 0 and 1.
    """

    radar: tuple[str, ...] = (BEN19[0], BEN19[15])
    optical: tuple[str, ...] = (BEN19[2], BEN19[8])
    both: tuple[str, ...] = (BEN19[9], BEN19[17])
    combination: tuple[str, ...] = (BEN19[4], BEN19[13])
    neither: tuple[str, ...] = (BEN19[7],)
    texture: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    prevalence: float = 0.3
    strength: float = 1.0
    offset: float = 0.3  # how far apart whole patches lie, as a share of what was measured on real ones

    def __post_init__(self) -> None:
        for name in self.classes:
            if name not in BEN19:
                raise InputError(f"truth: {name!r} is none of the 19 classes", "take names of BEN19")
            if self.classes.count(name) > 1:
                raise InputError(f"truth: {name!r} is listed twice", "put each class into one list")
        if not self.classes or not 0 < self.prevalence < 1 or self.strength <= 0 or not 0 <= self.offset <= 2:
            raise InputError(
                f"truth: {len(self.classes)} classes, prevalence {self.prevalence}, strength {self.strength}, "
                f"offset {self.offset}",
                "give a class, a prevalence between 0 and 1, a strength above 0 and an offset from 0 to 2",
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that occur, list after list."""
        return tuple(name for kind in KINDS for name in getattr(self, kind))

    def kind_of(self) -> tuple[str, ...]:
        """The list each of `classes` is in."""
        return tuple(kind for kind in KINDS for _ in getattr(self, kind))

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of one patch, each (n,) bool over `classes`: present, shown in radar, shown in optics."""
        kinds = np.array(self.kind_of())
        present = rng.random(len(kinds)) < self.prevalence
        coin = rng.random(len(kinds)) < 0.5
        mixed = kinds == "combination"
        shown = present & np.isin(kinds, ("both", "texture")) | (kinds == "context")
        radar = np.where(mixed, coin, shown | present & (kinds == "radar"))
        optical = np.where(mixed, coin ^ present, shown | present & (kinds == "optical"))
        return present, radar, optical

    def marks(self) -> np.ndarray:
        """(n, 14) mark of each of `classes`: dB in radar, ln in optics; classes seen by one sensor are far apart."""
        n = len(self.classes)
        seen = [kind in ("radar", "both", "combination", "context") for kind in self.kind_of()]
        angle = 2 * np.pi * (np.cumsum(seen) - 1) / max(sum(seen), 1)
        radar = RADAR_MARK * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        spectra = np.random.default_rng(14).standard_normal((max(n, 12), 12))
        spectra[:12] = np.linalg.qr(spectra[:12])[0]
        optical = OPTICAL_MARK * spectra[:n] / np.linalg.norm(spectra[:n], axis=1, keepdims=True)
        marks = self.strength * np.hstack([radar, optical])
        return np.where(np.array(self.kind_of())[:, None] == "texture", 0.0, marks)

    def as_json(self) -> str:
        """The table as it is written beside the archive; :func:`read_truth` reads it."""
        return json.dumps({"about": "synthetic data", "kinds": KINDS, **asdict(self)}, indent=1) + "\n"


def read_truth(path: Path) -> Truth:
    """A truth.json, as an archive carries it or as written by hand (fields left out keep their default)."""
    table = read_object(path, "give the path of a truth.json")
    fields = set(Truth.__dataclass_fields__)
    if table.keys() - fields - {"about", "kinds"}:
        raise InputError(f"{path} is no truth table", f"give a JSON object with some of {', '.join(sorted(fields))}")
    try:
        return Truth(**{name: tuple(v) if name in KINDS else float(v) for name, v in table.items() if name in fields})
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}", "give lists of class names, and numbers") from None

"""Class tables: the 43 CORINE level-3 classes of BigEarthNet on disk, the 19 that models are scored on, IGBP's in 10.

Sources: Sumbul et al., "BigEarthNet-MM", IEEE GRSM 2021, table 1; the order is the original one, which some tools
replace by the alphabet. Schmitt et al., "SEN12MS", ISPRS Annals 2019.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from fusmae_lite.core.errors import InputError

_TABLES = json.loads(Path(__file__).with_name("classes.json").read_text(encoding="utf-8"))
#: CORINE level-3 name -> its class among the 19, or None where the 19-class nomenclature drops it.
TO_19: dict[str, str | None] = _TABLES["corine"]
#: The 43 CORINE level-3 names, in the order of their CORINE codes.
BEN43: tuple[str, ...] = tuple(TO_19)
#: The 19 classes, in the order of every (B, 19) label tensor of this package.
BEN19: tuple[str, ...] = tuple(dict.fromkeys(name for name in TO_19.values() if name))
#: SEN12MS: merged class -> the IGBP codes it is made of (band 1 of the land-cover file).
IGBP10: dict[str, tuple[int, ...]] = {name: tuple(codes) for name, codes in _TABLES["igbp"].items()}
#: SEN12MS: season folder -> its scenes in the official hold-out list (26 scenes, 18,106 triplets).
HELD_OUT: dict[str, frozenset[int]] = {name: frozenset(scenes) for name, scenes in _TABLES["sen12ms_held_out"].items()}


def convert_43_to_19(labels: Iterable[str], where: str = "labels") -> tuple[str, ...]:
    """The 19-class names of a patch, in BEN19 order, each once; () if all its classes are dropped ones.

    InputError for a name outside the 43, naming the file `where` it stands.
    """
    labels = list(labels)
    if unknown := [label for label in labels if label not in TO_19]:
        raise InputError(
            f"{where}: label {unknown[0]!r} is none of the 43 CORINE level-3 classes",
            "correct the spelling in the json's 'labels', or remove the patch",
        )
    names = {TO_19[label] for label in labels}
    return tuple(name for name in BEN19 if name in names)

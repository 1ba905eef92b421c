"""BigEarthNet's two nomenclatures: the 43 CORINE level-3 classes on disk and the 19 classes models are scored on.

Source: Sumbul et al., "BigEarthNet-MM", IEEE GRSM 2021, table 1. Both orders are the original ones; some tools sort
the 19 names by alphabet.
"""

from __future__ import annotations

from collections.abc import Iterable

from fusmae_lite.core.errors import InputError

#: CORINE level-3 name -> its class among the 19, or None where the 19-class nomenclature drops it.
TO_19: dict[str, str | None] = {
    "Continuous urban fabric": "Urban fabric",
    "Discontinuous urban fabric": "Urban fabric",
    "Industrial or commercial units": "Industrial or commercial units",
    "Road and rail networks and associated land": None,
    "Port areas": None,
    "Airports": None,
    "Mineral extraction sites": None,
    "Dump sites": None,
    "Construction sites": None,
    "Green urban areas": None,
    "Sport and leisure facilities": None,
    "Non-irrigated arable land": "Arable land",
    "Permanently irrigated land": "Arable land",
    "Rice fields": "Arable land",
    "Vineyards": "Permanent crops",
    "Fruit trees and berry plantations": "Permanent crops",
    "Olive groves": "Permanent crops",
    "Pastures": "Pastures",
    "Annual crops associated with permanent crops": "Permanent crops",
    "Complex cultivation patterns": "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Land principally occupied by agriculture, with significant areas of natural vegetation"
    ),
    "Agro-forestry areas": "Agro-forestry areas",
    "Broad-leaved forest": "Broad-leaved forest",
    "Coniferous forest": "Coniferous forest",
    "Mixed forest": "Mixed forest",
    "Natural grassland": "Natural grassland and sparsely vegetated areas",
    "Moors and heathland": "Moors, heathland and sclerophyllous vegetation",
    "Sclerophyllous vegetation": "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland/shrub": "Transitional woodland, shrub",
    "Beaches, dunes, sands": "Beaches, dunes, sands",
    "Bare rock": None,
    "Sparsely vegetated areas": "Natural grassland and sparsely vegetated areas",
    "Burnt areas": None,
    "Inland marshes": "Inland wetlands",
    "Peatbogs": "Inland wetlands",
    "Salt marshes": "Coastal wetlands",
    "Salines": "Coastal wetlands",
    "Intertidal flats": None,
    "Water courses": "Inland waters",
    "Water bodies": "Inland waters",
    "Coastal lagoons": "Marine waters",
    "Estuaries": "Marine waters",
    "Sea and ocean": "Marine waters",
}

#: The 43 CORINE level-3 names, in the order of their CORINE codes.
BEN43: tuple[str, ...] = tuple(TO_19)
#: The 19 classes, in the order of every (B, 19) label tensor of this package.
BEN19: tuple[str, ...] = tuple(dict.fromkeys(name for name in TO_19.values() if name))


def convert_43_to_19(labels: Iterable[str], where: str = "labels") -> tuple[str, ...]:
    """The 19-class names of a patch, in BEN19 order, each once; empty if all its classes are dropped ones.

    Raises:
        InputError: a name outside the 43; the message names the file `where` it stands.
    """
    names: set[str | None] = set()
    for label in labels:
        if label not in TO_19:
            raise InputError(
                f"{where}: label {label!r} is none of the 43 CORINE level-3 classes",
                "correct the spelling in the json's 'labels', or remove the patch",
            )
        names.add(TO_19[label])
    return tuple(name for name in BEN19 if name in names)

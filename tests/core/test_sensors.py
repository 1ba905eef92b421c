"""A sensor says what it is, contradicts itself in nothing, and can be corrected."""

from dataclasses import replace

import pytest
from small_archives import refused

from fusmae_lite.core import sensors
from fusmae_lite.core.sensors import DECIBEL, REFLECTANCE, S1, S2, Modality, get_modality, known_modality, register


@pytest.fixture
def registry(monkeypatch):
    """A register of its own, which ends with the test."""
    monkeypatch.setattr(sensors, "_KNOWN", dict(sensors._KNOWN))


DEM = Modality("dem", "Elevation", ("height",), (10,), "m", "float32", (300.0,), (200.0,))


def test_the_two_sensors_state_unit_and_range():
    assert (S1.units, S2.units) == (DECIBEL, REFLECTANCE)
    assert S1.valid[0] < -54 and S1.valid[1] > 18 and S2.valid[0] == 0 and 28_000 < S2.valid[1] < 55_537
    assert DEM.valid is None and replace(DEM, valid=(-500.0, 9000.0)).valid == (-500.0, 9000.0)


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("std", (0.0,), "deviation of 0"),
        ("std", (-1.0,), "deviation of -1"),
        ("std", (float("nan"),), "deviation of nan"),
        ("std", (float("inf"),), "deviation of inf"),
        ("mean", (float("nan"),), "mean of nan"),
        ("mean", (float("inf"),), "mean of inf"),
        ("resolution", (70,), "70 m"),
        ("resolution", (0,), "0 m"),
        ("resolution", (-10,), "-10 m"),
        ("resolution", (10.5,), "10.5 m"),
        ("resolution", (2400,), "2400 m"),
        ("resolution", (10, 20), "2 entries for 1 bands"),
        ("bands", (), "entries for 0 bands"),
        ("name", "", "key"),
        ("name", "a.b", "key"),  # PyTorch names parameters by it
        ("name", "a/b", "key"),
        ("name", "two\nlines", "key"),
        ("name", "cls", "key"),  # Fus-MAE's global token goes by it
        ("dtype", "floaty", "dtype"),
        ("dtype", "complex64", "dtype"),
        ("valid", (400.0, 500.0), "valid"),
        ("valid", (900.0, -900.0), "valid"),
        ("valid", (float("nan"), 900.0), "valid"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(field, value, part):
    refused(lambda: replace(DEM, **{field: value}), part)


def test_one_band_twice_is_refused():
    refused(lambda: Modality("x", "X", ("a", "a"), (10, 10), "m", "float32", (0.0, 0.0), (1.0, 1.0)), "twice")


def test_a_corrected_sensor_replaces_the_one_of_its_name(registry):
    assert known_modality("dem") is None
    register(DEM)
    register(DEM)  # the same again is no contradiction
    corrected = replace(DEM, std=(250.0,))
    refused(lambda: register(corrected), "'dem' is taken", "replace=True")
    assert register(corrected, replace=True) is get_modality("dem") and get_modality("dem").std == (250.0,)

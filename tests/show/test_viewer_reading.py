"""What a viewer tells of the point that the pointer is at."""

from __future__ import annotations

from fusmae_lite.data.archives import Archive
from fusmae_lite.show.viewers import AttentionViewer, PatchViewer, ReconstructionViewer, SearchViewer


def test_pixels_are_read_in_their_unit_wherever_the_pointer_is(archive: Archive) -> None:
    viewer, bands = PatchViewer(archive, pair=3), archive.read(3).bands
    assert "read its pixels" in viewer.reading.value
    viewer.band.value = ("s2", "B01")  # 20 x 20 pixels
    viewer.pointed.value = "0.9999,0.5"
    assert f"row 60, column 119: Sentinel-1 VV {bands['s1']['VV'][60, 119]:.3g}, " in viewer.reading.value
    assert f"; B01 {bands['s2']['B01'][10, 19] / 10_000:.3g} reflectance<" in viewer.reading.value
    viewer.pair.value = 4
    other = archive.read(4).bands["s1"]["VV"][60, 119]
    assert f"VV {other:.3g}, " in viewer.reading.value, "the reading follows the pair"


def test_predictions_and_attention_are_read_too(archive: Archive) -> None:
    viewer = ReconstructionViewer(archive, pair=3)
    viewer.pointed.value = "0.25,0.75"
    made = viewer.predictions["xae-lite"]["s1"][0, 90, 30]
    assert f"row 90, column 30: Sentinel-1 VV {viewer.originals['s1'][0, 90, 30]:.3g}, " in viewer.reading.value
    assert f"xae-lite predicts VV {made:.3g}, " in viewer.reading.value
    viewer.looks["s1"].value = "ratio"
    assert "xae-lite predicts VV-VH " in viewer.reading.value and " VH " not in viewer.reading.value

    looker = AttentionViewer(archive, pair=3)
    looker.pointed.value = "0,0"
    assert f"; attention {looker.weights[0]:.2f} times uniform" in looker.reading.value


def test_pictures_of_other_places_are_not_zoomed_together(archive: Archive) -> None:
    viewer = PatchViewer(archive)
    assert viewer.page.value.count("class=fusmae-ground") == 3, "two composites and a band, neither histogram nor map"
    vectors = {"s1": archive.labels[:, :4].astype(float) + 0.5, "s2": archive.labels[:, 4:8].astype(float) + 0.5}
    assert "class=fusmae-ground" not in SearchViewer(archive, vectors).page.value

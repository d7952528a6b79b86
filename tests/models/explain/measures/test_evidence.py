"""Columns of evidence: against plain loops, and null wherever there is nothing to measure."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.models.explain.measures.evidence import EVIDENCE_FIELDS, evidence_columns

SIZE = (24, 30)
FLOATS = [field.name for field in EVIDENCE_FIELDS if field.type == pa.float32()]
ANNOTATED = ("box_share", "box_cover", "mask_share", "mask_cover")


def column(columns: dict[str, pa.Array], name: str) -> list[object]:
    return list(columns[name].to_pylist())


def peak_map(row: int, column: int, value: float = 1.0) -> np.ndarray:
    map_ = np.zeros((4, 5), np.float32)
    map_[row, column] = value
    return map_


def test_columns_have_the_stated_fields_and_no_rows_for_no_images() -> None:
    for num in (0, 2):
        columns = evidence_columns(np.ones((num, 4, 5), np.float32), SIZE)
        batch = pa.record_batch(columns, schema=pa.schema(EVIDENCE_FIELDS))
        assert batch.num_rows == num


def test_numbers_of_one_map_equal_plain_loops() -> None:
    signed = np.random.default_rng(0).normal(size=(1, 4, 5))
    columns = evidence_columns(signed, SIZE)
    cells = [(y, x, max(0.0, signed[0, y, x])) for y in range(4) for x in range(5)]
    mass = sum(value for *_, value in cells)
    expected = {
        "centre_x": sum(value * (x + 0.5) / 5 for _, x, value in cells) / mass,
        "centre_y": sum(value * (y + 0.5) / 4 for y, _, value in cells) / mass,
        "entropy": -sum(value / mass * math.log(value / mass) for *_, value in cells if value),
        "negative_share": -signed[signed < 0].sum() / np.abs(signed).sum(),
    }
    expected["concentration"] = 1 - expected["entropy"] / math.log(20)
    row, across, _ = max(cells, key=lambda cell: cell[2])
    expected |= {"peak_x": (across + 0.5) * 6, "peak_y": (row + 0.5) * 6}
    for name, value in expected.items():
        assert column(columns, name)[0] == pytest.approx(value, rel=1e-6), name


def test_empty_tied_and_not_finite_maps_are_told_apart_and_never_hit() -> None:
    """Also a map whose largest value is rounding beside its logit; boxes cover the whole image."""
    maps = np.stack(
        [peak_map(1, 1), -peak_map(1, 1), np.ones((4, 5)), peak_map(0, 0, math.nan), peak_map(2, 2, 1e-7)]
    )
    everywhere = [np.array([[0.0, 0.0, 30.0, 24.0]])] * 5
    columns = evidence_columns(maps, SIZE, everywhere, scores=np.ones(5))
    assert column(columns, "blank") == [False, True, False, None, True]
    assert column(columns, "tied") == [False, False, True, None, False]
    assert column(columns, "no_map") == [False, False, False, True, False]
    assert column(columns, "hit") == [True, False, False, None, False]
    assert column(columns, "centre_hit") == [True] * 5
    assert column(columns, "peak_x") == [9, None, None, None, None]
    for name in FLOATS:
        if not name.startswith(("mask", "box_cover", "peak", "negative")):
            assert [value is None for value in column(columns, name)] == [False, True, False, True, True], (
                name
            )


def test_boxes_count_by_the_centres_of_pixels_and_overlaps_once() -> None:
    maps = np.stack([peak_map(0, 0), peak_map(0, 0), peak_map(3, 4)])
    boxes = [np.array([[0, 0, 15, 12], [10, 0, 15, 12]]), np.zeros((0, 4)), None]
    columns = evidence_columns(maps, SIZE, boxes)
    assert column(columns, "box_cover") == [0.25, None, None]
    assert column(columns, "box_share")[0] == pytest.approx(1, abs=1e-6)
    assert column(columns, "hit") == [True, None, None]
    assert column(columns, "centre_hit") == [True, None, None], "the centre is on the edge of the box"


def test_masks_without_background_and_ignored_pixels() -> None:
    masks = np.zeros((3, *SIZE), np.uint8)
    masks[0, :12, :15] = 4
    masks[1] = 255
    masks[2, 12:, 15:] = 1
    columns = evidence_columns(np.stack([peak_map(0, 0)] * 3), SIZE, None, masks)
    assert column(columns, "mask_cover") == [0.25, None, 0.25]
    assert column(columns, "mask_share")[0] == pytest.approx(1, abs=1e-6)
    assert column(columns, "mask_share")[2] == 0
    assert column(columns, "hit") == [True, None, False]
    assert column(columns, "centre_hit") == [False, None, True]


def test_a_peak_beside_the_object_is_a_hit_within_the_tolerance_only() -> None:
    maps = np.stack([peak_map(0, 0)])  # its peak is at 3, 3
    boxes, masks = [np.array([[6.0, 7.0, 20.0, 20.0]])], np.zeros((1, *SIZE), np.uint8)
    masks[0, 7:20, 6:20] = 1
    for tolerance, hit in ((4.9, False), (5.0, True)):
        assert column(evidence_columns(maps, SIZE, boxes, tolerance=tolerance), "hit") == [hit]
    for tolerance, hit in ((5.6, False), (5.8, True)):  # to the centre of the nearest pixel
        assert column(evidence_columns(maps, SIZE, None, masks, tolerance=tolerance), "hit") == [hit]


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
@settings(max_examples=40, deadline=None)
def test_flips_mirror_every_number_and_units_do_not_matter(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    signed = np.random.default_rng(seed).normal(size=(3, rows, columns))
    found = evidence_columns(signed, SIZE)
    scaled = evidence_columns(signed * scale, SIZE)
    flipped = evidence_columns(signed[:, :, ::-1], SIZE)
    for name in FLOATS:
        values, again = found[name].to_numpy(False), scaled[name].to_numpy(False)
        np.testing.assert_allclose(again, values, rtol=1e-4, atol=1e-6)
        if name not in ANNOTATED and not name.startswith(("peak", "entropy", "negative")):
            assert not ((values < 0) | (values > 1)).any()
        mirrored = flipped[name.replace("left", "*").replace("right", "left").replace("*", "right")].to_numpy(
            False
        )
        expected = {"centre_x": 1 - values, "peak_x": SIZE[1] - values}.get(name, values)
        np.testing.assert_allclose(mirrored, expected, rtol=1e-4, atol=1e-6, err_msg=name)

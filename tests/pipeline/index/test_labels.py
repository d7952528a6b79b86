"""Labels: text is kept as text, and missing or invalid labels are counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.errors import SourceError
from lightwell.pipeline.index.sources.labels import (
    Labels,
    note_similar_classes,
    read_label_columns,
    read_labels,
)
from lightwell.pipeline.index.sources.remarks import Remarks


def read(*cells: Any, **options: Any) -> tuple[Labels, str]:
    remarks = Remarks()
    labels = read_labels(cells, None, "label", remarks=remarks, **options)
    return labels, "\n".join(remarks.lines())


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (("007", "7"), ("007", "7")),
        (("1e5", "2e3"), ("1e5", "2e3")),
        (("20231101", "20231102"), ("20231101", "20231102")),
        (("+1", "2"), ("+1", "2")),
        (("-2", "1"), ("-2", "1")),
        ((20231101, 20231102), ("20231101", "20231102")),
        (("True", "False"), ("False", "True")),
        ((True, False), ("False", "True")),
        (("2", "0"), ("0", "1", "2")),
        (("1.0", None, "0.0"), ("0", "1")),
        ((1.0, float("nan"), 0.0), ("0", "1")),
        (("1", "NaN", "-1"), ("0", "1")),
    ],
)
def test_numbers_are_class_numbers_only_where_all_are_plain(
    cells: tuple[Any, ...], classes: tuple[str, ...]
) -> None:
    assert read(*cells)[0].classes == classes


def test_unlabelled_samples_are_counted() -> None:
    labels, told = read("cat", "", None, " cat ")
    assert labels.numbers == [0, -1, -1, 0]
    assert "unlabelled: 2 samples" in told
    assert "converted: 1 labels that had spaces around them" in told


def test_the_kind_of_labels_can_be_set() -> None:
    assert read("0", "1", kind="text")[0].numbers == [0, 1]
    assert read("007", "8", kind="numbers")[0].numbers == [7, 8]
    with pytest.raises(SourceError, match="expected class numbers, got 'x'"):
        read("1", "x", kind="numbers")


@pytest.mark.parametrize(
    "cells",
    [
        ("cat|dog", "dog", None),
        ("['cat', 'dog']", "['dog']", None),
        ('["dog", "cat"]', '["dog"]', None),
        (["cat", "dog"], ["dog"], None),
    ],
)
def test_several_labels_per_image_are_read(cells: tuple[Any, ...]) -> None:
    labels, told = read(*cells)
    assert (labels.classes, labels.sets) == (("cat", "dog"), [[0, 1], [1], None])
    assert labels.numbers == [-1, -1, -1]
    assert "unlabelled: 1" in told


def test_a_separator_can_be_set_and_commas_are_noted() -> None:
    assert read("a,b", "a", "b", separator=",")[0].sets == [[0, 1], [0], [1]]
    labels, told = read("a,b", "a", "b")
    assert labels.sets is None
    assert "a label separator ','" in told
    assert read("a|b", "a", separator="")[0].classes == ("a", "a|b")


def test_one_column_per_class() -> None:
    remarks = Remarks()
    labels = read_label_columns({"cat": [1, 0, "x"], "dog": ["1.0", "", "0"]}, remarks)
    assert labels.sets == [[0, 1], [], None]
    assert remarks.count("unlabelled") == 1


def test_classes_that_differ_only_in_spelling_are_noted() -> None:
    remarks = Remarks()
    note_similar_classes(("Cat", "cat", "caf\u00e9", "cafe\u0301", "dog"), remarks)
    assert remarks.count("assumed") == 2


@given(
    st.lists(
        st.one_of(
            st.none(), st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.binary(max_size=4),
            st.lists(st.one_of(st.text(max_size=3), st.integers(-3, 30), st.none()), max_size=3),
            st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
        ),
        max_size=12,
    ),
    st.sampled_from(["auto", "text", "numbers"]),
)  # fmt: skip
def test_any_cells_give_valid_labels_or_a_source_error(cells: list[Any], kind: Any) -> None:
    try:
        labels, _ = read(*cells, kind=kind)
    except SourceError:
        return
    assert len(labels.numbers) == len(cells)
    numbers = labels.numbers if labels.sets is None else [one for some in labels.sets for one in some or ()]
    assert all(-1 <= number < len(labels.classes) for number in numbers)

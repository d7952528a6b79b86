"""Sampled epochs keep their length and their quotas, to the image; wrong requests are refused with the cure."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.index import SCHEMA, Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.sampling import Sampling
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.sampler.class_balanced import ClassBalancedSampler
from lightwell.pipeline.sampler.schedule import Schedule
from tasks import multilabel_set

CLASSES = ("cat", "dog", "owl")


def index_of(labels: list[int], classes: tuple[str, ...] = CLASSES) -> Index:
    count = len(labels)
    columns = {
        "key": [f"{number}.jpg" for number in range(count)],
        "label": labels,
        "status": ["ok"] * count,
        "split": ["train"] * count,
    }
    arrays = [pa.array(columns.get(field.name, [None] * count), field.type) for field in SCHEMA]
    return Index(pa.Table.from_arrays(arrays, schema=SCHEMA), classes)


def epoch_labels(plan: Plan, index: Index, epoch: int, view: View | None = None) -> list[int]:
    rows = np.arange(len(index))
    schedule = Schedule.of(plan, view or View(augment=True, shuffle=True), index, rows)
    return index.table["label"].to_numpy()[schedule.rows_at(rows, epoch)].tolist()


def plan_of(sampling: object, **changes: object) -> Plan:
    return Plan.model_validate({"index": "index.parquet", "sampling": sampling, **changes})


def test_balanced_classes_share_an_epoch_alike_and_a_weight_of_two_counts_twice() -> None:
    index = index_of([0] * 90 + [1] * 20 + [2] * 10)
    assert Counter(epoch_labels(plan_of("balanced"), index, 0)) == {0: 40, 1: 40, 2: 40}
    weighted = plan_of({"weights": {"cat": 2, "dog": 1, "owl": 1}})
    assert Counter(epoch_labels(weighted, index, 5)) == {0: 60, 1: 30, 2: 30}
    assert Counter(epoch_labels(plan_of({"weights": {"cat": 2}}), index, 5)) == {0: 60, 1: 30, 2: 30}


def test_views_that_do_not_train_or_name_keys_read_every_image_once() -> None:
    index = index_of([0] * 5 + [1] * 2)
    for view in (View(), View(shuffle=True), View(augment=True, keys=("0.jpg",))):
        assert Counter(epoch_labels(plan_of("balanced"), index, 0, view)) == {0: 5, 1: 2}


@given(st.lists(st.integers(0, 2), min_size=3, max_size=80), st.integers(0, 2**40), st.integers(1, 6))
def test_a_class_shows_all_of_its_images_before_one_of_them_again(
    labels: list[int], seed: int, num_epochs: int
) -> None:
    rows = np.arange(len(labels)) * 7
    table = np.zeros(len(labels) * 7, dtype=np.int64)
    table[rows] = labels
    class_balanced = ClassBalancedSampler.of(Sampling(), index_of(table.tolist()), rows, seed)
    drawn = np.concatenate(
        [class_balanced.rows_at(np.arange(len(labels)), epoch) for epoch in range(num_epochs)]
    )
    counts = Counter(drawn.tolist())
    assert len(drawn) == len(labels) * num_epochs
    for label in set(labels):
        own = [counts[int(row)] for row in rows[np.array(labels) == label]]
        assert max(own) - min(own) <= 1
    assert set(counts) <= set(rows.tolist())


def test_any_place_is_computed_alone_and_the_order_is_keyed_by_the_epoch() -> None:
    index = index_of([0] * 30 + [1] * 6 + [2] * 3)
    schedule = Schedule.of(
        plan_of("balanced", seed=3), View(augment=True, num_epochs=9), index, np.arange(39)
    )
    whole = schedule.rows_at(np.arange(39), 4)
    assert [int(schedule.rows_at(np.array([place]), 4)[0]) for place in range(39)] == whole.tolist()
    assert whole.tolist() != schedule.rows_at(np.arange(39), 5).tolist()
    assert len(set(index.table["label"].to_numpy()[whole][:13].tolist())) == 3  # not class by class


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("balancd", "sampling: expected balanced or weights.*did you mean 'balanced'"),
        ({"wieghts": {}}, "sampling.wieghts: no such key; did you mean 'weights'"),
        ({"weights": {"cat": 0}}, "sampling: weights: expected numbers above 0, got 0 for 'cat'"),
        ({"weights": {"cat": -1}}, "expected numbers above 0, got -1 for 'cat'"),
    ],
)
def test_a_wrong_request_is_refused_when_the_plan_is_read(
    tmp_path: Path, sampling: object, message: str
) -> None:
    import yaml

    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"index": "i.parquet", "sampling": sampling}))
    with pytest.raises(PlanError, match=message):
        Plan.load(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("sampling", "labels", "message"),
    [
        ("balanced", [-1, -1], "expected images with labels, got none.*leave sampling out"),
        ("balanced", [0, -1, -1], r"got 2 without \(the first is '1.jpg'\)"),
        ({"weights": {"dgo": 2}}, [0, 1], "got 'dgo'; did you mean 'dog'"),
        ({"weights": {"owl": 2}}, [0, 1], "got 'owl'; classes with images here are cat, dog"),
        ({"weights": {"owl": 1e-9}}, [0, 1, 2], "got 1e-09 for 'owl', too small for one"),
    ],
)
def test_a_request_that_the_index_cannot_meet_is_refused(
    sampling: object, labels: list[int], message: str
) -> None:
    classes = CLASSES if max(labels) >= 0 else ()
    with pytest.raises(PlanError, match=message):
        epoch_labels(plan_of(sampling), index_of(labels, classes), 0)


@pytest.mark.parametrize("sampling", ["balanced", {"weights": {"cat": 2.0}}])
def test_a_plan_with_sampling_is_written_as_it_was_read(tmp_path: Path, sampling: object) -> None:
    plan = plan_of(sampling)
    assert plan.dump()["sampling"] == sampling
    plan.save(tmp_path / "plan.yaml")
    assert Plan.load(tmp_path / "plan.yaml").sampling == plan.sampling


def several(sets: list[list[int] | None]) -> Index:
    index = index_of([-1] * len(sets))
    labels = pa.array(sets, SCHEMA.field("labels").type)
    return Index(
        index.table.set_column(SCHEMA.get_field_index("labels"), SCHEMA.field("labels"), labels), CLASSES
    )


def test_each_of_several_classes_has_its_quota_and_images_without_a_class_keep_their_share() -> None:
    """Sixty images: 40 cats, of which ten are dogs too, two owls that are cats too, and eighteen of no class."""
    sets = [[0]] * 28 + [[0, 1]] * 10 + [[0, 2]] * 2 + [[]] * 18
    index = several([*sets, [1], [1]])
    rows = np.arange(60)
    schedule = Schedule.of(plan_of("balanced"), View(augment=True, shuffle=True), index, rows)
    drawn = [Counter(schedule.rows_at(rows, epoch).tolist()) for epoch in range(6)]
    for epoch in drawn:
        assert epoch.total() == 60
        assert sum(epoch[row] for row in range(40, 58)) == 18
        assert all(epoch[row] == 1 for row in range(40, 58))
        assert sum(epoch[row] for row in (38, 39)) >= 14  # a third of the rest, as owls
        assert sum(epoch[row] for row in (*range(28, 38), 58, 59)) >= 14
    assert all(sum(epoch[row] for epoch in drawn) for row in rows)
    weighted = Schedule.of(plan_of({"weights": {"owl": 4}}), View(augment=True, shuffle=True), index, rows)
    owls = Counter(weighted.rows_at(rows, 0).tolist())
    assert owls[38] + owls[39] >= 28


def test_sets_that_cannot_be_sampled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"got 1 without \(the first is 'train-3.png'\)"):
        epoch_labels(plan_of("balanced"), Index.load(multilabel_set(tmp_path)), 0)
    with pytest.raises(PlanError, match="got empty sets only"):
        epoch_labels(plan_of("balanced"), several([[], []]), 0)
    with pytest.raises(PlanError, match="got 'owl'; classes with images here are cat, dog"):
        epoch_labels(plan_of({"weights": {"owl": 2}}), several([[0, 1], []]), 0)

"""Schedules are pure functions: complete epochs, even ranks, keyed replacements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.index import SCHEMA, Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.rng import derive_seed, numpy_generator
from lightwell.pipeline.sampler.schedule import Schedule, replacements

sizes = st.integers(1, 500)
seeds = st.integers(0, 2**40)


@given(sizes, st.integers(1, 40), seeds, st.booleans())
def test_batches_cover_each_epoch_and_only_the_last_is_short(
    size: int, batch: int, seed: int, drop: bool
) -> None:
    schedule = Schedule(
        np.arange(size) * 3, batch, seed, shuffle=True, first_epoch=2, num_epochs=2, drop_last=drop
    )
    specs = list(schedule.batches())
    assert len(specs) == schedule.num_batches
    for epoch in (2, 3):
        mine = [spec for spec in specs if spec.epoch == epoch]
        assert [spec.step for spec in mine] == list(range(len(mine)))
        assert all(len(spec.rows) == batch for spec in (mine if drop else mine[:-1]))
        read = [int(row) for spec in mine for row in spec.rows]
        assert len(set(read)) == len(read) == (size - size % batch if drop else size)
        assert not any(spec.padding.any() for spec in mine)


@given(sizes, st.integers(1, 9), st.sampled_from([1, 2, 3, 4, 7]), seeds, st.booleans())
def test_ranks_take_equal_steps_and_together_read_the_whole_batch(
    size: int, share: int, num_ranks: int, seed: int, mixes: bool
) -> None:
    rows = np.arange(size) * 3
    alone = Schedule(rows, share * num_ranks, seed, shuffle=True, mixes=mixes)
    ranks = [
        Schedule(rows, share * num_ranks, seed, shuffle=True, rank=rank, num_ranks=num_ranks, mixes=mixes)
        for rank in range(num_ranks)
    ]
    for number in range(alone.num_batches):
        whole = alone.batch(number).rows.tolist()
        slices = [schedule.batch(number) for schedule in ranks]
        assert len({len(spec.rows) for spec in slices}) == 1
        own = [spec.rows[spec.has_halo :][~spec.padding[spec.has_halo :]] for spec in slices]
        assert np.concatenate(own).tolist() == whole
        assert {int(row) for spec in slices for row in spec.rows} <= set(whole)
        assert all(spec.has_halo == (mixes and num_ranks > 1 and len(whole) > 1) for spec in slices)
        for spec in slices:
            if spec.has_halo and not spec.padding[1]:
                assert spec.rows[0] == whole[whole.index(int(spec.rows[1])) - 1]


def test_any_batch_is_computed_alone() -> None:
    schedule = Schedule(np.arange(103), 10, 5, shuffle=True, num_epochs=4)
    in_turn = list(schedule.batches())
    for number in (38, 0, 21):
        spec = schedule.batch(number)
        assert (spec.epoch, spec.step) == (number // 11, number % 11) == schedule.epoch_and_step(number)
        assert np.array_equal(spec.rows, in_turn[number].rows)
        assert np.array_equal(next(schedule.batches(number)).rows, spec.rows)


def test_rows_stay_in_order_unless_shuffled() -> None:
    rows = np.array([4, 9, 2])
    assert [spec.rows.tolist() for spec in Schedule(rows, 2).batches()] == [[4, 9], [2]]


def test_a_batch_that_ranks_cannot_share_is_refused_with_the_sizes_that_they_can() -> None:
    index = Index(SCHEMA.empty_table(), ())
    for size, cure in ((10, "make it 8 or 12"), (3, "make it 4$")):
        plan = Plan.model_validate({"index": "i.parquet", "batch": {"size": size}})
        with pytest.raises(
            PlanError, match=f"multiple of the 4 ranks that share a batch, got {size}; {cure}"
        ):
            Schedule.of(plan, View(num_ranks=4), index, np.arange(100))


@pytest.mark.parametrize(("rank", "num_ranks"), [(2, 2), (-1, 2), (0, 0), (0, -1)])
def test_a_rank_out_of_range_is_refused(rank: int, num_ranks: int) -> None:
    with pytest.raises(
        PlanError, match=f"view.rank: .* got rank {rank} of {num_ranks} ranks; ranks are numbered from 0"
    ):
        View(rank=rank, num_ranks=num_ranks)


@given(seeds, st.integers(0, 50), st.text())
def test_replacements_are_keyed_and_come_from_the_rows(seed: int, epoch: int, key: str) -> None:
    rows = np.arange(100, 140)
    first = replacements(rows, seed=seed, epoch=epoch, key=key)
    assert np.array_equal(first, replacements(rows, seed=seed, epoch=epoch, key=key))
    assert set(first.tolist()) <= set(rows.tolist())


@given(st.sampled_from(["augment", "shuffle"]), seeds, st.integers(0, 9), st.text())
def test_keys_repeat_and_differ_by_purpose_epoch_and_seed(
    purpose: str, seed: int, epoch: int, name: str
) -> None:
    bits = derive_seed(purpose, seed, epoch, name)
    assert numpy_generator(bits).random() == numpy_generator(derive_seed(purpose, seed, epoch, name)).random()
    others = {
        derive_seed("mix", seed, epoch, name),
        derive_seed(purpose, seed + 1, epoch, name),
        derive_seed(purpose, seed, epoch + 1, name),
    }
    assert bits not in others

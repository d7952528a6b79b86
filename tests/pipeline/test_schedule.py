"""Schedules are pure functions: permutations, complete epochs, keyed replacements."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.keys import keyed_bits, keyed_generator
from lightwell.pipeline.schedule import batch_specs, epoch_order, replacements

sizes = st.integers(1, 500)
seeds = st.integers(0, 2**40)


@given(sizes, seeds, st.integers(0, 100))
def test_a_shuffled_epoch_holds_every_row_once(size: int, seed: int, epoch: int) -> None:
    rows = np.arange(size) * 3
    assert sorted(epoch_order(rows, seed=seed, epoch=epoch, shuffle=True)) == rows.tolist()


@given(sizes, st.integers(1, 40), seeds, st.booleans())
def test_batches_cover_each_epoch_and_only_the_last_is_short(
    size: int, batch: int, seed: int, drop: bool
) -> None:
    specs = list(
        batch_specs(
            np.arange(size), batch_size=batch, seed=seed, epochs=range(2, 4), shuffle=True, drop_last=drop
        )
    )
    for epoch in (2, 3):
        mine = [spec for spec in specs if spec.epoch == epoch]
        assert [spec.step for spec in mine] == list(range(len(mine)))
        assert all(len(spec.rows) == batch for spec in (mine if drop else mine[:-1]))
        read = [int(row) for spec in mine for row in spec.rows]
        assert len(set(read)) == len(read) == (size - size % batch if drop else size)


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
    bits = keyed_bits(purpose, seed, epoch, name)
    assert keyed_generator(bits).random() == keyed_generator(keyed_bits(purpose, seed, epoch, name)).random()
    others = {
        keyed_bits("mix", seed, epoch, name),
        keyed_bits(purpose, seed + 1, epoch, name),
        keyed_bits(purpose, seed, epoch + 1, name),
    }
    assert bits not in others

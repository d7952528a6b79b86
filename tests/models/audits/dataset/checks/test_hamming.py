from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.models.audits.dataset.checks import hamming
from lightwell.models.audits.dataset.checks.hamming import near_pairs, pack_hashes

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12)
CHANGES = st.lists(st.sets(st.integers(0, 63), max_size=12), max_size=12)


def found_pairs(hashes: np.ndarray, radius: int) -> list[tuple[int, int]]:
    pairs = [np.stack(pair, axis=1) for pair in near_pairs(hashes, radius)]
    return sorted(tuple(pair) for chunk in pairs for pair in chunk.tolist())


def all_near_pairs(hashes: np.ndarray, radius: int) -> list[tuple[int, int]]:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= radius
    return [tuple(pair) for pair in np.argwhere(np.triu(near, 1)).tolist()]


@settings(max_examples=40, deadline=None)
@given(hashes=HASHES, changes=CHANGES, radius=st.integers(0, 12))
def test_near_pairs_are_those_of_comparing_all_pairs(
    hashes: list[int], changes: list[set[int]], radius: int
) -> None:
    changed = [number ^ sum(1 << bit for bit in bits) for number, bits in zip(hashes, changes, strict=False)]
    values = np.array(hashes + changed, np.uint64)
    assert found_pairs(values, radius) == all_near_pairs(values, radius)


@pytest.mark.parametrize("radius", [0, 5, 11])
def test_near_pairs_of_a_thousand_hashes_in_small_chunks(
    radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hamming, "CHUNK_PAIRS", 100)
    generator = np.random.default_rng(radius)
    hashes = generator.integers(0, 2**64, 1000, np.uint64)
    for count in range(12):
        bits = generator.permutation(64)[:count]
        hashes[500 + count] = hashes[count] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    hashes[600:640] = hashes[599]
    assert found_pairs(hashes, radius) == all_near_pairs(hashes, radius)
    assert len(found_pairs(hashes, radius)) == 41 * 40 // 2 + radius + 1


def test_packed_hashes_keep_every_bit() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 256, (20, 8), np.uint8)
    assert [int(value) for value in pack_hashes(hashes)] == [
        int.from_bytes(row.tobytes(), "big") for row in hashes
    ]

"""Images that show the same picture: compressed again, resized, slightly cropped, brightened, turned or mirrored.

Candidates have similar DCT hashes; whether they are copies is decided by a second hash, of gradients, and by measures that
hashes do not contain, so that plain images (skies, products on white) do not become one group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .duplicate_findings import duplicate_findings
from .duplicate_groups import DuplicateGroups, fixes_of_groups, groups_around_medoids
from .feature_pairs import feature_pairs
from .hamming import NUM_BITS, Pairs, distances, near_pairs, pack_hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...findings.finding import Finding
    from ..dataset_table import DatasetTable
    from .fixes import FixRow

MAX_PHASH = 11
"""Bits in which the DCT hashes of candidates differ."""
MAX_BITS, MAX_BITS_SAME_TONES = 22, 28
"""Bits in which both hashes of copies differ together, and the same if their histograms agree."""
MAX_BITS_CERTAIN = 8
"""Bits in which both hashes of copies differ together that may be of another brightness and contrast."""
MAX_TONES = 0.15
"""Total variation between histograms that agree: an image and its central 90 % differ by up to 0.18."""
MAX_TURNED = 3
"""Bits in which the invariant hashes of turned and mirrored copies differ."""
MAX_PLAIN = 6
"""Bits of the gradient hash of an image that is too plain to be told from others by its hashes."""
MAX_TONES_PLAIN = 0.08
"""Total variation between histograms of turned and of plain copies."""
LEAST_COSINE = 0.85
"""Similarity of the features of copies: with tf_efficientnet_lite0, 0.83 to 0.98 for an image without its outer tenth, and up
to 0.89 for one in 57,000 pairs of different photos."""
NUM_BINS = 16
"""Bins of the compared histograms."""
MAX_ASPECT = 1.12
"""Ratio between the aspects of copies."""
MEASURES = ("brightness", "contrast", "mean_r", "mean_g", "mean_b", "std_r", "std_g", "std_b")
MAX_SD = 0.9
"""Largest difference of these measures, in standard deviations over the dataset."""
NULL_SDS = 3.5
"""Copies are closer than random pairs by so many standard deviations: images of one kind (X-rays) are all similar."""
NULL_PAIRS = 100_000
CHUNK_PAIRS = 65_536
"""Pairs whose histograms are compared at once."""
MIN_NULL_ROWS = 100


def near_groups(table: DatasetTable) -> DuplicateGroups:
    """Return groups of near duplicates, exact copies included; none without the hashes of images.

    Features of a network find copies that were cropped, nearly all in tables of more than `feature_pairs.MAX_ROWS` rows.
    """
    if "phash" not in table.images or "dhash" not in table.images:
        return DuplicateGroups(np.full(len(table), -1, np.int64))
    rows = np.flatnonzero(table.is_readable)
    found = [_same_orientation(table, rows)]
    if "phash_invariant" in table.images and "histogram" in table.images:
        found.append(_turned(table, rows))
    if table.features is not None and "histogram" in table.images:
        found.append(_same_features(table, table.features))
    same, pairs = (
        (np.concatenate([pair[0] for pair in kind]), np.concatenate([pair[1] for pair in kind]))
        for kind in zip(*found, strict=True)
    )
    return groups_around_medoids(same, pairs, len(table))


def find_near_duplicates(table: DatasetTable, groups: DuplicateGroups | None = None) -> list[Finding]:
    """Return findings about near duplicates: those with different labels first, then all."""
    groups = near_groups(table) if groups is None else groups
    return duplicate_findings(table, groups, "near_duplicate", "near duplicates of another")


def fix_near_duplicates(table: DatasetTable, groups: DuplicateGroups | None = None) -> list[FixRow]:
    """Return rows that drop all but one of each group of near duplicates."""
    groups = near_groups(table) if groups is None else groups
    return fixes_of_groups(table, groups, find_near_duplicates(table, groups), "near duplicate")


def _same_orientation(table: DatasetTable, rows: NDArray[np.intp]) -> tuple[Pairs, Pairs]:
    phashes, dhashes = (pack_hashes(table.images[name]) for name in ("phash", "dhash"))
    limit = _null_limit(table, phashes[rows], dhashes[rows])
    most, most_same = min(MAX_BITS, limit), min(MAX_BITS_SAME_TONES, limit)
    is_plain = np.bitwise_count(dhashes) <= MAX_PLAIN

    def is_copy(
        first: NDArray[np.intp], second: NDArray[np.intp]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        bits = distances(phashes[first], phashes[second]).astype(np.int64)
        bits += distances(dhashes[first], dhashes[second])
        plain = is_plain[first] | is_plain[second]
        is_near = (bits <= most) & ~plain
        undecided = np.flatnonzero(~is_near & (bits <= most_same))
        tones = _tones(table, first[undecided], second[undecided])
        is_near[undecided] = tones <= np.where(plain[undecided], MAX_TONES_PLAIN, MAX_TONES)
        return is_near, (bits <= min(MAX_BITS_CERTAIN, limit)) & ~plain

    both = np.stack([phashes[rows], dhashes[rows]], axis=1)
    return _verified(table, rows, both, min(MAX_PHASH, most_same), is_copy)


def _turned(table: DatasetTable, rows: NDArray[np.intp]) -> tuple[Pairs, Pairs]:
    hashes = pack_hashes(table.images["phash_invariant"])
    limit = min(MAX_TURNED, _null_limit(table, hashes[rows], None))

    def is_copy(
        first: NDArray[np.intp], second: NDArray[np.intp]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return _tones(table, first, second) <= MAX_TONES_PLAIN, np.zeros(len(first), np.bool_)

    return _verified(table, rows, hashes[rows, None], limit, is_copy)


def _same_features(table: DatasetTable, features: NDArray[np.float32]) -> tuple[Pairs, Pairs]:
    """Return pairs of images with similar features whose histograms and measures agree, cropped copies among them."""
    measures = _standardised(table)
    first: list[NDArray[np.intp]] = [np.zeros(0, np.intp)]
    second = first.copy()
    for one, other in feature_pairs(np.where(table.is_readable[:, None], features, np.nan), LEAST_COSINE):
        agrees = _agree(table, measures, one, other)
        agrees[agrees] = _tones(table, one[agrees], other[agrees]) <= MAX_TONES
        first.append(one[agrees])
        second.append(other[agrees])
    return (first[0], first[0]), (np.concatenate(first), np.concatenate(second))


def _verified(
    table: DatasetTable,
    rows: NDArray[np.intp],
    hashes: NDArray[np.uint64],
    radius: int,
    is_copy: Callable[[NDArray[np.intp], NDArray[np.intp]], tuple[NDArray[np.bool_], NDArray[np.bool_]]],
) -> tuple[Pairs, Pairs]:
    """Return pairs of rows with the same and with similar hashes that are copies and whose measures agree.

    `is_copy` says of pairs whether they are copies, and whether this is certain, so that only their shapes have to agree. Rows
    with the same hashes are compared with their neighbour in brightness only, and one of them with other hashes.
    """
    if not len(rows):
        return (rows, rows), (rows, rows)
    brightness = np.nan_to_num(table.images["brightness"][rows]) if "brightness" in table.images else rows
    order = np.lexsort((brightness, *hashes.T[::-1]))
    rows, hashes = rows[order], hashes[order]
    is_equal = (hashes[1:] == hashes[:-1]).all(axis=1)
    measures = _standardised(table)

    def kept(first: NDArray[np.intp], second: NDArray[np.intp]) -> Pairs:
        passes, certain = is_copy(first, second)
        first, second, certain = first[passes], second[passes], certain[passes]
        agrees = _agree(table, measures, first, second)
        agrees[certain] = _agree(table, measures[:, :0], first[certain], second[certain])
        return first[agrees], second[agrees]

    heads = rows[np.flatnonzero(np.concatenate([[True], ~is_equal]))]
    values = hashes[np.flatnonzero(np.concatenate([[True], ~is_equal])), 0]
    found = [kept(heads[one], heads[other]) for one, other in near_pairs(values, radius)]
    similar = [np.concatenate([rows[:0], *(pair[side] for pair in found)]) for side in (0, 1)]
    return kept(rows[:-1][is_equal], rows[1:][is_equal]), (similar[0], similar[1])


def _null_limit(table: DatasetTable, phashes: NDArray[np.uint64], dhashes: NDArray[np.uint64] | None) -> int:
    """Return the most bits in which copies differ, given those of random pairs: median minus `NULL_SDS` deviations."""
    if len(phashes) < MIN_NULL_ROWS:
        return 2 * NUM_BITS
    first, second = table.generator("random pairs").integers(0, len(phashes), (2, NULL_PAIRS))
    first, second = first[first != second], second[first != second]
    bits = distances(phashes[first], phashes[second]).astype(np.float64)
    if dhashes is not None:
        bits += distances(dhashes[first], dhashes[second])
    low, middle = np.quantile(bits, (0.158655, 0.5)).tolist()
    return max(0, int(middle - NULL_SDS * (middle - low)))


def _standardised(table: DatasetTable) -> NDArray[np.float32]:
    """Return measures in standard deviations, shape (N, M); zero where there is none."""
    columns = [np.asarray(table.images[name], np.float64) for name in MEASURES if name in table.images]
    values = np.zeros((len(table), len(columns)), np.float32)
    for number, column in enumerate(columns):
        known = np.isfinite(column)
        deviation = float(column[known].std()) if known.any() else 0.0
        if deviation:
            values[known, number] = column[known] / deviation
    return values


def _agree(
    table: DatasetTable,
    measures: NDArray[np.float32],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """Return whether the shapes and measures of pairs of images agree."""
    agrees = np.ones(len(first), np.bool_)
    if measures.shape[1]:
        agrees &= (np.abs(measures[first] - measures[second]) <= MAX_SD).all(axis=1)
    if "width" in table.files and "height" in table.files:
        width, height = (np.asarray(table.files[name], np.float64) for name in ("width", "height"))
        with np.errstate(divide="ignore", invalid="ignore"):
            aspects = np.log(width / height)
        difference = np.abs(np.abs(aspects[first]) - np.abs(aspects[second]))  # either may be turned
        agrees &= ~(difference > math.log(MAX_ASPECT))  # unknown sizes agree
    return agrees


def _tones(table: DatasetTable, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the total variation between histograms of pairs of images; infinite without histograms."""
    distance = np.full(len(first), np.inf)
    histograms = table.images.get("histogram")
    if histograms is None:
        return distance
    for start in range(0, len(first), CHUNK_PAIRS):
        one, other = (
            np.asarray(histograms[rows[start : start + CHUNK_PAIRS]], np.float64) for rows in (first, second)
        )
        shares = [_shares(values) for values in (one, other)]
        distance[start : start + CHUNK_PAIRS] = np.abs(shares[0] - shares[1]).sum(axis=1) / 2
    return distance


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares of `NUM_BINS` bins, each of as many neighbouring bins of histograms as there are."""
    if counts.shape[1] % NUM_BINS == 0:
        counts = counts.reshape(len(counts), NUM_BINS, -1).sum(axis=2)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12), np.float64)

"""One experiment: a mark is planted, a probe learns from the images, and an audit of the probe searches other images.

The images are divided at random into two halves. In both, the mark is planted in a share of the images of one class, and in
a smaller share of the others. A probe of the frozen network is fitted on the first half; its maps on the second half are
searched and the candidates tested as in an audit. Whether the probe relies on the mark is measured apart from that, by
planting it in images of other classes and by removing it from its own, because many planted marks are never used (Adebayo
et al., "Post hoc explanations may be ineffective for detecting unknown spurious correlation", ICLR 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from ....pipeline.batch.batch import Batch
from ....pipeline.rng import derive_seed, numpy_generator
from ..findings.finding import Effect
from ..findings.intervals import bootstrap_mean
from ..gradcam.confirmation import confirm_finding
from ..gradcam.edges import edge_colours
from ..gradcam.interventions import INTERVENTION_SCHEMA, Interventions, choose_suspects, make_pairs
from ..gradcam.suspects.search import find_suspects
from ..gradcam.verdicts import conclude
from .probed_images import ImagePool, class_maps, fit_probe, probabilities, probe_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...features.probe_heads import LinearHead
    from ..findings.finding import Finding
    from ..gradcam.suspects.image_table import ImageTable
    from .frozen_network import FrozenNetwork
    from .plants import Mark

NUM_PASTED = 24
"""Images of other classes in which the mark is planted to measure reliance."""
NUM_PAIRS = 24
"""Pairs of images of an intervention, as by default in an audit."""
PAIRS_PER_BATCH = 8
RELIANCE = 0.1
"""A probe relies on a mark that changes the probability of its class by so much on average, with an interval above 0."""
MIN_REMOVED = 5
"""Fewer images without their mark say nothing about reliance."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A mark, the class that gets it, and in how many images."""

    mark: Mark | None
    """None plants nothing: the clean twin."""
    target: int = 0
    """The class that gets the mark."""
    prevalence: float = 0.2
    """Share of its images with the mark."""
    leak: float = 0.0
    """Share of the other images with the mark."""
    seed: int = 0
    """Of the halves, of the marked images and of all that follows."""


@dataclass(frozen=True)
class Experiment:
    """A probe of marked images, the audit of it, and its reliance on the mark."""

    condition: Condition
    table: ImageTable
    """Of the audited images, sorted by key."""
    images: NDArray[np.uint8]
    """(N, H, W, 3), by row of the table, with their marks."""
    is_marked: NDArray[np.bool_]
    """Per row of the table."""
    mask: NDArray[np.bool_] | None
    """Pixels (H, W) that the mark covers in at least one audited image; None without a mark."""
    findings: Sequence[Finding]
    """Those of an audit, the most severe first."""
    accuracy: float
    pasted: Effect | None
    """Rise of the class's probability when the mark is planted in images of other classes."""
    removed: Effect | None
    """Drop when it is removed from its own; None for few images."""

    @property
    def relies(self) -> bool:
        """Whether the probe uses the mark."""
        return any(
            each is not None and each.value >= RELIANCE and each.low is not None and each.low > 0
            for each in (self.pasted, self.removed)
        )


def run_condition(pool: ImagePool, network: FrozenNetwork, condition: Condition) -> Experiment:
    """Run one experiment; the network's head is replaced."""
    fitted, audited = halves(pool.labels, condition.seed)
    images, activations, is_marked, masks = _plant(pool, network, condition, fitted, audited)
    head = fit_probe(activations[fitted], pool.labels[fitted], len(pool.names))
    table = probe_table(pool, audited, activations[audited], head, condition.seed)
    by_key = audited[np.argsort(pool.keys[audited], kind="stable")]
    shown = {str(pool.keys[row]): images.get(row, pool.images[row]) for row in audited.tolist()}
    pasted, removed = (
        (None, None)
        if condition.mark is None
        else _reliance(pool, network, condition, head, activations, audited, is_marked)
    )
    seen = np.stack([shown[str(pool.keys[row])] for row in by_key])
    table = replace(table, edges=edge_colours(torch.from_numpy(seen).permute(0, 3, 1, 2) / 255))
    findings = _audit(table, network, head, pool, shown, activations, audited)
    in_audited = [masks[row] for row in audited.tolist() if row in masks]
    return Experiment(
        condition,
        table,
        seen,
        is_marked[by_key],
        np.logical_or.reduce(in_audited) if in_audited else None,
        findings,
        float((table.predictions == table.labels).mean()),
        pasted,
        removed,
    )


def halves(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide images at random into two halves, evenly within each class."""
    generator = _generator(seed, "halves")
    first = []
    for number in np.unique(labels).tolist():
        own = generator.permutation(np.flatnonzero(labels == number))
        first += own[: (len(own) + 1) // 2].tolist()
    chosen = np.array(sorted(first), np.intp)
    return chosen, np.setdiff1d(np.arange(len(labels)), chosen)


def _plant(
    pool: ImagePool,
    network: FrozenNetwork,
    condition: Condition,
    fitted: NDArray[np.intp],
    audited: NDArray[np.intp],
) -> tuple[dict[int, NDArray[np.uint8]], torch.Tensor, NDArray[np.bool_], dict[int, NDArray[np.bool_]]]:
    """Return the marked images and their masks by row, the activations of all images, and which are marked."""
    is_marked = np.zeros(len(pool.labels), np.bool_)
    if condition.mark is None:
        return {}, pool.activations, is_marked, {}
    for part, name in ((fitted, "fitted"), (audited, "audited")):
        generator = _generator(condition.seed, f"marked {name}")
        is_own = pool.labels[part] == condition.target
        for group, share in ((part[is_own], condition.prevalence), (part[~is_own], condition.leak)):
            is_marked[generator.permutation(group)[: round(share * len(group))]] = True
    chosen = np.flatnonzero(is_marked)
    marked = [condition.mark.plant(pool.images[row], condition.seed, str(pool.keys[row])) for row in chosen]
    activations = pool.activations.clone()
    if marked:
        activations[torch.from_numpy(chosen)] = network.activations(np.stack([each.image for each in marked]))
    by_row = dict(zip(chosen.tolist(), marked, strict=True))
    return (
        {row: each.image for row, each in by_row.items()},
        activations,
        is_marked,
        {row: each.mask for row, each in by_row.items()},
    )


def _reliance(
    pool: ImagePool,
    network: FrozenNetwork,
    condition: Condition,
    head: LinearHead,
    activations: torch.Tensor,
    audited: NDArray[np.intp],
    is_marked: NDArray[np.bool_],
) -> tuple[Effect | None, Effect | None]:
    """Return what planting the mark in other images, and removing it from its own, does to the probability."""
    assert condition.mark is not None
    generator, target = _generator(condition.seed, "reliance"), condition.target

    def of_target(values: torch.Tensor) -> NDArray[np.float64]:
        return probabilities(head, values)[:, target]

    clean = audited[(pool.labels[audited] != target) & ~is_marked[audited]]
    clean = np.sort(generator.permutation(clean)[:NUM_PASTED])
    planted = np.stack(
        [condition.mark.plant(pool.images[row], condition.seed, str(pool.keys[row])).image for row in clean]
    )
    own = audited[(pool.labels[audited] == target) & is_marked[audited]]
    rise = of_target(network.activations(planted)) - of_target(pool.activations[clean])
    drop = of_target(activations[own]) - of_target(pool.activations[own]) if len(own) >= MIN_REMOVED else None
    return _mean_effect(rise, generator), None if drop is None else _mean_effect(drop, generator)


def _audit(
    table: ImageTable,
    network: FrozenNetwork,
    head: LinearHead,
    pool: ImagePool,
    shown: dict[str, NDArray[np.uint8]],
    activations: torch.Tensor,
    audited: NDArray[np.intp],
) -> list[Finding]:
    """Search the table and test the candidates, as the stages of an audit do."""
    seed = table.seed
    found = find_suspects(table)
    suspects = choose_suspects(found)
    pairs = make_pairs(suspects, NUM_PAIRS)
    row_of = {str(pool.keys[row]): row for row in audited.tolist()}
    own = sorted({pair.own for pair in pairs})
    rows = np.array([row_of[key] for key in own], np.intp)
    maps = (
        dict(
            zip(own, class_maps(head, activations[rows], pool.labels[rows]).clamp_min(0).numpy(), strict=True)
        )
        if own
        else {}
    )
    test = Interventions(network.with_head(head, pool.names), suspects, pairs, maps, PAIRS_PER_BATCH, seed)
    batches = []
    for step in range(-(-len(pairs) // PAIRS_PER_BATCH)):
        keys = [
            key for pair in pairs[step * PAIRS_PER_BATCH : (step + 1) * PAIRS_PER_BATCH] for key in pair.keys
        ]
        images = network.to_inputs(np.stack([shown[key] for key in keys]))
        none = np.zeros(len(keys), np.bool_)
        batches.append(test(Batch(images, torch.full((len(keys),), -1), tuple(keys), 0, step, none, none)))
    records = pa.Table.from_batches(batches, INTERVENTION_SCHEMA)
    return conclude(replace(each, confirmation=confirm_finding(each, records, seed)) for each in found)


def _mean_effect(values: NDArray[np.float64], generator: np.random.Generator) -> Effect | None:
    interval = bootstrap_mean(values, generator)
    return None if interval is None else Effect(float(values.mean()), "probability", *interval)


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return numpy_generator(derive_seed("calibration", seed, 0, purpose))

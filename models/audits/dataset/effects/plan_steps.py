"""The transforms of a plan's views by number, and plans in which some of them are changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import yaml

if TYPE_CHECKING:
    from .....pipeline.compiler.program import Program
    from .....pipeline.plan.plan import Plan
    from .....pipeline.policy.spec import TransformSpec

Section = Literal["preprocess", "augment", "evaluate"]
Change = Callable[[int, "TransformSpec"], Sequence["TransformSpec"] | None]
"""(number of the leaf, transform) -> what takes its place; None leaves it."""


@dataclass(frozen=True)
class Step:
    """A transform of a view, without the normalization at the end."""

    spec: TransformSpec
    section: Section
    number: int
    """Among the leaves of the section."""
    path: str
    """Of the outermost transform that it belongs to, such as ``augment[0]``."""

    @property
    def title(self) -> str:
        """Name and place."""
        return f"{self.spec.name} ({self.path})"


def steps_of(program: Program, *, augment: bool) -> list[Step]:
    """Return the leaves of a view, as `ViewMeter` counts them."""
    sections: tuple[Section, ...] = ("preprocess", "augment" if augment else "evaluate")
    return [
        Step(leaf, section, number, path)
        for section in sections
        for number, (leaf, path) in enumerate(
            (leaf, f"{section}[{place}]")
            for place, spec in enumerate(getattr(program, section))
            for leaf in _leaves(spec)
        )
    ]


def _leaves(spec: TransformSpec) -> Iterator[TransformSpec]:
    if spec.children:
        for child in spec.children:
            yield from _leaves(child)
    else:
        yield spec


def changed_section(specs: Sequence[TransformSpec], change: Change) -> list[TransformSpec]:
    """Return the transforms of a section with some of its leaves changed."""
    numbers = count()

    def changed(spec: TransformSpec) -> Sequence[TransformSpec]:
        if spec.children:
            children = tuple(new for child in spec.children for new in changed(child))
            return (spec.model_copy(update={"children": children}),) if children else ()
        found = change(next(numbers), spec)
        return (spec,) if found is None else found

    return [new for spec in specs for new in changed(spec)]


def with_options(spec: TransformSpec, **options: Any) -> tuple[TransformSpec]:
    """Return a transform with some options changed."""
    return (spec.model_copy(update={"options": {**spec.options, **options}}),)


def with_steps(plan: Plan | None, section: Section, *steps: TransformSpec) -> str:
    """Return a section of a plan as YAML, with steps before its own."""
    own: Sequence[TransformSpec] = () if plan is None else getattr(plan, section)
    return section_yaml({section: [*steps, *own]})


def section_yaml(sections: Mapping[Section, Sequence[TransformSpec]]) -> str:
    """Return sections of a plan as YAML that takes their place."""
    plain = {name: [spec.dump() for spec in specs] for name, specs in sections.items()}
    return str(yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120))

"""Every transform of the installed Albumentations is classified, and TRANSFORMS.md is up to date."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path

import lightwell
from lightwell.pipeline.transform.dali.lowering import Lowering
from lightwell.pipeline.transform.dali.op_registry import OP_MODULES, lowering_of
from lightwell.pipeline.transform.dali.transforms_md import leaf_names, markdown
from lightwell.pipeline.transform.dali.unsupported import ALBUMENTATIONS_ONLY, EXCEPTIONS

LOWERED = [name for rules in OP_MODULES for lowering in rules.LOWERINGS for name in lowering.transforms]


def test_every_transform_is_lowered_or_has_a_reason_and_none_has_both() -> None:
    assert sorted([*LOWERED, *ALBUMENTATIONS_ONLY]) == leaf_names()
    assert max(Counter(LOWERED).values()) == 1, "a class is lowered twice"


def test_every_lowering_with_unsupported_options_lists_them() -> None:
    defaults = {field.name: field.default for field in fields(Lowering)}

    def takes_all(name: str) -> bool:
        lowering = lowering_of(name)
        assert lowering is not None
        return all(getattr(lowering, part) is defaults[part] for part in ("unsupported", "approximation"))

    assert {name for name in LOWERED if not takes_all(name)} == set(EXCEPTIONS)


def test_the_page_of_transforms_is_up_to_date() -> None:
    page = Path(lightwell.__file__).parent / "TRANSFORMS.md"
    assert page.read_text() == markdown(), "run `make transforms`"

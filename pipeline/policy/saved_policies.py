"""Read policies saved by ``albumentations.save``, in JSON or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.imports import AllowedModules
from ..config.safe_yaml import parse_document, read_text_file
from ..errors import PlanError
from ..text import quoted
from .compose_options import check_compose
from .from_objects import same_value
from .registry import check_permitted, find_transform, is_composition, load_albumentations, option_names
from .spec import TransformSpec, to_plain

NAME_KEY = "__class_fullname__"


def read_policy_file(path: Path, where: str, allowed: AllowedModules) -> TransformSpec:
    """Read a policy saved by ``albumentations.save``.

    Args:
        path: the file.
        where: location in the plan, for error messages.
        allowed: modules that the file may import from.

    Raises:
        PlanError: the file is not such a policy, or the installed Albumentations interprets one of its options differently.
    """
    try:
        described = parse_document(read_text_file(path), str(path))
    except PlanError as error:
        raise PlanError(f"{where}: expected a policy saved by albumentations.save, got {error}") from error
    if not isinstance(described, Mapping) or not isinstance(described.get("transform"), Mapping):
        raise PlanError(
            f"{where}: expected a policy saved by albumentations.save, got {str(path)!r} without a mapping below "
            "'transform'; save it again"
        )
    version = described.get("__version__")
    where = f"{where}: {path.name}"
    spec = _read_spec(described["transform"], where, allowed)
    same_version = version == load_albumentations().__version__
    _check_same_options(
        described["transform"], spec.build(where), where, None if same_version else quoted(version)
    )
    return spec


def _read_spec(described: Any, where: str, allowed: AllowedModules) -> TransformSpec:
    if not isinstance(described, Mapping) or not isinstance(described.get(NAME_KEY), str):
        raise PlanError(
            f"{where}: expected a transform with its {NAME_KEY}, got {quoted(described)}; save the policy again"
        )
    name = described[NAME_KEY]
    module, _, short = name.rpartition(".")
    if module:
        name = (
            short
            if module == "albumentations" or module.startswith("albumentations.")
            else f"{module}:{short}"
        )
    where = f"{where}.{short}"
    check_permitted(name, where, allowed)
    cls = find_transform(name, where)
    options = {key: value for key, value in described.items() if key not in (NAME_KEY, "transforms")}
    if options.get("always_apply") is False:  # written by Albumentations 1, without effect
        del options["always_apply"]
    if name == "Compose":
        check_compose(options, where)
        options = {key: value for key, value in options.items() if key not in option_names(cls) or key == "p"}
    derived = set(options) - set(option_names(cls))
    kept = {key: value for key, value in options.items() if key not in derived or not _is_derived(cls, key)}
    children = described.get("transforms")
    if not isinstance(children if children is not None else [], list):
        raise PlanError(f"{where}.transforms: expected a list, got {quoted(children)}; save the policy again")
    return TransformSpec.model_validate(
        {
            "name": name,
            "options": kept,
            "children": [
                _read_spec(child, f"{where}.transforms[{i}]", allowed)
                for i, child in enumerate(children or ())
            ],
        },
        context=allowed.context(),
    )


def _is_derived(cls: type[Any], key: str) -> bool:
    """Return whether a saved value is derived from other options of the class, as in subclasses of Pad."""
    return any(
        key in option_names(base)
        for base in cls.__mro__[1:]
        if "__init__" in vars(base) and base is not object
    )


def _check_same_options(described: Mapping[str, Any], built: Any, where: str, version: str | None) -> None:
    """Compare the saved options of a transform with those of the transform built from them.

    Raises:
        PlanError: they differ, or a file of another Albumentations version lacks options of the installed one.
    """
    where = f"{where}.{type(built).__name__}"
    now = built.to_dict_private()
    for key, value in described.items():
        checked = type(built).__name__ == "Compose" and key != "p"  # by check_compose
        if checked or key in (NAME_KEY, "transforms", "always_apply"):
            continue
        if key in now and not same_value(to_plain(now[key], key), to_plain(value, key)):
            raise PlanError(
                f"{where}.{key}: expected a value that Albumentations leaves unchanged, got {quoted(value)}, which it changes to "
                f"{quoted(now[key])}; correct it"
            )
    missing = (
        []
        if version is None
        else sorted(set(now) & set(option_names(type(built))) - set(described) - {"transforms"})
    )
    if missing and not is_composition(built):
        raise PlanError(
            f"{where}: expected all options, got a file of Albumentations {version} without {', '.join(missing)}; write "
            f"the policy into the plan, or save it with Albumentations {load_albumentations().__version__}"
        )
    if is_composition(built):
        for i, (child, again) in enumerate(
            zip(described.get("transforms") or (), built.transforms, strict=True)
        ):
            _check_same_options(child, again, f"{where}.transforms[{i}]", version)

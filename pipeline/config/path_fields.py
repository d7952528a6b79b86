"""Which keys of a YAML document name files: the declared path fields of the model that it is for.

A key names a file where its field is a ``Path``, where a ``str`` field is marked by ``MayBePath``, or where a policy is
written as ``{file: PATH}``. Paths count from the folder of the document. Any other text, however much it looks like a path,
is text.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from ..errors import PlanError
from ..storage.store import without_file_scheme
from ..uris import public_uri

Change = Callable[[str, str], str]
"""(dotted name of the key, the path as it is written) -> what takes its place."""
Hints = tuple[Any, ...]
"""The type of a field and the marks on it."""


@dataclass(frozen=True, slots=True)
class MayBePath:
    """Marks a ``str`` field, by ``Annotated``, whose value is a path where it ends in one of some suffixes."""

    suffixes: tuple[str, ...]

    def is_path(self, text: str) -> bool:
        """Say whether a value is a path, and no word such as ``default`` and no URI."""
        return "://" not in text and text.endswith(self.suffixes)


def resolve_paths(model: type[Any], content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the relative paths of a document count from a folder; ``~`` is the home folder.

    Raises:
        PlanError: a URI, which these keys do not take.
    """

    def resolve(name: str, text: str) -> str:
        path = without_file_scheme(text)
        if "://" in path:
            raise PlanError(
                f"{name}: expected a path of this machine, got {public_uri(text)!r}; copy the file here (pictures that an "
                "index lists may stay where they are)"
            )
        return str(folder / Path(path).expanduser())

    return map_paths(model, content, resolve)


def list_paths(model: type[Any], content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the dotted names and the paths of all keys of a document that name files, as they are written."""
    found: list[tuple[str, str]] = []

    def note(name: str, text: str) -> str:
        found.append((name, text))
        return text

    map_paths(model, content, note)
    return found


def map_paths(
    model: type[Any], content: Mapping[str, Any], change: Change, where: str = ""
) -> dict[str, Any]:
    """Copy a document with each declared path replaced by what ``change`` returns.

    Args:
        model: the pydantic model or dataclass that the document is for.
        content: the document; what does not fit the model is copied as it is.
        change: called for each path, in the order of the fields.
        where: dotted name of the place of ``content`` in a larger document.
    """
    changed = dict(content)
    for name, hint in _hints(model).items():
        if name in changed:
            changed[name] = _map_value(hint, changed[name], change, f"{where}.{name}".lstrip("."))
    return changed


def _map_value(hints: Hints, value: Any, change: Change, name: str) -> Any:
    kinds = list(_kinds(hints))
    if isinstance(value, str):
        if Path in kinds or any(hasattr(kind, "short_form") for kind in kinds):
            return Path(change(name, value))
        marks = [kind for kind in kinds if isinstance(kind, MayBePath)]
        return change(name, value) if any(mark.is_path(value) for mark in marks) else value
    if isinstance(value, Mapping):
        if set(value) == {"file"} and isinstance(value["file"], str):
            return {"file": change(f"{name}.file", value["file"])}
        model = next((kind for kind in kinds if _is_model(kind)), None)
        return value if model is None else map_paths(model, value, change, name)
    if isinstance(value, list) and any(_is_model(kind) or kind is Path for kind in kinds):
        return [_map_value(hints, item, change, f"{name}[{number}]") for number, item in enumerate(value)]
    return value


def _hints(model: type[Any]) -> dict[str, Hints]:
    if issubclass(model, BaseModel):
        return {name: (field.annotation, *field.metadata) for name, field in model.model_fields.items()}
    if dataclasses.is_dataclass(model):
        try:
            return {name: (hint,) for name, hint in get_type_hints(model, include_extras=True).items()}
        except NameError:  # a name that is imported for type checkers alone
            written = {field.name: str(field.type) for field in dataclasses.fields(model)}
            return {name: (Path,) for name, text in written.items() if re.search(r"\bPath\b", text)}
    return {}


def _kinds(hints: Hints) -> Iterator[Any]:
    """Yield the types and marks inside type hints: of unions, containers and ``Annotated``."""
    for hint in hints:
        origin: Any = get_origin(hint)
        if origin in (Annotated, Union, types.UnionType, tuple, list):
            yield from _kinds(get_args(hint))
        else:
            yield hint


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))

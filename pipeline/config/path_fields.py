"""Find and resolve the file paths in a YAML document, by the path fields of its model.

A value is a path if its field is a ``Path`` or a ``str`` annotated with ``MayBePath``, or if it is ``PATH`` in a policy
``{file: PATH}``. Paths are relative to the folder of the document. All other text is left unchanged.
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
from ..storage.local import without_file_scheme
from ..uris import public_uri

Replace = Callable[[str, str], str]
"""(dotted key, path as written) -> replacement."""
Hints = tuple[Any, ...]
"""The type of a field and its annotations."""


@dataclass(frozen=True, slots=True)
class MayBePath:
    """``Annotated`` marker of a ``str`` field whose value is a path if it ends in one of some suffixes."""

    suffixes: tuple[str, ...]

    def is_path(self, text: str) -> bool:
        """Return whether a value is a path, not a URI or a word such as ``default``."""
        return "://" not in text and text.endswith(self.suffixes)


def resolve_paths(model: type[Any], content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve the relative paths of a document against a folder; ``~`` is expanded.

    Raises:
        PlanError: a value is a URI.
    """

    def resolve(name: str, text: str) -> str:
        path = without_file_scheme(text)
        if "://" in path:
            raise PlanError(
                f"{name}: expected a local path, got {public_uri(text)!r}; copy the file to this machine (the images of an "
                "index may stay remote)"
            )
        return str(folder / Path(path).expanduser())

    return map_paths(model, content, resolve)


def list_paths(model: type[Any], content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the dotted keys and the paths, as written, of all path fields in a document."""
    found: list[tuple[str, str]] = []

    def note(name: str, text: str) -> str:
        found.append((name, text))
        return text

    map_paths(model, content, note)
    return found


def map_paths(
    model: type[Any], content: Mapping[str, Any], replace: Replace, where: str = ""
) -> dict[str, Any]:
    """Copy a document and replace each path by the result of ``replace``.

    Args:
        model: the pydantic model or dataclass that the document is for.
        content: the document; values that do not fit the model are copied unchanged.
        replace: called for each path, in the order of the fields.
        where: dotted key of ``content`` in a larger document.
    """
    replaced = dict(content)
    for name, hint in _hints(model).items():
        if name in replaced:
            replaced[name] = _map_value(hint, replaced[name], replace, f"{where}.{name}".lstrip("."))
    return replaced


def _map_value(hints: Hints, value: Any, replace: Replace, name: str) -> Any:
    types_ = list(_types_in(hints))
    if isinstance(value, str):
        if Path in types_ or any(hasattr(kind, "short_form") for kind in types_):
            return Path(replace(name, value))
        marks = [kind for kind in types_ if isinstance(kind, MayBePath)]
        return replace(name, value) if any(mark.is_path(value) for mark in marks) else value
    if isinstance(value, Mapping):
        if set(value) == {"file"} and isinstance(value["file"], str):
            return {"file": replace(f"{name}.file", value["file"])}
        model = next((kind for kind in types_ if _is_model(kind)), None)
        return value if model is None else map_paths(model, value, replace, name)
    if isinstance(value, list) and any(_is_model(kind) or kind is Path for kind in types_):
        return [_map_value(hints, item, replace, f"{name}[{number}]") for number, item in enumerate(value)]
    return value


def _hints(model: type[Any]) -> dict[str, Hints]:
    if issubclass(model, BaseModel):
        return {name: (field.annotation, *field.metadata) for name, field in model.model_fields.items()}
    if dataclasses.is_dataclass(model):
        try:
            return {name: (hint,) for name, hint in get_type_hints(model, include_extras=True).items()}
        except NameError:  # a name that is imported under TYPE_CHECKING only
            written = {field.name: str(field.type) for field in dataclasses.fields(model)}
            return {name: (Path,) for name, text in written.items() if re.search(r"\bPath\b", text)}
    return {}


def _types_in(hints: Hints) -> Iterator[Any]:
    """Yield the types and annotations inside unions, containers and ``Annotated``."""
    for hint in hints:
        origin: Any = get_origin(hint)
        if origin in (Annotated, Union, types.UnionType, tuple, list):
            yield from _types_in(get_args(hint))
        else:
            yield hint


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))

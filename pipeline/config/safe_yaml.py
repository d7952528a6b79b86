"""Parse untrusted YAML and JSON: plain values only, with limits on size, depth and number of values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ..errors import PlanError
from ..text import quoted

MAX_BYTES = 4 * 2**20
"""Maximum size of a document."""
MAX_VALUES = 100_000
"""Maximum number of values in a document; aliased values count each time."""
MAX_DEPTH = 64
"""Maximum nesting depth."""
MAX_INTEGER_BITS = 64
MAX_NUMBER_LENGTH = 64
"""Maximum number of characters of a number."""

_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("null", "bool", "int", "float", "str")}
_MERGE_TAG = "tag:yaml.org,2002:merge"
_TEXT_TAGS = frozenset({_MERGE_TAG, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"})
"""Tags read as text: dates, and '<<' and '=' where they have no special meaning."""
_SCIENTIFIC = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")
"""A float in YAML 1.2 and JSON, but text in YAML 1.1."""
_TRUE = frozenset({"yes", "true", "on"})
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file with a mapping at the top level.

    Raises:
        PlanError: the file cannot be read, is too large, or is not plain YAML.
    """
    content = parse_document(read_text_file(path), str(path))
    if not isinstance(content, dict):
        raise PlanError(
            f"{path}: expected 'key: value' lines, got {type(content).__name__}; see the README for an example"
        )
    return content


def read_text_file(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Read a regular UTF-8 file of limited size.

    Raises:
        PlanError: the file does not exist, is too large, or is not UTF-8.
    """
    name = str(path)
    try:
        if path.exists() and not path.is_file():
            raise PlanError(f"{name}: expected a file, got a folder or a device; check the path")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise PlanError(
                f"{name}: expected at most {max_bytes / 2**20:g} MB of text, got more; check that it is the right file"
            )
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise PlanError(f"{name}: no such file; check the path, or write one as the README shows") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{name}: cannot be read (no UTF-8 text); save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, PlanError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise PlanError(f"{name}: cannot be read ({reason}); check the path and its permissions") from error


def parse_document(text: str, where: str, *, keys_as_text: bool = False) -> Any:
    """Parse one YAML or JSON document into None, bool, int, float, str, list and dict with string keys.

    Aliases and merge keys are resolved; repeated values count towards the limits.

    Args:
        text: the document.
        where: name of the document, for error messages.
        keys_as_text: read keys that look like numbers as text, instead of raising an error.

    Raises:
        PlanError: the document is invalid or exceeds a limit.
    """
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return _parse_json(text, where)
        except json.JSONDecodeError:
            pass  # YAML in flow style
    return _Parser(where, keys_as_text=keys_as_text).parse(text)


def _parse_json(text: str, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            _check_text(key, where)
            if key in found:
                _refuse(where, f"expected each key once, got {quoted(key)} twice", "remove one")
            found[key] = value
        return found

    try:
        content = json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=lambda number: _integer(number, where),
            parse_float=lambda number: _finite(number, where),
            parse_constant=lambda number: _finite(number, where),
        )
    except RecursionError as error:
        raise PlanError(
            f"{where}: expected at most {MAX_DEPTH} levels of nesting, got more; flatten it"
        ) from error
    _check_limits(content, where)
    return content


def _check_limits(content: Any, where: str) -> None:
    """Check the limits on values and depth for parsed JSON, which has no aliases."""
    level, num_values = [content], 0
    for _ in range(MAX_DEPTH + 1):
        num_values += len(level)
        if num_values > MAX_VALUES:
            _refuse(
                where, f"expected at most {MAX_VALUES:,} values, got more", "check that it is the right file"
            )
        for value in level:
            if isinstance(value, str):
                _check_text(value, where)
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    _refuse(where, f"expected at most {MAX_DEPTH} levels of nesting, got more", "flatten it")


class _Frame:
    """A list or mapping under construction, with the number of its values, aliases included."""

    def __init__(self, value: Any, anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.merged: list[dict[str, Any]] = []
        self.is_merging = False
        self.num_values = 1
        self.depth = 1


class _Parser:
    """Non-recursive parser of YAML events, so that no input overflows the stack."""

    def __init__(self, where: str, *, keys_as_text: bool) -> None:
        self._where = where
        self._keys_as_text = keys_as_text
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        """Value, number of values and depth."""
        self._num_values = 0
        self._resolver: Any = yaml.resolver.Resolver()

    def parse(self, text: str) -> Any:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents: list[Any] = []
        try:
            for event in yaml.parse(text, Loader=loader):
                finished = self._process(event)
                if finished is not None:
                    documents.append(finished[0])
                    if len(documents) > 1:
                        _refuse(self._where, "expected one document, got several", "remove all but one")
        except yaml.YAMLError as error:
            reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
            raise PlanError(
                f"{self._where}: expected YAML, got something else ({reason}); check the indentation"
            ) from error
        return documents[0] if documents else None

    def _process(self, event: yaml.Event) -> tuple[Any] | None:
        """Process one event; return the document in a tuple once it is complete."""
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.ScalarEvent):
            return self._add_scalar(event, anchor)
        if isinstance(event, yaml.AliasEvent):
            assert anchor is not None, "an alias names its anchor"
            if anchor not in self._anchors:
                self._fail(event, f"expected an anchor before *{quoted(anchor)}, got none or one around it")
            return self._add(event, *self._anchors[anchor])
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            if event.tag not in (None, "!", f"tag:yaml.org,2002:{'map' if is_mapping else 'seq'}"):
                self._fail(event, f"expected plain values, got a tag {quoted(event.tag)}")
            if len(self._frames) >= MAX_DEPTH:
                self._fail(event, f"expected at most {MAX_DEPTH} levels of nesting, got more")
            self._anchors.pop(anchor or "", None)
            self._frames.append(_Frame({} if is_mapping else [], anchor))
            return None
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            frame = self._frames.pop()
            for other in reversed(frame.merged):
                frame.value = {**other, **frame.value}
            if frame.anchor is not None:
                self._anchors[frame.anchor] = frame.value, frame.num_values, frame.depth
            return self._add(event, frame.value, frame.num_values, frame.depth)
        return None

    def _add_scalar(self, event: yaml.ScalarEvent, anchor: str | None) -> tuple[Any] | None:
        parent = self._frames[-1] if self._frames else None
        is_key = parent is not None and isinstance(parent.value, dict) and parent.key is None
        tag = event.tag
        if tag in (None, "!"):
            tag = str(self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit))
        if tag == _MERGE_TAG and is_key and parent is not None and not parent.is_merging:
            parent.is_merging = True
            return None
        value = self._scalar(event, "tag:yaml.org,2002:str" if is_key and self._keys_as_text else tag)
        if anchor is not None:
            self._anchors[anchor] = value, 1, 1
        return self._add(event, value, 1, 1)

    def _scalar(self, event: yaml.ScalarEvent, tag: str) -> Any:
        text: str = event.value
        kind = _PLAIN_TAGS.get(tag)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in _TRUE
        if kind == "int":
            return self._number(event, _integer)
        if kind == "float" or (kind == "str" and event.implicit[0] and _SCIENTIFIC.fullmatch(text)):
            return self._number(event, _finite)
        if kind is None and tag not in _TEXT_TAGS:
            self._fail(event, f"expected plain values, got a tag {quoted(tag)}")
        _check_text(text, self._location(event))
        return text

    def _number(self, event: yaml.ScalarEvent, convert: Callable[[str, str], int | float]) -> int | float:
        return convert(event.value, self._location(event))

    def _add(self, event: yaml.Event, value: Any, num_values: int, depth: int) -> tuple[Any] | None:
        self._num_values += num_values if isinstance(event, yaml.AliasEvent) else 1
        if not self._frames:
            return (value,)
        frame = self._frames[-1]
        frame.num_values += num_values
        frame.depth = max(frame.depth, depth + 1)
        if self._num_values > MAX_VALUES or frame.num_values > MAX_VALUES:
            self._fail(event, f"expected at most {MAX_VALUES:,} values, got more")
        if len(self._frames) - 1 + frame.depth > MAX_DEPTH:
            self._fail(event, f"expected at most {MAX_DEPTH} levels of nesting, got more")
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.is_merging:
            frame.is_merging = False
            self._merge(event, frame, value)
        elif frame.key is None:
            self._set_key(event, frame, value)
        else:
            frame.value[frame.key] = value
            frame.key = None
        return None

    def _set_key(self, event: yaml.Event, frame: _Frame, key: Any) -> None:
        if not isinstance(key, str):
            got = quoted(getattr(event, "value", type(key).__name__))
            self._fail(event, f"expected text as a key, got {got}; write it in quotes")
        if key in frame.value:
            self._fail(event, f"expected each key once, got {quoted(key)} twice; remove one")
        frame.key = key

    def _merge(self, event: yaml.Event, frame: _Frame, value: Any) -> None:
        sources: Iterable[Any] = value if isinstance(value, list) else [value]
        for source in sources:
            if not isinstance(source, dict):
                self._fail(event, f"expected a mapping behind '<<', got {type(source).__name__}")
            frame.merged.insert(0, source)

    def _location(self, event: yaml.Event) -> str:
        mark: Any = event.start_mark
        return f"{self._where}: line {mark.line + 1}"

    def _fail(self, event: yaml.Event, problem: str) -> NoReturn:
        raise PlanError(f"{self._location(event)}: {problem}{'' if ';' in problem else '; correct it'}")


def _integer(text: str, where: str) -> int:
    """Read an integer in decimal, 0x, 0o, 0b or YAML 1.1's octal form."""
    digits = text.replace("_", "").lstrip("+-")
    if len(digits) > MAX_NUMBER_LENGTH or ":" in digits:
        _refuse(
            where,
            f"expected a number of at most {MAX_INTEGER_BITS} bits, got {quoted(text)}",
            "write it in quotes if it is text",
        )
    is_octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
    number = int(digits, 8 if is_octal else 0)
    if number.bit_length() > MAX_INTEGER_BITS:
        _refuse(
            where, f"expected a number of at most {MAX_INTEGER_BITS} bits, got {quoted(text)}", "correct it"
        )
    return -number if text.startswith("-") else number


def _finite(text: str, where: str) -> float:
    digits = text.replace("_", "")
    try:
        number = math.inf if len(digits) > MAX_NUMBER_LENGTH else float(digits)
    except ValueError:  # .inf, .nan and 1:30.5 of YAML 1.1
        number = math.nan
    if not math.isfinite(number):
        _refuse(where, f"expected a finite number, got {quoted(text)}", "write it in quotes if it is text")
    return number


def _check_text(text: str, where: str) -> None:
    if "\0" in text or _SURROGATE.search(text):
        _refuse(where, f"expected text, got invalid characters in {quoted(text)}", "remove them")


def _refuse(where: str, problem: str, cure: str) -> NoReturn:
    raise PlanError(f"{where}: {problem}; {cure}")

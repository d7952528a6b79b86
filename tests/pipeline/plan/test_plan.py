"""A plan is a value, and what is wrong with one is said in one line that names the key and the cure."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import albumentations as A
import pytest
import yaml
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.plan.plan import BatchOptions, Mix, Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.tools.explain import explain

POLICY = [
    A.OneOf([A.HorizontalFlip(p=1), A.Rotate(limit=(-10, 10))], p=0.7),
    A.GaussNoise(std_range=(0.1, 0.2)),
]


def full_plan() -> Plan:
    return Plan.model_validate(
        {
            "index": "i.parquet",
            "preprocess": [A.Resize(32, 32)],
            "augment": POLICY,
            "mix": {"kind": "MixUp"},
            "seed": 5,
        }
    )


def from_yaml(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text("index: i.parquet\n" + text)
    return Plan.load(path)


def test_plan_survives_pickle_and_yaml(tmp_path: Path) -> None:
    plan = full_plan()
    assert pickle.loads(pickle.dumps(plan)) == plan
    plan.save(tmp_path / "plan.yaml")
    loaded = Plan.load(tmp_path / "plan.yaml")
    assert loaded.model_copy(update={"index": plan.index}).dump() == yaml.safe_load(
        (tmp_path / "plan.yaml").read_text()
    )
    assert loaded.mix == Mix(kind="MixUp")


def test_plan_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        full_plan().seed = 6  # type: ignore[misc]


def test_a_relative_index_is_resolved_against_the_folder_of_the_file(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, "").index == tmp_path / "i.parquet"


def test_a_policy_means_the_same_inline_saved_and_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    A.save(A.Compose(POLICY), tmp_path / "policy.json")
    (tmp_path / "their_policies.py").write_text(
        "import albumentations as A\n"
        "train = A.Compose([A.OneOf([A.HorizontalFlip(p=1), A.Rotate(limit=(-10, 10))], p=0.7),"
        " A.GaussNoise(std_range=(0.1, 0.2))])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    inline = full_plan().augment
    assert [spec.name for spec in inline] == ["OneOf", "GaussNoise"]
    for written in ("{file: policy.json}", "{import: 'their_policies:train'}"):
        (tmp_path / "plan.yaml").write_text(f"index: i.parquet\naugment: {written}\n")
        loaded = Plan.load(tmp_path / "plan.yaml", allow_import=("their_policies",)).augment
        assert [repr(s.build("x")) for s in loaded] == [repr(s.build("x")) for s in inline]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preproces: []", "preproces: no such key; did you mean 'preprocess'?"),
        ("batch: {sise: 3}", "batch.sise: no such key; did you mean 'size'?"),
        ("batch: {size: many}", "batch.size: expected a valid integer, got 'many'; correct it"),
        ("seed: -1", "seed: "),
        ("mix: {kind: MixUpp}", "mix.kind: "),
        ("resources: {cpu: 2}", "resources.cpu: no such key; did you mean 'cpus'"),
        (
            "resources: {gpus: 1.5}",
            "resources: expected a fraction of one GPU or whole GPUs per worker, got 1.5",
        ),
        ("augment: [{Flip: 1, Blur: 2}]", r"augment\[0\]: expected 'Name'"),
        ("augment: {file: nowhere.json}", "augment: expected a policy saved by albumentations.save"),
        ("augment: {import: 'nowhere:x'}", "augment: expected an allowed name"),
        ("[", "expected YAML"),
        ("batch: 5", "batch: expected 'key: value' lines below it, got 5"),
        ("augment: 5", r": augment: expected a list of transforms, [^:]*: PATH[^,]*: module:name}, got 5; "),
        ("augment: {file: }", "augment: expected the path of a policy, got None"),
        ("augment: {file: 5}", "augment: expected the path of a policy, got 5"),
        ("augment: [5]", r"augment\[0\]: expected 'Name'"),
        ("augment: [{Rotate: 5}]", r"augment\[0\].Rotate: expected options as 'option: value', got 5"),
        ("augment: [{OneOf: {transforms: []}}]", "expected at least one transform to choose from, got none"),
        (
            "augment: [{SomeOf: {transforms: [Blur], n: two}}]",
            "SomeOf.n: expected a whole number .*, got 'two'",
        ),
        (
            "augment: [{OneOf: {transforms: [Blur], p: 7}}]",
            "OneOf.p: expected a probability from 0 to 1, got 7",
        ),
    ],
)
def test_an_invalid_key_is_named_with_a_fix(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        from_yaml(tmp_path, text + "\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("augment: [HorizontalFlipp]", r"augment\[0\].*did you mean 'HorizontalFlip'"),
        (
            "augment: [{Rotate: {limits: 3}}]",
            r"augment\[0\].Rotate.limits: no such option; did you mean 'limit'",
        ),
        ("augment: [{OneOf: {transforms: [{Blurr: {}}]}}]", r"transforms\[0\].*did you mean 'Blur'"),
        ("preprocess: [{Resize: {height: big, width: 3}}]", r"preprocess\[0\].Resize.height: .*integer"),
        (
            "preprocess: [HorizontalFlip]",
            r"preprocess\[0\].HorizontalFlip: expected p: 1.0, got p: 0.5; .*move it to augment",
        ),
        ("preprocess: [{RandomCrop: {height: 8, width: 8}}]", "got random parameters; .*move it to augment"),
        ("preprocess: [{GaussNoise: {p: 1.0}}]", "got random parameters"),
        ("preprocess: [{OneOf: {transforms: [HorizontalFlip]}}]", "got a random choice"),
        ("preprocess: [Normalize]\naugment: [Normalize]", "Normalize: expected one"),
        ("augment: [ToTensorV2, HorizontalFlip]", "ToTensorV2: expected only at the end"),
    ],
)
def test_an_invalid_policy_fails_when_compiled_with_its_location(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        Program.compile(from_yaml(tmp_path, text + "\n"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"augment": ["Rotat"]}, "did you mean 'Rotate'"),
        ({"augment": [{"Rotate": {"limits": 3}}]}, "Rotate.limits: no such option; did you mean 'limit'"),
        ({"augment": [A.Lambda(name="named", image=abs)]}, "Lambda: it calls functions"),
        ({"augment": [{"TextImage": {"font_path": "/etc/passwd"}}]}, "TextImage: it reads a font file"),
        ({"augment": 5}, "augment: expected a list of transforms"),
        ({"mix": {"kind": "MixUp", "alpha": float("nan")}}, "mix.alpha: "),
        ({"batch": {"sise": 3}}, "batch.sise: no such key; did you mean 'size'"),
        ({"indx": "i"}, "indx: no such key; did you mean 'index'"),
    ],
)
def test_an_invalid_plan_in_python_raises_a_plan_error_when_built(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan(**{"index": "i", **keys})
    with pytest.raises(PlanError, match=message):
        Plan.model_validate({"index": "i", **keys})


def test_invalid_sections_of_a_plan_raise_a_plan_error() -> None:
    with pytest.raises(PlanError, match=r"Mix: kind: .*got 'MixUpp'"):
        Mix(kind="MixUpp")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="BatchOptions: size: "):
        BatchOptions(size=0)


@pytest.mark.parametrize(
    "transform",
    [
        A.CLAHE(clip_limit=(4, 4), p=1),
        A.MedianBlur(blur_limit=(3, 3), p=1),
        A.Crop(0, 0, 9, 9),
        A.PadIfNeeded(64, 64),
        A.ToGray(p=1),
    ],
    ids=lambda t: type(t).__name__,
)
def test_transforms_with_fixed_ranges_are_accepted_in_preprocess(transform: A.BasicTransform) -> None:
    Program.compile(Plan.model_validate({"index": "i", "preprocess": [transform]}))


def test_normalize_moves_after_augment_and_to_tensor_is_dropped(tmp_path: Path) -> None:
    text = "preprocess: [{Resize: {height: 8, width: 8}}, Normalize, ToTensorV2]\naugment: [HorizontalFlip]\n"
    program = Program.compile(from_yaml(tmp_path, text))
    assert program.normalization is not None
    assert [step.name for step in explain(program, None)] == [
        "Read",
        "Draw",
        "Decode",
        "Resize",
        "HorizontalFlip",
        "Normalize",
        "Batch",
    ]


def test_a_custom_transform_is_named_by_module_and_class(tmp_path: Path) -> None:
    plan = from_yaml(tmp_path, "preprocess: ['lightwell.pipeline.policy.color:ToHSV']\n")
    Program.compile(plan)
    again = Plan.model_validate({"index": "i", "preprocess": [plan.preprocess[0].build("x")]})
    assert again.preprocess[0].name == "lightwell.pipeline.policy.color:ToHSV"


def test_mixing_ends_before_until_epoch(index_path: Path) -> None:
    plan = Plan(index=index_path, preprocess=[{"Resize": {"height": 8, "width": 8}}], batch={"size": 4})
    mixing = plan.model_copy(update={"mix": Mix(kind="CutMix", until_epoch=2)})
    with LocalEngine(num_threads=1).feed(mixing, View(augment=True, num_epochs=4)) as feed:
        mixed = {(batch.epoch, batch.mixed_labels is not None) for batch in feed if len(batch) > 1}
    assert mixed == {(0, True), (1, True), (2, False), (3, False)}
    always = plan.model_copy(update={"mix": Mix(kind="CutMix")})
    assert always.fingerprint() != mixing.fingerprint()


def test_the_fingerprint_depends_on_content_and_not_on_paths(index_path: Path, tmp_path: Path) -> None:
    plan = Plan(index=index_path)
    moved = tmp_path / "moved.parquet"
    moved.write_bytes(index_path.read_bytes())
    assert Plan(index=moved).fingerprint() == plan.fingerprint()
    assert plan.model_copy(update={"seed": 1}).fingerprint() != plan.fingerprint()
    grown = Plan(index=moved, progressive_size=[{"until_epoch": 1, "size": 24}])  # type: ignore[list-item]
    assert grown.fingerprint() != plan.fingerprint()

"""Plans and job files with anything in the wrong place: only errors of ours come out."""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.errors import LightwellError
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.text import printable
from lightwell.pipeline.tools.explain import explain
from strangers import tried

PLAN: dict[str, Any] = {
    "index": "index.parquet",
    "preprocess": [{"SmallestMaxSize": {"max_size": 64}}, {"CenterCrop": {"height": 48, "width": 48}}],
    "augment": [
        {"OneOf": {"transforms": ["HorizontalFlip", {"Rotate": {"limit": [-10, 10], "p": 1.0}}], "p": 0.5}},
        {"SomeOf": {"transforms": ["Blur", "CLAHE"], "n": 2, "replace": True}},
        {
            "Compose": {
                "transforms": [{"SelectiveChannelTransform": {"transforms": ["Blur"], "channels": [0, 2]}}]
            }
        },
        {"Normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
    ],
    "evaluate": [
        {"Resize": {"height": 48, "width": 48}},
        {"Normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
    ],
    "mix": {"kind": "MixUp", "alpha": 0.2, "p": 0.5},
    "sampling": {"weights": {"cat": 2.0}},
    "batch": {"size": 8},
    "cache": {"dir": "cache", "max_bytes": 1000, "format": "raw"},
    "seed": 3,
    "device": "cpu",
    "decode": "exact",
    "errors": {"on_error": "replace", "max_bad_share": 0.1},
    "resources": {"cpus": 2, "gpus": 0.5},
}
JOB: dict[str, Any] = {
    "job": "classify",
    "plan": PLAN,
    "model": {"name": "resnet18", "weights": "none"},
    "epochs": 2,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"kind": "cosine"},
    "checkpoint_every": {"steps": 3},
    "early_stop": {"metric": "loss", "patience": 2},
}
NAMES = [
    "HorizontalFlip",
    "ToGray",
    "FromFloat",
    "MaskDropout",
    "ToTensorV2",
    "Lambda",
    "OneOf",
    "imaplib:IMAP4",
    ":",
    "~nobody/x",
]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**31, -(2**63), 10**30, 1e300, -0.0, 1e-320]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(NAMES),
    st.sampled_from([[], {}, [[]], [None], {"file": None}, {"import": 5}, {"file": "/"}, {"transforms": []}]),
    st.dictionaries(
        st.sampled_from([*NAMES, "p", "n", "transforms", "height"]), st.integers(-1, 3), max_size=2
    ),
    st.binary(max_size=3),
)
COUNTS: Counter[str] = Counter()


def places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a nested value."""
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


@st.composite
def mutated(draw: st.DrawFn, start: dict[str, Any]) -> dict[str, Any]:
    content = copied(start)
    for _ in range(draw(st.integers(0, 3))):
        found = places(content)
        if not found:
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        change = draw(st.sampled_from(["value", "value", "remove", "rename", "insert"]))
        if change == "value":
            container[key] = copied(draw(ODD))
        elif change == "remove":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copied(draw(ODD)))
        elif change == "rename":
            container[draw(st.one_of(st.text(max_size=4), st.sampled_from(NAMES)))] = container.pop(key)
        else:
            container[draw(st.one_of(st.text(max_size=4), st.sampled_from([*NAMES, "seed", "p"])))] = copied(
                draw(ODD)
            )
    return content


def note_refusal(message: str) -> None:
    assert printable(message) == message
    note("refused")


def note(outcome: str) -> None:
    COUNTS[outcome] += 1


def compile_and_explain(make: Any) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            program = Program.compile(make())
            explain(program, None)
    except LightwellError as error:
        note_refusal(str(error))
    else:
        note("taken")


@tried(900)
@given(content=mutated(PLAN))
def test_a_plan_in_python_raises_errors_of_ours_only(content: dict[str, Any]) -> None:
    """A mapping with values of wrong types, huge numbers and wrong names as a plan: PlanError, or a plan that compiles."""
    compile_and_explain(lambda: Plan.model_validate(content))
    compile_and_explain(lambda: Plan(**content))


@tried(700)
@given(
    content=mutated(PLAN),
    cut=st.integers(0, 60),
    junk=st.text(alphabet="[]{}:&*!|>-\n #\t'\"%@`a1.", max_size=6),
)
def test_the_text_of_a_plan_raises_errors_of_ours_only(
    content: dict[str, Any], cut: int, junk: str, tmp_path: Path
) -> None:
    """A plan's text with values changed and signs of YAML put in: PlanError, or a plan that compiles."""
    text = yaml.dump(content, Dumper=yaml.CSafeDumper, allow_unicode=True)
    position = cut * len(text) // 60
    path = tmp_path / "plan.yaml"
    path.write_bytes((text[:position] + junk + text[position:]).encode("utf-8", "surrogatepass"))
    compile_and_explain(lambda: Plan.load(path))


@tried(700)
@given(content=mutated(JOB), default=st.sampled_from(["classify", "gradcam", "materialize"]))
def test_a_job_file_raises_errors_of_ours_only(content: dict[str, Any], default: str, tmp_path: Path) -> None:
    """A job file with values of wrong types and wrong names: PlanError, or a job."""
    path = tmp_path / "job.yaml"
    path.write_bytes(yaml.dump(content, Dumper=yaml.CSafeDumper).encode("utf-8", "surrogatepass"))
    try:
        load_job(path, default=default)
    except LightwellError as error:
        note_refusal(str(error))
    else:
        note("taken")


POLICY: dict[str, Any] = {
    "__version__": "2.0.8",
    "transform": {
        "__class_fullname__": "Compose",
        "p": 1.0,
        "transforms": [
            {"__class_fullname__": "HorizontalFlip", "p": 0.5},
            {"__class_fullname__": "OneOf", "p": 0.5, "transforms": [{"__class_fullname__": "Blur", "p": 1.0, "blur_limit": [3, 5]}]},
            {"__class_fullname__": "Normalize", "p": 1.0, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        ],
        "bbox_params": None,
        "keypoint_params": None,
        "additional_targets": {},
        "is_check_shapes": True,
        "seed": None,
        "mask_interpolation": None,
    },
}  # fmt: skip


@tried(600)
@given(content=mutated(POLICY), form=st.sampled_from(["json", "yaml"]), junk=st.text(max_size=2))
def test_a_policy_file_raises_errors_of_ours_only(
    content: dict[str, Any], form: str, junk: str, tmp_path: Path
) -> None:
    """A saved policy with values of wrong types, other classes and signs behind it: PlanError, or a plan that compiles."""
    policy = tmp_path / f"policy.{form}"
    text = (
        yaml.dump(content, Dumper=yaml.CSafeDumper) if form == "yaml" else json.dumps(content, default=repr)
    )
    policy.write_bytes((text + junk).encode("utf-8", "surrogatepass"))
    compile_and_explain(lambda: Plan(index="index.parquet", augment={"file": str(policy)}))


def test_enough_was_tried() -> None:
    """The count of what was tried above."""
    sys.stdout.write(f"{COUNTS.total():,} cases: {dict(COUNTS)}; raw exceptions: none\n")
    assert not COUNTS or min(COUNTS["refused"], COUNTS["taken"]) > 0

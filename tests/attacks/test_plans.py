"""Plans, policy files and job files from strangers: they are data, and reading them runs nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.config.safe_yaml import MAX_BYTES
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.jobs.contracts import TrainingJob
from lightwell.pipeline.jobs.find_job import find_job
from lightwell.pipeline.jobs.job_file import load_job, load_plan
from lightwell.pipeline.jobs.stages import BatchJob
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.policy.registry import UNSUPPORTED, transform_classes
from lightwell.pipeline.policy.spec import TransformSpec

MODULE = "import pathlib\npathlib.Path({trace!r}).touch()\n"
MINE = """
import albumentations as A
import numpy as np


class Mine(A.ImageOnlyTransform):
    def apply(self, img, **params):
        return 255 - img


train = [A.HorizontalFlip(p=1), A.Rotate()]
secret = {"AWS_SECRET": "hunter2"}
number = 7
"""


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a trace when it is imported; returns where."""
    trace = tmp_path / "was-imported"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "trapped.py").write_text(MODULE.format(trace=str(trace)) + MINE)
    (tmp_path / "site" / "trapped_too.py").write_text(MODULE.format(trace=str(trace)) + MINE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield trace
    for name in ("trapped", "trapped_too"):
        sys.modules.pop(name, None)


def load(folder: Path, text: str, **options: object) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(f"index: i.parquet\n{text}\n")
    return Plan.load(path, **options)  # type: ignore[arg-type]


NAMED = [
    "augment: [{{'trapped:Mine': {{p: 1}}}}]",
    "augment: ['trapped:Mine']",
    "augment: [{{OneOf: {{transforms: ['trapped:Mine']}}}}]",
    "evaluate: {{import: 'trapped:train'}}",
    "preprocess: {{file: {policy}}}",
]


@pytest.mark.parametrize("text", NAMED)
def test_a_plan_that_names_a_module_does_not_import_it(text: str, trap: Path, tmp_path: Path) -> None:
    """A plan or its policy file names a class or a policy of any importable module: refused, the module is not imported."""
    policy = {"transform": {"__class_fullname__": "trapped.Mine", "p": 1.0}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    with pytest.raises(PlanError, match="--allow-import trapped"):
        load(tmp_path, text.format(policy="policy.json"))
    with pytest.raises(
        PlanError, match="--allow-import trapped"
    ):  # another module's permission is none for this one
        load(tmp_path, text.format(policy="policy.json"), allow_import=("trapped_too", "trap"))
    assert not trap.exists()


@pytest.mark.parametrize("text", NAMED)
def test_what_is_allowed_is_imported(text: str, trap: Path, tmp_path: Path) -> None:
    """The same plans with permission for the module: they are read."""
    policy = {"__version__": A.__version__, "transform": {"__class_fullname__": "trapped.Mine", "p": 1.0}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    plan = load(tmp_path, text.format(policy="policy.json"), allow_import=("trapped",))
    assert trap.exists()
    assert Plan.model_validate(plan.dump(), context={"allow_import": ("trapped",)}) == plan


def test_mappings_in_python_are_text_too(trap: Path) -> None:
    """Mappings out of a foreign file that are handed to Plan(...) or TransformSpec: refused in the same way."""
    for make in (
        lambda: Plan(index="i", augment=[{"trapped:Mine": {}}]),
        lambda: Plan.model_validate({"index": "i", "augment": ["trapped:Mine"]}),
        lambda: TransformSpec(name="trapped:Mine"),
        lambda: TransformSpec.model_validate({"name": "trapped:Mine"}),
    ):
        with pytest.raises(PlanError, match="--allow-import trapped"):
            make()
    assert not trap.exists()


@pytest.mark.parametrize(
    "name", ["subprocess:Popen", "os:system", "builtins:exec", "pathlib:Path", "albumentations:BboxParams"]
)
def test_an_allowed_module_gives_transforms_only(name: str, tmp_path: Path) -> None:
    """Permission for a module is no permission to call what is no transform in it: checked before anything is called."""
    with pytest.raises(PlanError, match=r"expected a class derived from albumentations.BasicTransform"):
        load(tmp_path, f"augment: [{{'{name}': {{}}}}]", allow_import=(name.partition(":")[0],))


@pytest.mark.parametrize("name", ["trapped:secret", "trapped:number", "os:environ"])
def test_an_import_that_is_no_policy_shows_no_values(name: str, trap: Path, tmp_path: Path) -> None:
    """An import of the environment or of a secret, allowed or not: the error has names and types and no values."""
    for allowed in ((), (name.partition(":")[0],)):
        with pytest.raises(PlanError) as caught:
            load(tmp_path, f"augment: {{import: '{name}'}}", allow_import=allowed)
        assert "hunter2" not in str(caught.value)
        assert "PATH" not in str(caught.value)
    assert trap.exists() == name.startswith("trapped")


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_transforms_that_open_files_or_call_functions_are_refused_by_name(name: str, tmp_path: Path) -> None:
    """Albumentations' own classes that read files, call functions or need other data: refused by name, in text and files."""
    assert name in transform_classes()
    with pytest.raises(PlanError, match=name):
        load(tmp_path, f"augment: [{{{name}: {{font_path: /etc/passwd, reference_images: [/etc/passwd]}}}}]")
    described = {"__class_fullname__": name, "p": 1.0, "reference_images": ["/etc/passwd"], "transforms": []}
    (tmp_path / "p.json").write_text(json.dumps({"__version__": A.__version__, "transform": described}))
    with pytest.raises(PlanError, match=name):
        load(tmp_path, "augment: {file: p.json}")


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ("json:dumps", "--allow-import json"),
        ("trapped:Mine", "--allow-import trapped"),
        (":X", "write the name of an importable module"),
        ("5", "expected one of"),
        ("nowhere", "expected one of"),
    ],
)
def test_a_job_file_that_names_a_module_does_not_import_it(
    job: str, told: str, trap: Path, tmp_path: Path
) -> None:
    """A job file names any importable object as its job: refused, nothing is imported."""
    (tmp_path / "job.yaml").write_text(f"job: '{job}'\nplan: {{index: i}}\n")
    with pytest.raises(PlanError, match=told):
        load_job(tmp_path / "job.yaml", default="classify")
    assert not trap.exists()


@pytest.mark.parametrize("job", ["json:dumps", "json:JSONDecoder", "json:__doc__", "json:nothing", "json:"])
def test_an_allowed_job_must_be_a_job(job: str) -> None:
    """Permission for a module whose object is no job: refused before it is called."""
    with pytest.raises(PlanError, match=r"job: expected"):
        find_job(job, allow_import=("json",))


def test_a_job_of_the_other_kind_is_refused() -> None:
    """A file of an audit given to train, and the reverse: refused with the command that runs it."""
    with pytest.raises(PlanError, match="which `lightwell audit` runs"):
        find_job("gradcam", contract=TrainingJob)
    with pytest.raises(PlanError, match="which `lightwell train` runs"):
        find_job("classify", contract=BatchJob)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGE_BOMB = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)
DOCUMENTS = {
    "aliases": (BOMB, "at most 100,000 values"),
    "merges": (MERGE_BOMB, "at most 100,000 values"),
    "itself": ("a: &a [*a]", "expected an anchor"),
    "deep": ("a: " + "[" * 100_000, "64 levels"),
    "deep aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000)),
        "64 levels",
    ),
    "deep JSON": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "64 levels"),
    "large": ("a: " + "x" * MAX_BYTES, "at most 4 MB"),
    "many": ("a: [" + "1," * 1_000_000 + "]", "at most 100,000 values"),
    "many in JSON": ('{"a": [' + "1," * 1_000_000 + "1]}", "at most 100,000 values"),
    "digits": ("a: " + "9" * 100_000, "64 bits"),
    "base 60": ("a: 1" + ":59" * 100_000, "64 bits"),
    "hexadecimal": ("a: 0x" + "f" * 100_000, "64 bits"),
    "digits in JSON": ('{"a": ' + "9" * 100_000 + "}", "64 bits"),
    "not a number": ("a: .nan", "finite"),
    "infinite": ("a: -.inf", "finite"),
    "infinite in JSON": ('{"a": Infinity}', "finite"),
    "overflow": ("a: 1e999", "finite"),
    "twice": ("a: 1\nb: 2\na: 3", "each key once, got 'a' twice"),
    "twice in JSON": ('{"a": 1, "a": 2}', "each key once"),
    "key of a number": ("1: 2", "expected text as a key, got '1'"),
    "key of a list": ("? [a]\n: 2", "expected text as a key"),
    "object": ("a: !!python/object/apply:os.system [id]", "got a tag"),
    "binary": ("a: !!binary aGk=", "got a tag"),
    "set": ("a: !!set {x}", "got a tag"),
    "two documents": ("a: 1\n---\nb: 2", "one document"),
    "zero byte": ('a: "\\0"', "got invalid characters"),
    "surrogate": ('{"a": "\\ud800"}', "got invalid characters"),
    "no text": ("\x01\x02", "expected YAML"),
    "list": ("[1]", "expected 'key: value' lines"),
    "nothing": ("", "expected 'key: value' lines"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_would_explode_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """YAML or JSON that grows, nests, repeats or overflows when it is read: a clear error within a second of a processor."""
    text, told = DOCUMENTS[name]
    path = tmp_path / "plan.yaml"
    path.write_text(text)

    def measure() -> float:
        started = time.thread_time()
        with pytest.raises(PlanError, match=told) as caught:
            load_plan(path)
        assert len(str(caught.value)) < 1000
        return time.thread_time() - started

    assert min(measure() for _ in range(3)) < 1
    (tmp_path / "job.yaml").write_text("plan: plan.yaml\n")
    with pytest.raises(PlanError, match=told):
        load_job(tmp_path / "job.yaml", default="classify")
    with pytest.raises(PlanError, match=r"expected a policy|expected"):
        Plan(index="i", augment={"file": str(path)})


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/", "no such file", "~nobody-of-that-name/policy.json", "a\0b"]
)
def test_a_policy_file_must_be_a_file(path: str, tmp_path: Path) -> None:
    """A plan names a device, a folder or nothing as its policy file: refused, without reading for ever."""
    (tmp_path / "plan.yaml").write_text(f"index: i\naugment: {{file: {json.dumps(path)}}}\n")
    with pytest.raises(PlanError):
        Plan.load(tmp_path / "plan.yaml")


def test_control_characters_of_a_plan_reach_no_message(tmp_path: Path) -> None:
    """Names and values with escape sequences in a plan: the error shows them as text."""
    for text in (
        'augment: ["\\e[31mFlip"]',
        'augment: [{Rotate: {"\\e]0;owned\\a": 1}}]',
        '"\\e[2J": 1',
        'device: "\\e[2J"',
        'mix: {kind: "\\r\\e[A"}',
    ):
        with pytest.raises(PlanError) as caught:
            Program.compile(load(tmp_path, text))
        assert str(caught.value).isprintable(), text


@pytest.mark.parametrize("form", [str, Path])
@pytest.mark.parametrize(
    "index",
    [
        "s3://bucket/i.parquet",
        "https://user:secret@host/i?X-Signature=secret",
        "simplecache::s3://b/i",
        "x" * 300 + "://a",
    ],
)
def test_an_index_that_is_a_uri_is_refused_in_plain_words(form: type[str | Path], index: str) -> None:
    """A plan in Python names its index by a URI, as text or as a path: one line says what to do, without the secret."""
    with pytest.raises(
        PlanError, match=r"index: expected a local path, got a URI .* copy the index to this machine"
    ) as caught:
        Plan(index=form(index))
    assert "secret" not in str(caught.value)


def test_equalize_with_a_function_as_mask_is_refused_by_its_name() -> None:
    """A policy in Python hands Equalize a function, which no plan can hold: one line names Equalize and mask."""

    def mask(image: np.ndarray) -> np.ndarray:
        return image[..., 0]

    for masked in (mask, lambda image: image):
        with pytest.raises(PlanError, match=r"augment\[0\]\.Equalize: .*mask: expected a serializable value"):
            Plan(index="index.parquet", augment=[A.Equalize(mask=masked)])
    with pytest.raises(PlanError, match=r"augment\[0\]\.Equalize"):
        Plan(index="index.parquet", augment=[A.Equalize(mask=np.ones((8, 8), np.uint8))])

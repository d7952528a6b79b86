"""Which keys of a document name files is declared by its model, and nothing else decides it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.training.job import Classify
from lightwell.pipeline.config.path_fields import MayBePath, list_paths, resolve_paths
from lightwell.pipeline.plan.plan import Plan
from pydantic import BaseModel

if TYPE_CHECKING:
    from nowhere import Missing


class Inner(BaseModel):
    file: Path
    note: str = ""


class Outer(BaseModel):
    one: Path | None = None
    many: tuple[Path, ...] = ()
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    words: Annotated[str, MayBePath((".pth",))] = "default"
    text: str = ""


@dataclass(frozen=True)
class Job:
    plan: Plan
    colours: Path
    title: str = ""


@dataclass(frozen=True)
class LateJob:
    colours: Path
    missing: Missing | None = None


FOLDER = Path("/jobs")


def test_every_kind_of_path_field_is_found_and_text_is_not() -> None:
    content: dict[str, Any] = {
        "one": "a.txt",
        "many": ["b.txt", "/c.txt"],
        "inner": {"file": "d", "note": "e.txt"},
        "inners": [{"file": "f"}],
        "words": "g.pth",
        "text": "h.pem",
        "unknown": {"file": 3},
    }
    assert list_paths(Outer, content) == [
        ("one", "a.txt"),
        ("many[0]", "b.txt"),
        ("many[1]", "/c.txt"),
        ("inner.file", "d"),
        ("inners[0].file", "f"),
        ("words", "g.pth"),
    ]
    resolved = resolve_paths(Outer, content, FOLDER)
    assert resolved["many"] == [Path("/jobs/b.txt"), Path("/c.txt")]
    assert resolved["inner"] == {"file": Path("/jobs/d"), "note": "e.txt"}
    assert resolved["words"] == "/jobs/g.pth"
    assert resolved["text"] == "h.pem"
    assert content["one"] == "a.txt"


def test_words_and_uris_are_not_paths() -> None:
    for word in ("default", "none", "package:name", "s3://bucket/a.pth"):
        assert list_paths(Outer, {"words": word}) == []


def test_the_home_folder_is_expanded() -> None:
    assert resolve_paths(Outer, {"one": "~/a.txt"}, FOLDER)["one"] == Path.home() / "a.txt"


def test_values_that_do_not_fit_the_model_are_left_to_validation() -> None:
    content = {"one": 5, "many": "b.txt", "inner": "d", "inners": {"file": "f"}, "words": ["g.pth"]}
    assert set(resolve_paths(Outer, content, FOLDER)) == set(content)


def test_plans_and_jobs_declare_their_files() -> None:
    plan = {"index": "i.parquet", "cache": "pixels", "augment": {"file": "policy.json"}, "seed": "3.json"}
    assert list_paths(Plan, plan) == [
        ("index", "i.parquet"),
        ("augment.file", "policy.json"),
        ("cache", "pixels"),
    ]
    assert list_paths(Plan, {"cache": {"dir": "pixels", "format": "raw.json"}}) == [("cache.dir", "pixels")]
    audit = {
        "checkpoint": "best.safetensors",
        "title": "../a.pem",
        "credit": "../id.pem",
        "model": {"weights": "w.pth"},
    }
    assert [name for name, _ in list_paths(GradCamAudit, audit)] == ["model.weights", "checkpoint"]
    assert list_paths(Classify, {"model": {"name": "a.pth", "weights": "w.pt"}}) == [
        ("model.weights", "w.pt")
    ]


def test_dataclass_jobs_declare_paths_by_their_types() -> None:
    content = {"colours": "colours.json", "title": "a.json"}
    assert resolve_paths(Job, content, FOLDER) == {"colours": Path("/jobs/colours.json"), "title": "a.json"}
    assert resolve_paths(LateJob, content, FOLDER)["colours"] == Path("/jobs/colours.json")

"""The decode contract: over a thousand made files give the same pixels, or the same refusal, on every way to decode them."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import albumentations as A
import cv2
import numpy as np
import pytest
from image_bytes import ImageFile, saved
from image_files import all_files, write_files
from lightwell.pipeline.compiler.routing import Backend
from lightwell.pipeline.formats.headers import read_header_from
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.load import decode
from lightwell.pipeline.load.decode.masks import decode_mask
from lightwell.pipeline.load.decode.orientation import upright
from lightwell.pipeline.load.decode.pillow import decode_pillow
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine

CROP = (A.RandomResizedCrop((20, 24), scale=(0.05, 0.3)),)
LARGE_CROP = (A.RandomResizedCrop((10, 14), scale=(0.6, 1.0)),)
SHRINKS = {
    2: (A.Resize(30, 44),),
    4: (A.Resize(16, 24, interpolation=cv2.INTER_AREA),),
    8: (A.Resize(8, 12, interpolation=cv2.INTER_AREA),),
}


@dataclass(frozen=True)
class Way:
    """A decode path and its tolerance against full decoding with OpenCV followed by the transforms."""

    policy: tuple[Any, ...] = ()
    backend: str = "opencv"
    decode: str = "exact"
    cached: bool = False
    levels: int = 0
    """Largest difference of any value, of 255."""
    mean_levels: float = 0.0
    """Largest mean difference of any undamaged image, instead of ``levels``."""


# Tolerances. Decoders are bit-identical, so full images and their crops are. A DALI graph resizes with another rounding
# than OpenCV. A reduced decode averages whole blocks and rounds a side that is not a multiple of them: up to one pixel of
# the original, where these images change by ten levels per pixel. Damaged images, with hard edges, are excluded.
WAYS = {
    "whole, opencv": Way(),
    "whole, DALI graph": Way(backend="dali"),
    "whole, filling a cache": Way(cached=True),
    "whole, from a cache": Way(cached=True),
    "region, opencv and DALI": Way(CROP),
    "region, DALI graph": Way(CROP, backend="dali", levels=1),
    "region reduced, opencv": Way(LARGE_CROP, decode="auto", mean_levels=6.0),
    "reduced by 2, opencv": Way(SHRINKS[2], decode="auto", mean_levels=4.0),
    "reduced by 4, opencv": Way(SHRINKS[4], decode="auto", mean_levels=6.0),
    "reduced by 8, opencv": Way(SHRINKS[8], decode="auto", mean_levels=12.0),
    "resized, DALI graph": Way(SHRINKS[2], backend="dali", levels=1),
}
REFERENCE = "whole, opencv"


@dataclass
class Result:
    """Results of a decode path: pixels, or the step and the reason."""

    pixels: dict[str, np.ndarray]
    reasons: dict[str, str]


@dataclass
class Contract:
    """All files, their index, and the results of every decode path."""

    files: dict[str, ImageFile]
    status: dict[str, str]
    results: dict[str, Result]
    expected: dict[str, dict[str, np.ndarray]]
    """By path: the reference decode after the path's policy."""


def read_all(index: Path, way: Way, cache: Path) -> Result:
    """Read every usable file of an index through the public feed; parameters are seeded by key."""
    plan = Plan.model_validate(
        {
            "index": index,
            "augment": list(way.policy),
            "batch": {"size": 16 if way.policy else 1},  # whole pictures differ in size
            "seed": 5,
            "decode": way.decode,
            "errors": {"on_error": "skip", "max_bad_share": None},
            **({"cache": cache} if way.cached else {}),
        }
    )
    engine = LocalEngine(num_threads=2, backend=way.backend)  # type: ignore[arg-type]
    pixels: dict[str, np.ndarray] = {}
    with engine.feed(plan, View(augment=bool(way.policy))) as feed:
        for batch in feed:
            pixels |= {key: image.numpy().copy() for key, image in zip(batch.keys, batch.images, strict=True)}
        entries = [entry for entry in feed.quarantine if entry["step"] != "index"]
    return Result(pixels, {entry["key"]: f"{entry['step']}: {entry['reason']}" for entry in entries})


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    """Read all files with all decode paths."""
    root = tmp_path_factory.mktemp("contract")
    files = all_files()
    index_path = index_of(root / "files", files)
    table = build_index(root / "files", fractions={"train": 1.0}).table
    status = dict(zip(table["key"].to_pylist(), table["status"].to_pylist(), strict=True))
    results = {name: read_all(index_path, way, root / "cache") for name, way in WAYS.items()}
    whole = results[REFERENCE].pixels
    # BMP is always fully decoded; the same keys give the same parameters.
    plain = index_of(root / "plain", [ImageFile(key, saved(image, "BMP")) for key, image in whole.items()])
    expected = {
        name: read_all(plain, Way(way.policy), root).pixels if way.policy else whole
        for name, way in WAYS.items()
    }
    return Contract({file.name: file for file in files}, status, results, expected)


def index_of(folder: Path, files: list[ImageFile]) -> Path:
    """Write files and index them."""
    write_files(folder, files)
    path = folder.with_suffix(".parquet")
    build_index(folder, fractions={"train": 1.0}).save(path)
    return path


def differences(contract: Contract, name: str) -> dict[str, tuple[int, float]]:
    """Measure the largest and the mean difference of each file from the reference."""
    found = {}
    for key, image in contract.results[name].pixels.items():
        other = contract.expected[name][key]
        assert image.shape == other.shape, f"{key}: expected {other.shape}, got {image.shape}"
        difference = np.abs(image.astype(int) - other)
        found[key] = int(difference.max()), float(difference.mean())
    return found


def too_far(contract: Contract, name: str) -> dict[str, tuple[int, float]]:
    """Return the files for which a path exceeds its tolerance."""
    way = WAYS[name]
    return {
        key: (levels, mean)
        for key, (levels, mean) in differences(contract, name).items()
        if (levels > way.levels if not way.mean_levels else mean > way.mean_levels and ".damaged." not in key)
    }


def test_the_generated_files_are_many_and_deterministic() -> None:
    files = all_files()
    assert len(files) >= 500
    assert [(file.name, file.data) for file in files] == [(file.name, file.data) for file in all_files()]


def test_every_file_is_in_the_index(contract: Contract) -> None:
    assert contract.status.keys() == contract.files.keys()


def test_every_file_has_the_result_of_its_name(contract: Contract) -> None:
    whole = contract.results[REFERENCE]
    wrong = {}
    for name, file in contract.files.items():
        image = whole.pixels.get(name)
        status = contract.status[name]
        reason = whole.reasons.get(name, "") if status == "ok" else status
        if file.upright is not None:
            same_shape = image is not None and image.shape == file.upright.shape
            if not same_shape or np.abs(image.astype(int) - file.upright).mean() > file.mean_error:
                wrong[name] = reason or "other pixels"
        elif ".refused." in name and (image is not None or file.refusal not in reason):
            wrong[name] = reason or "was read"
    assert wrong == {}


@pytest.mark.parametrize("name", WAYS)
def test_every_decode_path_yields_the_reference_pixels(name: str, contract: Contract) -> None:
    assert too_far(contract, name) == {}


@pytest.mark.parametrize("name", WAYS)
def test_every_decode_path_rejects_the_same_files_for_the_same_reasons(name: str, contract: Contract) -> None:
    assert contract.results[name].reasons == contract.results[REFERENCE].reasons
    assert contract.results[name].pixels.keys() == contract.results[REFERENCE].pixels.keys()


def test_decode_paths_use_the_decoders_of_their_names(contract: Contract) -> None:
    """A path that silently fell back would agree, so each has files that reveal the decoder."""
    reduced = [name for name in WAYS if " reduced" in f" {name}"]
    for name in reduced:
        assert sum(levels > 1 for levels, _ in differences(contract, name).values()) > 100
    assert sum(levels == 1 for levels, _ in differences(contract, "region, DALI graph").values()) > 100


def test_usable_files_fail_only_by_damage_after_the_header(contract: Contract) -> None:
    whole = contract.results[REFERENCE]
    ok = {name for name, status in contract.status.items() if status == "ok"}
    assert whole.pixels.keys() | whole.reasons.keys() == ok
    kinds = ("-cut-at-", ".damaged.", "-noise-", "-sum-of-")
    assert [name for name in whole.reasons if not any(kind in name for kind in kinds)] == []


def test_pillow_agrees_with_the_other_decoders(contract: Contract) -> None:
    """Files on which other decoders fail go to Pillow, which must yield the same image; except 16 bits, for OpenCV only."""
    differing = {}
    for name, image in contract.results[REFERENCE].pixels.items():
        header = read_header_from(io.BytesIO(data := contract.files[name].data))
        if header.format == "png" and data[24] == 16:
            continue
        try:
            found = upright(decode_pillow(data, (header.height, header.width)), header.orientation)
        except ValueError:
            assert ".damaged." in name
            continue
        if not np.array_equal(found, image):
            differing[name] = int(np.abs(found.astype(int) - image).max())
    assert differing == {}


def test_every_decoder_and_every_option_of_decoding_is_a_way_of_the_contract(
    contract: Contract, tmp_path: Path
) -> None:
    assert {way.backend for way in WAYS.values()} == set(get_args(Backend))
    assert {way.decode for way in WAYS.values()} == set(get_args(Plan.model_fields["decode"].annotation))
    registered = {
        name
        for module in pkgutil.iter_modules(decode.__path__)
        for name, value in vars(importlib.import_module(f"{decode.__name__}.{module.name}")).items()
        if inspect.isfunction(value) and name.startswith("decode_") and name != decode_mask.__name__
    }
    called: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        called.add(frame.f_code.co_name)

    threading.setprofile(note)
    try:
        index = index_of(tmp_path / "some", [file for file in contract.files.values() if is_sound(file)])
        for way in (WAYS[REFERENCE], WAYS["reduced by 2, opencv"]):
            read_all(index, way, tmp_path)
    finally:
        threading.setprofile(None)
    assert registered - called == set()


def is_sound(file: ImageFile) -> bool:
    return file.upright is not None


def test_the_table_is_printed(contract: Contract) -> None:
    """Print the comparison for ``pytest -s``; no path may disagree."""
    num_bad = sum(status != "ok" for status in contract.status.values())
    lines = [
        f"{len(contract.files)} files, of which the index refuses {num_bad}; {len(WAYS)} ways",
        f"{'way':26} {'read':>5} {'refused':>8} {'most levels':>12} {'most mean':>10} {'disagree':>9}",
    ]
    total = 0
    for name, result in contract.results.items():
        found = differences(contract, name)
        sound = [one for key, one in found.items() if ".damaged." not in key]
        levels, mean = max(one[0] for one in sound), max(one[1] for one in sound)
        reasons = result.reasons.items() ^ contract.results[REFERENCE].reasons.items()
        num_wrong = len(too_far(contract, name)) + len({key for key, _ in reasons})
        total += num_wrong
        read, refused = len(found), len(result.reasons)
        lines.append(f"{name:26} {read:5} {refused:8} {levels:12} {mean:10.2f} {num_wrong:9}")
    sys.stdout.write("\n".join(["", *lines, ""]))
    assert total == 0

"""What DALI cannot decode and others can is told once, with the reason; what nobody can is told in the quarantine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.load.decode import dali as dali_module
from lightwell.pipeline.load.decode.dali import DaliDecoder, DaliInput
from lightwell.pipeline.load.decode.decoder import EncodedImage, ImageDecoder
from lightwell.pipeline.load.decode.fallback import MAX_KINDS, FallbackLog
from lightwell.pipeline.load.decode.plan import DecodePlan, full_region
from lightwell.pipeline.monitor.watchdog import Watchdog
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_folder

SIZE = (40, 50)


@pytest.fixture
def png() -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


def encoded(data: bytes, key: str) -> EncodedImage:
    return EncodedImage(data, "png", "RGB", 1, SIZE, key)


class OutOfMemory(DaliDecoder):
    """DALI on a device without memory for some files."""

    def __init__(self, refused: set[bytes]) -> None:
        super().__init__(max_batch_size=8, num_threads=1)
        self.refused = refused

    def _run(self, files: Sequence[DaliInput], *, on_host: bool) -> list[Any]:
        if self.refused.intersection(file.data for file in files):
            raise RuntimeError(f"Critical error in pipeline:\nno room for {len(files[0].data)} bytes")
        return super()._run(files, on_host=on_host)


def test_a_fall_back_is_logged_once_for_each_reason(png: bytes, caplog: pytest.LogCaptureFixture) -> None:
    bad = [png + b"\0" * number for number in (1, 2)]
    chain = ImageDecoder(OutOfMemory(set(bad)))
    files = [encoded(png, "good"), encoded(bad[0], "one"), encoded(bad[1], "two")]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = chain.decode(files, [DecodePlan("whole", full_region(SIZE), ())] * 3)
            assert [one.decoders for one in found] == [("dali",), ("dali", "opencv"), ("dali", "opencv")]
    chain.close()
    (record,) = caplog.records
    told = record.getMessage()
    assert told.startswith("decode: 'one' could not be decoded as planned (dali: no room for ")
    assert "opencv decoded it" in told


def test_what_nobody_can_decode_is_not_a_fall_back(png: bytes, caplog: pytest.LogCaptureFixture) -> None:
    chain = ImageDecoder(DaliDecoder(max_batch_size=8, num_threads=1))
    with caplog.at_level(logging.WARNING):
        (found,) = chain.decode([encoded(png[:40], "cut")], [DecodePlan("whole", full_region(SIZE), ())])
    chain.close()
    assert found.image is None
    assert [part.split(":")[0] for part in found.reason.split("; ")] == ["opencv", "pillow"]
    assert found.decoders == ("dali", "opencv", "pillow")
    assert caplog.records == []


def test_files_that_take_too_long_together_are_decoded_one_by_one(
    png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([0.0, 9.0, *[10.0] * 4])  # the group's start and end, then those of each file
    monkeypatch.setattr(dali_module.time, "perf_counter", lambda: next(ticks))
    watchdog = Watchdog(5.0)
    chain = ImageDecoder(DaliDecoder(max_batch_size=8, watchdog=watchdog), watchdog)
    found = chain.decode(
        [encoded(png, "one"), encoded(png, "two")], [DecodePlan("whole", full_region(SIZE), ())] * 2
    )
    chain.close()
    assert [one.decoders for one in found] == [("dali", "opencv")] * 2
    assert "dali: 2 files together took 9.0 s, more than max_seconds_per_file: 5" in found[0].reason


def test_a_graph_that_fails_is_told_and_its_pictures_are_made_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build_index(make_folder(tmp_path / "set", num_images=6)).save(tmp_path / "i.parquet")
    plan = Plan.model_validate(
        {
            "index": tmp_path / "i.parquet",
            "preprocess": [{"Resize": {"height": 16, "width": 16}}],
            "batch": {"size": 3},
        }
    )

    class Broken(dali_module.LoweredGraph):
        def run(self, *_: Any) -> Any:
            raise RuntimeError("Critical error in pipeline:\nout of memory")

    monkeypatch.setattr(dali_module, "LoweredGraph", Broken)
    with caplog.at_level(logging.WARNING):
        with LocalEngine(backend="dali").feed(plan, View(num_epochs=2)) as feed:
            assert sum(len(batch) for batch in feed) == 12
        assert feed.quarantine == []
    (record,) = caplog.records
    assert "(dali: out of memory); the CPU decoded it" in record.getMessage()


def test_reasons_that_are_all_different_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log = FallbackLog()
    with caplog.at_level(logging.WARNING):
        for number in range(200):
            log.log("key", f"dali: {'x' * number}", "opencv")
    assert len(caplog.records) == MAX_KINDS

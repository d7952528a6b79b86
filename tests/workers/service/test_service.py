"""Services on a real cluster: what consumers get equals the local engine's batches, and is made once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import pytest
from clusters import Cluster, wait_until
from lightwell.pipeline.errors import PlanError, RunError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.contracts import Feed
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import BatchDigest, digest_batch
from lightwell.workers.ray.cluster import Resources
from lightwell.workers.ray.engine import RayEngine
from lightwell.workers.service.engine import ServiceEngine
from lightwell.workers.service.host import Service, find_service, start_service
from lightwell.workers.service.sharing import SharingRules
from patience import HANG_S
from pictures import make_folder

pytestmark = pytest.mark.ray

LOCAL = LocalEngine(num_threads=1)
TRAINING = View(split="train", shuffle=True, augment=True, num_epochs=3)
NUM_BATCHES = 18
Read = tuple[list[BatchDigest], list[dict[str, Any]], list[Any], dict[str, int]]


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images in six batches an epoch, one cut off after indexing, and six for validation."""
    folder = tmp_path_factory.mktemp("service")
    photos = make_folder(folder / "photos", num_images=30)
    index = build_index(photos, fractions={"train": 0.8, "val": 0.2})
    index.save(folder / "index.parquet")
    rows = [row for row in index.table.to_pylist() if row["split"] == "train"]
    bad = Path(rows[5]["uri"])
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    return folder / "index.parquet"


def plan_for(index_path: Path, **changes: object) -> Plan:
    policy = [A.RandomResizedCrop((32, 32)), A.HorizontalFlip(), A.GaussNoise(p=0.5)]
    content = {
        "index": index_path,
        "preprocess": [A.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))],
        "augment": policy,
        "evaluate": [A.Resize(32, 32)],
        "mix": {"kind": "MixUp", "p": 0.7},
        "batch": {"size": 4},
        "seed": 3,
        **changes,
    }
    return Plan.model_validate(content)


def read(feed: Feed, most: int = 10**6) -> Read:
    """All that a feed yields and says."""
    facts, positions = [], [feed.position()]
    with feed:
        for batch in feed:
            facts.append(digest_batch(batch))
            positions.append(json.loads(json.dumps(feed.position())))
            if len(facts) == most:
                break
    return facts, positions, feed.quarantine, feed.counts


@pytest.fixture
def serve(cluster: Cluster, index_path: Path) -> Iterator[Any]:
    """Start services that end with the test."""
    assert cluster.address
    started: list[Service] = []

    def start(name: str, view: View = TRAINING, workers: int = 2, **rules: float | None) -> Service:
        engine = RayEngine(cluster.address, workers, Resources(1.0))
        bounds = SharingRules(**{"window": 8, **rules})  # type: ignore[arg-type]
        started.append(start_service(plan_for(index_path), view, name, engine, bounds))
        return started[-1]

    yield start
    for service in started:
        service.stop()


def together(*readers: Any) -> list[Any]:
    """Run them in threads and return what they return."""
    results: list[Any] = [None] * len(readers)

    def run(number: int) -> None:
        results[number] = readers[number]()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(readers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a consumer never came to its end"
    return results


def consumer(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    (found,) = [one for one in status["consumers"] if one["name"] == name]
    assert isinstance(found, dict)
    return found


def test_four_consumers_at_once_get_equal_batches_that_are_made_once(serve: Any, index_path: Path) -> None:
    plan = plan_for(index_path)
    expected = read(LOCAL.feed(plan, TRAINING))
    assert len(expected[0]) == NUM_BATCHES
    assert expected[3] == {"read": 72, "used": 69, "replaced": 3, "skipped": 0}
    service = serve("four", num_consumers=4)
    got = together(
        *(lambda n=n: read(ServiceEngine("four", consumer=f"c{n}").feed(plan, TRAINING)) for n in range(4))
    )
    assert got == [expected] * 4
    status = service.status()
    assert (status["made"], status["made_again"], status["samples"]) == (NUM_BATCHES, 0, 72)
    assert [one["state"] for one in status["consumers"]] == ["left"] * 4
    assert [one["number"] for one in status["consumers"]] == [NUM_BATCHES] * 4
    assert status["kept"] <= 8
    json.dumps(status)


def test_what_a_consumer_does_to_its_batch_no_other_sees(serve: Any, index_path: Path) -> None:
    plan = plan_for(index_path)
    expected = read(LOCAL.feed(plan, TRAINING))[0]
    serve("own", workers=1)
    with (
        ServiceEngine("own", consumer="spoils").feed(plan, TRAINING) as first,
        ServiceEngine("own", consumer="reads").feed(plan, TRAINING) as second,
    ):
        for number, (spoilt, batch) in enumerate(zip(first, second, strict=True)):
            spoilt.images.fill_(7.0)
            spoilt.labels.fill_(-5)
            assert digest_batch(batch) == expected[number]


def test_the_validation_split_is_read_here_and_a_late_epoch_is_served(serve: Any, index_path: Path) -> None:
    plan = plan_for(index_path)
    service = serve("views", workers=1)
    engine = ServiceEngine("views")
    validation = View(split="val")
    assert read(engine.feed(plan, validation)) == read(LOCAL.feed(plan, validation))
    assert service.status()["made"] == 0
    rest = replace(TRAINING, first_epoch=1, num_epochs=2)
    expected = read(LOCAL.feed(plan, rest))
    assert read(engine.feed(plan, rest)) == expected
    assert read(engine.feed(plan, rest, expected[1][7]))[:2] == (expected[0][7:], expected[1][7:])
    assert service.status()["consumers"][-1]["number"] == NUM_BATCHES


def test_another_plan_or_view_is_refused_and_the_keys_are_named(serve: Any, index_path: Path) -> None:
    serve("strict", workers=1)
    engine = ServiceEngine("strict")
    with pytest.raises(PlanError, match=r"plan.seed is 4 here and 3 there; make them equal"):
        engine.feed(plan_for(index_path, seed=4), TRAINING)
    with pytest.raises(PlanError, match=r"view.shuffle is False here and True there"):
        engine.feed(plan_for(index_path), replace(TRAINING, shuffle=False))
    with pytest.raises(PlanError, match=r"epochs 0 to 3 are read here, 0 to 2 are served"):
        engine.feed(plan_for(index_path), replace(TRAINING, num_epochs=4))
    with pytest.raises(PlanError, match=r"view.split is 'val' here and 'train' there"):
        engine.check(plan_for(index_path), View(split="val"))
    with pytest.raises(
        PlanError, match=r"expected one of \['strict'\], got 'strikt'; did you mean 'strict'\?"
    ):
        ServiceEngine("strikt").feed(plan_for(index_path), TRAINING)
    with pytest.raises(PlanError, match=r"expected a name that is not in use on this cluster, got 'strict'"):
        serve("strict")


def test_a_slow_consumer_holds_the_fast_one_back_and_is_named(serve: Any, index_path: Path) -> None:
    plan = plan_for(index_path)
    service = serve("slow", window=4, num_consumers=2)
    expected = read(LOCAL.feed(plan, TRAINING))[0]
    go_on = threading.Event()

    def slow() -> list[BatchDigest]:
        facts = []
        with ServiceEngine("slow", consumer="slow").feed(plan, TRAINING) as feed:
            for batch in feed:
                facts.append(digest_batch(batch))
                go_on.wait(HANG_S)
        return facts

    def look() -> Mapping[str, Any]:
        def held() -> bool:
            status = service.status()
            return bool(status["holding"]) and consumer(status, "fast")["number"] == 4

        wait_until(held, HANG_S, "a fast consumer that is held back")
        time.sleep(1.0)
        status = service.status()
        go_on.set()
        return status

    fast, slow_facts, status = together(
        lambda: read(ServiceEngine("slow", consumer="fast").feed(plan, TRAINING))[0], slow, look
    )
    assert fast == slow_facts == expected
    assert (status["slowest"], status["holding"]) == ("slow", ["slow"])
    assert (consumer(status, "slow")["number"], consumer(status, "fast")["number"]) == (0, 4)
    assert consumer(status, "slow")["kept_waiting_s"] >= 0.7
    assert status["made"] == 4
    assert service.status()["made"] == NUM_BATCHES


def test_a_laggard_is_cut_loose_and_still_gets_every_batch(serve: Any, index_path: Path) -> None:
    plan = plan_for(index_path)
    service = serve("laggard", window=2, max_lag_s=0.5, num_consumers=2)
    expected = read(LOCAL.feed(plan, TRAINING))[0]
    done = threading.Event()

    def slow() -> list[BatchDigest]:
        facts = []
        with ServiceEngine("laggard", consumer="slow").feed(plan, TRAINING) as feed:
            for batch in feed:
                facts.append(digest_batch(batch))
                assert done.wait(HANG_S)
        return facts

    def fast() -> list[BatchDigest]:
        facts = read(ServiceEngine("laggard", consumer="fast").feed(plan, TRAINING))[0]
        done.set()
        return facts

    assert together(fast, slow) == [expected, expected]
    status = service.status()
    assert status["made"] == NUM_BATCHES + status["made_again"]
    assert status["made_again"] >= NUM_BATCHES - 2 * 2 - 2


def test_a_late_joiner_gets_the_whole_stream(serve: Any, index_path: Path) -> None:
    plan = plan_for(index_path)
    service = serve("late", window=4)
    expected = read(LOCAL.feed(plan, TRAINING))[0]
    with ServiceEngine("late", consumer="early").feed(plan, TRAINING) as early:
        early_batches = iter(early)
        early_facts = [digest_batch(next(early_batches)) for _ in range(12)]
        with ServiceEngine("late", consumer="late").feed(plan, TRAINING) as late:
            late_batches = iter(late)
            late_facts = [digest_batch(next(late_batches)) for _ in range(12)]
            wait_until(lambda: not service.status()["making"], HANG_S, "an end of what is in the making")
            made_again = service.status()["made_again"]
            together(
                lambda: early_facts.extend(digest_batch(batch) for batch in early_batches),
                lambda: late_facts.extend(digest_batch(batch) for batch in late_batches),
            )
    assert early_facts == late_facts == expected
    assert 8 <= made_again <= 12, "those that were gone, and no more"
    assert service.status()["made_again"] == made_again, "once it had caught up all was shared"


def test_a_service_that_was_stopped_says_so_to_its_consumers(serve: Any, index_path: Path) -> None:
    service = serve("stops", workers=1)
    feed = ServiceEngine("stops").feed(plan_for(index_path), TRAINING)
    with feed:
        batches = iter(feed)
        next(batches)
        service.stop()
        with pytest.raises(RunError, match=r"'stops' has ended; start it again with `lightwell serve`"):
            list(batches)
    with pytest.raises(PlanError, match="stops"):
        find_service("stops")


def test_of_two_processes_with_one_name_the_later_one_stays(serve: Any, index_path: Path) -> None:
    plan = plan_for(index_path)
    serve("names", workers=1)
    with ServiceEngine("names", consumer="me").feed(plan, TRAINING) as first:
        batches = iter(first)
        next(batches)
        with ServiceEngine("names", consumer="me").feed(plan, TRAINING) as second:
            assert next(iter(second)).step == 0
            with pytest.raises(RunError, match="another one that has taken the name"):
                list(batches)

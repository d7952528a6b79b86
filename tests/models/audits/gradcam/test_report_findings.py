"""Findings in the report: their numbers, images, advice and keys, and the verdict on the maps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import probe_report
from lightwell.models.audits.findings.finding import (
    Advice,
    Confirmation,
    Effect,
    Finding,
    Null,
    Region,
    finding_id,
)
from lightwell.models.audits.gradcam.gallery import MAX_FINDINGS, Picture
from lightwell.models.audits.gradcam.report.page import Report
from lightwell.models.audits.gradcam.report.shots import outline
from lightwell.models.report.finding_text import effect_text

PROBE = """Object.assign(found, {
    all: shown(), key: apply("text", "CAT/000"), outcome: apply("outcome", "unlabelled"),
    finding: apply("finding", "FINDING"), high: apply("high", "0"), low: apply("low", "0"),
    status: page.getElementById("filter-count").textContent,
    buttons: [...page.querySelectorAll("button.copy")].map((button) => button.hidden),
  });
  press("/");
  found.search = page.activeElement.name;
  page.activeElement.blur();
  press("ArrowRight"); press("ArrowRight");
  found.focus = page.activeElement.closest(".card").dataset.key;
  page.activeElement.click();
  found.open = page.querySelectorAll(".zoom[open]").length;
  press("Escape");
  found.closed = page.querySelectorAll(".zoom[open]").length;
  press("m");
  found.maps = getComputedStyle(page.querySelector("svg.photo image")).visibility;"""
EVIL = "<script>alert(1)<"
REGION = Region.from_weights("lower left <corner>", np.array([[0, 0], [1, 0]], np.float32))


def finding(keys: tuple[str, ...], **changes: Any) -> Finding:
    """Return a finding on the class cat, confirmed by intervention."""
    found = Finding(
        id=finding_id("region", "cat", REGION),
        kind="region",
        severity="high",
        class_name="cat",
        class_number=0,
        group=f"camera = {EVIL}",
        sentence=f"In 40.0 % of the images of class cat the evidence lies in a corner {EVIL}.",
        effect=Effect(0.4, "share of images", 0.2, 0.65),
        null=Null(0.03, 0.0004, 0.012),
        num_images=5,
        num_concerned=2,
        keys=keys,
        other_keys=keys[:1],
        region=REGION,
        confirmation=Confirmation(
            "confirmed",
            Effect(0.31, "probability", 0.25, 0.38),
            0.02,
            Effect(0.2, "probability", 0.1, 0.3),
            0.01,
            Effect(0.5, "share of images", 0.2, 0.8),
        ),
        advice=Advice("Crop the border.", f"preprocess:\n  - Crop: {{x_min: 8}}  # {EVIL}"),
    )
    return replace(found, **changes)


@pytest.fixture(scope="module")
def facts(audited: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((audited / "findings.json").read_text())
    return found


def render(
    audited: Path,
    facts: Mapping[str, Any],
    *found: Finding,
    num_gallery: int = 4,
    suggested: Mapping[tuple[str, str], str] | None = None,
) -> str:
    records = pq.read_table(audited / "records.parquet")
    keys = records["key"].to_pylist()
    pictures = {key: Picture(np.full((64, 64, 3), 20 * n, np.uint8)) for n, key in enumerate(keys)}
    return Report(
        title="Audit",
        findings=facts,
        records=records,
        found=found,
        pictures=pictures,
        num_gallery=num_gallery,
        quarantine=(),
        names=facts["classes"],
        suggested=suggested or {},
    ).render()


@pytest.fixture(scope="module")
def page(audited: Path, facts: dict[str, Any]) -> str:
    return render(audited, facts, finding(("cat/000.jpg", "cat/002.jpg", "gone.jpg")))


def text_of(page: str) -> str:
    """Return the page without its style, script and tags."""
    return re.sub(
        r"\s+", " ", re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL)
    )


def test_findings_come_before_everything_else(page: str) -> None:
    titles = re.findall(r"<h2[^>]*>([^<]+)<", page)
    titles = [title for title in titles if title not in ("Warnings",) and "maps" not in title]
    assert titles[:2] == ["Findings", "Summary"]


def test_a_finding_shows_effect_chance_and_interventions_with_their_baselines(page: str) -> None:
    said = text_of(page)
    for part in (
        "Effect: share of images 40.0 % (20.0 to 65.0 %)",
        "Baseline: by chance 3.0 %, p &lt; 0.001, q = 0.012",
        "Images that show it 2 of 5",
        "Region lower left &lt;corner&gt;",
        "Confirmed by changing the pixels",
        "decrease of the probability 0.31 (0.25 to 0.38)",
        "Baseline: another region of equal area removed 0.02",
        "increase of the probability 0.20 (0.10 to 0.30)",
        "Images with the region pasted that are then predicted as cat 50.0 % (20.0 to 80.0 %)",
    ):
        assert part in said


def test_text_of_a_finding_is_escaped(page: str) -> None:
    assert page.count("<script") == 1
    assert page.count("&lt;script&gt;alert(1)&lt;") == 4, "group, sentence, YAML, link of the class"


def test_buttons_copy_keys_and_yaml_that_are_on_the_page(page: str) -> None:
    named = re.findall(r'data-copy="([^"]+)" hidden>([^<]+)<', page)
    assert [text for _, text in named] == ["Copy YAML", "Copy 3 keys"]
    keys = re.search(rf'<pre id="{named[1][0]}"[^>]*>([^<]*)</pre>', page)
    assert keys is not None
    assert keys[1] == "cat/000.jpg\ncat/002.jpg\ngone.jpg"
    assert "\n  - Crop: {x_min: 8}" in page


def test_images_of_a_finding_have_the_region_drawn_in_pixels_of_the_input(page: str) -> None:
    edges = re.findall(r'<path class="edge" d="([^"]+)"', page)
    assert len(edges) == 2 * 3, "white and dashed, on two images that show it and one to compare with"
    assert set(edges) == {outline(REGION, 64, 64)}
    assert outline(REGION, 64, 64) == "M0.0 32.0h32.0M0.0 64.0h32.0M0.0 32.0v32.0M32.0 32.0v32.0"


def test_images_of_a_region_are_shown_with_the_maps_of_their_labels(
    audited: Path, facts: dict[str, Any]
) -> None:
    records = pq.read_table(audited / "records.parquet").to_pylist()
    labels = {record["key"]: facts["classes"][record["label"]] for record in records}
    wrong = [record["key"] for record in records if record["prediction"] != record["label"]]
    assert wrong
    shown = re.findall(
        r'Image ([^"]*) with the map for ([^"]*)"', render(audited, facts, finding(tuple(wrong[:4])))
    )
    assert {key for key, _ in shown} == set(wrong[:4])
    assert all(labels[key] == name for key, name in shown)


def test_each_picture_is_stored_once(page: str) -> None:
    stored = re.findall(r'<image id="(p\d+)"', page)
    assert len(stored) == len(set(stored))
    assert page.count("data:image/jpeg") == len(stored)
    assert set(re.findall(r'<use href="#(p\d+)"', page)) <= set(stored)


def test_a_class_links_to_its_findings(page: str) -> None:
    (section,) = re.findall(r'<article class="panel class" id="class-0">(.*?)</article>', page, re.DOTALL)
    assert f'href="#{finding(()).id}"' in section


def test_findings_without_images_are_listed_in_a_table(audited: Path, facts: dict[str, Any]) -> None:
    many = [
        finding((), id=f"region-{n}", severity="low", sentence=f"Sentence {n}.", region=None, advice=None)
        for n in range(MAX_FINDINGS + 2)
    ]
    page = render(audited, facts, *many)
    assert page.count('class="panel finding is-low"') == MAX_FINDINGS
    (listed,) = re.findall(r"Further findings</h3>(.*?)</table>", page, re.DOTALL)
    assert re.findall(r"Sentence \d+", listed) == [f"Sentence {n}" for n in (MAX_FINDINGS, MAX_FINDINGS + 1)]


def test_maps_that_failed_a_check_are_announced_before_the_findings(
    audited: Path, facts: dict[str, Any]
) -> None:
    check = {"name": "patch", "value": 0.2, "low": 0.1, "high": 0.3, "threshold": 0.5, "passed": False}
    reason = "maps do not change where the image does"
    trust = {"trusted": False, "num_images": 9, "checks": [check | {"sentence": reason}], "reasons": [reason]}
    page = render(audited, {**facts, "trust": trust})
    verdict = page.index("The maps of this model are not trustworthy")
    assert verdict < page.index(reason) < page.index('<h2 id="findings">')
    assert "patch failed 0.200 0.100 to 0.300 0.5" in text_of(page)


def test_second_opinions_are_shown_beside_what_chance_gives(audited: Path, facts: dict[str, Any]) -> None:
    opinion = {
        "method": "lime", "num_images": 4, "rank_correlation": 0.31, "top_overlap": None, "forward_passes": 130.0
    }  # fmt: skip
    said = text_of(render(audited, {**facts, "second_opinions": [opinion]}))
    assert "Rank correlation by chance 0 Overlap of the strongest tenth by chance 10 %" in said
    assert "lime 4 0.31 n/a 130" in said


def test_a_suspected_label_is_shown_beside_the_class_that_is_suggested(
    audited: Path, facts: dict[str, Any]
) -> None:
    found = finding(
        ("cat/000.jpg", "cat/002.jpg"), kind="suspected_label", region=None, confirmation=Confirmation()
    )
    said = text_of(render(audited, facts, found, suggested={(found.id, "cat/002.jpg"): "dog <b>"}))
    assert said.count("label cat, suggested dog &lt;b&gt;") == 1
    assert said.count("suggested") == 1


def test_an_audit_without_findings_says_so(audited: Path, facts: dict[str, Any]) -> None:
    searched = {"searched": {"note": "no region was searched for"}}
    assert "None. Note that no region was searched for." in text_of(render(audited, {**facts, **searched}))
    searched["searched"]["note"] = ""
    assert "None. Nothing in these images exceeds what chance gives." in text_of(
        render(audited, {**facts, **searched})
    )


def test_effects_are_written_in_their_unit() -> None:
    assert effect_text(Effect(0.123, "share of images")) == "12.3 %"
    assert effect_text(Effect(-0.5, "probability", -0.6, -0.4)) == "-0.50 (-0.60 to -0.40)"
    assert effect_text(Effect(3.14159, "standard deviations")) == "3.14"


def test_the_page_filters_its_gallery_and_answers_keys_in_a_browser(
    page: str, chromium: str, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text(page)
    script = PROBE.replace("FINDING", finding(()).id)
    found = probe_report(tmp_path / "report.html", script, chromium, tmp_path)
    assert found["overflow"] == [0, 0], "nothing is wider than the page, narrow or wide"
    everything = sorted(re.findall(r'data-key="([^"]+)"', page))
    assert found["all"] == found["low"] == everything
    assert found["key"] == ["cat/000.jpg"]
    assert found["outcome"] == found["high"] == []
    assert found["finding"] == ["cat/000.jpg", "cat/002.jpg"]
    assert found["status"].startswith(f"{len(everything)} of {len(everything)} images shown.")
    assert found["buttons"] == [False, False]
    assert found["search"] == "text"
    assert found["focus"] == re.findall(r'data-key="([^"]+)"', page)[1]
    assert (found["open"], found["closed"], found["maps"]) == (1, 0, "hidden")

"""Reports in a real browser: a script looks at a page in a narrow and a wide frame."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from patience import HANG_S

_PROBE = """<!doctype html><html><body><iframe src="PAGE" width="360" height="3000"></iframe>
<iframe src="PAGE" width="1300" height="3000"></iframe><pre id="found"></pre>
<script>
window.addEventListener("load", () => {
  const pages = [...document.querySelectorAll("iframe")].map((frame) => frame.contentDocument);
  const [, page] = pages, form = page.getElementById("filters");
  const shown = () => [...page.querySelectorAll(".card:not([hidden])")].map((card) => card.dataset.key).sort();
  const apply = (name, value) => {
    form.reset();
    form.elements[name].value = value;
    form.dispatchEvent(new Event("input"));
    return shown();
  };
  const press = (key) => (page.activeElement || page.body).dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const found = {
    overflow: pages.map((one) => one.documentElement.scrollWidth - one.documentElement.clientWidth),
  };
SCRIPT
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body></html>"""


def open_page(chromium: str, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Return the page after its script ran, as standard output, and the messages of the browser's console."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--allow-file-access-from-files", "--enable-logging=stderr", "--window-size=1900,3200",
        f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=HANG_S)


def probe_report(page: Path, script: str, chromium: str, folder: Path) -> dict[str, Any]:
    """Run a script on a report and return what it finds; nothing may be written to the browser's console.

    Args:
        page: the report.
        script: sets keys of ``found``, which has ``overflow``; it may use ``pages`` (narrow, wide), ``page`` (wide), ``form`` (its
            filters), ``shown()``, ``apply(filter, value)`` and ``press(key)``.
        chromium: the browser.
        folder: for its files.
    """
    probe = folder / "probe.html"
    probe.write_text(_PROBE.replace("SCRIPT", script).replace("PAGE", page.as_uri()))
    done = open_page(chromium, probe, folder)
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    text = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[0]
    found: dict[str, Any] = json.loads(html.unescape(text))
    return found

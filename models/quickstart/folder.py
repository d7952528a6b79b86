"""Output folder of ``lightwell init``, in which modified and foreign files are never overwritten.

The manifest stores the source and a digest of each written file, to detect files that were modified or added since.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from ...pipeline.atomic_io import rename, write_text
from ...pipeline.errors import OutputError, RequestError
from ...pipeline.outputs.folder import OutputFolder
from ...pipeline.outputs.manifest import Manifest
from ...pipeline.storage.local import is_remote, without_file_scheme
from .files import INDEX, NAMES

KIND = "init"
RUNS = "runs"
UNCHANGED, WRITTEN, REPLACED, REMOVED = "unchanged", "written", "replaced", "removed"


def default_folder(source: str) -> Path:
    """Return the default output folder of a source, ``runs/NAME``.

    It is below ``runs`` because a folder named ``lightwell`` would shadow the package in Python.
    """
    text = without_file_scheme(source).rstrip("/")
    last = text.rsplit("/", 1)[-1] if is_remote(text) else Path(text).expanduser().resolve().name
    name = re.split(r"[*?\[{]", last, maxsplit=1)[0]
    if name == last and not (not is_remote(text) and Path(text).is_dir()):
        name = name.partition("?")[0].partition(".")[0]
    return Path(RUNS, name.strip(" -_.") or "dataset")


def check_location(out: Path, source: str) -> None:
    """Check that the output folder is outside the image folder, which would otherwise be indexed with it.

    Raises:
        RequestError: it is inside.
    """
    text = without_file_scheme(source)
    if is_remote(text) or not (folder := Path(text).expanduser()).is_dir():
        return
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
        sibling = Path(os.path.realpath(folder)).parent / RUNS / Path(os.path.realpath(folder)).name
        raise RequestError(
            f"--out: expected a folder outside the images, got {str(out)!r} in {source!r}; write --out {str(sibling)!r}, or "
            "start from another folder"
        )


@contextmanager
def open_init_folder(out: Path, source: str, *, force: bool) -> Iterator[OutputFolder]:
    """Open the output folder for a source; conflicting files are reported before anything is read.

    Args:
        out: output folder; created if missing, and deleted again on failure.
        source: source as given by the user.
        force: replace existing files; modified and foreign files are renamed.

    Raises:
        RequestError: the folder holds a modified or foreign file, or the index of another source.
        OutputError: the folder cannot be written.
    """
    is_new = not out.exists()

    def check(folder: OutputFolder) -> None:
        if force:
            _rename_foreign_files(folder.path)
        else:
            _check_unchanged(folder.path, source)

    try:
        with OutputFolder.open(out, kind=KIND, outputs=NAMES, check=check) as folder:
            folder.describe(json.dumps({**_recorded(out), "source": _absolute(source)}))
            folder.claim(*NAMES)
            yield folder
            folder.complete()
    except BaseException:
        if is_new and not (out / INDEX).exists():
            _delete_folder(out)
        raise


def write_files(folder: OutputFolder, texts: Mapping[str, str], source: str) -> dict[str, str]:
    """Write the files that differ, and delete those that are no longer needed.

    Returns:
        ``unchanged``, ``written``, ``replaced`` or ``removed`` by name.

    Raises:
        OutputError: a file cannot be written.
    """
    done = {}
    for name, text in texts.items():
        path = folder.path / name
        existed = path.is_file()
        if existed and path.read_bytes() == text.encode():
            done[name] = UNCHANGED
            continue
        write_text(path, text)
        done[name] = REPLACED if existed else WRITTEN
    for name in NAMES:
        if name not in texts and folder.remove(name):
            done[name] = REMOVED
    folder.describe(
        json.dumps(
            {"source": _absolute(source)} | {name: _digest(text.encode()) for name, text in texts.items()}
        )
    )
    return done


def _check_unchanged(out: Path, source: str) -> None:
    """Check that files to overwrite are unmodified, and that the index is of the same source."""
    recorded = _recorded(out)
    for name in _foreign_files(out):
        what = "that was modified" if name in recorded else "that `lightwell init` did not write"
        raise RequestError(
            f"--out: expected to write {name!r}, got one in {str(out)!r} {what}; choose another --out, or replace it with "
            "--force, which keeps the old one"
        )
    if (out / INDEX).exists() and recorded.get("source") != _absolute(source):
        of = repr(recorded["source"]) if "source" in recorded else "another source"
        raise RequestError(
            f"--out: expected a folder without an index, or with one of {source!r}, got {str(out)!r} with one of {of}; choose "
            "another --out, or replace it with --force"
        )


def _foreign_files(out: Path) -> list[str]:
    """Return the names of modified and foreign files."""
    recorded = _recorded(out)
    files = {name: out / name for name in NAMES}
    return [
        name
        for name, path in files.items()
        if path.is_file() and recorded.get(name) != _digest(path.read_bytes())
    ]


def _rename_foreign_files(out: Path) -> None:
    """Rename modified and foreign files to ``NAME.old``, or ``NAME.old2`` and so on if that exists.

    Raises:
        OutputError: the folder cannot be written.
    """
    for name in _foreign_files(out):
        ends = (".old" if number == 1 else f".old{number}" for number in count(1))
        target = next(path for end in ends if not os.path.lexists(path := out / f"{name}{end}"))
        try:
            rename(out / name, target.name)
        except OSError as error:
            raise OutputError(
                f"--out: expected to rename {str(out / name)!r}, got {error.strerror or error}; choose another --out"
            ) from error


def _recorded(out: Path) -> dict[str, str]:
    """Return the source and the digests of files from the manifest."""
    manifest = Manifest.load(out)
    with suppress(ValueError, RecursionError):
        recorded = json.loads((manifest and manifest.fingerprint) or "{}")
        if isinstance(recorded, dict):
            return {str(name): str(value) for name, value in recorded.items()}
    return {}


def _absolute(source: str) -> str:
    text = without_file_scheme(source)
    return text if is_remote(text) else str(Path(text).expanduser().absolute())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _delete_folder(out: Path) -> None:
    """Delete a new folder after a failure."""
    with suppress(OSError):
        for name in (".lightwell.json", *NAMES):
            (out / name).unlink(missing_ok=True)
        out.rmdir()

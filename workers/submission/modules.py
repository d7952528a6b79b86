"""Selects the files of the user's Python modules and packages to upload: code, and data allowed by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...pipeline.errors import RequestError
from .declared_files import is_private

CODE_SUFFIXES = frozenset({".py", ".pyi", ".so"})
TYPED = "py.typed"


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """Files of a module or package to upload."""

    path: Path
    """A file that ends in ``.py``, or the folder of a package."""
    files: tuple[Path, ...]
    """Files to upload."""
    excluded: tuple[Path, ...]
    """Files of the package that are not uploaded: not code, hidden, private, or links out of it."""

    @classmethod
    def of(cls, path: Path, extra: Sequence[Path] = ()) -> ModuleFiles:
        """Select the files of a module.

        Args:
            path: the module.
            extra: data files and folders of it to upload as well.

        Raises:
            RequestError: it is not a module.
        """
        if path.suffix == ".py" and path.is_file():
            return cls(path, (path,), ())
        if not (path / "__init__.py").is_file():
            raise RequestError(
                f"--module: expected a Python module or the folder of a package, got {str(path)!r}; name a file that ends in "
                ".py, or a folder with an __init__.py"
            )
        named = [one.resolve() for one in extra]
        result = sorted(_walk(path))
        included = [file for file in result if _is_included(file, path, named)]
        return cls(path, tuple(included), tuple(sorted({*result} - {*included})))

    def copy_to(self, folder: Path) -> Path:
        """Copy the files into a folder; returns the module's path there."""
        for file in self.files:
            target = folder / file.relative_to(self.path.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return folder / self.path.name


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(parent, name) for name in files)


def _is_included(file: Path, package: Path, named: Sequence[Path]) -> bool:
    real = file.resolve()
    if any(real == one or one in real.parents for one in named):
        return True
    inside = package.resolve() in real.parents
    is_code = file.suffix in CODE_SUFFIXES or file.name == TYPED
    return inside and is_code and not is_private(file.relative_to(package))

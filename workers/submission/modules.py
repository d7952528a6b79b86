"""Which files of a Python module or package of one's own go along with a command: its code, and what was allowed by name."""

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
    """A module or a package, as it goes along."""

    path: Path
    """A file that ends in ``.py``, or the folder of a package."""
    files: tuple[Path, ...]
    """What goes along."""
    left_out: tuple[Path, ...]
    """Files of the package that stay here: no code, hidden, private, or links out of it."""

    @classmethod
    def of(cls, path: Path, besides: Sequence[Path] = ()) -> ModuleFiles:
        """Find the files of a module.

        Args:
            path: the module.
            besides: data files and folders of it that go along as well.

        Raises:
            RequestError: it is no module.
        """
        if path.suffix == ".py" and path.is_file():
            return cls(path, (path,), ())
        if not (path / "__init__.py").is_file():
            raise RequestError(
                f"--module: expected a Python module or the folder of a package, got {str(path)!r}; name a file that ends in "
                ".py, or a folder with an __init__.py"
            )
        named = [one.resolve() for one in besides]
        found = sorted(_walk(path))
        going = [file for file in found if _goes(file, path, named)]
        return cls(path, tuple(going), tuple(sorted({*found} - {*going})))

    def lay_out(self, folder: Path) -> Path:
        """Copy them below a folder; returns the module there."""
        for file in self.files:
            target = folder / file.relative_to(self.path.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return folder / self.path.name


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(here, name) for name in files)


def _goes(file: Path, package: Path, named: Sequence[Path]) -> bool:
    real = file.resolve()
    if any(real == one or one in real.parents for one in named):
        return True
    inside = package.resolve() in real.parents
    is_code = file.suffix in CODE_SUFFIXES or file.name == TYPED
    return inside and is_code and not is_private(file.relative_to(package))

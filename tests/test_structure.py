"""The shape of the code: folders, arrows, sizes, names and calls that are not wanted."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import pickle
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import lightwell
import pytest
from lightwell.pipeline import errors

PUBLIC: list[str] = [
    "Batch",
    "Batches",
    "BatchJob",
    "build_index",
    "build_model",
    "Classify",
    "Context",
    "Engine",
    "explain_image",
    "Feed",
    "Files",
    "FileSample",
    "find_job",
    "find_target_layer",
    "fingerprint_of",
    "grad_cam",
    "GradCamAudit",
    "Images",
    "ImageSample",
    "Index",
    "LightwellError",
    "LineConsole",
    "load",
    "load_model",
    "LocalEngine",
    "Mix",
    "ModelError",
    "ModelSpec",
    "OutputError",
    "Plan",
    "PlanError",
    "preview",
    "Program",
    "RequestError",
    "Rows",
    "run_batch_job",
    "run_training_job",
    "RunError",
    "SilentConsole",
    "SingleStageJob",
    "SourceError",
    "Stage",
    "submit",
    "TerminalConsole",
    "TrainingJob",
    "View",
]
FOLDERS = {"cli", "pipeline", "workers", "models", "tests", "deploy"}
HIDDEN_FOLDERS = {".ci"}
CODE = {"cli", "pipeline", "workers", "models"}
FORBIDDEN_ARROWS = {
    "pipeline": {"cli", "models", "testing", "workers"},
    "models": {"cli", "testing", "workers"},
    "workers": {"cli", "models", "testing"},
    "testing": {"cli", "models"},
}
HEAVY = {"torch", "torchvision", "ray", "nvidia", "albumentations", "cv2", "timm", "sklearn", "matplotlib"}
UNWANTED_NAME = re.compile(r"manager|helper|utils?(?![a-z])", re.IGNORECASE)
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib"}
ERRORS = sorted(
    (c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.LightwellError)),
    key=lambda found: found.__name__,
)


@pytest.fixture(scope="module")
def syntax_trees(root: Path, project_files: tuple[str, ...]) -> dict[str, ast.Module]:
    """The Python files of the project by name, parsed."""
    python = [name for name in project_files if name.endswith(".py")]
    return {name: ast.parse((root / name).read_text(), filename=name) for name in python}


@pytest.fixture(scope="module")
def modules(syntax_trees: dict[str, ast.Module]) -> dict[str, ast.Module]:
    """The package's files, parsed; ``pipeline.plan`` by name, the root as the empty string."""
    found = {}
    for name, tree in syntax_trees.items():
        path = PurePosixPath(name)
        if len(path.parts) == 1 or path.parts[0] in CODE:
            parts = path.with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(parts)] = tree
    return found


def is_package(module: str, root: Path) -> bool:
    return (root / PurePosixPath(*module.split(".")) / "__init__.py").is_file()


def imports(tree: ast.AST, *, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield import statements; without ``lazy`` only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif lazy:
            yield from imports(node, lazy=True)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []), lazy=False)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, lazy=False)


def own_targets(module: str, node: ast.stmt, modules: dict[str, ast.Module], root: Path) -> Iterator[str]:
    """Yield the modules of ours that a relative import names."""
    if not isinstance(node, ast.ImportFrom) or node.level == 0:
        return
    parts = module.split(".") if module else []
    climb = node.level - (1 if is_package(module, root) else 0)
    assert climb <= len(parts), f"{module}:{node.lineno} climbs out of the package"
    base = parts[: len(parts) - climb] + (node.module.split(".") if node.module else [])
    for alias in node.names:
        full = ".".join([*base, alias.name])
        yield full if full in modules else ".".join(base)


def outside_targets(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and top-level name of all that is imported absolutely, lazily or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value.partition(".")[0]


def test_top_level_folders_are_those_of_the_design(project_files: tuple[str, ...]) -> None:
    tops = {name.partition("/")[0] for name in project_files if "/" in name}
    assert {top for top in tops if not top.startswith(".")} == FOLDERS
    assert {top for top in tops if top.startswith(".")} <= HIDDEN_FOLDERS


def test_files_are_small(root: Path, project_files: tuple[str, ...]) -> None:
    sizes = {
        name: len((root / name).read_text().splitlines()) for name in project_files if name.endswith(".py")
    }
    assert {name: size for name, size in sizes.items() if size > 400} == {}
    assert statistics.median(sizes.values()) <= 200


def test_imports_of_ours_are_relative(modules: dict[str, ast.Module]) -> None:
    ours = {"lightwell", *FOLDERS}
    absolute = [
        f"{module}:{line} imports {top}"
        for module, tree in modules.items()
        for line, top in outside_targets(tree)
        if top in ours
    ]
    assert absolute == []


def test_arrows_between_folders_point_down(modules: dict[str, ast.Module], root: Path) -> None:
    wrong = [
        f"{module}:{node.lineno} imports {target}"
        for module, tree in modules.items()
        for node in imports(tree, lazy=True)
        for target in own_targets(module, node, modules, root)
        if target.partition(".")[0] in FORBIDDEN_ARROWS.get(module.partition(".")[0], set())
    ]
    assert wrong == []


def test_only_workers_imports_ray(modules: dict[str, ast.Module]) -> None:
    wrong = [
        f"{module}:{line}"
        for module, tree in modules.items()
        if module.partition(".")[0] != "workers"
        for line, top in outside_targets(tree)
        if top == "ray"
    ]
    assert wrong == []


def test_no_import_cycles(modules: dict[str, ast.Module], root: Path) -> None:
    graph = {
        module: {
            target
            for node in imports(tree, lazy=False)
            for target in own_targets(module, node, modules, root)
        }
        for module, tree in modules.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError and names the cycle


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".cli.app",
        ".pipeline.errors",
        ".pipeline.index.index",
        ".pipeline.jobs.contracts",
        ".testing",
        ".pipeline.index.sources",
        ".cli.submission",
    ],
)
def test_import_is_light(module: str, tmp_path: Path) -> None:
    code = f"import sys, lightwell{module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) == set()


def test_public_names_are_pinned() -> None:
    assert sorted(getattr(lightwell, "__all__", [])) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_can_be_had_and_is_listed(name: str) -> None:
    assert getattr(lightwell, name) is not None
    assert name in dir(lightwell)


@pytest.mark.parametrize("error_type", ERRORS)
def test_errors_survive_pickling(error_type: type[errors.LightwellError]) -> None:
    own_init = vars(error_type).get("__init__")
    names = list(inspect.signature(own_init).parameters)[1:] if own_init else ["message"]
    error = error_type(*(f"some {name}" for name in names))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is error_type
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert again.exit_code == (2 if isinstance(again, errors.RequestError) else 1)


def test_error_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^\s*[*+-] (\w+)", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == [found.__name__ for found in ERRORS]


def test_names_say_what_things_do(syntax_trees: dict[str, ast.Module]) -> None:
    files = [name for name in syntax_trees if UNWANTED_NAME.search(PurePosixPath(name).stem)]
    classes = [
        f"{name}: {node.name}"
        for name, tree in syntax_trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and UNWANTED_NAME.search(node.name)
    ]
    assert files + classes == []


def refusal(call: ast.Call) -> str | None:
    """Say why a call is not wanted in the package, or None."""
    name = ast.unparse(call.func)
    owner, _, last = name.rpartition(".")
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if given.get("shell", "False") != "False" or name == "os.system":
        return "a shell"
    if owner in UNPICKLERS and last in {"load", "loads", "Unpickler"}:
        return "unpickling"
    if given.get("allow_pickle", "False") != "False":
        return "unpickling in numpy"
    if last in {"unsafe_load", "full_load"}:
        return "unsafe YAML"
    loader = given.get("Loader", ast.unparse(call.args[1]) if len(call.args) > 1 else "")
    if name == "yaml.load" and not loader.endswith("SafeLoader"):
        return "unsafe YAML"
    if (name == "torch.load" or last == "load_state_dict_from_url") and given.get("weights_only") != "True":
        return "weights without weights_only=True"
    return "evaluating text" if name in {"eval", "exec"} else None


def test_nothing_runs_or_unpickles_what_it_is_given(modules: dict[str, ast.Module]) -> None:
    found = [
        f"{module}:{node.lineno} {refusal(node)}"
        for module, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and refusal(node)
    ]
    found += [
        f"{module}:{node.lineno} imports names from {node.module}"
        for module, tree in modules.items()
        for node in imports(tree, lazy=True)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in UNPICKLERS
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run(x, shell=True)",
        "pickle.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "yaml.load(f, yaml.Loader)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "eval(x)",
    ],
)
def test_the_check_of_calls_sees_an_unsafe_one(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert refusal(call) is not None


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run(x)",
        "json.load(f)",
        "yaml.safe_load(f)",
        "yaml.load(f, Loader=yaml.CSafeLoader)",
        "torch.load(f, weights_only=True)",
        "model.eval()",
    ],
)
def test_the_check_of_calls_passes_a_safe_one(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert refusal(call) is None


def test_documents_name_only_files_that_exist(root: Path) -> None:
    pattern = re.compile(rf"`((?:{'|'.join(sorted(FOLDERS))})/[\w./-]*)`")
    missing = [
        f"{document.name}: {named}"
        for document in root.glob("*.md")
        for named in pattern.findall(document.read_text())
        if not (root / named).exists()
    ]
    assert missing == []


def test_every_module_of_the_package_can_be_imported(modules: dict[str, ast.Module]) -> None:
    for module in modules:
        if module.endswith("__main__"):
            continue
        importlib.import_module(f"lightwell.{module}" if module else "lightwell")


def test_only_one_module_opens_images_with_pillow(modules: dict[str, ast.Module]) -> None:
    """Elsewhere a format that runs programs, or a header without limits, would be let in."""
    found = {
        module
        for module, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
    }
    assert found == {"pipeline.formats.image_reader"}

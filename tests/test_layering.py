"""Imports go down only: bin -> tasks -> vocoder, data, evaluation -> flow -> kernels."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowavenet_plugin

ROOT = Path(flowavenet_plugin.__file__).parent
LAYERS = {"bin": 4, "tasks": 3, "vocoder": 2, "data": 2, "evaluation": 2, "flow": 1, "kernels": 0}
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
#: Who may import ESPnet2 (data: for its features only).
WITH_ESPNET2 = {"bin", "tasks", "data"}


def imports(module: str) -> Iterator[str]:
    """Name every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            yield str(node.module)


def test_the_layers_are_those_of_the_package() -> None:
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    if "/" not in module:
        return
    layer = module.split("/")[0]
    for name in imports(module):
        parts = name.split(".")
        if parts[0] == "flowavenet_plugin" and len(parts) > 1:
            above = parts[1] != layer and LAYERS[parts[1]] >= LAYERS[layer]
            assert not above, f"{module} imports {name}: {layer} must not know {parts[1]}"
        if parts[0] == "espnet2":
            assert layer in WITH_ESPNET2, f"{module} imports {name}"
        assert parts[0] != "espnet", f"{module} imports {name}: only espnet2.* is used"


def names(module: str) -> Iterator[str]:
    """Name the modules of the package that a file imports, those for annotations and in functions too."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            files = [name for name in below if file_of(name) is not None]
            yield from files or [str(node.module)]


def file_of(name: str) -> str | None:
    """Return the file of a module's name, as :data:`MODULES` has it."""
    path = "/".join(name.split(".")[1:])
    found = [file for file in (f"{path}.py", f"{path}/__init__.py") if file in MODULES]
    return found[0] if name.startswith("flowavenet_plugin.") and found else None


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the ways along imports that come back to where they began."""
    found, done = [], set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
        elif module not in done:
            for other in sorted(graph[module]):
                walk(other, [*way, module])
            done.add(module)

    for module in graph:
        walk(module, [])
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: {file for name in names(module) if (file := file_of(name))} for module in MODULES}
    assert graph["flow/flowavenet.py"] > {"flow/plan.py", "flow/training/chain.py"}
    assert circles(graph) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]  # it would be seen


@pytest.mark.parametrize("module", [module for module in MODULES if module.split("/")[0] in ("flow", "kernels")])
def test_files_are_short(module: str) -> None:
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("module", [module for module in MODULES if module.split("/")[0] in ("flow", "kernels")])
def test_the_flow_needs_torch_only(module: str) -> None:
    allowed = {"torch", "flowavenet_plugin", "__future__", *sys.stdlib_module_names}
    if Path(module).name.startswith("triton_"):  # imported where it is chosen only
        allowed |= {"triton"}
    assert {name.split(".")[0] for name in imports(module)} <= allowed


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, flowavenet_plugin; print([m for m in ('torch', 'numpy', 'espnet2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    ["extract_feats", "merge_dump", "align_feats", "vocoder_inference", "evaluate", "report", "sweep", "pack"]
    + ["import_original", "export_onnx", "make_mel_inversion"],
)
def test_help_needs_no_heavy_import(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['{command}', '--help']; from flowavenet_plugin.bin import {command}\n"
        f"try:\n    {command}.main()\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, [m for m in ('torch', 'librosa', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1:] == ["0 []"], run.stdout + run.stderr

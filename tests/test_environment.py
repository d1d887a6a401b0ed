"""The environment: pins that agree with the other files, a package that is cheap to import, clear errors."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def pins() -> dict[str, str]:
    """Return name -> version of requirements.txt."""
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.split("==")[0]): line.split(";")[0].split("==")[1].strip() for line in lines}


def setup_argument(name: str) -> object:
    """Return a literal argument of the call of ``setup`` in setup.py, without running it."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    keywords = [keyword for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords]
    return next(ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == name)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with more environment variables, and give what it said."""
    environment = {**os.environ, **environment}
    return subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, timeout=120)


def program(path: Path, text: str) -> Path:
    """Write a shell script that can be called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_every_requirement_is_pinned_once() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        requirement = Requirement(line)
        assert re.fullmatch(r"[\w.-]+==\w+(\.\w+)*( *;.+)?", line), line
        assert not requirement.extras and requirement.url is None, line
    assert len(lines) == len(pins())


def test_requirements_cover_setup() -> None:
    extras = setup_argument("extras_require")
    checks = [text for text in extras["dev"] if not text.startswith("pre-commit")]  # a tool of its own, not in .venv
    for text in [*setup_argument("install_requires"), *extras["eval"], *extras["kernels"], *checks]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), text


def test_one_version_of_ruff() -> None:
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    version = re.search(r"ruff-pre-commit\s+rev: v(\S+)", config)[1]
    assert version == pins()["ruff"]
    assert f"ruff=={version}" in setup_argument("extras_require")["dev"]


def test_commands_are_named_after_modules_that_exist() -> None:
    for entry in setup_argument("entry_points")["console_scripts"]:
        module, function = entry.split("=")[1].split(":")
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], entry


def test_importing_the_package_costs_nothing() -> None:
    heavy = {"torch", "numpy", "espnet2"}
    code = f"import sys, flowavenet_plugin as p; print(p.__version__, sorted({heavy} & set(sys.modules)))"
    assert run(sys.executable, "-c", code, PYTHONPATH=str(ROOT)).stdout == "0.1.0 []\n"


def test_lazy_attribute() -> None:
    import flowavenet_plugin

    assert callable(flowavenet_plugin.load_vocoder)
    with pytest.raises(AttributeError, match="no attribute 'load_vocodr'"):
        flowavenet_plugin.load_vocodr  # noqa: B018


def test_setup_names_the_versions_found(tmp_path: Path) -> None:
    root = tmp_path / "with spaces"
    for name in ["requirements.txt", "setup.py", "local/setup_env.sh"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in ["python3", "python3.10", "python3.11", "python3.12"]:
        program(tmp_path / "bin" / name, "echo 3.9")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    result = run(root / "local/setup_env.sh", PATH=path, PYTHON="no-such-python")
    assert result.returncode == 1
    assert "Python 3.10, 3.11 or 3.12 is needed" in result.stderr
    assert "no-such-python (missing" in result.stderr and "python3.12 (3.9)" in result.stderr
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / ".complete").write_text("of another checkout")
    (root / ".venv").symlink_to(tmp_path / "theirs")
    result = run(root / "local/setup_env.sh", PATH=path)
    assert result.returncode == 1 and "is a link to" in result.stderr and (tmp_path / "theirs" / ".complete").exists()
    (root / ".venv").unlink()
    assert run(root / "local/setup_env.sh", "--check").returncode == 1
    assert run(root / "local/setup_env.sh", "--chek").returncode == 2
    assert not (root / ".venv").exists()


def test_path_sh_names_what_is_missing(tmp_path: Path) -> None:
    bare = program(tmp_path / "python3", f'exec "{sys.executable}" -I -S "$@"')
    result = run("bash", "-euc", f'. "{ROOT}/path.sh"; echo "not reached"', python=str(bare))
    assert result.returncode == 1 and result.stdout == ""
    assert "missing: espnet2 torch librosa kaldiio soundfile" in result.stderr
    assert str(ROOT / "local/setup_env.sh") in result.stderr


@pytest.mark.parametrize("copied", [False, True], ids=["installed", "copy"])
def test_path_sh_uses_the_active_python_and_this_copy(copied: bool, tmp_path: Path) -> None:
    root = ROOT
    if copied:  # the Python has the package installed from ROOT; the recipes of the copy use the copy
        root = tmp_path / "another copy"
        shutil.copytree(ROOT / "flowavenet_plugin", root / "flowavenet_plugin")
        shutil.copy(ROOT / "path.sh", root)
    kaldi_run = program(tmp_path / "kaldi/egs/wsj/s5/utils/run.pl", "")
    bin_dir = Path(sys.executable).parent
    show = "import sys, flowavenet_plugin as p; print(sys.executable, p.__file__, sep='\\n')"
    script = f'cd /; . "{root}/path.sh"; python3 -c "{show}"; command -v run.pl'
    path = f"{bin_dir}:{os.environ['PATH']}"
    result = run("bash", "-euc", script, PATH=path, KALDI_ROOT=str(tmp_path / "kaldi"), PYTHONPATH="")
    assert result.stderr == ""
    python, package, helper = map(Path, result.stdout.splitlines())
    assert (python.parent, package, helper) == (bin_dir, root / "flowavenet_plugin/__init__.py", kaldi_run)

"""The environment: pins that agree with the other files, a package that is cheap to import, clear errors."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
#: Needed, by its own word, by a package that works without: ESPnet's training and TTS code imports none of these.
NOT_NEEDED = {
    "espnet": {
        *("asteroid-filterbanks", "ci-sdr", "configargparse", "editdistance", "fast-bss-eval", "hydra-core"),
        *("importlib-metadata", "lightning", "opt-einsum", "pyworld"),  # pyworld: comes with pyworld-prebuilt
    },
    "xls-r-sqa": {"transformers"},  # distillmos imports two modules of it that don't
}


def requirements(name: str = "requirements.txt", python: str | None = None) -> list[Requirement]:
    """Return the lines of a file, or of them those for a version of Python on Linux."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    return found if python is None else [one for one in found if applies(one, python)]


def applies(requirement: Requirement, python: str) -> bool:
    """Say whether a line's marker holds for this Python on Linux."""
    place = {"python_version": python, "python_full_version": f"{python}.0", "extra": "", **LINUX}
    return requirement.marker is None or requirement.marker.evaluate(place)


LINUX = {"platform_system": "Linux", "sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"}


def pins(name: str = "requirements.txt", python: str | None = None) -> dict[str, str]:
    """Return package -> version of a file, for one version of Python (default: this one)."""
    found = requirements(name, python or "{}.{}".format(*sys.version_info))
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


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


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-oldest.txt"])
@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_once(python: str, name: str) -> None:
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[\w.-]+==\w+(\.\w+)*(; .+)?", line), line
    lines = requirements(name, python)
    assert len(lines) == len(pins(name, python))
    if name == "requirements.txt":  # a marker leaves out what a version of Python has no wheels of, and no more
        left_out = {canonicalize_name(one.name) for one in requirements()} - set(pins(name, python))
        newer = {"standard-aifc", "standard-chunk", "standard-sunau", "audioop-lts"} if python < "3.13" else set()
        onnx = {"onnx", "onnxruntime", "ml-dtypes", "flatbuffers", "speechmos"}
        assert left_out == newer | (onnx if python == "3.10" else {"exceptiongroup", "tomli"})


def test_one_range_of_python() -> None:
    allowed = SpecifierSet(setup_argument("python_requires"))
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed] == PYTHONS
    script = (ROOT / "local/setup_env.sh").read_text()
    assert f'wanted="3.10 to 3.14" pythons=({" ".join(reversed(PYTHONS))})' in script
    assert "Python 3.10 to 3.14" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("python", PYTHONS)
def test_requirements_cover_setup(python: str) -> None:
    extras = setup_argument("extras_require")
    checks = [text for text in extras["dev"] if not text.startswith("pre-commit")]  # a tool of its own, not in .venv
    onnx = [] if python == "3.10" else [*extras["onnx"], *extras["mos"]]
    found = pins(python=python)
    found["pyworld"] = found["pyworld-prebuilt"]  # the same module
    for text in [*setup_argument("install_requires"), *extras["eval"], *extras["kernels"], *checks, *onnx]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)]), text


def test_the_oldest_are_the_lower_bounds_of_setup() -> None:
    oldest, extras = pins("requirements-oldest.txt", "3.10"), setup_argument("extras_require")
    bounds = {}
    for text in [*setup_argument("install_requires"), *extras["eval"], *extras["onnx"], *extras["mos"]]:
        requirement = Requirement(text)
        for bound in requirement.specifier:
            if bound.operator == ">=":
                bounds[canonicalize_name(requirement.name)] = bound.version
    bounds.pop("pyworld")  # the same module from pyworld-prebuilt, of one version everywhere
    assert bounds["torch"] == bounds["torchaudio"]
    assert bounds == {name: oldest[name] for name in bounds}


def test_what_the_oldest_environment_gets() -> None:
    """The script's own choice of lines: the oldest instead of their like, no CUDA library twice."""
    text = (ROOT / "local/setup_env.sh").read_text()
    function = text[text.index("all_pins() {") : text.index("\n}\n", text.index("all_pins() {")) + 3]
    names = [str(ROOT / "requirements.txt"), str(ROOT / "requirements-oldest.txt")]
    said = run("bash", "-euc", f'requirements=("$@"); {function} all_pins', "bash", *names)
    assert said.returncode == 0, said.stderr
    lines = [one for one in map(Requirement, said.stdout.splitlines()) if applies(one, "3.10")]
    got = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in lines}
    assert len(got) == len(lines)
    newest, oldest = pins(python="3.10"), pins("requirements-oldest.txt", "3.10")
    cuda = {name for name in newest if name.startswith(("nvidia-", "cuda-"))}
    assert got == {**{name: newest[name] for name in set(newest) - cuda}, **oldest}
    only = run("bash", "-euc", f'requirements=("$@"); {function} all_pins', "bash", names[0]).stdout.splitlines()
    assert [str(Requirement(line)) for line in only] == [str(one) for one in requirements()]


@pytest.mark.parametrize("python", PYTHONS)
def test_all_dependencies_are_pinned(python: str) -> None:
    """By the installed packages' own word; pip is told not to ask (--no-deps)."""
    if not version("torch").startswith(pins()["torch"]):
        pytest.skip(f"torch {version('torch')}: not the environment of requirements.txt")
    found = pins(python=python)
    lacking = []
    for name in found:
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # of another version of Python, or pesq, which is built where there is a compiler
        for requirement in map(Requirement, needed):
            if applies(requirement, python) and canonicalize_name(requirement.name) not in found:
                if canonicalize_name(requirement.name) not in NOT_NEEDED.get(name, set()):
                    lacking.append(f"{name}: {requirement}")
    assert lacking == []


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
    for name in ["requirements.txt", "requirements-oldest.txt", "setup.py", "local/setup_env.sh"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in ["python3", *(f"python{python}" for python in PYTHONS)]:
        program(tmp_path / "bin" / name, "echo 3.9")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    result = run(root / "local/setup_env.sh", PATH=path, PYTHON="no-such-python")
    assert result.returncode == 1
    assert "Python 3.10 to 3.14 is needed" in result.stderr
    assert "no-such-python (missing" in result.stderr
    assert all(f"python{python} (3.9)" in result.stderr for python in PYTHONS)
    result = run(root / "local/setup_env.sh", "--oldest", PATH=path)
    assert "Python 3.10 to 3.12 is needed" in result.stderr and "python3.13" not in result.stderr
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

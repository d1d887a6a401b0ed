"""The compiled library: made once and whole, without a warning; what happens where it can't be made or kept."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from flowavenet_plugin.kernels import choices, compiled, compiler, products

from .conftest import INSTRUCTIONS, missing_flags

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
CROSS_COMPILER = "aarch64-linux-gnu-gcc"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-std=c11", "-Wno-unknown-pragmas")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder of its own for the library, and nothing chosen."""
    monkeypatch.setenv(compiler.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(choices.FUSED, "1")
    for name in (choices.MARCH, "CC"):
        monkeypatch.delenv(name, raising=False)
    compiled.functions.cache_clear()
    yield tmp_path / "cache"
    monkeypatch.undo()
    compiled.functions.cache_clear()


@pytest.fixture(scope="module")
def quick_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A compiler that hands out what the real one made once."""
    folder = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiler.CACHE, str(folder))
        patch.setenv(choices.FUSED, "1")
        patch.delenv("CC", raising=False)
        compiler.load()
    (made,) = folder.glob("*.so")
    command = folder / "cc"
    copy = f'for word; do [ "$before" = -o ] && cp {made} "$word"; before=$word; done\n'
    command.write_text(f"#!/bin/sh\n{copy}exit 0\n")
    command.chmod(0o755)
    return str(command)


def works() -> bool:
    """Whether there are functions, and they compute."""
    compiled.functions.cache_clear()
    if compiled.functions() is None:
        return False
    out = products.Matrix(2 * torch.eye(4, dtype=torch.float32)).multiply(torch.ones(3, 4), torch.empty(3, 4))
    return bool((out == 2).all())


@needs_compiler
def test_it_is_compiled_once_and_whole(cache: Path, quick_compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", quick_compiler)
    assert works()
    (made,) = cache.iterdir()
    before = made.stat().st_mtime_ns
    assert works() and made.stat().st_mtime_ns == before


def test_without_compiler_torch_does_it_and_one_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\n[ $1 = --version ] || { echo 'x.c: error: no such option' >&2; exit 3; }\n")
    failing.chmod(0o755)
    for given, reason in (
        ("false", "'false' failed with status 1"),
        (str(tmp_path / "none"), f"No such file or directory: '{tmp_path / 'none'}'"),
        (str(failing), f"'{failing}' failed with status 3: x.c: error: no such option"),
    ):
        caplog.clear()
        monkeypatch.setenv("CC", given)
        compiled.functions.cache_clear()
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda _: compiled.functions(), range(8))) == [None] * 8
        assert compiled.functions() is None and not compiled.takes(torch.zeros(1))
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and reason in record.getMessage()
        assert f"takes about {compiler.COST} as long" in record.getMessage()


def test_who_wants_no_functions_is_not_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(choices.FUSED, "0")
    assert not works() and not compiled.takes(torch.zeros(1)) and not caplog.records


@needs_compiler
def test_an_empty_name_of_the_compiler_is_none(
    quick_compiler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", f"{Path(quick_compiler).parent}:/usr/bin:/bin")
    for empty in ("", "  "):
        monkeypatch.setenv("CC", empty)
        assert works()
    assert not caplog.records


@needs_compiler
@pytest.mark.parametrize("home", [True, False])
def test_a_library_that_cant_be_kept_works_all_the_same(
    home: bool,
    quick_compiler: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CC", quick_compiler)
    (tmp_path / "file").touch()
    if home:
        monkeypatch.setenv(compiler.CACHE, str(tmp_path / "file" / "cache"))
    else:
        monkeypatch.delenv(compiler.CACHE)
        monkeypatch.setattr(Path, "home", no_home)
    assert works()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "can't be kept" in record.getMessage()
    assert ("Not a directory" if home else "no home folder") in record.getMessage()
    assert compiler.CACHE in record.getMessage() and sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@needs_compiler
def test_a_kept_library_that_cant_be_loaded_is_made_anew(
    cache: Path,
    quick_compiler: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CC", quick_compiler)
    assert works()
    (made,) = cache.iterdir()
    other = tmp_path / "other" / made.name  # the loaded one may not be touched
    other.parent.mkdir()
    other.write_bytes(b"\x7fELF of another system")
    monkeypatch.setenv(compiler.CACHE, str(other.parent))
    assert works() and other.stat().st_size == made.stat().st_size and not caplog.records


@needs_compiler
def test_other_systems_get_libraries_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [compiler._key(["cc"]), compiler._key(["cc"]), compiler._key(["cc", "-march=x86-64-v3"])]
    monkeypatch.setattr(compiler.platform, "libc_ver", lambda: ("glibc", "2.17"))
    keys.append(compiler._key(["cc"]))
    monkeypatch.setattr(compiler, "_processor", lambda: b"another")
    keys.append(compiler._key(["cc"]))
    assert keys[0] == keys[1] and len(set(keys)) == 4


@needs_compiler
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_the_sources_compile_without_a_warning(tmp_path: Path, instructions: str) -> None:
    if instructions != "native" and missing_flags("x86-64-v3"):
        pytest.skip("this is no x86 processor")
    compile_all("cc", tmp_path, f"-march={instructions}")


@pytest.mark.skipif(shutil.which(CROSS_COMPILER) is None, reason=f"no cross compiler ({CROSS_COMPILER})")
@pytest.mark.parametrize("march", ["armv8-a", "armv8.6-a+bf16", "armv9-a"])
def test_the_sources_compile_for_aarch64(tmp_path: Path, march: str) -> None:
    compile_all(CROSS_COMPILER, tmp_path, f"-march={march}")
    head = (tmp_path / "out.so").read_bytes()[:20]
    assert head[:4] == b"\x7fELF" and head[18] == 0xB7  # the number of the architecture


def compile_all(command: str, folder: Path, *flags: str) -> None:
    """Compile a library, where any warning is an error."""
    sources = map(str, compiler.SOURCES)
    command = [command, *compiler.FLAGS, *flags, *WARNINGS, *sources, "-o", str(folder / "out.so"), "-lm"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def test_c_takes_what_python_says_it_takes() -> None:
    text = "\n".join(path.read_text() for path in sorted(compiler.FOLDER.glob("*")))
    found = re.findall(r"^(?:void|long) (\w+|OF\(\w+\))\(([^()]*)\) \{", text, flags=re.MULTILINE)
    given = {name: "".join(map(letter, taken.split(","))) for name, taken in found}
    expected = {name: f"{letters}i" for name, letters in compiled.FUNCTIONS.items()}
    expected.update({f"OF({name})": f"{letters}i" for name, letters in compiled.FUNCTIONS_OF_KINDS.items()})
    expected.update({name: "" for name in (*compiled.CONSTANTS, "use_one_thread")})
    assert given == expected


def letter(argument: str) -> str:
    """Say how Python names the type of an argument of C."""
    if argument.strip() == "void":
        return ""
    return "a" if "*" in argument else {"long": "i", "float": "f"}[argument.split()[0]]

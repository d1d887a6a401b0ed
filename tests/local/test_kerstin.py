"""The sets of Kerstin's voice: by the order of metadata.csv, from an archive of a server on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from archive_server import Server, pack
from local_scripts import ROOT, run

#: In the order of the list, which isn't that of their names.
IDS = [f"de_rhasspy-{number:04d}" for number in (7, 4, 9, 1, 3, 8, 2)]
SIZES = ("--num_train", 3, "--num_dev", 1, "--num_eval", 2)
ANY = ("--sha256", "any")


def make_corpus(folder: Path) -> Path:
    """Write a corpus in the layout of the real one."""
    (folder / "verified").mkdir(parents=True)
    for number, utt in enumerate(IDS):
        tone = 0.1 * np.sin(np.arange(4800) * (0.02 + 0.01 * number))
        soundfile.write(folder / f"verified/{utt}.flac", tone, 48000)
    (folder / "metadata.csv").write_text("".join(f"{utt}|Grüße, Satz {utt}\n" for utt in IDS), encoding="utf-8")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the archive, named by its version as that of the real one."""
    served = Server(pack(make_corpus(tmp_path / "made/dataset-voice-kerstin-abc")), "abc.tar.gz")
    yield served
    served.http.shutdown()
    served.http.server_close()


def prepare(folder: Path, *options: object) -> tuple[int, str]:
    """Run the recipe's data.sh."""
    return run(folder, *options, of="egs/kerstin/voc1/local")


def ids(folder: Path, name: str) -> list[str]:
    """Return the utterances of a set."""
    return [line.split()[0] for line in (folder / "data" / name / "wav.scp").read_text().splitlines()]


def test_downloaded_and_cut_by_the_order_of_the_list(tmp_path: Path, server: Server) -> None:
    server.cut = len(server.content) // 2  # the connection ends; the rest is asked for
    options = ("--commit", "abc", "--url", server.url, *SIZES, *ANY)
    status, message = prepare(tmp_path, *options, "--test_sets", "dev eval1 eval2")
    assert status == 0, message
    assert server.asked[0] is None and server.asked[1].startswith("bytes=")
    found = [ids(tmp_path, name) for name in ("tr_no_dev", "dev", "eval1", "eval2")]
    assert found == [IDS[:3], IDS[3:4], IDS[4:6], IDS[6:]]
    assert (tmp_path / "data/dev/text").read_text() == f"{IDS[3]} Grüße, Satz {IDS[3]}\n"
    assert (tmp_path / "data/dev/utt2spk").read_text() == f"{IDS[3]} kerstin\n"


def test_a_copy_of_the_corpus(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    status, message = prepare(tmp_path, "--db_root", corpus, *SIZES, *ANY)
    assert status == 0 and ids(tmp_path, "eval1") == IDS[4:6], message
    assert not (tmp_path / "data/eval2").exists()


def test_another_version_has_its_own_archive(tmp_path: Path) -> None:
    script = ROOT / "egs/kerstin/voc1/local/data.sh"
    call = [script, "--python", "echo", "--commit", "abc", "--stage", "-1", "--stop_stage", "-1", "--db_root", ""]
    env = {name: value for name, value in os.environ.items() if name != "KERSTIN"}
    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "/archive/abc.tar.gz --output_dir downloads --folder dataset-voice-kerstin-abc" in done.stdout


@pytest.mark.parametrize(
    "options, words",
    [
        ((*SIZES,), r"of another version of the corpus: sha256 [0-9a-f]{64}, c650c\w+ is wanted"),
        ((*SIZES, *ANY, "--num_train", 6), "num_train 6, num_dev 1 and num_eval 2 .* of 7 utterances"),
        ((*SIZES, *ANY, "--num_dev", 0), "num_dev 0"),
        ((*SIZES, *ANY, "--test_sets", "a b c"), "one or two evaluation sets"),
        ((*SIZES, *ANY, "--test_sets", "tr_no_dev"), "one or two evaluation sets"),
    ],
)
def test_refused_before_anything_is_written(tmp_path: Path, options: tuple, words: str) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    status, message = prepare(tmp_path, "--db_root", corpus, *options)
    assert status == 1 and re.search(words, message), message
    assert not (tmp_path / "data").exists()


def test_a_copy_with_holes(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    (corpus / f"verified/{IDS[1]}.flac").unlink()
    status, message = prepare(tmp_path, "--db_root", corpus, *SIZES, *ANY)
    assert status == 1 and f"1 of 7 recordings are missing or empty: {IDS[1]}" in message, message
    shutil.rmtree(corpus / "verified")
    status, message = prepare(tmp_path, "--db_root", corpus, *SIZES, *ANY)
    assert status == 1 and "no verified in it" in message, message
    assert not (tmp_path / "data").exists()


def test_the_recipe_names_options_of_run_sh() -> None:
    options = re.findall(r"^ +--([a-z_]+) ", (ROOT / "egs/kerstin/voc1/run.sh").read_text(), re.MULTILINE)
    known = (ROOT / "run.sh").read_text()
    assert options and all(re.search(rf"^{option}=", known, re.MULTILINE) for option in options)

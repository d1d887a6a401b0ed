"""Lists and texts as users bring them: a byte order mark, other encodings, blank lines, a missing last newline."""

from __future__ import annotations

import codecs
import os
import subprocess
from pathlib import Path

import pytest

import tiny_corpus
from flowavenet_plugin.bin import vocoder_inference
from flowavenet_plugin.data.scp import read_ids, read_scp
from flowavenet_plugin.data.settings import read_settings
from flowavenet_plugin.tasks.lists import check_lists
from tiny_voice import make_voice

ROOT = Path(__file__).resolve().parents[2]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(codecs.BOM_UTF8 + "a ein Wört\nb two\n".encode())
    assert read_scp(tmp_path / "text") == {"a": "ein Wört", "b": "two"}
    assert read_ids(tmp_path / "text") == ["a", "b"]
    (tmp_path / "conf.yaml").write_bytes(codecs.BOM_UTF8 + b"seed: 1\n")
    assert read_settings(tmp_path / "conf.yaml") == {"seed": 1}


@pytest.mark.parametrize("read", [read_scp, read_ids, read_settings])
def test_other_encodings_are_named_with_their_line(tmp_path: Path, read: object) -> None:
    (tmp_path / "text").write_bytes("a: 1\nb: Wört\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"text:2: not UTF-8 text \(b'\\xf6rt\\n'\)"):
        read(tmp_path / "text")
    (tmp_path / "text").write_text("a: 1\n", encoding="utf-16")
    with pytest.raises(ValueError, match="text: not UTF-8 text but UTF-16"):
        read(tmp_path / "text")


def test_ids_alone_or_with_more(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("utt1\n\n utt2 x y\r\n\t\nutt3")
    assert read_ids(tmp_path / "keys") == ["utt1", "utt2", "utt3"]
    (tmp_path / "keys").write_text("utt1\nutt2\nutt1 x\n")
    with pytest.raises(ValueError, match="keys:3: utterance utt1 occurs twice, in line 1 as well"):
        read_ids(tmp_path / "keys")


def test_training_refuses_a_mark_that_its_reader_takes_for_an_id(tmp_path: Path) -> None:
    folder = tiny_corpus.make_corpus(tmp_path, n_utts=2)
    paths = [(f"{folder}/wav.scp", "speech", "sound"), (f"{folder}/feats.scp", "feats", "kaldi_ark")]
    check_lists(paths, [], tiny_corpus.N_MELS, "training")
    (folder / "wav.scp").write_bytes(codecs.BOM_UTF8 + (folder / "wav.scp").read_bytes())
    with pytest.raises(ValueError, match="wav.scp begins with a byte order mark"):
        check_lists(paths, [], tiny_corpus.N_MELS, "training")


def helper(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run functions of the recipe's stages."""
    script = f"set -euo pipefail; . {ROOT}/local/stage_helpers.sh; {command}"
    env = {**os.environ, "PATH": f"{ROOT}/utils:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    "content",
    [b"a 1\nb 2\nc 3\n", b"a 1\nb 2\nc 3", b"\n\na 1\n \t\nb 2\r\n\nc 3\n\n\n\n", codecs.BOM_UTF8 + b"a 1\nb 2\nc 3"],
)
def test_every_job_has_an_utterance(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list").write_bytes(content)
    assert helper(tmp_path, "jobs_for list 8").stdout == "3\n"
    assert helper(tmp_path, "split_list list parts name 3").returncode == 0
    assert [read_scp(tmp_path / f"parts/name.{job}.scp") for job in (1, 2, 3)] == [{"a": "1"}, {"b": "2"}, {"c": "3"}]
    assert len(read_scp(tmp_path / "list")) == 3
    (tmp_path / "list").write_text("\n \n")
    stopped = helper(tmp_path, "jobs=$(jobs_for list 8); echo went on")
    assert stopped.returncode == 1 and "no utterances in list" in stopped.stderr and not stopped.stdout


def test_decoding_of_nothing_is_refused_and_bare_keys_are_taken(tmp_path: Path) -> None:
    folder, model = tiny_corpus.make_corpus(tmp_path / "data", n_utts=3), make_voice(tmp_path / "voice")
    command = ["--model_file", str(model), "--output_dir", str(tmp_path / "out"), "--scp"]
    (tmp_path / "empty.scp").write_text("\n")
    (tmp_path / "keys").write_text("utt1\nutt2")
    with pytest.raises(SystemExit, match="vocoder_inference: error: no utterances in .*empty.scp"):
        vocoder_inference.main([*command, str(tmp_path / "empty.scp")])
    with pytest.raises(SystemExit, match="no utterances in .*empty.scp"):
        vocoder_inference.main([*command, f"{folder}/feats.scp", "--key_file", str(tmp_path / "empty.scp")])
    assert not (tmp_path / "out").exists()
    vocoder_inference.main([*command, f"{folder}/feats.scp", "--key_file", str(tmp_path / "keys")])
    assert list(read_scp(tmp_path / "out/wav/wav.scp")) == ["utt1", "utt2"]

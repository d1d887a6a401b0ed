"""LJSpeech from wherever it is to data folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local_scripts import ROOT, SETS, assert_matches, lists, make_corpus, run, sizes

MINI = ROOT.parent / "shared/data/ljspeech_mini"


@pytest.mark.skipif(not MINI.is_dir(), reason=f"no real clips at {MINI}")
def test_real_clips(tmp_path: Path) -> None:
    assert run(tmp_path, *sizes(2, 2), ljspeech=str(MINI))[0] == 0
    text = {name: (tmp_path / "data" / name / "text").read_text().splitlines() for name in SETS}
    assert [len(text[name]) for name in SETS] == [20, 2, 2]
    assert [line.split()[0] for line in text["dev"] + text["eval1"]] == [f"LJ001-00{i}" for i in (21, 22, 23, 24)]
    wavs = (tmp_path / "data/tr_no_dev/wav.scp").read_text().splitlines()
    assert all(Path(line.split()[1]).is_file() for line in wavs)


def test_data_folders(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    status, message = run(tmp_path, "--db_root", "corpus", *sizes())
    assert (status, message) == (0, "data/tr_no_dev: 3 utterances\ndata/dev: 1 utterances\ndata/eval1: 2 utterances\n")
    found = lists(tmp_path)
    assert found["tr_no_dev/text"] == "".join(f"LJ001-000{i} Mister {i} said\n" for i in range(3))
    assert found["dev/wav.scp"] == "LJ001-0003 corpus/wavs/LJ001-0003.wav\n"
    assert found["eval1/utt2spk"] == "LJ001-0004 LJ\nLJ001-0005 LJ\n"
    assert found["eval1/spk2utt"] == "LJ LJ001-0004 LJ001-0005\n"
    assert corpus.is_dir()


def test_names_of_sets(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus")
    names = ("--train_set", "train", "--valid_set", "valid", "--test_sets", "valid test", "--data_dir", "kaldi")
    assert run(tmp_path, "--db_root", "corpus", *sizes(), *names)[0] == 0
    assert sorted(os.listdir(tmp_path / "kaldi")) == ["test", "train", "valid"]
    status, message = run(tmp_path, "--db_root", "corpus", *sizes(), "--test_sets", "a b")
    assert status == 1 and "three different sets are wanted" in message and "tr_no_dev dev a b" in message


@pytest.mark.parametrize("where", ["db_root", "above db_root", "LJSPEECH", "above LJSPEECH", "downloads", "both"])
def test_corpus_is_found(tmp_path: Path, where: str) -> None:
    base = "downloads" if where == "downloads" else "disk"
    make_corpus(tmp_path / base / "LJSpeech-1.1")
    given = base if where.startswith("above") else f"{base}/LJSpeech-1.1"
    options = ("--db_root", given) if "db_root" in where or where == "both" else ()
    ljspeech = {"both": "/nowhere", "downloads": "downloads"}.get(where, given if "LJSPEECH" in where else None)
    status, message = run(tmp_path, *options, *sizes(), ljspeech=ljspeech)
    assert status == 0, message
    assert lists(tmp_path)["dev/wav.scp"] == f"LJ001-0003 {base}/LJSpeech-1.1/wavs/LJ001-0003.wav\n"


def no_metadata(corpus: Path) -> None:
    (corpus / "metadata.csv").unlink()


def no_wavs(corpus: Path) -> None:
    (corpus / "wavs").rename(corpus / "wave")


def no_folder(corpus: Path) -> None:
    corpus.rename(corpus.with_name("elsewhere"))


def some_lost(corpus: Path) -> None:
    for i in (1, 4):
        (corpus / f"wavs/LJ001-000{i}.wav").unlink()
    (corpus / "wavs/LJ001-0002.wav").write_bytes(b"")


def more_lines(corpus: Path) -> None:
    lines = [f"LJ002-000{i}|a|a\n" for i in range(7)]
    (corpus / "metadata.csv").write_text("".join(lines))


def empty_metadata(corpus: Path) -> None:
    (corpus / "metadata.csv").write_text("\n")


def duplicate(corpus: Path) -> None:
    with open(corpus / "metadata.csv", "a") as file:
        file.write("LJ001-0002|again|again\n")


def no_text(corpus: Path) -> None:
    with open(corpus / "metadata.csv", "a") as file:
        file.write("LJ001-0009||\n")


def bad_line(corpus: Path) -> None:
    with open(corpus / "metadata.csv", "a") as file:
        file.write("LJ001-0007\n")


def bad_id(corpus: Path) -> None:
    with open(corpus / "metadata.csv", "a") as file:
        file.write("../x|a|a\n")


BAD = {
    no_metadata: "the corpus at corpus is incomplete: no metadata.csv in it",
    no_wavs: "the corpus at corpus is incomplete: no wavs in it",
    no_folder: "there is no corpus at corpus: no such folder",
    some_lost: "corpus: 3 of 6 .* missing or empty: LJ001-0004, LJ001-0002, LJ001-0001 .*wavs/LJ001-0004.wav",
    more_lines: "7 of 7 recordings are missing or empty: LJ002-0000, .*LJ002-0004, ... ",
    empty_metadata: "the corpus at corpus is incomplete: metadata.csv is empty",
    duplicate: "the corpus at corpus: utterance LJ001-0002 occurs twice",
    no_text: "the corpus at corpus: utterance LJ001-0009 has no text",
    bad_line: "corpus/metadata.csv:7: 'LJ001-0007' is not 'id|text|normalised text'",
    bad_id: "the corpus at corpus: id '../x' and speaker 'LJ' must be words",
}


@pytest.mark.parametrize("spoil", BAD)
def test_bad_corpus(tmp_path: Path, spoil: object) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    assert run(tmp_path, "--db_root", "corpus", *sizes())[0] == 0
    before = lists(tmp_path)
    spoil(corpus)
    status, message = run(tmp_path, "--db_root", "corpus", *sizes())
    assert status == 1 and "Traceback" not in message
    assert_matches(f"^prepare_ljspeech: error: .*{BAD[spoil]}", message)
    assert lists(tmp_path) == before


@pytest.mark.parametrize(
    "options, message",
    [
        (sizes(4, 2), r"num_dev 4 \+ num_eval 2 = 6 utterances .* there are only 6"),
        ((), r"num_dev 250 \+ num_eval 250 = 500 utterances .* there are only 6"),
        (sizes(0, 2), "num_dev 0 and num_eval 2 must be 1 or more"),
        (("--num_devs", 3), "unknown option --num_devs"),
        (("--num_dev",), "option --num_dev needs a value"),
        (("word",), "unexpected argument 'word'"),
    ],
)
def test_bad_options(tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    make_corpus(tmp_path / "corpus")
    assert run(tmp_path, "--db_root", "corpus", *sizes())[0] == 0
    before = lists(tmp_path)
    status, found = run(tmp_path, "--db_root", "corpus", *options)
    assert status == 1
    assert_matches(message, found)
    assert lists(tmp_path) == before


def test_any_corpus_needs_only_a_list(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    lines = [f"u{i}\tspk{i % 2}\t{corpus}/wavs/LJ001-000{i}.wav\tText {i}\n" for i in range(6)]
    (tmp_path / "list").write_text("".join(lines))
    assert run(tmp_path, "list", *sizes(), script="make_sets.py")[0] == 0
    assert lists(tmp_path)["tr_no_dev/spk2utt"] == "spk0 u0 u2\nspk1 u1\n"
    (tmp_path / "list").write_text("u0\tspk\tx.wav\n")
    status, message = run(tmp_path, "list", *sizes(), script="make_sets.py")
    assert status == 1 and "make_sets: error: list:1: 3 fields, 4 are wanted" in message

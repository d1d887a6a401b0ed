"""The corpora of the voice in the box: two of real speech, and sets that hold out clips of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from local_scripts import SETS, make_corpus, run


def kerstin(folder: Path, count: int) -> Path:
    """Write a corpus in the layout of Kerstin's."""
    (folder / "verified").mkdir(parents=True)
    for number in range(count):
        tone = 0.1 * np.sin(np.arange(4800) * (0.02 + 0.01 * number))
        soundfile.write(folder / f"verified/K-{number:02d}.flac", tone, 48000)
    lines = "".join(f"K-{number:02d}|Satz {number}\n" for number in range(count))
    (folder / "metadata.csv").write_text(lines, encoding="utf-8")
    return folder


def prepare(folder: Path, *options: object) -> tuple[int, str]:
    """Run the recipe's data.sh."""
    return run(folder, *options, of="egs/voice/voc1/local")


def ids(folder: Path) -> dict[str, list[str]]:
    """Return the utterances of each set."""
    lists = {name: (folder / "data" / name / "wav.scp").read_text().splitlines() for name in SETS}
    return {name: [line.split()[0] for line in lines] for name, lines in lists.items()}


def options(corpus: Path) -> list[object]:
    """Return sizes for small corpora."""
    return ["--kerstin", corpus, "--num_train", 6, "--kerstin_held_out", 2, "--num_dev", 1, "--num_eval", 2]


def test_sets_hold_out_clips_of_both_corpora(tmp_path: Path) -> None:
    german, clips = kerstin(tmp_path / "kerstin", 12), make_corpus(tmp_path / "lj", 6)
    status, message = prepare(tmp_path, "--db_root", clips, *options(german), "--lj_share", 0.5)
    assert status == 0, message
    found = ids(tmp_path)
    assert found["dev"] == ["K-06", "K-07", "LJ001-0003"]
    assert found["eval1"] == ["K-08", "K-09", "LJ001-0004", "LJ001-0005"]
    repeated = [utt for utt in found["tr_no_dev"] if utt.startswith("LJ")]
    assert found["tr_no_dev"][:6] == [f"K-{number:02d}" for number in range(6)]
    assert len(repeated) == 6 and {utt.rsplit("-", 1)[0] for utt in repeated} == {f"LJ001-000{i}" for i in range(3)}
    status, message = prepare(tmp_path, "--db_root", clips, *options(german), "--lj_share", "1.0")
    assert status == 1 and "lj_share" in message and "1.0" in message


def test_kerstin_alone_will_do(tmp_path: Path) -> None:
    status, message = prepare(tmp_path, *options(kerstin(tmp_path / "kerstin", 10)))
    assert status == 0, message
    assert [len(members) for members in ids(tmp_path).values()] == [6, 2, 2]


def test_a_corpus_that_is_too_small_is_named(tmp_path: Path) -> None:
    status, message = prepare(tmp_path, *options(kerstin(tmp_path / "kerstin", 9)))
    assert status == 1 and "has 9 utterances, 10 are needed" in message


def test_stage_minus_1_finds_the_corpus_and_writes_nothing(tmp_path: Path) -> None:
    status, message = prepare(tmp_path, "--stage", -1, "--stop_stage", -1, *options(kerstin(tmp_path / "kerstin", 10)))
    assert status == 0 and "the corpus is at" in message and not (tmp_path / "data").exists()

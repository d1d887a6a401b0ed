"""merge_dump as a user runs it: good parts, and every kind of bad one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowavenet_plugin.bin import merge_dump
from flowavenet_plugin.data.scp import read_scp, write_scp
from recordings import LISTS, assert_matches, check_result, make_recordings, run, run_extract, snapshot


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Path]:
    """Four good recordings, listed in wav.scp."""
    return make_recordings(tmp_path)


@pytest.fixture
def parts(tmp_path: Path, corpus: dict[str, Path]) -> list[Path]:
    """The corpus extracted in two parts, and a complete join of the first as the earlier result."""
    for number, utts in enumerate((["utt0", "utt1"], ["utt2", "utt3"])):
        write_scp(tmp_path / f"{number}.scp", {utt: corpus[utt] for utt in utts})
        assert run_extract(tmp_path, scp=f"{number}.scp", out=f"merged/split/{number}") == ""
    folders = [tmp_path / "merged/split/0", tmp_path / "merged/split/1"]
    assert run(merge_dump.main, "--output_dir", tmp_path / "merged", folders[0]) == ""
    return folders


def merge_parts(parts: list[Path]) -> str:
    return run(merge_dump.main, "--output_dir", parts[0].parents[1], *parts)


def test_merge(parts: list[Path], corpus: dict[str, Path]) -> None:
    assert merge_parts(parts) == ""
    check_result(parts[0].parents[1], corpus)
    times = [(parts[0].parents[1] / name).stat().st_mtime_ns for name in (*LISTS, "feats_stats.npz")]
    assert times[0] == max(times), "feats.scp is last: where it is, the folder is complete"
    assert (parts[0] / "feats_extract.yaml").read_text() == (parts[0].parents[1] / "feats_extract.yaml").read_text()


def spoil(kind: str, part: Path, tmp_path: Path) -> None:
    """Make the second part bad in one way."""
    scp = read_scp(part / "feats.scp")
    if kind == "unfinished":
        (part / ".done").unlink()
    elif kind == "ids":
        write_scp(part / "wav.scp", {"utt2": "x.wav", "utt7": "y.wav"})
    elif kind == "truncated":
        os.truncate(part / "feats.ark", (part / "feats.ark").stat().st_size - 9)
    elif kind == "pipe":
        write_scp(part / "feats.scp", {**scp, "utt3": f"touch {tmp_path / 'marker'} |:5"})
    elif kind == "duplicate line":
        (part / "feats.scp").write_text(f"utt2 {scp['utt2']}\nutt2 {scp['utt3']}\n")
    elif kind == "dimension":
        run_extract(tmp_path, "--feats_extract_conf", "n_mels=40", scp="1.scp", out="other")
        write_scp(part / "feats.scp", read_scp(tmp_path / "other/feats.scp"))
    elif kind == "samples":
        write_scp(part / "utt2num_samples", {"utt2": 4200, "utt3": 9999})
    elif kind == "frames":
        write_scp(part / "utt2num_frames", {"utt2": 22, "utt3": 99})
    elif kind == "number":
        write_scp(part / "utt2num_frames", {"utt2": "many", "utt3": 22})
    elif kind == "settings":
        run_extract(tmp_path, "--feats_extract_conf", "fmin=50", scp="1.scp", out="merged/split/1")
    elif kind == "in both":
        run_extract(tmp_path, scp="wav.scp", out="merged/split/1")


BAD_PARTS = {
    "unfinished": "split/1 is unfinished",
    "ids": "feats.scp has 2 utterances, .*wav.scp has 2; 1 only in .*feats.scp: utt3; 1 only in .*wav.scp: utt7",
    "truncated": r"utt3: .*feats.ark is truncated: \d+ bytes expected, \d+ found",
    "pipe": "utterance utt3: 'touch .*' is a shell pipe",
    "duplicate line": "feats.scp:2: utterance utt2 occurs twice",
    "dimension": "utt2: features have 40 dimensions, 80 are wanted",
    "samples": "utt3: 9999 samples don't fit 22 frames of hop 200, which need 4200 to 4400 samples",
    "frames": "utt3: 99 frames in .*utt2num_frames, 22 in the ark",
    "number": "utt2: 'many' in .*utt2num_frames is not a number",
    "settings": "different feature settings: fmin is 80 in .*split/0 and 50 in .*split/1",
    "in both": "utt0 is in both .*split/0 and .*split/1",
}


@pytest.mark.parametrize("kind", BAD_PARTS)
def test_bad_part(tmp_path: Path, parts: list[Path], kind: str) -> None:
    spoil(kind, parts[1], tmp_path)
    before = snapshot(tmp_path / "merged")
    assert_matches(f"merge_dump: error: .*{BAD_PARTS[kind]}", merge_parts(parts))
    assert snapshot(tmp_path / "merged") == before
    assert not (tmp_path / "marker").exists()

"""Stage 1 on the forms that users have: segments, channels, archives and HDF5. The dump holds utterances alone."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import yaml

from flowavenet_plugin.bin import merge_dump
from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.data.scp import open_feats, read_scp, write_scp
from recordings import FS, assert_matches, check_result, make_recordings, run, run_extract, snapshot, write_wav

SECOND = np.random.default_rng(0).integers(-9999, 9999, (FS, 2)).astype(np.int16)
AS_FLOAT = SECOND.astype(np.float32) / 32768


def check_dump(folder: Path, wanted: dict[str, np.ndarray]) -> None:
    """The folder holds these utterances: audio that ESPnet2 can read, features of it and its length."""
    wavs, feats, samples = (read_scp(folder / name) for name in ("wav.scp", "feats.scp", "utt2num_samples"))
    assert list(wavs) == list(feats) == list(samples) == list(wanted)
    fbank = build_feats_extract("fbank", {"fs": FS, "hop_length": 200})
    for utt, audio in wanted.items():
        found, fs = soundfile.read(wavs[utt], dtype="float32")
        assert fs == FS and int(samples[utt]) == len(audio)
        np.testing.assert_allclose(found, audio, atol=1e-7)
        np.testing.assert_array_equal(open_feats(folder / "feats.scp")[utt], extract(fbank, found, fs, utt)[1])


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two recordings of a second, that segments cut into three utterances."""
    for channel, name in enumerate(("r1", "r2")):
        soundfile.write(tmp_path / f"{name}.wav", SECOND[:, channel], FS)
    write_scp(tmp_path / "wav.scp", {name: tmp_path / f"{name}.wav" for name in ("r1", "r2")})
    (tmp_path / "segments").write_text("u1 r1 0 0.5\nu2 r1 0.5 -1\nu3 r2 0.25 1\n")
    return tmp_path


CUT = {"u1": AS_FLOAT[:8000, 0], "u2": AS_FLOAT[8000:, 0], "u3": AS_FLOAT[4000:, 1]}


def test_segments_beside_the_list_are_cut(two: Path) -> None:
    assert run_extract(two) == ""
    check_dump(two / "out", CUT)
    assert run(merge_dump.main, "--output_dir", two / "merged", two / "out") == ""
    assert list(read_scp(two / "merged/wav.scp")) == list(CUT)
    before = snapshot(two / "out")
    assert run_extract(two) == "" and snapshot(two / "out") == before
    (two / "segments").write_text("u1 r1 0 0.75\nu3 r2 0 -1\n")  # from 0 to -1 is all of a file
    assert run_extract(two) == ""
    check_dump(two / "out", {"u1": AS_FLOAT[:12000, 0], "u3": AS_FLOAT[:, 1]})
    assert read_scp(two / "out/wav.scp")["u3"] == str(two / "r2.wav") and os.listdir(two / "out/wav") == ["u1.wav"]


def test_a_part_of_the_segments(two: Path) -> None:
    (two / "part").write_text("u3 r2 0.25 1\n")
    assert run_extract(two, "--segments", two / "part") == ""
    check_dump(two / "out", {"u3": CUT["u3"]})


def test_segments_with_another_rate(two: Path) -> None:
    for name in ("r1", "r2"):
        write_wav(two / f"{name}.wav", 22050, fs=22050)
    (two / "segments").write_text("u1 r1 0 0.5\nu2 r1 0.5 -1\nu3 r2 0.2 1\n")
    assert_matches("3 of 3 .*u1: sampling rate 22050 Hz", run_extract(two))
    assert run_extract(two, "--resample", "true") == ""
    assert read_scp(two / "out/utt2num_samples") == {"u1": "8000", "u2": "8000", "u3": "12800"}


def test_impossible_times_are_named_and_cost_no_other(two: Path) -> None:
    (two / "segments").write_text("u1 r1 0 0.5\nu2 r1 1.25 1.5\nu3 r2 0.25 9\n")
    message = run_extract(two)
    assert_matches("2 of 3 utterances are bad .*u2: .*r1.wav ends at 1 s, but the utterance starts at 1.25 s", message)
    assert_matches("u3: .*r2.wav ends at 1 s, but the utterance at 9 s", message)
    assert run_extract(two, "--skip_bad_utts", "true") == ""
    check_dump(two / "out", {"u1": CUT["u1"]})
    assert list(read_scp(two / "out/bad_utts")) == ["u2", "u3"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("u1 r1 0.5 0.25", "utterance u1: from 0.5 to 0.25 s is impossible"),
        ("u1 r7 0 1", "utterance u1 is of recording r7, which is not in .*wav.scp"),
        ("", "no utterances in .*segments"),
    ],
)
def test_impossible_segments_are_told_before_anything(two: Path, line: str, message: str) -> None:
    assert run_extract(two) == ""
    before = snapshot(two / "out")
    (two / "segments").write_text(f"{line}\n")
    assert_matches(f"extract_feats: error: .*{message}", run_extract(two))
    assert snapshot(two / "out") == before


def test_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", SECOND, FS)
    soundfile.write(tmp_path / "b.wav", SECOND[:, 0], FS)
    write_scp(tmp_path / "wav.scp", {"a": tmp_path / "a.wav", "b": tmp_path / "b.wav"})
    assert_matches("1 of 2 .*a: .*a.wav has 2 channels, 1 is wanted: .*--channel 0 ... 1", run_extract(tmp_path))
    for channel, wanted in (("0", AS_FLOAT[:, 0]), ("mix", AS_FLOAT.mean(axis=1, dtype=np.float32))):
        assert run_extract(tmp_path, "--channel", channel) == ""
        check_dump(tmp_path / "out", {"a": wanted, "b": AS_FLOAT[:, 0]})
        assert read_scp(tmp_path / "out/wav.scp")["b"] == str(tmp_path / "b.wav")  # is what it was
    assert_matches(r"1 of 2 .*b: .*b.wav has 1 channel\(s\), .*no channel 1", run_extract(tmp_path, "--channel", "1"))
    for value in ("-1", "left", "²"):
        assert run_extract(tmp_path, f"--channel={value}") == "2"


def test_audio_in_an_archive_becomes_files(tmp_path: Path) -> None:
    audio = {utt: (FS, SECOND[:, i]) for i, utt in enumerate(("a", "b"))}
    kaldiio.save_ark(str(tmp_path / "wav.ark"), audio, scp=str(tmp_path / "wav.scp"))
    wanted = {"a": AS_FLOAT[:, 0], "b": AS_FLOAT[:, 1]}
    assert run_extract(tmp_path) == ""
    check_dump(tmp_path / "out", wanted)
    before = snapshot(tmp_path / "out")
    assert run_extract(tmp_path) == "" and snapshot(tmp_path / "out") == before
    (tmp_path / "segments").write_text("u1 b 0.5 1\n")
    assert run_extract(tmp_path) == ""
    check_dump(tmp_path / "out", {"u1": AS_FLOAT[8000:, 1]})


def test_hdf5_becomes_files_of_the_rate_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 is read by h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["wave"], file["feats"] = AS_FLOAT[:, 0], np.zeros((3, 2), np.float32)
    write_scp(tmp_path / "wav.scp", {"a": tmp_path / "a.h5"})
    assert run_extract(tmp_path, "--log_level", "WARNING") == ""
    check_dump(tmp_path / "out", {"a": AS_FLOAT[:, 0]})
    assert "1 of 1 recordings are HDF5 files, which don't tell their rate: taken as 16000 Hz" in caplog.text


def test_results_of_whole_files_are_not_made_again(tmp_path: Path) -> None:
    """They have the mark that versions without segments and channels gave."""
    wavs = make_recordings(tmp_path)
    run_extract(tmp_path)
    settings = yaml.safe_load((tmp_path / "out/feats_extract.yaml").read_text())
    files = [[utt, str(path), path.stat().st_size, path.stat().st_mtime_ns] for utt, path in wavs.items()]
    mark = hashlib.sha256(json.dumps([files, settings, False]).encode()).hexdigest()
    assert (tmp_path / "out/.done").read_text().strip() == mark
    check_result(tmp_path / "out", wavs)

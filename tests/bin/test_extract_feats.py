"""extract_feats as a user runs it: good input, every kind of bad input, and being killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import tiny_corpus
from flowavenet_plugin.bin import extract_feats, merge_dump
from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.data.scp import check_arks, open_feats, read_audio, read_scp, write_scp
from recordings import (
    FS,
    assert_matches,
    check_result,
    command,
    make_recordings,
    run,
    run_extract,
    snapshot,
    write_wav,
)


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Path]:
    """Four good recordings, listed in wav.scp."""
    return make_recordings(tmp_path)


def test_good_recordings(tmp_path: Path, corpus: dict[str, Path]) -> None:
    assert run_extract(tmp_path) == ""
    check_result(tmp_path / "out", corpus)
    settings = yaml.safe_load((tmp_path / "out/feats_extract.yaml").read_text())
    assert settings["feats_extract"] == "fbank"
    assert settings["feats_extract_conf"]["hop_length"] == 200 and settings["feats_extract_conf"]["fmin"] == 80
    assert not (tmp_path / "out/wav").exists() and not (tmp_path / "out/bad_utts").exists()


def test_complete_result_is_left_alone(tmp_path: Path, corpus: dict[str, Path]) -> None:
    run_extract(tmp_path)
    before = snapshot(tmp_path / "out")
    assert run_extract(tmp_path) == ""
    assert snapshot(tmp_path / "out") == before
    run_extract(tmp_path, "--feats_extract_conf", "n_mels=40")
    assert check_arks(tmp_path / "out/feats.scp")["utt0"] == (21, 40)
    run_extract(tmp_path)
    write_wav(corpus["utt1"], 6000)
    run_extract(tmp_path)
    check_result(tmp_path / "out", corpus)


@pytest.mark.parametrize("damage", ["truncate", "remove", "list"])
def test_damaged_result_is_made_again(tmp_path: Path, corpus: dict[str, Path], damage: str) -> None:
    run_extract(tmp_path)
    ark = tmp_path / "out/feats.ark"
    if damage == "truncate":
        os.truncate(ark, ark.stat().st_size - 5)
    elif damage == "remove":
        ark.unlink()
    else:
        (tmp_path / "out/wav.scp").write_text("utt0 in/utt0.wav\n")
    assert run_extract(tmp_path) == ""
    check_result(tmp_path / "out", corpus)


def test_replaced_result_takes_the_joined_list_with_it(tmp_path: Path, corpus: dict[str, Path]) -> None:
    """The joined list would point into arks that are no longer there."""
    run_extract(tmp_path)
    merged = ("--merged_dir", tmp_path / "merged")
    assert run(merge_dump.main, "--output_dir", tmp_path / "merged", tmp_path / "out") == ""
    run_extract(tmp_path, *merged)
    assert (tmp_path / "merged/feats.scp").exists(), "the result is complete, nothing was replaced"
    make_bad("nan", corpus["utt2"])
    run_extract(tmp_path, *merged)
    assert (tmp_path / "merged/feats.scp").exists(), "nothing was replaced by a bad one"
    write_wav(corpus["utt2"], 7000)
    run_extract(tmp_path, *merged)
    assert not (tmp_path / "merged/feats.scp").exists() and (tmp_path / "merged/wav.scp").exists()


def test_original_features_come_with_their_audio(tmp_path: Path, corpus: dict[str, Path]) -> None:
    assert run_extract(tmp_path, "--feats_extract", "original") == ""
    for utt, path in read_scp(tmp_path / "out/wav.scp").items():
        assert path == str(tmp_path / f"out/wav/{utt}.wav")
        wav, fs = read_audio(path, utt)
        assert fs == FS and len(wav) == 200 * check_arks(tmp_path / "out/feats.scp")[utt][0]
        assert np.abs(wav).max() == pytest.approx(0.999)
    before = snapshot(tmp_path / "out")
    assert run_extract(tmp_path, "--feats_extract", "original") == "" and snapshot(tmp_path / "out") == before
    assert run_extract(tmp_path) == ""  # back to the audio as it is: the scaled copies go
    check_result(tmp_path / "out", corpus)
    assert not (tmp_path / "out/wav").exists()


def test_resample(tmp_path: Path, corpus: dict[str, Path]) -> None:
    write_wav(corpus["utt2"], 8000, fs=2 * FS)
    assert run_extract(tmp_path, "--resample", "true") == ""
    wavs = read_scp(tmp_path / "out/wav.scp")
    assert wavs["utt1"] == str(corpus["utt1"]) and wavs["utt2"] == str(tmp_path / "out/wav/utt2.wav")
    assert soundfile.info(wavs["utt2"]).samplerate == FS and soundfile.info(wavs["utt2"]).subtype == "FLOAT"
    assert read_scp(tmp_path / "out/utt2num_samples")["utt2"] == "4000"
    feats = extract(build_feats_extract("fbank", {"fs": FS, "hop_length": 200}), *read_audio(wavs["utt2"], "a"), "a")[1]
    np.testing.assert_array_equal(open_feats(tmp_path / "out/feats.scp")["utt2"], feats)


def make_bad(kind: str, path: Path) -> None:
    """Put one kind of bad recording in place of a good one."""
    if kind == "missing":
        path.unlink()
    elif kind == "unreadable":
        path.write_text("this is no recording")
    elif kind == "truncated":
        os.truncate(path, 44 + 2 * 3000)
    elif kind in ("nan", "stereo", "integers", "loud"):
        wav = np.full((4000, 2 if kind == "stereo" else 1), {"integers": 12345.0, "loud": 3.0}.get(kind, 0.5))
        if kind == "nan":
            wav[123:125] = np.nan
        soundfile.write(path, wav, FS, subtype="FLOAT")
    else:
        settings = {
            "rate": {"fs": 22050},
            "empty": {"samples": 0},
            "silent": {"scale": 1e-4},
            "short": {"samples": 512},
        }
        write_wav(path, **settings[kind])


BAD = {
    "missing": "utt2: no such audio file: .*utt2.wav",
    "unreadable": "utt2: can't read .*utt2.wav as audio",
    "rate": "utt2: sampling rate 22050 Hz, 16000 Hz is wanted .--resample true converts it",
    "empty": "utt2: the audio is empty: 0 samples, at least 513 are wanted",
    "silent": "utt2: silent: its peak is .*e-0., at least 1e-03 is wanted",
    "short": "utt2: too short: 512 samples, at least 513 are wanted",
    "truncated": "utt2: .*utt2.wav is truncated: its header promises 4200 samples, 3000 are there",
    "nan": "utt2: 2 of 4000 samples are NaN or infinite, the first is sample 123",
    "integers": "utt2: .*utt2.wav has a peak of 12345, at most 1 is expected, .* 16-bit integers: divide .* by 32768",
    "loud": "utt2: .*utt2.wav has a peak of 3, at most 1 is expected(?!,)",
    "stereo": "utt2: .*utt2.wav has 2 channels, 1 is wanted",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_recording(tmp_path: Path, corpus: dict[str, Path], kind: str) -> None:
    make_bad(kind, corpus["utt2"])
    good = {utt: path for utt, path in corpus.items() if utt != "utt2"}
    message = run_extract(tmp_path)
    assert_matches(f"extract_feats: error: 1 of 4 utterances are bad \\({BAD[kind]}", message)
    check_result(tmp_path / "out", good)
    assert "unfinished" in run(merge_dump.main, "--output_dir", tmp_path / "merged", tmp_path / "out")
    assert run_extract(tmp_path, "--skip_bad_utts", "true") == ""
    check_result(tmp_path / "out", good)
    assert_matches(BAD[kind], read_scp(tmp_path / "out/bad_utts")["utt2"])
    assert run(merge_dump.main, "--output_dir", tmp_path / "merged", tmp_path / "out") == ""
    assert list(read_scp(tmp_path / "merged/bad_utts")) == ["utt2"]
    assert run_extract(tmp_path) != "", "what was skipped before is an error without --skip_bad_utts"


@pytest.mark.parametrize("kind", BAD)
def test_bad_recording_costs_no_earlier_result(tmp_path: Path, corpus: dict[str, Path], kind: str) -> None:
    run_extract(tmp_path)
    before = snapshot(tmp_path / "out")
    make_bad(kind, corpus["utt2"])
    assert_matches(f"{BAD[kind]}.*the earlier result in .* was left as it is", run_extract(tmp_path))
    assert snapshot(tmp_path / "out") == before


def test_bad_audio_with_resampling(tmp_path: Path, corpus: dict[str, Path]) -> None:
    soundfile.write(corpus["utt0"], np.zeros(0), 22050)
    soundfile.write(corpus["utt1"], np.full(4000, np.nan), 22050, subtype="FLOAT")
    message = run_extract(tmp_path, "--resample", "true")
    assert_matches("2 of 4 .*utt0: the audio is empty.*utt1: 4000 of 4000 samples are NaN", message)


def test_all_bad(tmp_path: Path, corpus: dict[str, Path]) -> None:
    for path in corpus.values():
        path.unlink()
    assert "4 of 4 utterances are bad" in run_extract(tmp_path)
    assert not (tmp_path / "out/feats.scp").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("utt0 {wav}\nutt0 other.wav\n", "bad.scp:2: utterance utt0 occurs twice: '.*utt0.wav' and 'other.wav'"),
        ("utt0 touch {marker} |\n", "bad.scp:1: utterance utt0: 'touch .*' is a shell pipe"),
        ("utt0\n", "bad.scp:1: utterance utt0 has no value"),
        ("", "no utterances in .*bad.scp"),
        ("../utt0 {wav}\n", "../utt0: an utterance id can't contain '/'"),
    ],
)
def test_bad_list(tmp_path: Path, corpus: dict[str, Path], content: str, message: str) -> None:
    run_extract(tmp_path)
    before = snapshot(tmp_path / "out")
    (tmp_path / "bad.scp").write_text(content.format(wav=corpus["utt0"], marker=tmp_path / "marker"))
    assert_matches(message, run_extract(tmp_path, scp="bad.scp"))
    assert snapshot(tmp_path / "out") == before
    assert not (tmp_path / "marker").exists()


def test_bad_options(tmp_path: Path, corpus: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_extract(tmp_path, "--no_such_option", "1") == "2"
    assert "unrecognized arguments: --no_such_option" in capsys.readouterr().err
    message = run_extract(tmp_path, "--feats_extract_conf", "n_shift=1")
    assert_matches("'fbank' has no setting 'n_shift'; it has: fs, n_fft", message)
    assert_matches("unknown feature type 'mfcc'", run_extract(tmp_path, "--feats_extract", "mfcc"))
    assert_matches("no such file list: .*none.scp", run_extract(tmp_path, scp="none.scp"))


def test_one_line_and_status_1(tmp_path: Path, corpus: dict[str, Path]) -> None:
    corpus["utt1"].unlink()
    done = subprocess.run(command(tmp_path, "--log_level=CRITICAL"), capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert_matches(r"\Aextract_feats: error: 1 of 4 utterances are bad \(utt1: no such audio file.*\n\Z", done.stderr)


@pytest.mark.parametrize("module", ["extract_feats", "merge_dump"])
def test_help_loads_nothing_heavy(module: str) -> None:
    subprocess.run([sys.executable, "-m", f"flowavenet_plugin.bin.{module}", "--help"], check=True, capture_output=True)
    loaded = f"import sys, flowavenet_plugin.bin.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True)


@pytest.mark.parametrize("earlier", [False, True])
def test_killed_in_the_middle(tmp_path: Path, corpus: dict[str, Path], earlier: bool) -> None:
    if earlier:
        run_extract(tmp_path)
    before = snapshot(tmp_path / "out")
    long = write_wav(tmp_path / "in/long.wav", 20 * FS)
    wavs = {f"utt{i:03d}": long for i in range(120)}
    write_scp(tmp_path / "wav.scp", wavs)
    process = subprocess.Popen(command(tmp_path), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in (tmp_path / "out").glob(".feats.ark.tmp-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list((tmp_path / "out").glob(".feats.ark.tmp-*")), "it was killed too late to show anything"
    left = {path: content for path, content in snapshot(tmp_path / "out").items() if ".tmp-" not in path}
    assert left == before
    assert (tmp_path / "out/feats.scp").exists() == earlier
    assert run_extract(tmp_path) == ""
    assert check_arks(tmp_path / "out/feats.scp").keys() == wavs.keys()
    assert not list((tmp_path / "out").glob(".*tmp*"))


def test_two_processes_do_not_mix(tmp_path: Path, corpus: dict[str, Path]) -> None:
    with extract_feats.only_process(tmp_path / "out"):
        assert "another process is writing to" in run_extract(tmp_path)


def test_a_part_may_have_bad_recordings_only(tmp_path: Path) -> None:
    """With --skip_bad_utts, which the recipe gives to each of its jobs; another part has the good ones."""
    good = tiny_corpus.make_corpus(tmp_path / "good", n_utts=2)
    conf = [f"{key}={value}" for key, value in tiny_corpus.FEATS_CONF.items()]
    options = [word for pair in conf for word in ("--feats_extract_conf", pair)]
    for utt in ("bad0", "bad1"):
        soundfile.write(tmp_path / f"{utt}.wav", np.zeros(4000), tiny_corpus.FS)
    write_scp(tmp_path / "bad.scp", {utt: tmp_path / f"{utt}.wav" for utt in ("bad0", "bad1")})

    def extract(scp: Path, part: str, *more: str) -> None:
        extract_feats.main(["--wav_scp", str(scp), "--output_dir", str(tmp_path / part), *options, *more])

    with pytest.raises(SystemExit, match="2 of 2 utterances are bad .*no good one is left"):
        extract(tmp_path / "bad.scp", "1")
    extract(tmp_path / "bad.scp", "1", "--skip_bad_utts", "true")
    extract(good / "wav.scp", "2", "--skip_bad_utts", "true")
    again = (tmp_path / "1/.done").stat().st_mtime_ns
    extract(tmp_path / "bad.scp", "1", "--skip_bad_utts", "true")
    assert (tmp_path / "1/.done").stat().st_mtime_ns == again  # complete: nothing to do
    parts = [str(tmp_path / part) for part in ("1", "2")]
    merge_dump.main(["--output_dir", str(tmp_path / "all"), *parts])
    assert list(read_scp(tmp_path / "all/feats.scp")) == ["utt0", "utt1"]
    assert list(read_scp(tmp_path / "all/bad_utts")) == ["bad0", "bad1"]
    both, alone = (np.load(tmp_path / part / "feats_stats.npz") for part in ("all", "2"))
    assert all(np.array_equal(both[key], alone[key]) for key in ("count", "sum", "sum_square"))
    with pytest.raises(SystemExit, match="none of 2 utterances is good: bad0: "):
        merge_dump.main(["--output_dir", str(tmp_path / "none"), parts[0]])
    assert not (tmp_path / "none").exists()


def test_a_little_beyond_full_scale_is_counted(
    tmp_path: Path, corpus: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    for utt, peak in (("utt0", 1.25), ("utt1", 1.5)):
        wav = np.random.default_rng(0).uniform(-1, 1, 4000)
        soundfile.write(corpus[utt], peak * wav / np.abs(wav).max(), FS, subtype="FLOAT")
    assert run_extract(tmp_path, "--log_level", "WARNING") == ""
    found = [record.message for record in caplog.records if "full scale" in record.message]
    assert len(found) == 1 and "2 of 4 recordings" in found[0] and "1.500, of utt1" in found[0]


@pytest.mark.parametrize(
    "options, message",
    [
        (["fmin=7600", "fmax=80"], "fmin 7600 Hz must be below fmax 80 Hz"),
        (["fmin=8000", "fmax=null"], "fmin 8000 Hz must be below fmax 8000 Hz"),
        (["n_mels=400"], r"n_mels 400 with n_fft 1024 at 16000 Hz: \d+ bands hold no frequency"),
    ],
)
def test_impossible_settings_are_refused_before_anything(
    tmp_path: Path, corpus: dict[str, Path], options: list[str], message: str
) -> None:
    conf = [word for option in options for word in ("--feats_extract_conf", option)]
    assert_matches(f"extract_feats: error: .*{message}", run_extract(tmp_path, *conf))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "vocoder_conf, message",
    [
        ("upsample_scales: [16, 16]", r"conf.yaml: upsample_scales \[16, 16\] give 256 .* hop_length is 200"),
        ("{upsample_scales: [10, 20], prediction_order: 8, mel_range: [0, 8000]}", r"mel_range .* \[80.0, 7600.0\]"),
        ("{upsample_scales: [10, 20], n_blok: 2}", "conf.yaml: vocoder_conf .*n_blok"),
    ],
)
def test_a_model_that_cannot_be_trained_on_them_is_told_first(
    tmp_path: Path, corpus: dict[str, Path], vocoder_conf: str, message: str
) -> None:
    (tmp_path / "conf.yaml").write_text(f"vocoder_conf:\n  {vocoder_conf}\n")
    assert_matches(message, run_extract(tmp_path, "--train_config", tmp_path / "conf.yaml"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "conf.yaml").write_text("vocoder_conf:\n  {upsample_scales: [10, 20], prediction_order: 8}\n")
    assert run_extract(tmp_path, "--train_config", tmp_path / "conf.yaml") == ""

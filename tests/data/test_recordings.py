"""Recordings and what of them is an utterance: segments, channels, archives and HDF5."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from flowavenet_plugin.data.audio import OVERSHOOT, Part, read_audio
from flowavenet_plugin.data.recordings import Recording, read_files, read_recordings
from flowavenet_plugin.data.scp import write_scp

FS = 8000
NOISE = np.random.default_rng(0).integers(-9999, 9999, (FS, 2)).astype(np.int16)
AS_FLOAT = NOISE.astype(np.float32) / 32768


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of two recordings of a second."""
    for name in ("r1", "r2"):
        soundfile.write(tmp_path / f"{name}.wav", NOISE[:, 0], FS)
    write_scp(tmp_path / "wav.scp", {name: tmp_path / f"{name}.wav" for name in ("r1", "r2")})
    return tmp_path


# Segments


def test_segments_say_what_the_utterances_are(data: Path) -> None:
    assert list(read_recordings(data / "wav.scp")) == ["r1", "r2"]
    (data / "segments").write_text("u1 r1 0.25 0.75\nu2\tr1 0.75 -1\n\nu0 r2 0 1 0\r\n")
    found = read_recordings(data / "wav.scp")
    r1, r2 = str(data / "r1.wav"), str(data / "r2.wav")
    wanted = {
        "u1": Recording(r1, Part(0.25, 0.75)),
        "u2": Recording(r1, Part(0.75, -1)),
        "u0": Recording(r2, Part(0, 1, 0)),
    }
    assert list(found.items()) == list(wanted.items())
    audio = {utt: read_audio(each.entry, utt, part=each.part) for utt, each in found.items()}
    np.testing.assert_array_equal(audio["u1"][0], AS_FLOAT[2000:6000, 0])
    np.testing.assert_array_equal(audio["u2"][0], AS_FLOAT[6000:, 0])
    np.testing.assert_array_equal(audio["u0"][0], AS_FLOAT[:, 0])
    assert {fs for _, fs in audio.values()} == {FS}


def test_segments_of_elsewhere(data: Path) -> None:
    (data / "segments").write_text("u1 r1 0 1\n")
    (data / "part").write_text("u9 r2 0.5 -1\n")
    assert list(read_recordings(data / "wav.scp", data / "part")) == ["u9"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("u1 r1 0.5 0.25", "segments: utterance u1: from 0.5 to 0.25 s is impossible"),
        ("u1 r1 0.5 0.5", "utterance u1: from 0.5 to 0.5 s is impossible"),
        ("u1 r1 -0.5 0.5", "utterance u1: from -0.5 to 0.5 s is impossible"),
        ("u1 r1 0.5 -2", "utterance u1: from 0.5 to -2 s is impossible"),
        ("u1 r1 nan 1", "utterance u1: from nan to 1 s is impossible"),
        ("u1 r1 0 inf", "utterance u1: from 0 to inf s is impossible"),
        ("u1 r1 start end", "utterance u1: 'start' and 'end' are not start and end in seconds"),
        ("u1 r1 0.5", "utterance u1: 'r1 0.5' is not 'recording start end'"),
        ("u1 r1 0 1 left", "utterance u1: the channel 'left' is no number from 0"),
        ("u1 r9 0 1", "utterance u1 is of recording r9, which is not in .*wav.scp"),
        ("u1 r1 0 1\nu1 r1 0 1", "utterance u1 occurs twice"),
        ("u1", "utterance u1 has no value"),
    ],
)
def test_impossible_segments(data: Path, line: str, message: str) -> None:
    (data / "segments").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=message):
        read_recordings(data / "wav.scp")


@pytest.mark.parametrize(
    "part, message",
    [
        (Part(1, -1), "u1: .*r1.wav ends at 1 s, but the utterance starts at 1 s"),
        (Part(3, 4), "u1: .*r1.wav ends at 1 s, but the utterance starts at 3 s"),
        (Part(0.5, 1.6), "u1: .*r1.wav ends at 1 s, but the utterance at 1.6 s"),
    ],
)
def test_segments_beyond_their_recording(data: Path, part: Part, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_audio(data / "r1.wav", "u1", part=part)


def test_rounded_times_are_cut_at_the_end_and_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    audio, _ = read_audio(data / "r1.wav", "u1", part=Part(0.5, 1 + OVERSHOOT))
    np.testing.assert_array_equal(audio, AS_FLOAT[4000:, 0])
    assert "r1.wav ends at 1 s, the utterance at 1.5 s: it is cut there" in caplog.text
    audio, _ = read_audio(data / "r1.wav", "u1", part=Part(0.5, 1.0))
    assert len(audio) == 4000 and len(caplog.records) == 1


@pytest.mark.parametrize("name", ["text", "utt2spk"])
def test_transcripts_and_speakers_are_by_utterance(data: Path, name: str) -> None:
    (data / "segments").write_text("u1 r1 0 0.5\nu2 r1 0.5 1\n")
    (data / name).write_text("u1 one\n")  # one may lack
    assert len(read_recordings(data / "wav.scp")) == 2
    (data / name).write_text("r1 one\nr2 two\n")
    with pytest.raises(ValueError, match=rf"{name}: utterance u1 isn't there, but its recording r1 is \(2 of 2"):
        read_recordings(data / "wav.scp")


def test_who_wants_whole_files_does_not_ignore_segments(data: Path) -> None:
    assert read_files(data / "wav.scp") == {name: str(data / f"{name}.wav") for name in ("r1", "r2")}
    (data / "segments").write_text("u1 r1 0 0.5\n")
    with pytest.raises(ValueError, match="wav.scp lists recordings, which .*segments cuts .* dump/"):
        read_files(data / "wav.scp")


def test_neither_does_training(data: Path) -> None:
    from flowavenet_plugin.tasks.lists import check_lists

    (data / "segments").write_text("u1 r1 0 0.5\n")
    paths = [(str(data / "wav.scp"), "speech", "sound")]
    with pytest.raises(ValueError, match="wav.scp lists recordings, which .*segments cuts"):
        check_lists(paths, [], 80, "training")


# Channels


@pytest.mark.parametrize(
    "channel, wanted", [(0, AS_FLOAT[:, 0]), (1, AS_FLOAT[:, 1]), ("mix", AS_FLOAT.mean(axis=1, dtype=np.float32))]
)
def test_channels(tmp_path: Path, channel: int | str, wanted: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE, FS)
    audio, _ = read_audio(tmp_path / "a.wav", "u1", part=Part(0.5, -1, channel))
    assert audio.dtype == np.float32 and audio.shape == (4000,)
    np.testing.assert_allclose(audio, wanted[4000:], atol=1e-7)


def test_channels_that_are_not_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE, FS)
    soundfile.write(tmp_path / "mono.wav", NOISE[:, 0], FS)
    with pytest.raises(ValueError, match=r"u1: .*a.wav has 2 channels, 1 is wanted: .*--channel 0 ... 1.*channel mix"):
        read_audio(tmp_path / "a.wav", "u1")
    with pytest.raises(ValueError, match=r"u1: .*a.wav has 2 channel\(s\), counted from 0: there is no channel 2"):
        read_audio(tmp_path / "a.wav", "u1", part=Part(channel=2))
    with pytest.raises(ValueError, match=r"mono.wav has 1 channel\(s\), .*no channel 1"):
        read_audio(tmp_path / "mono.wav", "u1", part=Part(channel=1))
    for channel in (0, "mix"):
        np.testing.assert_array_equal(
            read_audio(tmp_path / "mono.wav", "u1", part=Part(channel=channel))[0], AS_FLOAT[:, 0]
        )


# Archives


def kaldi_wavs(path: Path, utts: tuple[str, ...] = ("u0", "u1", "u2")) -> dict[str, str]:
    """An archive as Kaldi's wav-copy writes it."""
    kaldiio.save_ark(str(path), {utt: (FS, NOISE[1000 * i :, 0]) for i, utt in enumerate(utts)}, scp=f"{path}.scp")
    return dict(line.split() for line in Path(f"{path}.scp").read_text().splitlines())


def contained(path: Path, kind: str, utts: tuple[str, ...] = ("u0", "u1", "u2")) -> dict[str, str]:
    """An archive as ESPnet2's format_wav_scp.sh --audio_format flac.ark (or wav.ark) writes it."""
    entries = {}
    with open(path, "wb") as file:
        for i, utt in enumerate(utts):
            content = io.BytesIO()
            soundfile.write(content, NOISE[1000 * i :, 0], FS, format=kind)
            length = len(content.getvalue())
            digits = (length.bit_length() + 7) // 8
            file.write(f"{utt} ".encode())
            entries[utt] = f"{path}:{file.tell()}"
            file.write(b"AUDIO" + bytes([digits]) + length.to_bytes(digits, "little") + content.getvalue())
    return entries


@pytest.mark.parametrize("kind", ["kaldi", "flac", "wav", "ogg"])
def test_audio_in_archives(tmp_path: Path, kind: str) -> None:
    entries = kaldi_wavs(tmp_path / "wav.ark") if kind == "kaldi" else contained(tmp_path / "wav.ark", kind)
    write_scp(tmp_path / "wav.scp", entries)
    for i, (utt, recording) in enumerate(read_recordings(tmp_path / "wav.scp").items()):
        wanted = AS_FLOAT[1000 * i :, 0]
        audio, fs = read_audio(recording.entry, utt)
        assert fs == FS and audio.shape == wanted.shape and recording.file == str(tmp_path / "wav.ark")
        assert not recording.is_plain_file()
        np.testing.assert_allclose(audio, wanted, atol=1.0 if kind == "ogg" else 0)
        part, _ = read_audio(recording.entry, utt, part=Part(0.25, 0.5))
        np.testing.assert_allclose(part, wanted[2000:4000], atol=1.0 if kind == "ogg" else 0)
    if kind in ("kaldi", "flac", "wav"):
        theirs = kaldiio.load_mat(entries["u1"])[1]
        np.testing.assert_allclose(read_audio(entries["u1"], "u1")[0], theirs if kind != "kaldi" else theirs / 32768)


def test_a_bare_flac_in_an_archive(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", NOISE[:, 0], FS)
    (tmp_path / "wav.ark").write_bytes(b"u1 " + (tmp_path / "a.flac").read_bytes() + b"u2 rest")
    np.testing.assert_array_equal(read_audio(f"{tmp_path}/wav.ark:3", "u1")[0], AS_FLOAT[:, 0])


def test_truncated_archives(tmp_path: Path) -> None:
    for entries in (kaldi_wavs(tmp_path / "a.ark"), contained(tmp_path / "b.ark", "flac")):
        path = entries["u2"].split(":")[0]
        os.truncate(path, os.path.getsize(path) - 7)
        read_audio(entries["u1"], "u1")
        with pytest.raises(ValueError, match=rf"u2: {path}.* is truncated: .*(6000 samples|bytes expected)"):
            read_audio(entries["u2"], "u2")


def test_what_is_no_audio_in_an_archive(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "marker"),)

    entries = kaldi_wavs(tmp_path / "a.ark")
    start = int(entries["u1"].split(":")[1])
    streamed = bytearray((tmp_path / "a.ark").read_bytes())
    streamed[start + 4 : start + 8] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "streamed.ark").write_bytes(streamed)
    (tmp_path / "pickle.ark").write_bytes(b"u1 PKL" + pickle.dumps(Touch()))
    kaldiio.save_ark(str(tmp_path / "feats.ark"), {"u1": np.zeros((3, 2), np.float32)})
    kaldiio.save_ark(str(tmp_path / "text.ark"), {"u1": np.zeros((3, 2), np.float32)}, text=True)
    messages = {
        f"streamed.ark:{start}": "the WAV at byte .* doesn't tell its length",
        "pickle.ark:3": "there is a pickle at byte 3",
        "feats.ark:3": "there are features at byte 3 of .*, not audio",
        "text.ark:3": "there are features at byte 3 of .*, not audio",
        "a.ark:1": "no audio at byte 1 of .*a.ark, which has .* bytes: found b'",
        "a.ark:999999": "no audio at byte 999999 of",
        f"a.ark:{start}[5:9]": "is a range of samples, which isn't taken: .*segments",
        f"a.ark:{start}[9:5]": r"the range \[9:5\] can't be",
        "none.ark:5": "no such audio file",
        "a.ark": "can't read .*a.ark as audio",
    }
    for entry, message in messages.items():
        with pytest.raises(ValueError, match=f"^u1: .*{message}"):
            read_audio(f"{tmp_path}/{entry}", "u1")
    assert not (tmp_path / "marker").exists()


def test_who_wants_whole_files_is_told_of_archives(tmp_path: Path) -> None:
    write_scp(tmp_path / "wav.scp", kaldi_wavs(tmp_path / "wav.ark"))
    with pytest.raises(ValueError, match="u0: '.*wav.ark:3' in .* is a part of a file, .* dump/"):
        read_files(tmp_path / "wav.scp")
    soundfile.write(tmp_path / "a:12", NOISE, FS, format="WAV")
    write_scp(tmp_path / "wav.scp", {"a": tmp_path / "a:12", "b": tmp_path / "none.wav"})
    assert read_files(tmp_path / "wav.scp") == {"a": f"{tmp_path}/a:12", "b": f"{tmp_path}/none.wav"}


def test_archives_are_found_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = kaldi_wavs(tmp_path / "wav.ark")
    (tmp_path / "data").mkdir()
    write_scp(tmp_path / "data/wav.scp", {utt: Path(entry).name for utt, entry in entries.items()})
    monkeypatch.chdir("/")
    found = read_recordings(tmp_path / "data/wav.scp")
    assert {utt: recording.entry for utt, recording in found.items()} == entries


# HDF5


def test_audio_of_parallel_wavegan(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 is read by h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["wave"], file["feats"], file["cube"] = AS_FLOAT[:, 0], np.zeros((3, 2), np.float32), np.zeros((2, 2, 2))
        file["both"] = AS_FLOAT
    path = tmp_path / "a.h5"
    assert not Recording(str(path)).is_plain_file()
    audio, fs = read_audio(path, "u1", hdf5_fs=FS)
    assert fs == FS and audio.dtype == np.float32
    np.testing.assert_array_equal(audio, AS_FLOAT[:, 0])
    part, _ = read_audio(f"{path}:both", "u1", part=Part(0.25, 0.5, 1), hdf5_fs=FS)
    np.testing.assert_array_equal(part, AS_FLOAT[2000:4000, 1])
    with pytest.raises(ValueError, match=r"u1: .*a.h5 is HDF5, which doesn't tell its sampling rate"):
        read_audio(path, "u1")
    with pytest.raises(ValueError, match=r"u1: can't read .*a.h5 as audio: it has no dataset 'none'"):
        read_audio(f"{path}:none", "u1", hdf5_fs=FS)
    with pytest.raises(ValueError, match=r"u1: 'cube' in .*a.h5 has the shape \(2, 2, 2\)"):
        read_audio(f"{path}:cube", "u1", hdf5_fs=FS)

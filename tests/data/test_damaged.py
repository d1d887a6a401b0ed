"""Damage that tests/test_fuzz.py has found, each kind once: the message names the file, and no memory is taken."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowavenet_plugin.data.audio import Part, read_audio
from flowavenet_plugin.data.decoded import update_lists
from flowavenet_plugin.data.provenance import read_sources
from flowavenet_plugin.data.recordings import read_recordings
from flowavenet_plugin.data.scp import open_feats
from flowavenet_plugin.data.settings import read_feats_settings, read_options, read_settings
from flowavenet_plugin.data.stats import read_stats, read_sums

GOOD = dict(count=np.array(2), sum=np.zeros(3), sum_square=np.ones(3))


def array(values: object) -> bytes:
    """Return the content of an array file."""
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def statistics(path: Path, **other: bytes) -> Path:
    """Write statistics of which some arrays are other bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, values in GOOD.items():
            archive.writestr(f"{key}.npy", other.get(key, array(values)))
    return path


@pytest.mark.parametrize(
    "other, message",
    [
        (dict(sum=array(np.zeros(3)).replace(b"(3,), ", b"(9" + b"9" * 10 + b",), ")), "truncated, or too large"),
        (dict(sum=array(np.zeros(3)).replace(b"(3,)", b"((((")), "holds no statistics"),
        (dict(sum=array(np.array([[1]], dtype=object))), "numbers are wanted"),
        (dict(sum=array(np.zeros(2))), r"shapes \(2,\) and \(3,\)"),
        (dict(sum=array(np.array([0.0, np.nan, 0.0]))), "not finite"),
        (dict(count=array(np.array(-1))), "count -1"),
        (dict(count=array(np.array(0))), "count 0"),
        (dict(count=b""), "holds no statistics"),
    ],
)
def test_damaged_statistics(tmp_path: Path, other: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=f"stats.npz .*{message}"):
        read_stats(statistics(tmp_path / "stats.npz", **other))


def test_statistics_of_no_frames_can_be_added(tmp_path: Path) -> None:
    np.savez(tmp_path / "stats.npz", count=0, sum=0.0, sum_square=0.0)  # a part whose utterances were all bad
    assert read_sums(tmp_path / "stats.npz") == (0, 0.0, 0.0)


def test_lists_of_decoded_sounds_in_another_encoding(tmp_path: Path) -> None:
    for name in ("made_of", "utt2rtf", "bad_utts"):
        (tmp_path / name).write_bytes(b"a \xe4 \n")
        with pytest.raises(ValueError, match=f"{name}:1: not UTF-8"):
            read_sources(tmp_path)
            update_lists(tmp_path, ["a"], {}, [])
        (tmp_path / name).unlink()


@pytest.mark.parametrize("content", ["a: " + "9" * 5000, "[" * 5000, "a: 2020-99-99", "a: !!python/name:os.mkdir"])
def test_what_yaml_can_not_be(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError, match="a.yaml is not a YAML file of plain values"):
        read_settings(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "read, content, message",
    [
        (read_options, "[a, b]", "no configuration of options"),
        (read_options, "{1: a}", "no configuration of options"),
        (read_feats_settings, "", "has no feats_extract"),
        (read_feats_settings, "{feats_extract: fbank, feats_extract_conf: [n_mels]}", "no feats_extract_conf"),
        (read_feats_settings, "{feats_extract: fbank, feats_extract_conf: {n_mels: 2}}", "hop_length .* not None"),
        (read_feats_settings, "{feats_extract: fbank, feats_extract_conf: {n_mels: 1.5}}", "n_mels .* not 1.5"),
    ],
)
def test_settings_of_another_shape(tmp_path: Path, read: Callable, content: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError, match=f"a.yaml.*{message}"):
        read(tmp_path / "a.yaml")


@pytest.mark.parametrize("number", ["9" * 30, "3" * 5000])
def test_places_that_no_file_has(tmp_path: Path, number: str) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    soundfile.write(tmp_path / "a.wav", np.zeros(80), 8000)
    for entry in (f"a.wav:{number}", f"a.npy[0:{number}]"):
        (tmp_path / "a.scp").write_text(f"utt {entry}\n")
        with pytest.raises(ValueError, match="utt: "):
            open_feats(tmp_path / "a.scp")["utt"]
    (tmp_path / "wav.scp").write_text(f"utt a.wav:{number}\n")
    with pytest.raises(ValueError, match=f"utt: no such audio file: a.wav:{number}"):
        read_audio(read_recordings(tmp_path / "wav.scp")["utt"].entry, "utt")


def test_a_sound_that_promises_more_than_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.sin(np.arange(400) / 3), 8000)
    content = bytearray(path.read_bytes())
    content[21] |= 4  # of STREAMINFO's number of samples, for 2 ** 34 more: 64 GiB of floats
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^utt: .*{path} "):
        read_audio(path, "utt")


def test_a_sound_in_blocks_is_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 8000, subtype="FLOAT")
    monkeypatch.setattr("flowavenet_plugin.data.audio._BLOCK", 256)
    for channel in (0, 1):
        sound, _ = read_audio(tmp_path / "a.wav", "utt", part=Part(0.01, 0.1, channel))
        np.testing.assert_array_equal(sound, noise[80:800, channel])

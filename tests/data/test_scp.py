"""File lists and what they point at: round trips, and that damage is noticed and named."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from flowavenet_plugin.data.scp import (
    ArkWriter,
    atomic_open,
    check_arks,
    check_feats,
    check_fit,
    check_same_ids,
    open_feats,
    read_audio,
    read_files,
    read_scp,
    write_scp,
)

FEATS = {f"utt{i}": np.random.default_rng(i).normal(size=(5 + i, 4)).astype(np.float32) for i in range(3)}


@pytest.fixture
def scp(tmp_path: Path) -> Path:
    """feats.scp of FEATS, with its ark beside it."""
    with ArkWriter(tmp_path / "feats.ark", tmp_path / "feats.scp") as writer:
        for utt, feats in FEATS.items():
            writer[utt] = feats
    return tmp_path / "feats.scp"


class Touch:
    """What a pickle with code in it looks like: loading it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


# Lists


def test_read_scp_keeps_order_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("b  two  words\n\na\tone\r\n\u00e9 ideographic\u3000space\n", encoding="utf-8")
    entries = read_scp(tmp_path / "text")
    assert list(entries.items()) == [("b", "two  words"), ("a", "one"), ("\u00e9", "ideographic\u3000space")]


@pytest.mark.parametrize(
    "content, message",
    [
        ("a x.wav\nb y.wav\na z.wav\n", r"wav.scp:3: utterance a occurs twice: 'x.wav' and 'z.wav'"),
        ("a x.wav\nb\n", r"wav.scp:2: utterance b has no value"),
        ("a x.wav\nb sph2pipe y.sph |\n", r"wav.scp:2: utterance b: 'sph2pipe y.sph \|' is a shell pipe"),
        ("a | cat x.wav\n", r"utterance a: '\| cat x.wav' is a shell pipe"),
        ("a cat x.ark |:12\n", r"utterance a: 'cat x.ark \|:12' is a shell pipe"),
        ("a cat x.ark | :12[0:3]\n", r"utterance a: .* is a shell pipe"),
        (b"a \xff\xfe\n", r"wav.scp:1: not UTF-8"),
    ],
)
def test_read_scp_refuses(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "wav.scp").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_scp(tmp_path / "wav.scp")


def test_read_scp_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.scp"):
        read_scp(tmp_path / "nothing.scp")


def test_write_scp_round_trip(tmp_path: Path) -> None:
    write_scp(tmp_path / "new" / "utt2num", {"a": 1, "b": 22})
    assert read_scp(tmp_path / "new" / "utt2num") == {"a": "1", "b": "22"}


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_scp(tmp_path / "list", {"a": 1})
    with pytest.raises(RuntimeError, match="stop"), atomic_open(tmp_path / "list") as file:
        file.write(b"half of it")
        raise RuntimeError("stop")
    assert os.listdir(tmp_path) == ["list"]
    assert read_scp(tmp_path / "list") == {"a": "1"}


def test_check_same_ids() -> None:
    check_same_ids({"a": 1, "b": 2}, ["b", "a"], "x", "y")
    with pytest.raises(ValueError, match=r"x has 8 utter.*, y has 1; 8 only in x: 0, 1, 2, 3, 4, ...; 1 only in y: a"):
        check_same_ids("01234567", "a", "x", "y")


# Features


def test_ark_round_trip(scp: Path) -> None:
    feats = open_feats(scp)
    assert len(feats) == 3 and list(feats) == list(FEATS)
    assert "utt1" in feats and "nobody" not in feats
    for utt, wanted in FEATS.items():
        assert feats[utt].dtype == np.float32 and feats[utt].flags.writeable
        np.testing.assert_array_equal(feats[utt], wanted)
        np.testing.assert_array_equal(kaldiio.load_scp(str(scp))[utt], wanted)
    assert check_arks(scp) == {utt: wanted.shape for utt, wanted in FEATS.items()}
    with pytest.raises(KeyError):
        feats["nobody"]


def test_npy_round_trip(tmp_path: Path) -> None:
    for utt, wanted in FEATS.items():
        np.save(tmp_path / f"{utt}.npy", wanted.astype(np.float64))
    write_scp(tmp_path / "feats.scp", {utt: tmp_path / f"{utt}.npy" for utt in FEATS})
    feats = open_feats(tmp_path / "feats.scp")
    for utt, wanted in FEATS.items():
        assert feats[utt].dtype == np.float32
        np.testing.assert_array_equal(feats[utt], wanted)
    assert check_arks(tmp_path / "feats.scp") == {utt: wanted.shape for utt, wanted in FEATS.items()}


@pytest.mark.parametrize("method", [1, 2, 3, 5])
def test_compressed_ark(tmp_path: Path, method: int) -> None:
    ark, scp = str(tmp_path / "c.ark"), str(tmp_path / "c.scp")
    kaldiio.save_ark(ark, FEATS, scp=scp, compression_method=method)
    assert check_arks(scp) == {utt: wanted.shape for utt, wanted in FEATS.items()}
    np.testing.assert_allclose(open_feats(scp)["utt2"], FEATS["utt2"], atol=0.05)
    os.truncate(ark, os.path.getsize(ark) - 1)
    size = os.path.getsize(ark)
    with pytest.raises(ValueError, match=f"utt2: {ark} is truncated: {size + 1} bytes expected, {size} found"):
        check_arks(scp)


def test_relative_entries_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "tts1"
    (recipe / "exp/decode/feats").mkdir(parents=True)
    np.save(recipe / "exp/decode/feats/a.npy", FEATS["utt0"])
    write_scp(recipe / "exp/decode/feats.scp", {"a": "exp/decode/feats/a.npy"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(open_feats(recipe / "exp/decode/feats.scp")["a"], FEATS["utt0"])
    write_scp(tmp_path / "copied.scp", {"a": "exp/decode/feats/a.npy"})
    with pytest.raises(ValueError, match="a: no such feature file: exp/decode/feats/a.npy"):
        check_arks(tmp_path / "copied.scp")
    monkeypatch.chdir(recipe)  # as in Kaldi: from where one is
    np.testing.assert_array_equal(open_feats(tmp_path / "copied.scp")["a"], FEATS["utt0"])


def test_two_files_of_one_relative_path_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, recipe in enumerate(("one", "two")):
        (tmp_path / recipe / "data").mkdir(parents=True)
        np.save(tmp_path / recipe / "data/a.npy", FEATS[f"utt{number}"])
        soundfile.write(tmp_path / recipe / "data/a.wav", np.zeros(10), 8000)
        write_scp(tmp_path / recipe / "feats.scp", {"a": "data/a.npy"})
        write_scp(tmp_path / recipe / "wav.scp", {"a": "data/a.wav"})
    monkeypatch.chdir(tmp_path / "one")
    np.testing.assert_array_equal(open_feats("feats.scp")["a"], FEATS["utt0"])
    assert read_files("wav.scp") == {"a": "data/a.wav"}
    message = rf"a: 'data/a\.\w+' in ../two/\w+.scp is {tmp_path}/one/data/a\.\w+ .*, but .*/two/data/a"
    for read in (lambda: open_feats("../two/feats.scp")["a"], lambda: read_files("../two/wav.scp")):
        with pytest.raises(ValueError, match=message):
            read()
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(open_feats("two/feats.scp")["a"], FEATS["utt1"])
    assert read_files("two/wav.scp") == {"a": str(tmp_path / "two/data/a.wav")}


def test_damaged_headers_and_values_name_utterance_and_file(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", FEATS["utt0"])
    good = (tmp_path / "good.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(good.replace(b"(5, 4)", b"(((((("))  # raised tokenize.TokenError
    (tmp_path / "b.npy").write_bytes(good.replace(b"(5, 4)", b"[[[[[["))
    kaldiio.save_ark(str(tmp_path / "c.ark"), {"x": FEATS["utt0"]})
    ark = (tmp_path / "c.ark").read_bytes()
    (tmp_path / "c.ark").write_bytes(ark[:7] + b"\x05" + ark[8:])  # raised AssertionError
    np.save(tmp_path / "d.npy", np.where(FEATS["utt0"] > 0, np.nan, FEATS["utt0"]))
    np.save(tmp_path / "e.npy", np.full((2, 4), 1e300))
    names = dict(a="a.npy", b="b.npy", c="c.ark:2", d="d.npy", e="e.npy")
    write_scp(tmp_path / "feats.scp", {utt: tmp_path / name for utt, name in names.items()})
    feats = open_feats(tmp_path / "feats.scp")
    for utt, name in names.items():
        with pytest.raises(ValueError, match=f"^{utt}: .*{name.split(':')[0]}"):
            feats[utt]
    for utt in "de":
        with pytest.raises(ValueError, match="are not finite"):
            feats[utt]


def test_whatever_is_damaged_gives_features_or_one_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FEATS["utt0"])
    kaldiio.save_ark(str(tmp_path / "c.ark"), {"x": FEATS["utt0"]})
    write_scp(tmp_path / "feats.scp", {"a": tmp_path / "a.npy", "c": f"{tmp_path}/c.ark:2"})
    feats, rng = open_feats(tmp_path / "feats.scp"), np.random.default_rng(0)
    for utt, path in (("a", tmp_path / "a.npy"), ("c", tmp_path / "c.ark")):
        whole = path.read_bytes()
        for _ in range(150):
            spoilt = bytearray(whole)
            for place in rng.integers(0, min(len(spoilt), 130), rng.integers(1, 4)):
                spoilt[place] = rng.integers(256)
            path.write_bytes(spoilt[: rng.integers(1, len(spoilt) + 1)] if rng.integers(2) else spoilt)
            try:
                assert np.isfinite(feats[utt]).all()
            except ValueError as error:
                assert str(error).startswith(f"{utt}: ")


@pytest.mark.parametrize(
    "cut, message",
    [
        (1, "utt2: {ark} is truncated: {size} bytes expected, {left} found"),
        (112, "utt2: {ark} is truncated: {size} bytes expected, {left} found"),
        (120, "utt2: no features at byte {offset} of {ark}, which has {left} bytes: its header is cut off"),
        (130, "utt2: no features at byte {offset} of {ark}, which has {left} bytes: found b''"),
        (140, "utt1: {ark} is truncated: {utt1_end} bytes expected, {left} found"),
    ],
)
def test_truncated_ark(scp: Path, cut: int, message: str) -> None:
    ark = scp.with_name("feats.ark")
    size = ark.stat().st_size
    os.truncate(ark, size - cut)
    matrix = 15 + FEATS["utt2"].nbytes
    message = message.format(ark=ark, size=size, left=size - cut, offset=size - matrix, utt1_end=size - matrix - 5)
    with pytest.raises(ValueError, match=message):
        check_arks(scp)
    feats = open_feats(scp)
    np.testing.assert_array_equal(feats["utt0"], FEATS["utt0"])
    with pytest.raises(ValueError, match="utt2: .*feats.ark"):
        feats["utt2"]


def test_truncated_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FEATS["utt0"])
    size = (tmp_path / "a.npy").stat().st_size
    os.truncate(tmp_path / "a.npy", size - 3)
    write_scp(tmp_path / "feats.scp", {"a": tmp_path / "a.npy"})
    with pytest.raises(ValueError, match=f"a: .*a.npy is truncated: {size} bytes expected, {size - 3} found"):
        check_arks(tmp_path / "feats.scp")


def test_wrong_offset(scp: Path) -> None:
    write_scp(scp, {"utt1": f"{scp.with_name('feats.ark')}:3", "utt2": f"{scp.with_name('feats.ark')}:99999"})
    with pytest.raises(ValueError, match=r"utt1: no features at byte 3 of .*feats.ark, which has \d+ bytes"):
        check_arks(scp)
    with pytest.raises(ValueError, match="utt2: no features at byte 99999 of .*feats.ark"):
        open_feats(scp)["utt2"]


@pytest.mark.parametrize("entry", ["touch {} |", "touch {} |:0", "| touch {}", "touch {} |:0[0:1]"])
def test_pipe_does_not_run(tmp_path: Path, entry: str) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "feats.scp").write_text(f"utt7 {entry.format(marker)}\n")
    for read in (open_feats, check_arks):
        with pytest.raises(ValueError, match="utt7.*shell pipe"):
            read(tmp_path / "feats.scp")
    assert not marker.exists()


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "a.ark").write_bytes(b"a PKL" + pickle.dumps(Touch(marker)))
    np.save(tmp_path / "b.npy", np.array([[Touch(marker)]], dtype=object), allow_pickle=True)
    write_scp(tmp_path / "feats.scp", {"a": f"{tmp_path / 'a.ark'}:2", "b": tmp_path / "b.npy"})
    for utt in "ab":
        with pytest.raises(ValueError, match=f"{utt}: no features"):
            open_feats(tmp_path / "feats.scp")[utt]
    assert not marker.exists()


@pytest.mark.parametrize("value", [np.zeros(4, np.float32), np.zeros((0, 4), np.float32), np.zeros((2, 3), np.int16)])
def test_npy_must_hold_frames(tmp_path: Path, value: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", value)
    write_scp(tmp_path / "feats.scp", {"a": tmp_path / "a.npy"})
    with pytest.raises(ValueError, match=r"a: no features of .*a.npy.* shape"):
        check_arks(tmp_path / "feats.scp")


def test_unknown_entry(tmp_path: Path) -> None:
    (tmp_path / "feats.txt").write_text("1 2 3")
    write_scp(tmp_path / "feats.scp", {"a": "feats.txt", "b": "feats.h5"})
    with pytest.raises(ValueError, match="a: 'feats.txt' in .* neither .* copy-feats"):
        check_arks(tmp_path / "feats.scp")
    with pytest.raises(ValueError, match="b: no such feature file: feats.h5"):
        open_feats(tmp_path / "feats.scp")["b"]


def test_ark_writer_is_all_or_nothing(scp: Path) -> None:
    before = {name: scp.with_name(name).read_bytes() for name in os.listdir(scp.parent)}
    with pytest.raises(RuntimeError, match="stop"), ArkWriter(scp.with_name("feats.ark"), scp) as writer:
        writer["new"] = np.zeros((1000, 80), np.float32)
        raise RuntimeError("stop")
    assert before == {name: scp.with_name(name).read_bytes() for name in os.listdir(scp.parent)}


def test_no_list_survives_its_ark(scp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two renames: the old list would point into the new ark, so it must be gone by then."""
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
    with pytest.raises(OSError, match="killed here"), ArkWriter(scp.with_name("feats.ark"), scp) as writer:
        writer["new"] = np.zeros((2, 4), np.float32)
    assert not scp.exists()


def test_ark_writer_refuses(tmp_path: Path) -> None:
    with ArkWriter(tmp_path / "feats.ark", tmp_path / "feats.scp") as writer:
        writer["a"] = FEATS["utt0"]
        with pytest.raises(ValueError, match="a: written twice"):
            writer["a"] = FEATS["utt0"]
        with pytest.raises(ValueError, match=r"b: features of shape \(0, 4\)"):
            writer["b"] = np.zeros((0, 4), np.float32)
    assert list(check_arks(tmp_path / "feats.scp")) == ["a"]


@pytest.mark.parametrize("samples, fits", [(767, False), (768, True), (769, True), (1024, True), (1025, False)])
def test_check_fit(samples: int, fits: bool) -> None:
    if fits:
        check_fit("a", samples, frames=4, hop=256)
    else:
        with pytest.raises(ValueError, match=f"a: {samples} samples don't fit 4 frames of hop 256.* 768 to 1024"):
            check_fit("a", samples, frames=4, hop=256)


def test_check_feats(scp: Path) -> None:
    shapes = check_arks(scp)
    samples = {utt: frames * 10 for utt, (frames, _) in shapes.items()}
    check_feats(shapes, samples, n_mels=4, hop=10)
    with pytest.raises(ValueError, match="utt0: features have 4 dimensions, 80 are wanted"):
        check_feats(shapes, samples, n_mels=80, hop=10)
    with pytest.raises(ValueError, match="utt1: 10 samples don't fit 6 frames"):
        check_feats(shapes, {**samples, "utt1": 10}, n_mels=4, hop=10)
    with pytest.raises(ValueError, match="1 only in the list of audio lengths: utt9"):
        check_feats(shapes, {**samples, "utt9": 10}, n_mels=4, hop=10)


# Audio


def test_read_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0, 16384, -32768, 1], np.int16), 22050)
    audio, fs = read_audio(tmp_path / "a.wav", "a")
    assert fs == 22050 and audio.dtype == np.float32
    np.testing.assert_array_equal(audio, np.float32([0, 0.5, -1, 2**-15]))


def test_bad_audio(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="u1: no such audio file: .*none.wav"):
        read_audio(tmp_path / "none.wav", "u1")
    (tmp_path / "text.wav").write_text("this is no recording")
    with pytest.raises(ValueError, match="u2: can't read .*text.wav as audio"):
        read_audio(tmp_path / "text.wav", "u2")
    (tmp_path / "zero.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="u3: can't read .*zero.wav as audio"):
        read_audio(tmp_path / "zero.wav", "u3")
    soundfile.write(tmp_path / "stereo.wav", np.zeros((100, 2)), 22050)
    with pytest.raises(ValueError, match="u4: .*stereo.wav has 2 channels, 1 is wanted"):
        read_audio(tmp_path / "stereo.wav", "u4")


def test_truncated_wav_and_flac(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20000)
    soundfile.write(tmp_path / "a.wav", noise, 22050, subtype="PCM_16")
    os.truncate(tmp_path / "a.wav", 44 + 2 * 12345)
    with pytest.raises(ValueError, match="u1: .*a.wav is truncated: .* promises 20000 samples, 12345 are there"):
        read_audio(tmp_path / "a.wav", "u1")
    soundfile.write(tmp_path / "a.flac", noise, 22050)
    os.truncate(tmp_path / "a.flac", 15000)
    with pytest.raises(ValueError, match="u2: .*a.flac"):
        read_audio(tmp_path / "a.flac", "u2")


def test_wav_of_a_streaming_writer(tmp_path: Path) -> None:
    """Both ffmpeg and sox write to pipes without knowing the length; such files are whole."""
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 22050, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "a.wav", "a")[0]) == 100

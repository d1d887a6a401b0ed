"""Generated features beside natural recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import tiny_corpus
from flowavenet_plugin.bin.align_feats import main
from flowavenet_plugin.bin.vocoder_train import main as vocoder_train
from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.data.scp import check_arks, open_feats, read_scp, write_scp
from flowavenet_plugin.data.stats import read_stats


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Return a set of natural speech, and a TTS run of it that lacks a frame, has one more, and lacks an utterance."""
    dump = tiny_corpus.make_corpus(tmp_path / "dump", n_utts=4)
    feats = open_feats(dump / "feats.scp")
    write_scp(dump / "utt2num_frames", {utt: len(values) for utt, values in feats.items()})
    settings = dict(feats_extract="fbank", feats_extract_conf=full_settings("fbank", tiny_corpus.FEATS_CONF))
    (dump / "feats_extract.yaml").write_text(yaml.safe_dump(settings))
    run = tmp_path / "exp" / "tts_x" / "decode_tf" / "tr_no_dev"
    (run / "denorm").mkdir(parents=True)
    generated = {"utt0": feats["utt0"][:-1], "utt1": np.pad(feats["utt1"], ((0, 1), (0, 0))), "utt2": feats["utt2"]}
    for utt, values in generated.items():
        np.save(run / "denorm" / f"{utt}.npy", values + np.float32(0.1))
    write_scp(run / "denorm" / "feats.scp", {utt: run / "denorm" / f"{utt}.npy" for utt in generated})
    return dump, run


def align(pair: tuple[Path, Path], output_dir: Path, *options: str) -> None:
    main(["--dump_dir", str(pair[0]), "--tts_dir", str(pair[1]), "--output_dir", str(output_dir), *options])


def test_pairs_fit_and_train(pair: tuple[Path, Path], tmp_path: Path) -> None:
    dump, run = pair
    align(pair, tmp_path / "gta")
    natural, generated = open_feats(dump / "feats.scp"), open_feats(tmp_path / "gta" / "feats.scp")
    assert list(generated) == ["utt0", "utt1", "utt2"]
    frames = {utt: len(values) for utt, values in generated.items()}
    assert frames == {"utt0": len(natural["utt0"]) - 1, "utt1": len(natural["utt1"]), "utt2": len(natural["utt2"])}
    np.testing.assert_allclose(generated["utt2"], natural["utt2"] + 0.1, rtol=1e-6)
    wavs, samples = read_scp(tmp_path / "gta" / "wav.scp"), read_scp(tmp_path / "gta" / "utt2num_samples")
    for utt, path in wavs.items():
        assert soundfile.info(path).frames == int(samples[utt]) <= frames[utt] * tiny_corpus.HOP
    whole = soundfile.read(dump / "utt0.wav", dtype="float32")[0]
    np.testing.assert_array_equal(soundfile.read(wavs["utt0"], dtype="float32")[0], whole[: int(samples["utt0"])])
    assert wavs["utt2"] == str(dump / "utt2.wav")  # nothing to cut, nothing written
    mean, _ = read_stats(tmp_path / "gta" / "feats_stats.npz")
    np.testing.assert_allclose(mean, np.concatenate(list(generated.values())).mean(axis=0), rtol=1e-4)

    vocoder_train(tiny_corpus.train_options(dump, dump, tmp_path / "natural", max_epoch=1))
    options = dict(max_epoch=1, init_param=tmp_path / "natural" / "latest.pth")
    vocoder_train(tiny_corpus.train_options(tmp_path / "gta", dump, tmp_path / "tuned", **options))
    assert (tmp_path / "tuned" / "1epoch.pth").exists()


def test_pairs_that_do_not_fit_are_all_named_and_nothing_is_lost(pair: tuple[Path, Path], tmp_path: Path) -> None:
    dump, run = pair
    align(pair, tmp_path / "gta")
    before = {path: path.read_bytes() for path in (tmp_path / "gta").rglob("*") if path.is_file()}
    frames = len(open_feats(dump / "feats.scp")["utt1"])
    np.save(run / "denorm" / "utt1.npy", np.zeros((frames + 3, tiny_corpus.N_MELS), np.float32))
    np.save(run / "denorm" / "utt2.npy", np.zeros((frames, 5), np.float32))
    with pytest.raises(SystemExit) as stop:
        align(pair, tmp_path / "gta")
    message = str(stop.value.code)
    assert f"utt1: {frames + 3} generated frames, {frames} natural" in message
    assert "utt2: generated features have 5 bands, 6 are wanted" in message
    assert {path: path.read_bytes() for path in before} == before
    np.save(run / "denorm" / "utt2.npy", np.zeros((frames + 2, tiny_corpus.N_MELS), np.float32))
    align(pair, tmp_path / "wider", "--max_difference", "9")
    assert len(check_arks(tmp_path / "wider" / "feats.scp")) == 3

    write_scp(run / "denorm" / "feats.scp", {"stranger": run / "denorm" / "utt1.npy"})
    with pytest.raises(SystemExit) as stop:
        align(pair, tmp_path / "gta")
    assert "stranger" in str(stop.value.code) and "no recording" in str(stop.value.code)

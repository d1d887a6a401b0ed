"""From text to sound with models that real ESPnet2 trained: every way in which our vocoder plugs in, one sound."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import tiny_corpus
import tiny_tts
from flowavenet_plugin.bin.align_feats import main as align_feats
from flowavenet_plugin.bin.pack import main as pack
from flowavenet_plugin.bin.vocoder_inference import main as vocoder_inference
from flowavenet_plugin.data.scp import open_feats, read_scp
from tiny_voice import make_voice

UTTS = ["utt0", "utt1", "utt2", "utt3"]
#: 8 frames per token, whatever the untuned stop token says.
LENGTH = ("--threshold", "1.0", "--minlenratio", "8", "--maxlenratio", "8")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe with a vocoder in exp/voc_x and a Tacotron2 that ESPnet2 trained in exp/tts_tacotron2."""
    folder = tiny_tts.make_recipe(tmp_path_factory.mktemp("recipe"))
    make_voice(folder / "exp" / "voc_x")
    tiny_tts.train(folder, "tacotron2", tiny_tts.TACOTRON2)
    return folder


@pytest.fixture(scope="module")
def spoken(recipe: Path) -> Path:
    """Return the run of espnet2.bin.tts_inference with our vocoder, exp/tts_tacotron2/decode/tr."""
    exp = Path("exp/tts_tacotron2")
    return recipe / tiny_tts.decode(recipe, exp, exp / "decode" / "tr", Path("exp/voc_x/model.pth"), *LENGTH)


def sounds(folder: Path) -> dict[str, np.ndarray]:
    """Waveforms of a decoded folder."""
    return {utt: soundfile.read(folder / "wav" / f"{utt}.wav", dtype="int16")[0] for utt in UTTS}


def assert_alike(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    """Equal but for the last bit of 16, which ESPnet2 and we may round differently."""
    for utt in UTTS:
        assert np.abs(one[utt]).max() > 100, "silence would always be equal"
        np.testing.assert_allclose(one[utt].astype(int), two[utt].astype(int), atol=1, err_msg=utt)


def test_the_unmodified_inference_speaks_frames_times_hop_samples(recipe: Path, spoken: Path) -> None:
    feats, wavs = open_feats(spoken / "norm" / "feats.scp"), sounds(spoken)
    assert list(feats) == UTTS
    for utt in UTTS:
        assert (
            len(wavs[utt]) == len(feats[utt]) * tiny_corpus.HOP and len(feats[utt]) == 8 * 4
        )  # and the end of sentence


def test_decoding_the_run_gives_the_same_sound(recipe: Path, spoken: Path, tmp_path: Path) -> None:
    assert (spoken / "denorm" / "feats.scp").exists()  # global_mvn: what the vocoder got
    options = ["--model_file", str(recipe / "exp/voc_x/model.pth"), "--seed", "5", "--output_dir"]
    vocoder_inference(["--tts_dir", str(spoken), *options, str(tmp_path / "run")])
    assert_alike(sounds(tmp_path / "run"), sounds(spoken))
    vocoder_inference(["--scp", str(spoken / "denorm/feats.scp"), *options, str(tmp_path / "scp")])
    assert_alike(sounds(tmp_path / "scp"), sounds(spoken))

    # Normalised features alone: the TTS model's statistics give back what denorm/ held.
    norm = recipe / "exp" / "tts_tacotron2" / "norm_only" / "tr"
    shutil.copytree(spoken / "norm", norm / "norm")
    stats = recipe / "exp/tts_stats_tacotron2/train/feats_stats.npz"
    vocoder_inference(["--tts_dir", str(norm), "--tts_stats", str(stats), *options, str(tmp_path / "norm")])
    for utt, wav in sounds(tmp_path / "norm").items():  # rounding of the features draws other noise
        assert len(wav) == len(sounds(spoken)[utt])
    with pytest.raises(SystemExit, match="--tts_stats"):
        vocoder_inference(["--tts_dir", str(norm), *options, str(tmp_path / "none")])


SPEAK = """
import sys
import numpy, torch
import flowavenet_plugin.espnet
from espnet2.bin.tts_inference import Text2Speech
speak = Text2Speech(train_config="exp/tts_tacotron2/config.yaml", model_file="exp/tts_tacotron2/1epoch.pth",
                    vocoder_file=sys.argv[1], threshold=1.0, minlenratio=8.0, maxlenratio=8.0)
for utt, text in zip(["utt0", "utt1", "utt2", "utt3"], ["abc", "cab", "bca", "acb"]):
    torch.manual_seed(5)
    out = speak(text)
    assert speak.fs == 8000
    numpy.savez(f"{sys.argv[2]}/{utt}.npz", wav=out["wav"].numpy(), feats=out["feat_gen_denorm"].numpy())
"""


def test_a_packed_model_speaks_in_all_ways_where_its_experiment_is_gone(
    recipe: Path, spoken: Path, tmp_path: Path
) -> None:
    archive, elsewhere = tmp_path / "pack" / "voice.zip", tmp_path / "elsewhere"
    pack(["--model_file", str(recipe / "exp/voc_x/model.pth"), "--outpath", str(archive)])
    elsewhere.mkdir()
    archive = archive.rename(elsewhere / "voice.zip")
    hidden = (recipe / "exp/voc_x").rename(recipe / "exp/gone")
    try:
        # an unmodified recipe
        exp = Path("exp/tts_tacotron2")
        again = tiny_tts.decode(recipe, exp, exp / "decode_zip" / "tr", archive, *LENGTH)
        assert_alike(sounds(recipe / again), sounds(spoken))
        # our command, of a zip and of a folder
        shutil.unpack_archive(archive, elsewhere / "folder")
        for given in (archive, elsewhere / "folder"):
            out = tmp_path / f"out_{given.name}"
            vocoder_inference(
                ["--tts_dir", str(spoken), "--model_file", str(given), "--seed", "5", "--output_dir", str(out)]
            )
            assert_alike(sounds(out), sounds(spoken))
        # Python
        command = [sys.executable, "-c", SPEAK, str(elsewhere / "folder"), str(tmp_path)]
        done = subprocess.run(command, cwd=recipe, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    finally:
        hidden.rename(recipe / "exp/voc_x")
    for utt in UTTS:
        with np.load(tmp_path / f"{utt}.npz") as said:
            assert len(said["wav"]) == len(said["feats"]) * tiny_corpus.HOP


def test_fine_tuning_on_teacher_forced_features(recipe: Path, tmp_path: Path) -> None:
    exp = Path("exp/tts_tacotron2")
    natural = recipe / "dump/fbank/tr"
    options = ["--use_teacher_forcing", "true", "--data_path_and_name_and_type", "dump/raw/tr/wav.scp,speech,sound"]
    forced = recipe / tiny_tts.decode(recipe, exp, exp / "decode_tf" / "tr", None, *options)
    frames = read_scp(natural / "utt2num_frames")
    for utt, feats in open_feats(forced / "denorm" / "feats.scp").items():
        assert abs(len(feats) - int(frames[utt])) <= 2

    gta = tmp_path / "gta"
    align_feats(["--tts_dir", str(forced), "--dump_dir", str(natural), "--output_dir", str(gta)])
    assert list(open_feats(gta / "feats.scp")) == UTTS
    command = tiny_corpus.train_options(
        gta, gta, tmp_path / "tuned", max_epoch=1, init_param=recipe / "exp/voc_x/model.pth"
    )
    tiny_tts.run(recipe, "-m", "flowavenet_plugin.bin.vocoder_train", *command)
    out = tmp_path / "out"
    vocoder_inference(
        ["--tts_dir", str(forced), "--model_file", str(tmp_path / "tuned/1epoch.pth"), "--output_dir", str(out)]
    )
    assert list(read_scp(out / "wav" / "wav.scp")) == UTTS


def test_a_non_autoregressive_model_speaks_too(recipe: Path, tmp_path: Path) -> None:
    durations = recipe / "dump/raw/tr/durations"
    frames = {utt: len(feats) for utt, feats in open_feats(recipe / "dump/fbank/tr/feats.scp").items()}
    # Every utterance has three letters and the end of sentence; the last takes what a division leaves.
    shares = {utt: [count // 4] * 3 + [count - 3 * (count // 4)] for utt, count in frames.items()}
    durations.write_text("".join(f"{utt} {' '.join(map(str, values))}\n" for utt, values in shares.items()))
    f0 = dict(fs=tiny_corpus.FS, n_fft=128, hop_length=tiny_corpus.HOP, f0min=100, f0max=800, reduction_factor=1)
    energy = dict(fs=tiny_corpus.FS, n_fft=128, hop_length=tiny_corpus.HOP, reduction_factor=1)
    options = ["--pitch_extract", "dio", *tiny_tts.conf("pitch_extract_conf", f0)]
    options += ["--energy_extract", "energy", *tiny_tts.conf("energy_extract_conf", energy)]
    entry = "dump/raw/tr/durations,durations,text_int"
    exp = tiny_tts.train(recipe, "fastspeech2", tiny_tts.FASTSPEECH2, entry, options=tuple(options))
    voice = Path("exp/voc_x/model.pth")
    spoken = recipe / tiny_tts.decode(recipe, exp, exp / "decode" / "tr", voice, "--data_path_and_name_and_type", entry)
    out = tmp_path / "out"
    vocoder_inference(
        ["--tts_dir", str(spoken), "--model_file", str(recipe / voice), "--seed", "5", "--output_dir", str(out)]
    )
    assert_alike(sounds(out), sounds(spoken))

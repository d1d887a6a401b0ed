"""The training task on ESPnet2's trainer, with a tiny model and corpus."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin.vocoder_train import get_parser, main
from flowavenet_plugin.data.scp import write_scp
from flowavenet_plugin.tasks.vocoder import VocoderTask, vocoder_choices
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.registry import VOCODERS


@pytest.fixture
def options(corpus: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that makes command lines for this corpus."""

    def make(output_dir: str = "exp", **changes: object) -> list[str]:
        return tiny_corpus.train_options(corpus / "train", corpus / "valid", tmp_path / output_dir, **changes)

    return make


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Read saved weights."""
    return torch.load(path, weights_only=True)


def test_printed_config_loads_back(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowavenet_plugin.bin.vocoder_train", "--print_config"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    config = yaml.safe_load(text)
    assert config["vocoder_conf"]["n_block"] == 8 and config["vocoder_conf"]["upsample_scales"] == [16, 16]
    assert config["feats_extract_conf"]["hop_length"] == 256 and config["segment_length"] == 16000
    (tmp_path / "config.yaml").write_text(text)
    args = get_parser().parse_args(["--config", str(tmp_path / "config.yaml"), "--output_dir", str(tmp_path)])
    assert args.vocoder_conf == config["vocoder_conf"]


def test_training_leaves_a_vocoder_that_speaks(options: Callable[..., list[str]], corpus: Path, tmp_path: Path) -> None:
    main(options(use_tensorboard="true", keep_nbest_models=2))
    exp = tmp_path / "exp"
    made = {path.name for path in exp.iterdir()}
    assert {"config.yaml", "checkpoint.pth", "2epoch.pth", "latest.pth", "valid.loss.best.pth"} <= made
    assert {"valid.loss.ave_2best.pth", "images", "tensorboard"} <= made
    vocoder = load_vocoder(exp / "valid.loss.ave_2best.pth")
    assert all(float(value) == 1 for key, value in vocoder.state_dict().items() if key.endswith("initialized"))
    with np.load(corpus / "train" / "feats_stats.npz") as stats:
        mean = stats["sum"] / stats["count"]
    np.testing.assert_allclose(vocoder.feats_mean, mean, rtol=1e-5)
    feats = vocoder.feats_mean + vocoder.feats_std * torch.randn(5, tiny_corpus.N_MELS)
    assert vocoder(feats).shape == (5 * tiny_corpus.HOP,)
    # The saved configuration is complete: defaults of today are written down.
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["vocoder_conf"]["kernel_size"] == 3 and config["feats_extract_conf"]["log_base"] == 10.0

    model, args = VocoderTask.build_model_from_file(model_file=exp / "valid.loss.best.pth")
    assert isinstance(model.vocoder, FloWaveNetVocoder) and args.vocoder == "flowavenet"


def test_training_learns(options: Callable[..., list[str]], tmp_path: Path) -> None:
    main(options(max_epoch=1))
    main(options("longer", max_epoch=6, num_iters_per_epoch=12))
    losses = []
    for name in ("exp", "longer"):
        states = torch.load(tmp_path / name / "checkpoint.pth", weights_only=False)["reporter"]
        losses.append(states["stats"][max(states["stats"])]["valid"]["loss"])
    assert losses[1] < losses[0] - 0.3  # nats per sample


def test_a_resumed_run_equals_an_uninterrupted_one(options: Callable[..., list[str]], tmp_path: Path) -> None:
    main(options("whole", max_epoch=3))
    main(options("resumed", max_epoch=2))
    main(options("resumed", max_epoch=3))
    whole, resumed = (weights(tmp_path / name / "3epoch.pth") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    main(options("other", max_epoch=3, seed=4))
    other = weights(tmp_path / "other" / "3epoch.pth")
    assert not all(torch.equal(whole[key], other[key]) for key in whole)


def test_fine_tuning_starts_from_the_given_weights(options: Callable[..., list[str]], tmp_path: Path) -> None:
    main(options(max_epoch=1))
    start = tmp_path / "exp" / "1epoch.pth"
    main(options("tuned", max_epoch=1, init_param=start, optim_conf="lr=0.0"))
    first, tuned = weights(start), weights(tmp_path / "tuned" / "1epoch.pth")
    # ActNorm isn't started again, and the statistics are those of the given model.
    assert all(torch.equal(first[key], tuned[key]) for key in first)


def test_a_shape_file_may_choose_some_utterances(
    options: Callable[..., list[str]], corpus: Path, tmp_path: Path
) -> None:
    lines = (corpus / "train" / "utt2num_samples").read_text().splitlines()
    (tmp_path / "some").write_text("\n".join(lines[:2]) + "\n")
    command = options(max_epoch=1, log_interval=1)
    command[command.index("--train_shape_file") + 1] = str(tmp_path / "some")
    main(command)
    assert (tmp_path / "exp" / "1epoch.pth").exists()


def test_cached_utterances_still_give_new_segments(options: Callable[..., list[str]], tmp_path: Path) -> None:
    main(options("plain", num_workers=0))
    main(options("cached", num_workers=0, max_cache_size="100MB"))
    plain, cached = (weights(tmp_path / name / "2epoch.pth") for name in ("plain", "cached"))
    assert all(torch.equal(plain[key], cached[key]) for key in plain)


def test_a_vocoder_of_a_third_party_trains(options: Callable[..., list[str]], tmp_path: Path) -> None:
    class Other(FloWaveNetVocoder):
        """One entry in ``vocoder_choices`` is all it takes."""

    vocoder_choices.classes["other"] = Other
    try:
        main(options(max_epoch=1, vocoder="other"))
        assert type(load_vocoder(tmp_path / "exp" / "latest.pth")) is Other
    finally:
        VOCODERS.pop("other")


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(segment_length=16), ["segment_length 16", "32"]),
        (dict(ngpu=99), ["--ngpu 99", f"sees {torch.cuda.device_count()}", "--ngpu 0"]),
        (dict(vocoder_conf="n_bloks=3"), ["n_bloks"]),
        (dict(feats_extract_conf="hop=3"), ["'hop'", "hop_length"]),
        (dict(feats_extract_conf="n_mels=7"), ["7", "6"]),
    ],
)
def test_options_that_cannot_be(
    options: Callable[..., list[str]], tmp_path: Path, changes: dict, words: list[str]
) -> None:
    command = options()
    for key, value in changes.items():
        command += [f"--{key}", str(value)]
    with pytest.raises(ValueError) as error:
        main(command)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "exp" / "checkpoint.pth").exists()


def test_a_batch_larger_than_the_corpus_and_segments_of_part_frames(
    options: Callable[..., list[str]], tmp_path: Path
) -> None:
    main(options(max_epoch=1, batch_size=100, num_iters_per_epoch=2, segment_length=511, use_amp="true"))
    assert (tmp_path / "exp" / "1epoch.pth").exists()
    states = torch.load(tmp_path / "exp" / "checkpoint.pth", weights_only=False)
    assert states["reporter"]["stats"][1]["train"]["total_count"] == 2  # of all six utterances each


def test_a_config_key_that_no_class_takes(
    options: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.yaml").write_text("segment_lenght: 3\n")
    with pytest.raises(SystemExit) as stop:
        main([*options(), "--config", str(tmp_path / "train.yaml")])
    assert stop.value.code == 2
    assert "segment_lenght" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit(options: Callable[..., list[str]], tmp_path: Path) -> None:
    main(options(max_epoch=1))
    config = tmp_path / "exp" / "config.yaml"
    conf = yaml.safe_load(config.read_text())
    conf["vocoder_conf"]["n_flow"] = 3
    config.write_text(yaml.safe_dump(conf))
    with pytest.raises(ValueError, match="missing: flow.blocks.0.steps.2"):
        VocoderTask.build_model_from_file(config, tmp_path / "exp" / "latest.pth")


@pytest.mark.parametrize("case", ["pipe", "other ids", "stranger", "twice", "truncated", "bands", "frames", "no bands"])
def test_lists_that_cannot_be_stop_before_training(
    options: Callable[..., list[str]], corpus: Path, tmp_path: Path, case: str
) -> None:
    broken = tiny_corpus.make_corpus(tmp_path / "broken", n_utts=3)
    scp = broken / "feats.scp"
    lines = scp.read_text().splitlines()
    words = ["utt1"]
    if case == "pipe":
        lines[1] = f"utt1 touch {tmp_path}/ran |"
        words.append("pipe")
    elif case == "other ids":
        lines[1] = lines[1].replace("utt1", "utt9", 1)
        words.append("utt9")
    elif case == "stranger":
        with open(broken / "utt2num_samples", "a") as file:
            file.write("utt8 2400\n")
        words = ["utt8", "1 of 4", "utt2num_samples"]
    elif case == "twice":
        lines.append(lines[1])
        words.append("twice")
    elif case == "truncated":
        ark = broken / "feats.ark"
        size = ark.stat().st_size
        ark.write_bytes(ark.read_bytes()[:-10])
        words = ["utt2", str(size), str(size - 10)]
    elif case == "bands":
        words = ["utt0", "6", "7"]
    elif case == "frames":
        write_scp(broken / "wav.scp", {uid: broken / f"utt{i}.wav" for i, uid in enumerate(("utt0", "utt2", "utt1"))})
        words = ["samples", "frames", "utt"]
    elif case == "no bands":
        np.savez(broken / "feats_stats.npz", count=1, sum=np.zeros(3), sum_square=np.zeros(3))
        words = ["(3,)", "6", "feats_stats.npz"]
    scp.write_text("\n".join(lines) + "\n")
    command = tiny_corpus.train_options(broken, corpus / "valid", tmp_path / "exp", num_workers=0)
    if case == "bands":
        command += ["--feats_extract_conf", "n_mels=7", "--feats_stats", "none"]
    with pytest.raises(ValueError) as error:
        main(command)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "exp" / "checkpoint.pth").exists()


def test_collected_statistics_are_of_whole_utterances(
    options: Callable[..., list[str]], corpus: Path, tmp_path: Path
) -> None:
    main(options(collect_stats="true"))
    for name in ("train", "valid"):
        with (
            np.load(corpus / name / "feats_stats.npz") as wanted,
            np.load(tmp_path / f"exp/{name}/feats_stats.npz") as got,
        ):
            assert got["count"] == wanted["count"]
            np.testing.assert_allclose(got["sum"], wanted["sum"], rtol=1e-4)
            np.testing.assert_allclose(got["sum_square"], wanted["sum_square"], rtol=1e-4)
        samples = (corpus / name / "utt2num_samples").read_text()
        assert (tmp_path / f"exp/{name}/speech_shape").read_text() == samples
    main(options("trained", max_epoch=1, feats_stats=tmp_path / "exp/train/feats_stats.npz"))

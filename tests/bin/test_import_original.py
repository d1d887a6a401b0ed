"""From an original checkpoint on disk to a vocoder that gives the original's waveform."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import golden_weights
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin.import_original import main

GOLDEN = golden_weights.load("tiny_multiscale")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_inference_equals_the_originals_reverse(tmp_path: Path, prefix: str) -> None:
    states = {prefix + key: value for key, value in GOLDEN.state_dict(torch.float32).items()}
    torch.save(dict(state_dict=states, optimizer={"state": {}}, global_step=7), tmp_path / "original.pth")
    main(["--checkpoint", str(tmp_path / "original.pth"), "--output_dir", str(tmp_path / "imported")])
    vocoder = load_vocoder(tmp_path / "imported" / "model.pth")
    feats, noise = GOLDEN.tensor("c", torch.float32)[0].T, GOLDEN.tensor("z", torch.float32)[0, 0]
    expected = GOLDEN.tensor("y", torch.float32)[0, 0]
    assert (vocoder.inference(feats, noise=noise) - expected).abs().max() < 1e-4 * expected.abs().max()
    likelihood = vocoder.log_likelihood(GOLDEN.tensor("x", torch.float32)[0, 0], feats).item()
    assert likelihood == pytest.approx(GOLDEN.number("log_p") + GOLDEN.number("logdet"), rel=1e-4)
    assert vocoder.feats_extract == "original" and vocoder.feats_extract_conf["fmin"] == 125
    lines = (tmp_path / "imported" / "import.txt").read_text().splitlines()
    assert len(lines) == len(GOLDEN.names)


def test_the_original_features_run_through_an_imported_model(tmp_path: Path) -> None:
    from flowavenet_plugin.data.features import build_feats_extract, extract

    torch.save(dict(state_dict=GOLDEN.state_dict(torch.float32)), tmp_path / "original.pth")
    main(["--checkpoint", str(tmp_path / "original.pth"), "--output_dir", str(tmp_path)])
    vocoder = load_vocoder(tmp_path / "model.pth")
    wav = torch.sin(torch.arange(5000) * 0.05).numpy() * 0.3
    made = build_feats_extract(vocoder.feats_extract, vocoder.feats_extract_conf)
    wav, feats = extract(made, wav, vocoder.fs, "tone")
    assert feats.shape[1] == vocoder.n_mels
    assert torch.isfinite(vocoder.log_likelihood(torch.from_numpy(wav), torch.from_numpy(feats)))
    assert vocoder(torch.from_numpy(feats)).shape == (len(feats) * 256,)


@pytest.mark.parametrize(
    "content, word", [(None, "no checkpoint"), (b"text", "original.pth"), ({"state_dict": 3}, "no state_dict")]
)
def test_what_is_no_checkpoint_is_refused(
    tmp_path: Path, content: object, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "original.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(SystemExit) as stop:
        main(["--checkpoint", str(path), "--output_dir", str(tmp_path / "imported")])
    assert word in str(stop.value.code) and str(path) in str(stop.value.code)
    assert not (tmp_path / "imported").exists()

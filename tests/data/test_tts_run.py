"""Features that ESPnet2's tts_inference wrote."""

from __future__ import annotations

from pathlib import Path

import kaldiio
import numpy as np
import pytest

from flowavenet_plugin.data.scp import open_feats
from flowavenet_plugin.data.stats import read_stats
from flowavenet_plugin.data.tts_run import GeneratedFeats, check_not_normalised

MEAN, STD = np.array([-2.0, -1.0, 0.5]), np.array([0.5, 1.0, 2.0])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run with norm/ and denorm/, whose entries are relative to the recipe; the current folder is another."""
    recipe = tmp_path / "egs2" / "tts1"
    folder = recipe / "exp" / "tts_x" / "decode" / "eval1"
    rng = np.random.default_rng(0)
    for name in ("norm", "denorm"):
        (folder / name).mkdir(parents=True)
    lines: dict[str, list[str]] = {"norm": [], "denorm": []}
    for utt in ("a", "b"):
        feats = rng.standard_normal((5, 3)).astype(np.float32)
        for name, values in (("norm", feats), ("denorm", feats * STD + MEAN)):
            np.save(folder / name / f"{utt}.npy", values.astype(np.float32))
            lines[name].append(f"{utt} exp/tts_x/decode/eval1/{name}/{utt}.npy")
    for name, entries in lines.items():
        (folder / name / "feats.scp").write_text("\n".join(entries) + "\n")
    count = 7
    np.savez(recipe / "stats.npz", count=count, sum=count * MEAN, sum_square=count * (STD**2 + MEAN**2))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_denorm_comes_before_norm(run: Path) -> None:
    feats = GeneratedFeats(run)
    assert feats.scp == run / "denorm" / "feats.scp" and list(feats) == ["a", "b"] and len(feats) == 2
    np.testing.assert_array_equal(feats["a"], np.load(run / "denorm" / "a.npy"))
    assert "a" in feats and "c" not in feats


def test_the_list_of_normalised_features_is_refused_where_there_is_the_other(run: Path) -> None:
    check_not_normalised(run / "denorm" / "feats.scp")
    with pytest.raises(ValueError, match="norm/feats.scp holds normalised features.*give .*/denorm/feats.scp"):
        check_not_normalised(run / "norm" / "feats.scp")
    (run / "denorm" / "feats.scp").unlink()
    check_not_normalised(run / "norm" / "feats.scp")  # a model that does not normalise


def test_norm_is_denormalised_with_the_statistics(run: Path) -> None:
    denormalised = np.load(run / "denorm" / "b.npy")
    (run / "denorm" / "feats.scp").unlink()
    stats = run.parents[3] / "stats.npz"
    feats = GeneratedFeats(run, stats)["b"]
    assert feats.dtype == np.float32
    np.testing.assert_allclose(feats, denormalised, atol=1e-6)
    np.testing.assert_allclose(read_stats(stats)[1], STD)
    np.testing.assert_array_equal(GeneratedFeats(run, "none")["b"], np.load(run / "norm" / "b.npy"))
    with pytest.raises(ValueError, match="normalised features only.*--tts_stats"):
        GeneratedFeats(run)
    with pytest.raises(FileNotFoundError, match="gone.npz"):
        GeneratedFeats(run, "gone.npz")
    np.savez(stats, count=1, sum=np.zeros(4), sum_square=np.ones(4))
    with pytest.raises(ValueError, match="a: features of 3 bands, the statistics have 4"):
        GeneratedFeats(run, stats)["a"]
    np.savez(stats, count=1)
    with pytest.raises(ValueError, match=r"stats.npz holds no statistics: it has no sum, sum_square"):
        GeneratedFeats(run, stats)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither denorm/feats.scp nor norm/feats.scp"):
        GeneratedFeats(tmp_path)


def test_arks_of_espnet1_are_read_with_paths_relative_to_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What tts_decode.py and the de-normalisation behind it leave: compressed arks, one list of all jobs' parts.
    folder = Path("exp/train_x/outputs_model.loss.best_decode_denorm/eval1")
    (tmp_path / "recipe" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "recipe")
    feats = {utt: np.linspace(-4, 0, 30).reshape(10, 3).astype(np.float32) + i / 10 for i, utt in enumerate("abc")}
    lines = []
    for job, utts in enumerate(("ab", "c"), start=1):
        with kaldiio.WriteHelper(f"ark,scp:{folder}/feats.{job}.ark,{folder}/feats.{job}.scp", 2) as writer:
            for utt in utts:
                writer[utt] = feats[utt]
        lines += (folder / f"feats.{job}.scp").read_text().splitlines()
    (folder / "feats.scp").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    read = open_feats(tmp_path / "recipe" / folder / "feats.scp")
    assert list(read) == ["a", "b", "c"]
    for utt, values in feats.items():
        assert read.shape(utt) == (10, 3) and read[utt].dtype == np.float32
        np.testing.assert_allclose(read[utt], values, atol=0.02)  # a byte per value

"""Each study of conf/tuning is the paper's configuration with one thing changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).parent.parent / "conf"


@pytest.mark.parametrize(
    ("study", "key", "value"),
    [("causal", "causal", True), ("singlescale", "block_per_split", 8), ("additive", "affine", False)],
)
def test_a_study_changes_one_key_of_the_papers_configuration(study: str, key: str, value: object) -> None:
    paper = yaml.safe_load((CONF / "train_flowavenet.yaml").read_text())
    changed = yaml.safe_load((CONF / "tuning" / f"train_flowavenet_{study}.yaml").read_text())
    assert changed["vocoder_conf"][key] == value != paper["vocoder_conf"][key]
    paper["vocoder_conf"][key] = value
    assert changed == paper


def test_every_configuration_of_the_folder_is_a_study_that_is_checked() -> None:
    names = {path.name for path in (CONF / "tuning").iterdir()}
    assert names == {f"train_flowavenet_{study}.yaml" for study in ("causal", "singlescale", "additive")}

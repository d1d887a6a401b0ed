"""What VERSA's scorer reads, and what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flowavenet_plugin.evaluation.versa import columns, read_result, score_config, scorer_command

COUNTS = dict(whisper_cer_delete=1, whisper_cer_insert=2, whisper_cer_replace=3, whisper_cer_equal=16)


def test_recognition_is_asked_for_with_transcripts_only() -> None:
    assert [module["name"] for module in yaml.safe_load(score_config(True))] == ["pseudo_mos", "speaker", "whisper_wer"]
    assert [module["name"] for module in yaml.safe_load(score_config(False))] == ["pseudo_mos", "speaker"]


def test_the_command_names_files_from_the_root() -> None:
    command = scorer_command(Path("some/where"), text=False)
    assert "--text" not in command
    assert all(Path(word).is_absolute() for word in command if "some/where" in word)


def test_results_are_read_as_json_and_as_python_writes_them() -> None:
    text = "{\"key\": \"a\", \"utmos\": 4.5}\n\n{'key': 'b', 'utmos': 3.5}\n"
    assert read_result(text, "file") == {"a": {"key": "a", "utmos": 4.5}, "b": {"key": "b", "utmos": 3.5}}


@pytest.mark.parametrize("line", ["Traceback", '{"utmos": 3}', '{"key": ', "__import__('os').getcwd()"])
def test_other_text_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="file:2: not a result of VERSA's scorer"):
        read_result(f'{{"key": "a"}}\n{line}\n', "file")


def test_error_rates_are_of_the_references_length() -> None:
    """1 deleted + 2 inserted + 3 replaced, of 1 + 3 + 16 characters."""
    answers = {"a": {"key": "a", "utmos": 4.0, "spk_similarity": 0.9, **COUNTS}, "b": {"key": "b"}}
    answers["c"] = {"key": "c", "utmos": None, "spk_similarity": float("nan")}  # what failed
    found = {column.name: dict(column.values) for column in columns(answers)}
    assert found == {"utmos": {"a": 4.0}, "spk_similarity": {"a": 0.9}, "cer": {"a": 30.0}}

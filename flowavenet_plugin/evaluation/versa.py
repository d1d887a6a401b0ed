"""What the scorer of VERSA (versa-speech-audio-toolkit) reads, and what it says: UTMOS, speaker similarity, CER, WER.

VERSA wants an environment and models of its own, so it isn't run from here.
"""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from flowavenet_plugin.evaluation.table import Column, finite

RESULT = "result.jsonl"
_ANSWERS = (
    ("utmos", "UTMOS", True),
    ("spk_similarity", "speaker similarity", True),
)
_ERROR_RATES = (("cer", "CER (%)"), ("wer", "WER (%)"))
#: Of its columns.
NAMES = (*(name for name, _, _ in _ANSWERS), *(name for name, _ in _ERROR_RATES))


def score_config(text: bool) -> str:
    """Return the yaml for ``--score_config``.

    Args:
        text: Transcripts are there, so that recognition errors can be counted.
    """
    modules: list[dict[str, Any]] = [
        {"name": "pseudo_mos", "predictor_types": ["utmos"], "predictor_args": {"utmos": {"fs": 16000}}},
        {"name": "speaker", "model_tag": "default"},
    ]
    if text:
        modules.append({"name": "whisper_wer", "model_tag": "default", "beam_size": 1, "text_cleaner": "whisper_basic"})
    return yaml.safe_dump(modules, sort_keys=False)


def scorer_command(folder: Path, text: bool) -> list[str]:
    """Return the scorer's command line, for the files in a folder, whatever folder it is run from."""
    folder = folder.absolute()
    command = ["python", "-m", "versa.bin.scorer", "--pred", f"{folder}/pred.scp", "--gt", f"{folder}/gt.scp"]
    command += ["--text", f"{folder}/text"] if text else []
    return [
        *command,
        "--score_config",
        f"{folder}/score.yaml",
        "--output_file",
        f"{folder}/{RESULT}",
        "--io",
        "soundfile",
    ]


def script(commands: Sequence[Sequence[str]]) -> str:
    """Return a shell script of these commands."""
    return (
        "#!/usr/bin/env bash\n# In the environment of VERSA; then score again: the results are merged.\nset -eu\n"
        + "".join(f"{shlex.join(command)}\n" for command in commands)
    )


def read_result(text: str, source: object) -> dict[str, dict[str, Any]]:
    """Read what the scorer wrote: a line of JSON, in older versions of Python's form, for each utterance.

    Args:
        text: Content of its output file.
        source: The file, for messages.

    Returns:
        Utterance id -> its answers.

    Raises:
        ValueError: If a line is neither, or has no ``key``; with file and line.
    """
    answers = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            answer = json.loads(line) if '"key"' in line else ast.literal_eval(line)
            answers[str(answer["key"])] = answer
        except (ValueError, SyntaxError, TypeError, KeyError):
            raise ValueError(f"{source}:{number}: not a result of VERSA's scorer: {line[:80]!r}") from None
    return answers


def columns(answers: dict[str, dict[str, Any]]) -> list[Column]:
    """Pick out the figures that there are: UTMOS (1 to 5), cosine similarity, error rates in percent.

    The scorer leaves out, or writes null or NaN for, what it couldn't compute.
    """
    found = []
    for key, heading, more_is_better in _ANSWERS:
        values = {
            utt: float(answer[key]) for utt, answer in answers.items() if isinstance(answer.get(key), (int, float))
        }
        found.append(Column(key, heading, more_is_better, finite(values)))
    for kind, heading in _ERROR_RATES:
        rates = {utt: _error_rate(answer, f"whisper_{kind}") for utt, answer in answers.items()}
        values = {utt: rate for utt, rate in rates.items() if rate is not None}
        found.append(Column(kind, heading, False, values))
    return [column for column in found if column.values]


def _error_rate(answer: dict[str, Any], key: str) -> float | None:
    """Deletions, insertions and replacements in percent of the reference's length; None if it isn't there or empty."""
    counts = [answer.get(f"{key}_{kind}") for kind in ("delete", "insert", "replace", "equal")]
    if any(count is None for count in counts):
        return None
    deleted, inserted, replaced, equal = map(float, counts)
    length = deleted + replaced + equal
    return 100.0 * (deleted + inserted + replaced) / length if length else None

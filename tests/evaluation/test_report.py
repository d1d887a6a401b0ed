"""results.md is ESPnet's form and valid Markdown."""

from __future__ import annotations

import re
import shlex

import pytest

from flowavenet_plugin.evaluation.report import environments, markdown_table, results_markdown


def test_table_has_as_many_cells_in_every_line() -> None:
    table = markdown_table(["dataset", "number"], [["eval1", "250"], ["a longer name", "1"]])
    assert table.splitlines() == [
        "| dataset | number |",
        "|---------|--------|",
        "| eval1   | 250    |",
        "| a longer name | 1      |",
    ]


def test_results_follow_espnets_form() -> None:
    command = ["python", "-m", "module", "--title", "two words"]
    text = results_markdown("voc_x", "| a |\n|---|", "A note.", command)
    headings = re.findall(r"^#+ .*$", text, flags=re.MULTILINE)
    assert headings == ["# RESULTS", "## Environments", "## voc_x"]
    for name in ("date", "python version", "espnet version", "pytorch version"):
        assert re.search(rf"^- {name}: `.+`$", text, flags=re.MULTILINE), name
    inside = re.search(r"<details>.*```sh\n(.*?)\n```.*</details>", text, flags=re.DOTALL)
    assert inside
    assert shlex.split(inside[1]) == command


def test_environments_without_git_leave_the_hash_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = environments()
    assert "Git hash" not in found
    assert "date" in found

"""Columns and rows of scores."""

from __future__ import annotations

import math

from flowavenet_plugin.evaluation.table import Column, Row, finite, layout, worst_lines

VALUES = {"a": 1.0, "b": 3.0, "c": 2.0}


def test_the_worst_are_those_on_the_bad_side() -> None:
    assert Column("x", "X", False, VALUES).worst(2) == ["b", "c"]
    assert Column("x", "X", True, VALUES).worst(2) == ["a", "c"]
    assert worst_lines([Column("x", "X", True, VALUES), Column("y", "Y", True, {"a": 1.0})], 1) == ["- X: a (1.000)"]


def test_rows_with_other_columns_get_a_dash() -> None:
    first = Row("dev", 3, [Column("x", "X", True, VALUES), Column("z", "Z", True, {})])
    second = Row("dev other", 3, [Column("y", "Y", True, {"a": 5.0})])
    head, cells = layout([first, second])
    assert head == ["dataset", "utterances", "X", "Z", "Y"]
    assert cells == [["dev", "3", "2.000 ± 2.484", "-", "-"], ["dev other", "3", "-", "-", "5.000"]]


def test_only_finite_values_are_kept() -> None:
    assert finite({"a": 1.0, "b": math.nan, "c": math.inf}) == {"a": 1.0}

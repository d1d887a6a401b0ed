"""Figures of utterances in columns, systems in rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flowavenet_plugin.evaluation.metrics import summarise
from flowavenet_plugin.evaluation.report import markdown_table


class Column(NamedTuple):
    """One figure of every utterance.

    Attributes:
        name: Its file is ``utt2<name>``.
        heading: Head of the column, with the unit.
        more_is_better: Whether large values are good.
        values: Utterance id -> value, finite; utterances without one are left out.
    """

    name: str
    heading: str
    more_is_better: bool
    values: Mapping[str, float]

    def worst(self, count: int = 3) -> list[str]:
        """Return the ids of the worst utterances, worst first."""
        return sorted(self.values, key=self.values.__getitem__, reverse=not self.more_is_better)[:count]


class Row(NamedTuple):
    """One system on one set.

    Attributes:
        label: First cell: the set, and the system unless it's the one that the results are of.
        utterances: How many were compared.
        columns: Its figures; systems may have different ones.
        natural: It is the natural speech, which no system competes with.
    """

    label: str
    utterances: int
    columns: Sequence[Column]
    natural: bool = False


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Leave out what isn't a finite number."""
    return {utt: value for utt, value in values.items() if math.isfinite(value)}


def layout(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return head and cells of a table: ``mean ± half width`` in every column that any row has, ``-`` elsewhere.

    The order of the columns is that of the first row which has them.
    """
    headings = list(dict.fromkeys(column.heading for row in rows for column in row.columns))
    cells = []
    for row in rows:
        by_heading = {column.heading: column.values for column in row.columns}
        figures = [by_heading.get(heading) for heading in headings]
        summaries = [str(summarise(list(values.values()))) if values else "-" for values in figures]
        cells.append([row.label, str(row.utterances), *summaries])
    return ["dataset", "utterances", *headings], cells


def markdown(rows: Sequence[Row]) -> str:
    """Lay the rows out in Markdown."""
    return markdown_table(*layout(rows))


def worst_lines(columns: Sequence[Column], count: int = 3) -> list[str]:
    """Name the worst utterances of every figure, as a Markdown list."""
    return [
        f"- {column.heading}: " + ", ".join(f"{utt} ({column.values[utt]:.3f})" for utt in column.worst(count))
        for column in columns
        if len(column.values) > 1
    ]


def to_json(column: Column) -> dict[str, Any]:
    """Return a column for json.dump."""
    return {**column._asdict(), "values": dict(column.values)}

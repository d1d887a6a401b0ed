"""The report: one HTML page that holds its sounds and pictures and needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from flowavenet_plugin.evaluation.metrics import summarise
from flowavenet_plugin.evaluation.page_style import CURSOR, SCRIPT, STYLE
from flowavenet_plugin.evaluation.plots import DYNAMIC_RANGE
from flowavenet_plugin.evaluation.table import Column, Row


class Player(NamedTuple):
    """A sound that can be played.

    Attributes:
        label: Who speaks.
        flac: The file's bytes.
        picture: PNG of its spectrogram.
    """

    label: str
    flac: bytes
    picture: bytes


class Clip(NamedTuple):
    """An utterance, as several systems say it.

    Attributes:
        utt: Utterance id, with a remark if it is cut.
        text: What is said; empty if that isn't known.
        seconds: What the time axes of all its pictures span.
        players: One for each system, natural speech first.
        pitch: PNG of their fundamental frequencies; None if they couldn't be measured.
    """

    utt: str
    text: str
    seconds: float
    players: Sequence[Player]
    pitch: bytes | None


class Section(NamedTuple):
    """A set.

    Attributes:
        dataset: Its name.
        rows: Scores of the systems.
        clips: What can be heard.
        heard: How many utterances of how many that is, in words.
        worst: The worst utterances, a line for each figure.
    """

    dataset: str
    rows: Sequence[Row]
    clips: Sequence[Clip]
    heard: str
    worst: Sequence[str]


class Curve(NamedTuple):
    """A picture with its caption; a wide one is scrolled on a phone, not shrunk."""

    caption: str
    png: bytes
    wide: bool = False


def page(
    title: str,
    summary: str,
    sections: Sequence[Section],
    curves: Sequence[Curve],
    notes: Sequence[str],
    settings: Mapping[str, object],
    config: str,
) -> str:
    """Lay out the page.

    Args:
        title: Name of the experiment.
        summary: A line below it.
        sections: Its sets.
        curves: Pictures of the experiment as a whole.
        notes: What the figures mean, and what's missing; a paragraph each.
        settings: Name -> value: how this came about.
        config: The training configuration, yaml.

    Returns:
        HTML.
    """
    parts = [f"<h1>{_breakable(title)}</h1>", f'<p class="quiet">{escape(summary)}</p>']
    parts += [_contents(sections, bool(curves)), *(_section(section) for section in sections)]
    if curves:
        parts += ['<h2 id="curves">Curves</h2>', *(_curve(curve) for curve in curves)]
    parts += ['<h2 id="notes">What the figures mean</h2>', *(f"<p>{escape(note)}</p>" for note in notes)]
    parts.append(_settings(settings))
    if config:
        parts.append(f"<details><summary>Training configuration</summary><pre>{escape(config)}</pre></details>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _breakable(name: str) -> str:
    """A name that may be broken after its underscores, so that it fits a phone."""
    return escape(name).replace("_", "_<wbr>")


def _contents(sections: Sequence[Section], curves: bool) -> str:
    """Links to the parts of the page."""
    links = []
    for section in sections:
        name = escape(section.dataset)
        links += [(f"{name}", f"{name}: listen"), (f"{name}-scores", f"{name}: scores")]
    links += [("curves", "curves")] if curves else []
    links += [("notes", "what the figures mean")]
    return f'<nav>{" ".join(f"""<a href="#{target}">{words}</a>""" for target, words in links)}</nav>'


def _section(section: Section) -> str:
    name = escape(section.dataset)
    worst = "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in section.worst)
    scale = f"Spectrograms: {-DYNAMIC_RANGE:g} dB <span class='scale'></span> 0 dB, the natural speech's loudest point."
    parts = [
        f'<section id="{name}">',
        f"<h2>{name}</h2>",
        f'<p class="quiet">{escape(section.heard)} {scale} A click on one plays from there.</p>',
        *(_clip(clip, number == 0) for number, clip in enumerate(section.clips)),
        f'<h3 id="{name}-scores">Scores of {name}</h3>',
        score_table(section.rows),
        f"<details><summary>Worst utterances</summary><ul>{worst}</ul></details>" if worst else "",
        "</section>",
    ]
    return "\n".join(parts)


def score_table(rows: Sequence[Row]) -> str:
    """Return a table with a line for each figure and a column for each system.

    The best mean of a line is bold; natural speech is there to be compared with and doesn't take part.
    """
    columns: dict[str, list[Column | None]] = {}
    for number, row in enumerate(rows):
        for column in row.columns:
            columns.setdefault(column.heading, [None] * len(rows))[number] = column
    head = "".join(f'<th scope="col">{_breakable(row.label)}</th>' for row in rows)
    counts = "".join(f"<td>{row.utterances}</td>" for row in rows)
    systems = [not row.natural for row in rows]
    lines = "".join(_score_line(heading, line, systems) for heading, line in columns.items())
    return (
        f'<div class="scroll"><table>\n<tr><td></td>{head}</tr>\n'
        f'<tr><th scope="row">utterances</th>{counts}</tr>\n{lines}</table></div>'
    )


def _score_line(heading: str, columns: Sequence[Column | None], competes: Sequence[bool]) -> str:
    """A figure of all systems; ↑: more is better, ↓: less. The best is one of those that compete."""
    summaries = [summarise(list(column.values.values())) if column and column.values else None for column in columns]
    means = [summary.mean for summary, ours in zip(summaries, competes, strict=True) if summary and ours]
    more = any(column.more_is_better for column in columns if column)
    best = (max if more else min)(means) if len(means) > 1 else None
    cells = []
    for summary, ours in zip(summaries, competes, strict=True):
        mean, _, width = str(summary or "-").partition(" ± ")
        marked = ' class="best"' if summary and ours and summary.mean == best else ""
        cells.append(f"<td><span{marked}>{mean}</span>{f' <small>± {width}</small>' if width else ''}</td>")
    return f'<tr><th scope="row">{escape(heading)} {"↑" if more else "↓"}</th>{"".join(cells)}</tr>\n'


def _clip(clip: Clip, is_open: bool) -> str:
    players = "\n".join(_player(player, clip.seconds) for player in clip.players)
    labels = escape(", ".join(player.label for player in clip.players))
    pitch = f'<img class="pitch" alt="F0: {labels}" src="{_data("image/png", clip.pitch)}">' if clip.pitch else ""
    text = f"<p>“{escape(clip.text)}”</p>" if clip.text else ""
    return (
        f'<details class="clip"{" open" if is_open else ""}><summary>{escape(clip.utt)}</summary>{text}\n'
        f'<div class="systems">\n{players}\n</div>{pitch}</details>'
    )


def _player(player: Player, seconds: float) -> str:
    name = escape(player.label)
    return (
        f'<figure><figcaption>{name}</figcaption><audio controls preload="metadata" aria-label="{name}" '
        f'data-seconds="{seconds:.6g}" src="{_data("audio/flac", player.flac)}"></audio>'
        f'<div class="picture"><img alt="Spectrogram: {name}" src="{_data("image/png", player.picture)}">'
        f'<span class="cursor" style="{CURSOR}" hidden></span></div></figure>'
    )


def _curve(curve: Curve) -> str:
    caption = escape(curve.caption)
    image = f'<img alt="{caption}" src="{_data("image/png", curve.png)}">'
    return f"<h3>{caption}</h3>" + (f'<div class="scroll">{image}</div>' if curve.wide else image)


def _settings(settings: Mapping[str, object]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>\n'
        for name, value in settings.items()
    )
    return f'<details class="settings"><summary>Settings</summary><table>\n{lines}</table></details>'


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

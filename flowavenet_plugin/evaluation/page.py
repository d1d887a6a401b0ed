"""The report: one HTML page that holds its sounds and pictures and needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from flowavenet_plugin.evaluation.table import Row, layout


class Player(NamedTuple):
    """A sound that can be played.

    Attributes:
        label: Who speaks.
        flac: The file's bytes.
    """

    label: str
    flac: bytes


class Clip(NamedTuple):
    """An utterance, as several systems say it.

    Attributes:
        utt: Utterance id, with a remark if it is cut.
        players: One for each system, natural speech first.
        picture: PNG of their spectrograms.
    """

    utt: str
    players: Sequence[Player]
    picture: bytes


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
    """A picture with its caption."""

    caption: str
    png: bytes


_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 60rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; border-bottom: 1px solid var(--line); } h3 { font-size: 1rem; }
img { max-width: 100%; height: auto; background: #fff; }
audio { width: 100%; min-width: 0; height: 2.5rem; }
.players { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .5rem; }
figure { margin: 0; padding: .5rem; background: var(--soft); border-radius: .4rem; }
.clip > img { margin-top: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; overflow-wrap: normal; }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
@media (max-width: 30rem) { table { font-size: .75rem; } th, td { padding: .2rem .3rem; } }
pre { overflow-x: auto; padding: .5rem; background: var(--soft); font-size: .8rem; }
"""
# One player at a time.
_SCRIPT = """
document.addEventListener("play", function (event) {
  document.querySelectorAll("audio").forEach(function (audio) { if (audio !== event.target) audio.pause(); });
}, true);
"""


def page(
    title: str,
    sections: Sequence[Section],
    curves: Sequence[Curve],
    notes: Sequence[str],
    settings: Mapping[str, object],
    config: str,
) -> str:
    """Lay out the page.

    Args:
        title: Name of the experiment.
        sections: Its sets.
        curves: Pictures of the experiment as a whole.
        notes: What the figures mean, and what's missing; a paragraph each.
        settings: Name -> value: how this came about.
        config: The training configuration, yaml.

    Returns:
        HTML.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(_section(section) for section in sections)]
    if curves:
        parts += ["<h2>Curves</h2>", *(_curve(curve) for curve in curves)]
    parts += ["<h2>What the figures mean</h2>", *(f"<p>{escape(note)}</p>" for note in notes), _settings(settings)]
    if config:
        parts.append(f"<details><summary>Training configuration</summary><pre>{escape(config)}</pre></details>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    worst = "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in section.worst)
    parts = [
        f'<section id="{escape(section.dataset)}">',
        f"<h2>{escape(section.dataset)}</h2>",
        score_table(section.rows),
        f"<p>{escape(section.heard)}</p>",
        *(_clip(clip) for clip in section.clips),
        f"<details><summary>Worst utterances</summary><ul>{worst}</ul></details>" if worst else "",
        "</section>",
    ]
    return "\n".join(parts)


def score_table(rows: Sequence[Row]) -> str:
    """Return a table with a line for each figure and a column for each system: two of them fit a phone."""
    head, cells = layout(rows)
    heading = "".join(f'<th scope="col">{escape(row[0])}</th>' for row in cells)
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(row[column])}</td>" for row in cells)}</tr>\n'
        for column, name in enumerate(head)
        if column > 0
    )
    return f'<div class="scroll"><table>\n<tr><td></td>{heading}</tr>\n{lines}</table></div>'


def _clip(clip: Clip) -> str:
    players = "\n".join(
        f'<figure><figcaption>{escape(player.label)}</figcaption><audio controls preload="metadata" '
        f'src="{_data("audio/flac", player.flac)}"></audio></figure>'
        for player in clip.players
    )
    labels = ", ".join(player.label for player in clip.players)
    picture = f'<img alt="Spectrograms: {escape(labels)}" src="{_data("image/png", clip.picture)}">'
    return f'<div class="clip"><h3>{escape(clip.utt)}</h3><div class="players">\n{players}\n</div>{picture}</div>'


def _curve(curve: Curve) -> str:
    caption = escape(curve.caption)
    return f'<p>{caption}</p><img alt="{caption}" src="{_data("image/png", curve.png)}">'


def _settings(settings: Mapping[str, object]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td style="white-space: normal">{escape(str(value))}</td></tr>\n'
        for name, value in settings.items()
    )
    return f'<h2>Settings</h2><div class="scroll"><table>\n{lines}</table></div>'


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

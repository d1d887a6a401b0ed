"""How the report looks, and what it does: its style sheet and its script, which go into the page as they are."""

from __future__ import annotations

from flowavenet_plugin.evaluation.pictures import PLOT_BOX

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 68rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .5rem 0; }
.quiet { opacity: .75; font-size: .9rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
summary { cursor: pointer; padding: .5rem 0; font-weight: 600; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .25rem; }
audio { display: block; width: 100%; min-width: 0; height: 2.5rem; margin: .25rem 0; }
.systems { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .75rem; }
figure { margin: 0; padding: .5rem; background: var(--soft); border-radius: .5rem; }
figcaption { font-weight: 600; }
.picture { position: relative; line-height: 0; cursor: pointer; }
.picture img { width: 100%; }
.cursor { position: absolute; width: 2px; background: #fff; box-shadow: 0 0 2px #000; pointer-events: none; }
.pitch { display: block; width: 100%; max-width: 44rem; margin: .75rem auto; }
.scale { display: inline-block; width: 6rem; height: .7rem; margin: 0 .3rem; border-radius: .2rem;
  background: linear-gradient(90deg, #000004, #3b0f70, #8c2981, #de4968, #fe9f6d, #fcfdbf); }
.scroll { overflow-x: auto; }
.scroll > img { max-width: none; width: max(100%, 44rem); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th[scope=row] { position: sticky; left: 0; background: Canvas; font-weight: normal; }
td small { opacity: .7; white-space: nowrap; }
.best { font-weight: 700; }
.settings td { overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  table { font-size: .8rem; }
  th, td { padding: .25rem .35rem; }
  th[scope=row] { max-width: 7.5rem; }
  td small { display: block; }
}
pre { overflow-x: auto; padding: .5rem; background: var(--soft); font-size: .8rem; }
"""

# One player at a time; a line runs along the spectrogram of the one that plays; a click on a picture plays from there.
_SCRIPT = """
"use strict";
(function () {
  const left = @left@, width = @width@;
  function place(audio) {
    const cursor = audio.parentElement.querySelector(".cursor");
    cursor.style.left = 100 * (left + width * audio.currentTime / audio.dataset.seconds) + "%";
    cursor.hidden = false;
  }
  function follow(audio) {
    place(audio);
    if (!audio.paused) requestAnimationFrame(function () { follow(audio); });
  }
  document.addEventListener("play", function (event) {
    document.querySelectorAll("audio").forEach(function (audio) { if (audio !== event.target) audio.pause(); });
    follow(event.target);
  }, true);
  document.addEventListener("seeked", function (event) { place(event.target); }, true);
  document.querySelectorAll(".picture").forEach(function (picture) {
    picture.addEventListener("click", function (event) {
      const audio = picture.parentElement.querySelector("audio"), box = picture.getBoundingClientRect();
      const part = ((event.clientX - box.left) / box.width - left) / width;
      audio.currentTime = Math.min(Math.max(part, 0), 1) * audio.dataset.seconds;
      audio.play().catch(function () {}); // another click came before it began
    });
  });
})();
"""
SCRIPT = _SCRIPT.replace("@left@", str(PLOT_BOX[0])).replace("@width@", str(PLOT_BOX[2]))

#: Where the line is above and below: the plot's edges.
CURSOR = f"top: {100 * (1 - PLOT_BOX[1] - PLOT_BOX[3]):.4g}%; bottom: {100 * PLOT_BOX[1]:.4g}%"

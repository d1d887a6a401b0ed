"""The best path of a pitch through frames, some of which have none."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def best_path(voice: Array, none: Array, change: Array, switch: float) -> Array:
    """Find the path of the largest sum, by dynamic programming.

    Args:
        voice: How well each pitch explains each frame, shape (frames, pitches).
        none: The same for no pitch, shape (frames,).
        change: What going from one pitch to another costs, shape (pitches, pitches).
        switch: What beginning and ending a voiced stretch costs.

    Returns:
        Numbers of pitches, -1 for none, shape (frames,).
    """
    best, silent, back = voice[0], none[0], []
    for now, nothing in zip(voice[1:], none[1:], strict=True):
        ways = best[:, None] - change
        before, last = ways.argmax(axis=0), int(best.argmax())
        ways, ends = ways.max(axis=0), best[last] - switch
        back.append((np.where(silent - switch > ways, -1, before), last if ends > silent else -1))
        best, silent = np.maximum(ways, silent - switch) + now, max(ends, silent) + nothing
    at = int(best.argmax()) if best.max() > silent else -1
    path = [at]
    for voiced_before, none_before in reversed(back):
        at = none_before if at < 0 else int(voiced_before[at])
        path.append(at)
    return np.array(path[::-1])


def filled(path: Array, hertz: Array) -> tuple[Array, Array]:
    """Return the pitch in Hz, where there is none between those of its neighbours, and voicing, shapes (frames,).

    Args:
        path: Numbers of pitches, -1 for none, shape (frames,); one has a pitch at least.
        hertz: Pitch of each frame where there is one, shape (frames,).
    """
    voiced, frames = path >= 0, np.arange(len(path))
    return np.interp(frames, frames[voiced], hertz[voiced]), voiced

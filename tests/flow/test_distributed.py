"""ActNorm's data-dependent start uses the samples of all processes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import distributed, multiprocessing

from flowavenet_plugin.flow import FloWaveNet

RANKS, EACH = 2, 2


def network() -> FloWaveNet:
    """Return a tiny model in double precision, the same in every process."""
    torch.manual_seed(0)
    return FloWaveNet(n_mels=3, n_block=2, n_flow=2, n_layer=1, filter_size=4, upsample_scales=(2, 2)).double().train()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the whole batch; halves differ in scale and level."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(RANKS * EACH, 1, 32, generator=generator).double()
    x[EACH:] = 3 * x[EACH:] + 1
    return x, torch.randn(RANKS * EACH, 3, 8, generator=generator).double()


def run_rank(rank: int, folder: str) -> None:
    """Start a model on this rank's part of the batch, and save it."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=RANKS)
    model = network()
    part = slice(rank * EACH, (rank + 1) * EACH)
    x, cond = batch()
    with torch.no_grad():
        model(x[part], cond[part])
    torch.save(model.state_dict(), f"{folder}/{rank}.pth")
    distributed.destroy_process_group()


def test_all_ranks_start_alike_and_as_one_process_would(tmp_path: Path) -> None:
    multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=RANKS)
    alone = network()
    with torch.no_grad():
        alone(*batch())
    for rank in range(RANKS):
        states = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(states[key], value, rtol=1e-10, atol=1e-10)
    assert not torch.equal(alone.blocks[0].steps[0].actnorm.loc, network().blocks[0].steps[0].actnorm.loc)

"""Two real processes (gloo) that see half of the tokens each report what one process reports."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from saelight.metrics import Density, Matching, detection_metrics, token_metrics
from tests.metrics.reference import COUNTED, D, F, batch, values

PAIRS = Matching(torch.arange(D), torch.arange(D) + 20, torch.ones(D))


def half(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    metrics, density, detecting = token_metrics(D, F), Density(F), detection_metrics(PAIRS)
    # 100 and 200 tokens, the second in two batches: the processes need not see equally many
    parts = [slice(0, 100)] if rank == 0 else [slice(100, 150), slice(150, 300)]
    for part in parts:
        data = {name: t[part] for name, t in batch().items()}
        metrics.update(**data)
        detecting.update(active=data["x"] > 3, f=data["f"])
    if rank == 1:  # the other one takes part without having seen anything
        density.update(f=batch()["f"])
    scalars = {k: v.item() for k, v in metrics.compute().items()}
    torch.save((scalars, density.compute(), detecting.compute()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.spawn(half, args=(str(tmp_path),), nprocs=2)
    (first, density, detected), (second, other, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = values(batch())
    assert first == second
    assert {k: first[k] for k in COUNTED} == {k: alone[k] for k in COUNTED}
    assert all(abs(first[k] - alone[k]) <= 1e-12 * abs(alone[k]) for k in alone)
    assert torch.equal(density, other)
    assert torch.equal(density, (batch()["f"] != 0).double().mean(0))
    expected = detection_metrics(PAIRS)
    expected.update(active=batch()["x"] > 3, f=batch()["f"])
    assert detected == expected.compute()

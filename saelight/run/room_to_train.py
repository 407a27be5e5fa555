"""Whether a run has room on its device, by what its training is predicted to take, asked before it begins."""

from typing import TYPE_CHECKING

import torch

from saelight.data.source import Source
from saelight.errors import UserError
from saelight.ops.host_memory import host_memory
from saelight.run.memory import group_bytes, least_bytes, sae_bytes, size

if TYPE_CHECKING:
    import lightning as L

    from saelight.bank.sae_bank import SAEBank


def check_room_to_train(trainer: "L.Trainer", bank: "SAEBank", data: object) -> None:
    """Raise `UserError` for a bank whose training takes more memory than its device has.

    On the CPU by the prediction that a sweep plans with (docs/sweeps.md, "Memory"); elsewhere, where that is on the safe
    side, by weights, gradients and moments alone.

    Args:
        data: What feeds the bank, if it is a data module.
    """
    device = trainer.strategy.root_device
    parameters = [sum(p.numel() for p in sae.parameters()) for sae in bank.saes]
    if device.type == "cuda":
        have = torch.cuda.get_device_properties(device).total_memory
        needed = sum(least_bytes(n, sae.config.optimizer) for sae, n in zip(bank.saes, parameters, strict=True))
    elif device.type == "cpu":
        have = host_memory()
        described = data.describe() if isinstance(data, Source) else None
        batch = described.batch_size if described else 1
        members = [sae_bytes(sae.config, n, sae.d_sae, batch) for sae, n in zip(bank.saes, parameters, strict=True)]
        needed = trainer.num_devices * group_bytes(members, described.stream_bytes if described else 0)
    else:
        return
    if needed > have:
        largest = max(zip(parameters, bank.names, strict=True))[1]
        raise UserError(
            f"training these {len(parameters)} SAEs takes about {size(needed)}, and {device} has {size(have)}; the largest "
            f"is {largest!r}: lower d_sae, expansion or data.batch_size, or train fewer at once"
        )

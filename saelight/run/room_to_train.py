"""Whether a run has room on its device, by what its training is predicted to take, asked before it begins."""

from typing import TYPE_CHECKING

import torch

from saelight.data.source import Source
from saelight.errors import UserError
from saelight.ops.host_memory import host_memory
from saelight.run.memory import group_bytes, needs, size

if TYPE_CHECKING:
    import lightning as L

    from saelight.bank.sae_bank import SAEBank


def check_room_to_train(trainer: "L.Trainer", bank: "SAEBank", data: object) -> None:
    """Raise `UserError` for a bank whose training takes more memory than its device has.

    It is the prediction that a sweep plans with (docs/sweeps.md, "Memory").

    Args:
        data: What feeds the bank, if it is a data module.
    """
    device = trainer.strategy.root_device
    parameters = [sum(p.numel() for p in sae.parameters()) for sae in bank.saes]
    described = data.describe() if isinstance(data, Source) else None
    members = [
        needs(sae.config, n, sae.d_sae, described, trainer.precision) for sae, n in zip(bank.saes, parameters, strict=True)
    ]
    if device.type == "cuda":
        have, needed = torch.cuda.get_device_properties(device).total_memory, group_bytes(members, "gpu")
    elif device.type == "cpu":
        # Processes on one host share its memory.
        have, needed = host_memory(), trainer.num_devices * group_bytes(members, "cpu")
    else:
        return
    if needed > have:
        largest = max(zip(parameters, bank.names, strict=True))[1]
        raise UserError(
            f"training these {len(parameters)} SAEs takes about {size(needed)}, and {device} has {size(have)}; the largest "
            f"is {largest!r}: lower d_sae, expansion or data.batch_size, or train fewer at once"
        )

"""Whether the SAEs of a bank can be built on this machine at all, asked before any of them is."""

from collections.abc import Mapping

from saelight.errors import UserError
from saelight.ops.host_memory import host_memory
from saelight.saes import SAEConfig

_FLOAT = 4


def check_room(saes: Mapping[str, SAEConfig], d_in: int, d_out: int | None) -> None:
    """Raise `UserError` when encoders and decoders alone take more than the machine's memory.

    What training takes beside them is asked for when it begins (`saelight/run/room_to_train.py`).
    """
    bytes_of = {name: _FLOAT * config.width(d_in) * (d_in + (d_out or d_in)) for name, config in saes.items()}
    have = host_memory()
    if sum(bytes_of.values()) > have:
        largest = max(bytes_of, key=lambda name: bytes_of[name])
        width = saes[largest].width(d_in)
        raise UserError(
            f"the SAEs' weights alone would take {sum(bytes_of.values()) / 1e9:,.1f} GB, and this machine has "
            f"{have / 1e9:,.1f} GB; the largest is {largest!r} (d_sae {width}): lower its d_sae or expansion, or train fewer"
        )

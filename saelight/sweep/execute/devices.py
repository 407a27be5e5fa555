"""Which devices there are, and how a child is told to use one."""

import os
from typing import NamedTuple

from saelight.errors import UserError
from saelight.sweep.execute.ask_accelerator import ask


class Device(NamedTuple):
    """A device of this machine."""

    name: str
    """`cuda:0`, `mps` or `cpu`."""
    model: str
    memory: int
    """Bytes in all."""


def find() -> list[Device]:
    """The devices of this machine: CUDA with name and memory, MPS, and the CPU last. Imports torch."""
    import torch

    from saelight.ops.host_memory import host_memory

    # Counted by NVML, which takes no part of a device; all else is a child's to find out.
    found = [Device(*one) for one in ask("devices")] if torch.cuda.device_count() else []
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple GPU", torch.mps.recommended_max_memory()))
    return [*found, Device("cpu", f"{cores()} cores", host_memory())]


def choose(wanted: str, found: list[Device]) -> list[Device]:
    """The devices that `wanted` names, in its order, one worker each: `auto` for all accelerators (the CPU where there is
    none), or a list as `cuda:0,cuda:1,cpu`. `cpu` may stand several times.

    Raises:
        UserError: for a device that is not there.
    """
    if wanted == "auto":
        return [device for device in found if device.name != "cpu"] or found
    by_name = {device.name: device for device in found}
    if "cuda:0" in by_name:
        by_name.setdefault("cuda", by_name["cuda:0"])
    chosen = []
    for name in wanted.split(","):
        if by_name.get(name.strip()) is None:
            here = ", ".join(device.name for device in found)
            raise UserError(f"--devices {wanted}: there is no device {name.strip()!r}; here are {here}")
        if name.strip() != "cpu" and by_name[name.strip()] in chosen:
            raise UserError(f"--devices {wanted}: {name.strip()} stands twice; only cpu may")
        chosen.append(by_name[name.strip()])
    return chosen


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(devices: list[Device]) -> list[int]:
    """CPU threads of each worker: the cores shared out."""
    return [max(1, cores() // len(devices))] * len(devices)


def environment(device: Device, threads: int) -> dict[str, str]:
    """What a child on this device gets beside the environment."""
    env = {"OMP_NUM_THREADS": str(threads)}
    if device.name.startswith("cuda"):
        index = int(device.name.partition(":")[2])
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        env["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    return env


def arguments(device: Device) -> list[str]:
    """The arguments of `fit` that put it on this one device, the only one that `environment` lets it see."""
    return [_accelerator(device), "--trainer.devices=1"]


def ddp_arguments(devices: list[Device]) -> list[str]:
    """The arguments of `fit` that put it on all these devices of one kind, as this process counts them."""
    if devices[0].name == "cpu":
        chosen = str(len(devices))
    else:
        chosen = f"[{','.join(device.name.partition(':')[2] for device in devices)}]"
    return [_accelerator(devices[0]), f"--trainer.devices={chosen}", "--trainer.strategy=ddp"]


def _accelerator(device: Device) -> str:
    return f"--trainer.accelerator={device.name.partition(':')[0].replace('cuda', 'gpu')}"


def listing(found: list[Device]) -> str:
    """One line per device."""
    width = max(len(device.name) for device in found)
    return "\n".join(f"{d.name:<{width}}  {d.memory / 2**30:6.1f} GB  {d.model}" for d in found)

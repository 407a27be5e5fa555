"""This machine, one group at a time: each on all devices at once, by Lightning's DDP."""

from saelight.sweep.execute import devices as dev
from saelight.sweep.execute.launch.local import LocalLauncher, Worker


class DDPLauncher(LocalLauncher):
    """One child on all devices; Lightning starts its other processes."""

    name = "ddp"
    summary = "each run on all devices"

    def _make_workers(self) -> list[Worker]:
        threads = dev.threads_of(self.devices)[0]
        names = ",".join(device.name for device in self.devices)
        # The devices are counted as this process sees them: what it may not see, the child may not either.
        return [Worker(names, threads, {"OMP_NUM_THREADS": str(threads)}, dev.ddp_arguments(self.devices))]

    @property
    def processes(self) -> int:
        return len(self.devices)

"""A real Slurm on the loopback of this machine: munged, slurmctld and a slurmd per node, as children of this process.

`python -m tests.slurm.cluster FOLDER` keeps one running until Ctrl-C, to try things on.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")

# Two partitions over the same nodes: a job of `urgent` sends one of `debug` back to the queue, which is told GraceTime
# seconds before. cred_expire is also what a requeued job waits; Slurm's default is 120 seconds.
CONF = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
MailProg=/bin/true
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} Gres=gpu:2 CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """Slurm in a folder, with `nodes` nodes of one core each, and GPUs that are not there."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        self.folder, self.nodes, self._children = folder, nodes, []
        folder.mkdir(parents=True, exist_ok=True)
        host, port = socket.gethostname().partition(".")[0], _free_ports(nodes + 1)
        for name in ("state", *(f"spool-n{i + 1}" for i in range(nodes))):
            (folder / name).mkdir(exist_ok=True)
        (folder / "slurm.conf").write_text(
            CONF.format(folder=folder, host=host, port=port, nodes=nodes, ports=f"[{port + 1}-{port + nodes}]")
        )
        # Slurm wants device files, and opens none of them.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        self.env = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        socket_file = self.folder / "munge.socket"
        self._start("munged", "--foreground", "--force", f"--socket={socket_file}", *files)
        _wait(socket_file.exists, "munged", 10)
        self._start("slurmctld", "-D")
        for i in range(self.nodes):
            self._start("slurmd", "-D", "-N", f"n{i + 1}")
        idle = ("sinfo", "--noheader", "--partition=debug", "--states=idle", "--format=%D")
        _wait(lambda: self(*idle) == str(self.nodes), "slurmd", 30)
        return self

    def __exit__(self, *_) -> None:
        subprocess.run(["scancel", "--user=root"], env=os.environ | self.env, check=False)
        for child in reversed(self._children):
            child.terminate()
            child.wait(30)

    def __call__(self, *command: str) -> str:
        """Output of one of Slurm's commands, or nothing if it fails."""
        done = subprocess.run(command, env=os.environ | self.env, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def _start(self, *command: str) -> None:
        with (self.folder / "daemons.txt").open("ab") as log:
            self._children.append(
                subprocess.Popen(
                    command,
                    env=os.environ | self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )


def missing() -> str | None:
    """Why no Slurm can be started here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Slurm of one's own takes Linux, and root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(absent)} not found: {INSTALL}" if absent else None


def _free_ports(n: int) -> int:
    """The first of `n` ports in a row that are free."""
    for port in range(17000, 32000, n):
        sockets = [socket.socket() for _ in range(n)]
        try:
            for i, s in enumerate(sockets):
                s.bind(("127.0.0.1", port + i))
            return port
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise RuntimeError("no free ports")


def _wait(ready, what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come up")
        time.sleep(0.05)


if __name__ == "__main__":
    with Cluster(Path(sys.argv[1]).resolve()) as cluster:
        print(f"export SLURM_CONF={cluster.env['SLURM_CONF']}", flush=True)
        # Blocked from here on alone: the daemons would inherit it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        signal.sigwait({signal.SIGINT, signal.SIGTERM})

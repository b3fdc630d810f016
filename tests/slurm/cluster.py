"""A real Slurm on this machine, without systemd: its own munge, one controller, several nodes.

Everything lies in one folder, nothing of the system is changed; the nodes are slurmd processes that
share the machine, so they are given as many CPUs as the test asks for.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
ReturnToService=2
KillWait=20
MinJobAge=600
JobRequeue=1
MpiDefault=none
SlurmdParameters=config_overrides
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} \
RealMemory=1000 State=UNKNOWN
PartitionName=test Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> list[str]:
    """Programs of Slurm that are not installed."""
    places = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=places) is None]


class Cluster:
    """Starts on entry, ends on exit; `environment` is what its commands need."""

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 4) -> None:
        self.folder, self.nodes = folder, nodes
        host, port = socket.gethostname().split(".")[0], _free_ports(nodes + 1)
        for name in ("state", "spool", "log"):
            (folder / name).mkdir(parents=True)
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout
        text = CONF.format(
            host=host, port=port, user=user.strip(), folder=folder, nodes=nodes, cpus=cpus,
            first=port + 1, last=port + nodes,
        )  # fmt: skip
        (folder / "slurm.conf").write_text(text)
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        here = [f"--{name}={self.folder}/munge.{end}" for name, end in MUNGE.items()]
        self._start("munged", "--foreground", "--force", f"--key-file={key}", *here)
        _wait_for(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._start("slurmctld", "-D")
        for node in range(1, self.nodes + 1):
            self._start("slurmd", "-D", "-N", f"n{node}")
        _wait_for(self._idle, "the nodes")
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user", str(os.getuid()))
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(30)

    def run(self, *words: str) -> str:
        """What a command says."""
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env=self.environment
        )
        return done.stdout

    def states(self, job: int) -> dict[str, str]:
        """State of a job or of each task of an array, by its number."""
        lines = self.run("squeue", "-h", "-a", "-r", "-t", "all", "-j", str(job), "-o", "%i %T")
        return dict(line.split() for line in lines.splitlines())

    def _idle(self) -> bool:
        nodes = self.run("sinfo", "-h", "-N", "-o", "%T").split()
        return nodes == ["idle"] * self.nodes

    def _start(self, *words: str) -> None:
        name = f"{len(self._processes)}-{words[0]}.out"
        with open(self.folder / "log" / name, "wb") as log:
            started = subprocess.Popen(words, stdout=log, stderr=log, env=self.environment)
        self._processes.append(started)


MUNGE = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens at."""
    for first in range(26_800, 32_000, count):
        found = []
        try:
            for port in range(first, first + count):
                found.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
        finally:
            for one in found:
                one.close()
    raise AssertionError("no free ports")


def _wait_for(true, what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: did not come up in {seconds} s"
        time.sleep(0.1)

"""Several processes that srun started without torchrun: who each is, from Slurm's variables.

`srun --ntasks-per-node 8 train run ...` is enough: ranks, the number of processes and where rank 0
is found are put into the variables that torchrun would have set.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import MutableMapping

from pipeline.errors import ConfigError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, PORTS = 20_000, 20_000


def adopt_slurm_step(environment: MutableMapping[str, str] = os.environ) -> None:
    """Fills in what torchrun would; nothing for a process alone, or one that torchrun started.

    Raises ConfigError where Slurm does not say on which node rank 0 is.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2 or "RANK" in environment:
        return
    job, step = (int(environment.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
    found = {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": _address_of_first(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(FIRST_PORT + (job + 97 * step) % PORTS),
    }
    assert set(found) == set(TORCHRUN)
    environment.update(found)


def _address_of_first(nodes: str) -> str:
    """Where the first of some nodes (Slurm's short form, n[1-4]) is reached."""
    try:
        names = _said("show", "hostnames", nodes).split()
        address = re.search(r"\bNodeAddr=(\S+)", _said("show", "node", names[0]))
        return address.group(1) if address else names[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise ConfigError(
            f"srun started several processes on {nodes}, but scontrol does not say where the first "
            f"one is ({' '.join(str(error).split())}); start them with torchrun"
        ) from None


def _said(*words: str) -> str:
    done = subprocess.run(
        ["scontrol", *words], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout

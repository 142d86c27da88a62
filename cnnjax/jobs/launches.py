"""How this process was started among others: by hand, SLURM, MPI, Kubernetes or as a TPU pod."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax.types import UserError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


@dataclasses.dataclass(frozen=True)
class Launch:
    """How this process was started among others.

    Attributes:
      by: who did, for messages.
      process: the number of this one, from 0; None where only JAX can tell.
      options: of `jax.distributed.initialize`, which finds out the rest.
      certain: whether there are others. On a TPU machine it takes a question to know.
    """

    by: str
    process: int | None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    certain: bool = True


def find_launch(environment: Mapping[str, str]) -> Launch | None:
    """Returns how several processes were started, or None if this one is alone.

    What says so, in order of precedence:
      1. JAX_NUM_PROCESSES, JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS (1 process is alone);
      2. SLURM's srun with several tasks: a batch script or an salloc with several that starts
         Python without srun is alone, and so is a step of one task in a larger allocation;
      3. Open MPI's mpirun;
      4. a TPU pod;
      5. Kubernetes: an Indexed Job, alone or in a JobSet.

    Raises:
      UserError: if the variables contradict one another or something is missing.
    """
    if COUNT in environment or INDEX in environment:
        return _by_variables(environment)
    for by, count, index in (("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
                             ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")):
        if int(environment.get(count, 1)) > 1:
            return Launch(by, int(environment[index]), _local_devices(environment))
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if workers and ("," in workers or int(environment.get("MEGASCALE_NUM_SLICES") or 1) > 1):
        return Launch("the TPU pod", _tpu_worker(environment, workers))
    if workers is None and _is_tpu_machine(environment):
        return Launch("the TPU pod", None, certain=False)
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        if importlib.util.find_spec("kubernetes") is None:
            raise UserError(
                "This pod belongs to an Indexed Job, and nothing says whether its pods are one run "
                f"or many. Set {COUNT}=1 in the pod for a run of its own; for one run over all of "
                f"them {COUNT}, {INDEX} and {ADDRESS} (experiments/batch/jobset.yaml does), or "
                "pip install 'jax[k8s]' and let the pod read Jobs, Pods and Services.")
        return Launch("Kubernetes", int(environment["JOB_COMPLETION_INDEX"]))
    return None


def _by_variables(environment: Mapping[str, str]) -> Launch | None:
    def number(name):
        value = environment.get(name, "")
        if not value.isdecimal():
            raise UserError(f"{name} is {value!r}. A run over several processes takes the number "
                            f"of them in {COUNT}, that of each, from 0, in {INDEX}, and host:port "
                            f"of process 0 in {ADDRESS}. Unset all three for a run of one process.")
        return int(value)

    count, address = number(COUNT), environment.get(ADDRESS, "")
    index = number(INDEX) if count > 1 or INDEX in environment else 0
    if not index < count:
        raise UserError(f"{INDEX} is {index}, but {COUNT} is {count}: the processes are numbered "
                        f"from 0 to {count - 1}.")
    if count == 1:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"{ADDRESS} is {address!r}; it is host:port of process 0, such as "
                        "node1:29500, with a port that is free there.")
    return Launch(COUNT, index, {"coordinator_address": address, "num_processes": count,
                                 "process_id": index, "cluster_detection_method": "deactivate"})


def _local_devices(environment: Mapping[str, str]) -> dict[str, list[int]]:
    """Returns which of the NVIDIA GPUs that a task sees are its own, as an option.

    JAX would take the one with the task's number on its node: seven of eight idle where a node has
    one task, and none at all where SLURM shows each task its own alone.
    """
    seen = len(visible_gpus(environment))
    local = int(environment.get("SLURM_LOCALID", environment.get("OMPI_COMM_WORLD_LOCAL_RANK", 0)))
    tasks = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", 0)) or _tasks_here(environment)
    if not seen:
        return {}
    if seen < max(tasks, int(environment.get("SLURM_GPUS_ON_NODE") or 0)):  # Its own alone.
        return {"local_device_ids": list(range(seen))}
    share = seen // tasks
    return {"local_device_ids": list(range(local * share, (local + 1) * share))}


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Returns the NVIDIA GPUs that a process here may use, without waking them."""
    if environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    # A container may have the fourth alone, nvidia3.
    there = sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia*")
                    if re.fullmatch(r"nvidia\d+", path.name)), key=int)
    # The variable may name one where there is none. WSL has one file for all kinds and numbers.
    if "CUDA_VISIBLE_DEVICES" not in environment or not (there or Path("/dev/dxg").exists()):
        return there
    # What is no device (-1, NoDevFiles, nothing) hides all from there on.
    names = map(str.strip, environment["CUDA_VISIBLE_DEVICES"].split(","))
    return list(itertools.takewhile(re.compile(r"\d|GPU-|MIG-").match, names))


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Returns the tasks of this step on this node, out of SLURM's "2(x3),1"."""
    counts = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = part.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts[min(int(environment.get("SLURM_NODEID", 0)), len(counts) - 1)]


def _tpu_worker(environment: Mapping[str, str], workers: str) -> int | None:
    """Returns the number of a TPU worker, counted through all slices."""
    if "TPU_WORKER_ID" not in environment:
        return None
    number = int(environment["TPU_WORKER_ID"])
    return number + int(environment.get("MEGASCALE_SLICE_ID") or 0) * len(workers.split(","))


def _is_tpu_machine(environment: Mapping[str, str]) -> bool:
    return (environment.get("JAX_PLATFORMS", "tpu").startswith("tpu")
            and "TPU_SKIP_MDS_QUERY" not in environment
            and (Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists())
            and importlib.util.find_spec("libtpu") is not None)

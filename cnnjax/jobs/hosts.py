"""One run over several processes: finding the others, speaking for all, and ending together.

`jax.distributed` does the work; here is when to start it, and how the processes agree. Each process
has its own part of every batch, and all of them the same state and the same numbers, so that
whatever is decided by those (a loss that is not finite, the best checkpoint) is decided alike.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from cnnjax import exit_codes, interrupts
from cnnjax.types import Failure, UserError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
PATIENCE = "CNNJAX_JOIN_SECONDS"  # How long the processes may take to find one another.
# A process that is silent for so long is taken for dead, and the others end.
HEARTBEAT_SECONDS = 30
# What communication says when the other end is gone: over TCP, between GPUs, to process 0.
_LOST = ("Gloo", "NCCL", "oordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED")
_EXPECTED = (exit_codes.DONE, exit_codes.PREEMPTED)  # With which all processes end alike.


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
    if visible := environment.get("CUDA_VISIBLE_DEVICES"):
        seen = len(visible.split(","))
    else:
        seen = len([p for p in Path("/dev").glob("nvidia*") if p.name[6:].isdecimal()])
    local = int(environment.get("SLURM_LOCALID", environment.get("OMPI_COMM_WORLD_LOCAL_RANK", 0)))
    tasks = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", 0)) or _tasks_here(environment)
    if not seen:
        return {}
    if seen < max(tasks, int(environment.get("SLURM_GPUS_ON_NODE") or 0)):  # Its own alone.
        return {"local_device_ids": list(range(seen))}
    share = seen // tasks
    return {"local_device_ids": list(range(local * share, (local + 1) * share))}


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


def join(launch: Launch, stops_together: bool) -> None:
    """Starts `jax.distributed`, before JAX's first computation. Ends the process if none answers.

    Args:
      launch: of `find_launch`.
      stops_together: whether a signal at one process stops all at one step (`stop_requests`). If
        not it ends that process, and with it the others.

    Raises:
      UserError: if JAX cannot find out what it needs.
    """
    patience = os.environ.get(PATIENCE, "300")
    if not patience.isdecimal() or not int(patience):
        raise UserError(f"{PATIENCE} is {patience!r}; it is a number of seconds, such as 300.")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", stops_together)
    # JAX itself would abort with a trace of its C++.
    watch = threading.Timer(int(patience), _give_up, (launch, int(patience)))
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(**launch.options, heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                                   initialization_timeout=int(patience) + 60)
    except (RuntimeError, ValueError, KeyError) as error:
        if launch.certain:
            raise UserError(
                f"{launch.by} has started several processes, but JAX cannot join them: {error}. "
                f"Set {ADDRESS} (host:port of process 0), {COUNT} and {INDEX} in each, or "
                f"{COUNT}=1 for a run of its own in each.") from error
    finally:
        watch.cancel()
    if stops_together:
        # From here on a signal is for all, whatever this process is doing.
        interrupts.hold(several())
        if several() and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, _stop_all)


def _give_up(launch: Launch, seconds: int) -> NoReturn:
    which = "This process" if launch.process is None else f"Process {launch.process}"
    where = launch.options.get("coordinator_address") or "the one that JAX has detected"
    print(f"launch.py: {which}, started by {launch.by}, did not find the others within {seconds} s "
          f"(coordinator: {where}). Is each of them running, and can it reach the port of process "
          f"0? {ADDRESS} names another host:port, {PATIENCE} a longer time, and {COUNT}=1 makes "
          "this a run of its own.", file=sys.stderr, flush=True)
    os._exit(1)


def several() -> bool:
    """Whether this run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes files and the console."""
    return not several() or jax.process_index() == 0


def check_devices() -> None:
    """Raises a UserError, in all processes, if they have not the same number of devices each."""
    if not several():
        return
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise UserError("The processes of this run have different numbers of devices: " + ", ".join(
            f"{count} in process {process}" for process, count in sorted(counts.items()))
            + ". Start as many tasks on every node, and give each the same number of GPUs.")


def meet(name: str) -> None:
    """Returns when all processes have called it; a name for each place that does."""
    if several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def meet_in(folder: Path, seconds: float = 10) -> None:
    """Returns when all processes are there and have seen that the folder is the same for all.

    Args:
      folder: exists.
      seconds: that a file may take from one host to another.

    Raises:
      UserError: in all of them, if it is not.
    """
    if not several():
        return
    from jax.experimental import multihost_utils

    number = multihost_utils.broadcast_one_to_all(np.int32(random.SystemRandom().getrandbits(31)))
    sign, until = folder / f".meeting-{number}", time.monotonic() + seconds
    if is_first():
        sign.touch()
    meet("meeting")
    while not (found := sign.exists()) and time.monotonic() < until:
        time.sleep(0.1)
    seen = multihost_utils.process_allgather(np.int32(found))
    if is_first():
        sign.unlink()
    if blind := ", ".join(map(str, np.flatnonzero(seen == 0))):
        raise UserError(f"The workdir {folder} is not the same folder on all hosts: what process 0 "
                        f"writes there, process {blind} does not see. Give one on a file system "
                        "that they share: --workdir=DIR.")


def gather(mine: Any) -> list[Any]:
    """Returns what each process has, in their order. All must call it, with values of JSON."""
    if not several():
        return [mine]
    from jax.experimental import multihost_utils

    text = json.dumps(mine).encode()
    longest = int(multihost_utils.process_allgather(np.int32(len(text))).max())
    padded = np.frombuffer(text.ljust(longest), np.uint8)  # With spaces, as JSON allows.
    return [json.loads(part.tobytes()) for part in multihost_utils.process_allgather(padded)]


def agree(mine: Mapping[str, Any]) -> None:
    """Returns if all processes have the same, such as {"schedule.lr": 0.1}; values are of JSON.

    Raises:
      UserError: in all of them, if not: it names the keys, and who has what.
    """
    digest = hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()
    if len(set(gather(digest))) == 1:
        return
    lines, everyones = [], gather(dict(mine))
    for key in sorted(set().union(*everyones)):
        found: dict[str, list[str]] = {}
        for process, values in enumerate(everyones):
            value = repr(values[key]) if key in values else "nothing"
            found.setdefault(value, []).append(str(process))
        if len(found) > 1:
            lines.append(f"  {key}: " + "; ".join(
                f"{value} in process {', '.join(who)}" for value, who in found.items()))
    raise UserError("The processes of this run do not agree on what it is:\n"
                    + "\n".join(lines) + "\nGive all of them the same command, and the same files "
                    "behind its paths.")


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Silences the standard output of all processes but the first."""
    if is_first():
        yield
        return
    sys.stdout.flush()
    before = os.dup(1)  # The descriptor, because Gloo prints there, too.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(before, 1)
            os.close(before)


def _stop_all(number, frame) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether to stop now: at the same call in all processes.

    A signal at any of them is enough. JAX's preemption service (`jax.distributed`) tells the others
    behind the scenes and picks the call after the furthest that any has made, so that asking costs
    no communication. It listens for SIGTERM, which the other signals become here.
    """
    calls = itertools.count()
    from jax.experimental import multihost_utils

    others, before = (signal.SIGUSR1, signal.SIGINT), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _stop_all) for number in others}
    try:
        yield lambda: multihost_utils.reached_preemption_sync_point(next(calls))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def closing(thing: Any) -> Iterator[None]:
    """Closes the thing at the end, but not after an error of several: others may never finish."""
    try:
        yield
    except BaseException:
        if not several():
            thing.close()
        raise
    thing.close()


@contextlib.contextmanager
def or_all_end(message_of: Callable[[UserError], object] = str) -> Iterator[None]:
    """Ends this process at once where an error would leave the others waiting for it.

    Python's way out leads through a barrier that those who wait elsewhere never reach.

    Args:
      message_of: a UserError -> what to print of it.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not several():
            raise
        if isinstance(error, UserError):
            _say(message_of(error))
            leave(2)
        if isinstance(error, KeyboardInterrupt):
            _say("interrupted; the last checkpoint stays")
        elif isinstance(error, Failure):
            _say(error)
        elif isinstance(error, OSError):
            _say(f"{error}. The last checkpoint stays; the same command goes on from it.")
        elif any(word in str(error) for word in _LOST):
            _say("another process has died or failed: see what it said. The last checkpoint stays; "
                 "if that says nothing else, the same command goes on from it. "
                 f"({str(error).splitlines()[0][:300]})")
        else:
            traceback.print_exc()
            _say("failed, so the others end as well; the last checkpoint stays")
        leave(1)


def _say(message: object) -> None:
    print(f"launch.py: process {jax.process_index()} of {jax.process_count()}: {message}",
          file=sys.stderr, flush=True)


def leave(code: int) -> int:
    """Returns the exit code, or, if the other processes don't end with it too, ends this one."""
    if not several() or code in _EXPECTED:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(2)  # With it goes the line that the others are on, who may have as much to say.
    os._exit(code)

"""The batch files: valid for the systems that read them, and right for the program they start."""

import os
import re
import shutil
import subprocess
import time

import pytest
import yaml

from cnnjax.command_flags import parse
from cnnjax.jobs import launches
from cnnjax.validation import validate

# What the JobSet API has (jobset.x-k8s.io/v1alpha2) of the fields around the Job's template.
JOBSET = {"": {"network", "failurePolicy", "successPolicy", "startupPolicy", "replicatedJobs",
               "suspend", "coordinator", "managedBy", "ttlSecondsAfterFinished"},
          "network": {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"},
          "failurePolicy": {"maxRestarts", "rules", "restartStrategy"},
          "rules": {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"},
          "replicatedJobs": {"name", "groupName", "replicas", "template", "dependsOn"}}


@pytest.fixture(scope="module")
def files(root):
    return {name: list(yaml.safe_load_all((root / "experiments/batch" / name).read_text()))
            for name in ("jobset.yaml", "indexed_job.yaml")}


def jobs(files):
    """Yields (the name that the job gets, its spec)."""
    jobset, = files["jobset.yaml"]
    of_set, = jobset["spec"]["replicatedJobs"]
    yield f"{jobset['metadata']['name']}-{of_set['name']}-0", of_set["template"]["spec"]
    job = files["indexed_job.yaml"][1]
    yield job["metadata"]["name"], job["spec"]


def test_kubernetes_takes_the_jobs_and_the_service(files):
    validator = pytest.importorskip("kubernetes_validate")
    for name, spec in jobs(files):
        validator.validate({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                            "spec": spec}, validator.latest_version(), strict=True)
    validator.validate(files["indexed_job.yaml"][0], validator.latest_version(), strict=True)


def test_the_jobset_has_only_fields_that_there_are(files):
    jobset, = files["jobset.yaml"]
    spec = jobset["spec"]
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and set(spec) <= JOBSET[""]
    for key, values in (("network", [spec["network"]]), ("failurePolicy", [spec["failurePolicy"]]),
                        ("rules", spec["failurePolicy"]["rules"]),
                        ("replicatedJobs", spec["replicatedJobs"])):
        assert all(set(value) <= JOBSET[key] for value in values)


def test_each_pod_is_the_process_that_its_index_says_and_knows_where_the_first_is(files):
    domain = {"resnet50-hosts-0": files["jobset.yaml"][0]["metadata"]["name"],
              "resnet50": files["indexed_job.yaml"][0]["metadata"]["name"]}
    for name, spec in jobs(files):
        container, = spec["template"]["spec"]["containers"]
        variables = {v["name"]: v.get("value") for v in container["env"]}
        assert spec["completions"] == spec["parallelism"] == int(variables[launches.COUNT])
        assert "job-completion-index" in str(container["env"])
        launch = launches.find_launch(variables | {launches.INDEX: "1", "JOB_COMPLETION_INDEX": "1",
                                                   "KUBERNETES_SERVICE_HOST": "10.0.0.1"})
        assert launch.process == 1
        assert launch.options["coordinator_address"].startswith(f"{name}-0.{domain[name]}:")


def test_the_pods_start_a_valid_run_and_its_exit_codes_are_understood(files, root, monkeypatch):
    monkeypatch.chdir(root)
    for _, spec in jobs(files):
        pod = spec["template"]["spec"]
        container, = pod["containers"]
        assert container["command"] == ["python", "launch.py"]
        validate(parse(["launch.py", *container["args"]]).config)
        actions = {rule["onExitCodes"]["values"][0]: rule["action"]
                   for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule}
        assert actions == {2: "FailJob", 75: "Ignore"} and pod["restartPolicy"] == "Never"


def test_tpu_pod_hands_each_word_to_every_host_as_it_is(root, tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/bash\ncase "$*" in *describe*) echo READY ;; '
                      '*) printf "%s\\n" "$@" ;; esac\n')
    gcloud.chmod(0o755)
    done = subprocess.run(
        [root / "experiments/batch/tpu_pod.sh", "slice", "zone", "--config=a.py",
         "--config.model.widths=(4, 8)"], capture_output=True, text=True, check=True,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    words = done.stdout.splitlines()
    assert {"--worker=all", "--zone=zone", "slice"} <= set(words)
    command = words[-1].removeprefix("--command=cd cnnjax && exec ")
    again = subprocess.run(["bash", "-c", f'printf "%s\\n" {command}'], capture_output=True,
                           text=True, check=True).stdout.splitlines()
    assert again == [".venv/bin/python", "launch.py", "--config=a.py",
                     "--config.model.widths=(4, 8)"]


@pytest.fixture
def slurm_sh(root, tmp_path):
    """(exit code of srun, what squeue says of the job) -> (exit code, the words of each call).

    `deaf` is a command that fails when it is called first, `signal` what the script gets meanwhile.
    """
    def run(code, state, deaf="", signal=0, **variables):
        calls = tmp_path / "calls"
        for command, more in (("srun", f"kill -{signal} $PPID; exit {code}"),
                              ("squeue", f"echo {state}"), ("scontrol", "")):
            if command == deaf:
                more = f"[ $(grep -c ^{command} {calls}) -gt 1 ] || exit 1\n{more}"
            path = tmp_path / command
            path.write_text(f'#!/bin/bash\necho {command} "$@" >> {calls}\n{more}\n')
            path.chmod(0o755)
        calls.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", root / "experiments/batch/slurm.sh", "--config=a.py"], timeout=30,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **variables})
        return done.returncode, [line.split() for line in calls.read_text().splitlines()]
    return run


def test_slurm_gives_a_task_the_cores_that_sbatch_was_asked_for(slurm_sh):
    _, (srun,) = slurm_sh(0, "", SLURM_CPUS_PER_TASK="16")
    assert "--cpus-per-task=16" in srun and srun[-3:] == ["python", "launch.py", "--config=a.py"]
    _, (srun,) = slurm_sh(0, "")
    assert not any("cpus" in word for word in srun)


@pytest.mark.parametrize(("code", "state", "again"), [
    (75, "RUNNING", True), (75, "COMPLETING", False), (75, "PENDING", False), (0, "RUNNING", False),
    (1, "RUNNING", False), (2, "RUNNING", False)])
def test_slurm_puts_back_what_has_stopped_and_saved_unless_it_was_cancelled(
        code, state, again, slurm_sh):
    ended, calls = slurm_sh(code, state)
    assert ended == code
    assert ["scontrol", "requeue", "7"] in calls if again else calls[-1][0] != "scontrol"


@pytest.mark.parametrize("signal", ["TERM", "USR1"])
def test_slurm_may_signal_the_script_too_which_waits_for_the_run_and_puts_it_back(
        signal, slurm_sh):
    ended, calls = slurm_sh(75, "RUNNING", signal=signal)
    assert ended == 75 and calls[-1] == ["scontrol", "requeue", "7"]


def test_slurm_signals_the_run_before_its_time_is_over_and_may_put_it_back(root):
    script = (root / "experiments/batch/slurm.sh").read_text().splitlines()
    assert {"#SBATCH --requeue", "#SBATCH --signal=USR1@120", "#SBATCH --open-mode=append"} <= set(
        script)


@pytest.mark.parametrize("deaf", ["squeue", "scontrol"])
def test_slurm_that_does_not_answer_is_asked_again(deaf, slurm_sh):
    ended, calls = slurm_sh(75, "RUNNING", deaf)
    assert ended == 75 and calls[-1] == ["scontrol", "requeue", "7"]
    assert [call[0] for call in calls].count(deaf) == 2


def has_slurm():
    return bool(shutil.which("sbatch")) and subprocess.run(
        ["scontrol", "ping"], capture_output=True).returncode == 0


def of_job(job, field):
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True,
                           check=True).stdout
    return re.search(rf"{field}=(\S+)", shown)[1]


def wait(condition, seconds, what):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what()
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.skipif(not has_slurm(), reason="no SLURM runs here")
def test_slurm_stops_two_tasks_puts_them_back_and_they_end_with_the_bits_of_one(root, tmp_path):
    import json
    import sys

    words = ["--config=experiments/simple_cnn.py", "--config.model.widths=(4,8)",
             "--config.data.image_size=8", "--config.train.batch_size=48",
             "--config.train.steps=200", "--config.log.every_steps=20",
             "--config.eval.every_steps=100", "--config.log.plot=False"]
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"

    def state_of(folder):
        return json.loads((folder / "summary.json").read_text())["state_sha256"]

    log = tmp_path / "log"
    job = subprocess.run(
        ["sbatch", "--parsable", "--nodes=1", "--ntasks=2", "--ntasks-per-node=2",
         f"--output={log}", "experiments/batch/slurm.sh", *words, f"--workdir={tmp_path / 'two'}"],
        cwd=root, env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=True).stdout.strip()
    read = lambda: log.read_text() if log.exists() else ""  # noqa: E731
    try:
        wait(lambda: "step 40/" in read(), 300, read)
        subprocess.run(["scancel", "--signal=TERM", job], check=True)
        wait(lambda: of_job(job, "Restarts") == "1", 120, read)
        assert "Stopped and saved at step" in read()
        # SLURM would hold it for two minutes.
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
        wait(lambda: of_job(job, "JobState") == "COMPLETED", 600, read)
    finally:
        subprocess.run(["scancel", job], check=False)
    assert "resumed at step" in read()
    subprocess.run([sys.executable, "launch.py", *words, f"--workdir={tmp_path / 'one'}"], cwd=root,
                   check=True, capture_output=True,
                   env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"})
    assert state_of(tmp_path / "one") == state_of(tmp_path / "two")

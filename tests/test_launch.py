"""The command line: every mistake is one message with the fix, and exit code 2."""

import contextlib
import errno
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import cnnjax
from cnnjax.command_flags import parse
from cnnjax.command_line import main
from cnnjax.config import model_overrides
from cnnjax.files import write_whole
from cnnjax.jobs import predict
from cnnjax.validation import validate

LENET = "--config=experiments/lenet5.py"
LONG = "a" * 300  # As the name of a file.


@pytest.fixture(autouse=True)
def _in_the_repository(root, monkeypatch):
    monkeypatch.chdir(root)


def images(folder, counts, size=8):
    import cv2

    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = np.random.default_rng(i).integers(0, 256, (size, size, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{i}.png"), image)
    return folder


def bad(argv, capsys):
    code = main(["launch.py", *argv])
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture(scope="module")
def listened():
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: events.append(event) if "backend_compile" in event else None)
    return events


@pytest.fixture
def compiled(listened):
    """What has been compiled since the test began."""
    listened.clear()
    return listened


@pytest.mark.parametrize(("argv", "said"), [
    ([], "Try: python launch.py --config=experiments/resnet50.py"),
    (["--job=train"], "--config=experiments/resnet50.py"),
    (["--config=experiments/resnet51.py"], "Did you mean 'experiments/resnet50.py'"),
    (["--config=resnet50"], "Did you mean 'experiments/resnet50.py'"),
    (["--config=experiments/alexnet.py"], "alexnet.py. Did you mean 'experiments/lenet5.py'?"),
    (["--config=experiments/nothing.py"], "nothing.py. There are: "),
    (["--config=experiments/lenet5.py:mnits"], "Did you mean 'mnist'"),
    ([LENET, "--job=trian"], "Did you mean 'train'"),
    ([LENET, "--wrkdir=x"], "workdir"),
    ([LENET, "epochs=3"], "--name=value"),
    ([LENET, "--config.model.name=lenet"], "Did you mean 'lenet5'"),
    ([LENET, "--config.train.bach_size=3"], "Did you mean 'train.batch_size'"),
    (["--config=experiments/efficientnet.py:b9"], ":b7. Or a number, :phi=1.5"),
    ([LENET, "--config.optimizer.lr=0.1"], "Did you mean 'schedule.lr' or 'head.lr'?"),
    ([LENET, "--config.lr=0.1"], "Did you mean 'schedule.lr' or 'head.lr'?"),
    ([LENET, "--weight-decay=0.1"], "--config.optimizer.weight_decay"),
    ([LENET, "--epochs", "3"], "Did you mean --config.train.epochs or --config.head.epochs?"),
    ([LENET, "--config.trian.epochs=3"], "train"),
    ([LENET, "--config.model.widht=3"], "lenet5"),
    ([LENET, "--config.train.epochs=many"], "takes a float"),
    ([LENET, "--config.train.batch_size=2.5"], "takes an int"),
    ([LENET, "--config.train.epochs=3", "--config.train.steps=5"], "Two durations at once"),
    ([LENET, "--config.train.epochs=-1"], "finite number from 0"),
    ([LENET, "--config.data.name=mnist", "--config.data.data_dir=/nowhere"],
     "python launch.py --job=prepare --config=experiments/lenet5.py --config.data.name=mnist"),
    ([LENET, "--config.data.name=mnits"], "mnist"),
    ([LENET, "--config.data.name=folder:/nowhere"], "/nowhere"),
    ([LENET, "--config.data.name=npz:/nowhere.npz"], "/nowhere.npz"),
    ([LENET, "--config.data.image_size=8"], "data.image_size=12"),
    ([LENET, "--config.train.batch_size=5000"], "batch_size=1437 or smaller"),
    ([LENET, "--config.devices=99"], "--config.devices=0"),
    ([LENET, "--config.data.mean=(0.5,0.5)"], "1 channels"),
    ([LENET, "--config.schedule.warmup_epochs=1000"], "warm-up"),
    ([LENET, "--config.optimizer.decay=('nothing',)"], "head/kernel"),
    ([LENET, "--config.optimizer=adam"], "optimizer.name"),
    ([LENET, "--config.seed=None"], "cannot be None"),
    ([LENET, "--config.model.num_classes=5"], "that of the data set"),
    ([LENET, "--config.model.name=None"], "model.name cannot be None"),
    (["--config=experiments/resnet50.py", "--config.model.name=lenet5"],
     "leave it out: --config.model.zero_init_residual=None"),
    ([LENET, "--config.train.epochs=1e308"], "finite number"),
    ([LENET, "--config.train.steps=3000000000"], "too long"),
    ([LENET, "--config.schedule.drop_epochs=('a',)"], "tuple of finite numbers"),
    ([LENET, "--config.optimizer.decay=(1,2)"], "tuple of texts"),
    ([LENET, "--config.eval.checkpoint=²", "--job=evaluate"], "There is no run"),
    (["--job=summarize"], "--config=experiments/resnet50.py"),
    (["--job=summarize", "--models=resnet51"], "Did you mean 'resnet50'"),
    (["--models=*"], "--models goes with --job=summarize"),
    (["--job=summarize", "--model=*"], "models"),
    (["--job=predict"], "--model=resnet50 --weights=resnet50.pth"),
    (["--job=evaluate", "--weights=x.pth"], "or which model, such as --model=resnet50"),
    (["--config.schedule.lr=0.1"], "No config: say which experiment, such as"),
    (["--job=predict", "--model=resnet50", "--images=experiments"], "--weights=FILE"),
    (["--job=predict", "--model=resnet50", "--image=x"], "images"),
    (["--job=predict", "--model=resnet51", "--weights=x.pth"], "Did you mean 'resnet50'"),
    (["--job=predict", "--model=resnet50", "--weights=x.pth", "--images=x"],
     "There is no file x.pth"),
    (["--job=export", "--model=resnet50", "--weights=README.md"], "no file of weights"),
    (["--job=predict", "--model=resnet50", "--weights"], "--weights=VALUE"),
    (["--job=predict", "--workdir=/nowhere"], "There is no run in /nowhere"),
    ([LENET, "--model=resnet50"], "--config.model.name=NAME"),
    ([LENET, "--images=x"], "--images goes with --job=predict"),
    ([LENET, "--job=export", "--config.export.input=int8"], "float32, uint8"),
    ([LENET, "--job=export"], "There is no trained model"),
    ([LENET, "--job=predict", "--config.weights.path=random"], "There is no trained model"),
    (["--config=launch.py"], "defines no get_config"),
    (["--config=experiments"], "experiments/lenet5.py"),
    ([LENET, "--workdir=/proc/nowhere"], "cannot be written"),
    (["--job=evaluate", "--workdir=/nowhere"], "There is no run in /nowhere"),
    ([LENET, "--workdir=gs://bucket/runs"], "--workdir=/mnt/runs/NAME"),
    ([LENET, "--config.seeds=2", "--workdir=s3://bucket/runs"], "is an address"),
    ([LENET, f"--workdir={LONG}"], "at most 255 bytes"),
    ([LENET, "--config.seeds=2", f"--workdir={LONG}"], "at most 255 bytes"),
    (["--job=evaluate", f"--workdir={LONG}"], "at most 255 bytes"),
    ([f"--config={LONG}.py"], "at most 255 bytes"),
    ([LENET, f"--config.data.name=folder:{LONG}"], "at most 255 bytes"),
    (["--job=export", "--model=resnet18", "--weights=x.pth", "--workdir=~nobody_here/x"],
     "There is no file x.pth"),
    ([LENET, "--config.data.name=folder:~nobody_here/photos"], "~nobody_here/photos. Give"),
    ([LENET, "--config.weights.path=~nobody_here/x.pth"], "no file ~nobody_here/x.pth"),
])
def test_a_users_mistake_is_one_message_that_shows_the_fix(argv, said, capsys, tmp_path, compiled):
    if argv and not any(word.startswith("--workdir") for word in argv):
        argv = [*argv, f"--workdir={tmp_path / 'run'}"] if LENET in argv else argv
    assert said in bad(argv, capsys)
    assert not list(tmp_path.iterdir()) and not compiled


@pytest.mark.parametrize("words", [[], ["--config.seeds=2"]])
@pytest.mark.parametrize("name, problem", [
    # Of the Latin-1 for "größe" Python makes this, and TensorStore's C++ makes nothing.
    (os.fsdecode(b"gr\xf6\xdfe"), "not UTF-8"),
    ("lr[1]", "a pattern"),  # To Orbax, which finds nothing below "lr1".
])
def test_a_workdir_that_can_hold_no_checkpoints_is_refused_before_the_first_step(
        name, problem, words, tmp_path, capsys):
    folder = tmp_path / name
    run = [LENET, "--config.train.steps=1", f"--workdir={folder}", *words]
    with contextlib.redirect_stderr(io.StringIO()) as said:  # Which takes such a name, too.
        assert main(["launch.py", *run]) == 2
    assert problem in said.getvalue() and "another --workdir" in said.getvalue()
    assert not capsys.readouterr().out and not list(tmp_path.glob("*/*/"))


def test_experiments_are_listed_once(capsys):
    said = bad(["--config=experiments/resnet51.py"], capsys)
    listed = said.partition("There are: ")[2].rstrip(".\n").split(", ")
    assert "experiments/lenet5.py" in listed and len(listed) == len(set(listed))


def test_a_folder_without_images_or_with_one_class_says_what_is_expected(capsys, tmp_path):
    empty = tmp_path / "empty"
    (empty / "a").mkdir(parents=True)
    (empty / "b").mkdir()
    run = [LENET, f"--workdir={tmp_path / 'run'}"]
    assert "image" in bad([*run, f"--config.data.name=folder:{empty}"], capsys)
    one = images(tmp_path / "one", {"cats": 3})
    assert "class" in bad([*run, f"--config.data.name=folder:{one}"], capsys)


def test_a_label_out_of_range_is_named(capsys, tmp_path):
    x = np.zeros((20, 28, 28), np.uint8)
    labels = np.arange(20) % 3
    labels[7] = -4
    np.savez(tmp_path / "a.npz", x_train=x, y_train=labels, x_test=x, y_test=np.arange(20) % 3)
    said = bad([LENET, f"--workdir={tmp_path / 'run'}",
                f"--config.data.name=npz:{tmp_path / 'a.npz'}"], capsys)
    assert "-4" in said and "7" in said


def test_a_workdir_of_another_experiment_lists_the_differences(capsys, tmp_path):
    run = [LENET, f"--workdir={tmp_path / 'run'}", "--config.train.steps=1",
           "--config.log.progress=none", "--config.log.plot=False"]
    assert main(["launch.py", *run]) == 0
    capsys.readouterr()
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    said = bad([*run, "--config.schedule.lr=0.3", "--config.model.name=lenet5_full"], capsys)
    assert "schedule.lr: 0.05 there, 0.3 here" in said and "lenet5_full" in said
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("file", "text"), [
    ("config.json", "[]"), ("config.json", "{"), ("summary.json", "[1]"),
    ("summary.json", b"\xff\xfe")])
def test_a_damaged_file_in_the_workdir_is_named(capsys, tmp_path, file, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / file).write_bytes(text.encode() if isinstance(text, str) else text)
    assert file in bad([LENET, f"--workdir={tmp_path / 'run'}"], capsys)


@pytest.mark.parametrize("text", ['{"train": 3}', '{"bogus": {"a": 1}}'])
def test_a_config_json_of_another_kind_is_named(capsys, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in bad([f"--workdir={tmp_path}"], capsys)


def test_none_unsets_a_duration(capsys):
    config = parse(["launch.py", LENET, "--config.log.every_percent=None"]).config
    assert config.log.every_percent is None
    config = parse(["launch.py", LENET, "--config.train.epochs=None",
                    "--config.train.steps=9"]).config
    assert config.train.epochs is None and config.train.steps == 9


def test_another_model_leaves_out_what_the_file_sets_of_its_own():
    command = parse(["launch.py", "--config=experiments/resnet50.py", "--config.model.name=vgg11",
                     "--config.model.zero_init_residual=None", "--config.model.stage_sizes=None"])
    validate(command.config)
    assert model_overrides(command.config) == {}
    command.config.model.name, command.config.model.se_reduction = "seresnet18", None
    assert model_overrides(command.config) == {"se_reduction": None}  # Which switches it off.


def test_a_config_file_that_fails_names_its_line(capsys, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("def get_config(preset=None):\n    return 1 / 0\n")
    assert "broken.py:2: ZeroDivisionError" in bad([f"--config={file}"], capsys)
    file.write_text("def get_config(preset=None:\n")
    assert "broken.py:1:" in bad([f"--config={file}"], capsys)
    file.write_text("def get_config(preset=None):\n    return 3\n")
    assert "not a ConfigDict" in bad([f"--config={file}"], capsys)


def test_help_is_the_usage_and_exit_code_0(capsys):
    assert main(["launch.py", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--job=JOB" in out and "--models=PATTERN" in out


def test_help_waits_for_neither_jax_nor_flax(root):
    code = ("import sys; from cnnjax.command_line import main; main(['launch.py', '--help']);"
            "sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'tensorflow')))")
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)


def test_the_process_exits_with_the_code_and_without_a_traceback(root):
    done = subprocess.run([sys.executable, "launch.py", "--config=experiments/nothing.py"],
                          cwd=root, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "experiments/resnet50.py" in done.stderr


def test_overrides_arrive_and_replace_the_files_unit():
    command = parse(["launch.py", "--config=experiments/lenet5.py:mnist",
                     "--config.train.steps=7", "--config.model.padding=2"])
    assert command.config.train.steps == 7 and command.config.train.epochs is None
    assert command.config.model.padding == 2
    assert str(command.workdir) == "runs/lenet5-mnist"


def test_models_are_compared_without_a_config(capsys):
    assert main(["launch.py", "--job=summarize", "--models=lenet5*"]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("60,806", "61,706", "1998", "99.05", "0.95 % error"))
    assert "resnet" not in out


def test_the_summary_of_a_config_is_printed(capsys):
    assert main(["launch.py", LENET, "--job=summarize"]) == 0
    assert "60,806" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(capsys, tmp_path):
    assert main(["launch.py", LENET, f"--workdir={tmp_path / 'run'}", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "60,806" in out and "learning rate" in out and "memory" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [
    ["--config=experiments/lenet5.py:mnist", "--dry_run"],
    ["--config=experiments/lenet5.py:mnist", "--workdir", "some/where", "--job", "train"],
    ["--config=experiments/lenet5.py:mnist", "--job=summarize", "--what=data"]])
def test_the_command_that_prepares_data_can_be_typed_as_it_stands(words, capsys, monkeypatch):
    said = bad([*words, "--config.data.data_dir=/nowhere"], capsys)
    command, = re.findall(r"^ +(python launch.py .*)", said, re.MULTILINE)
    parsed = parse(shlex.split(command)[1:])
    assert (parsed.job, parsed.dry_run, parsed.config.data.data_dir) == (
        "prepare", False, "/nowhere")
    assert parsed.config.data.name == "mnist"


def test_a_run_without_its_data_names_the_command_that_takes_them_from_its_config(
        tmp_path, capsys):
    run = [LENET, f"--workdir={tmp_path / 'run'}", "--config.train.steps=1"]
    config = parse(["launch.py", *run, "--config.data.name=mnist"]).config
    (tmp_path / "run" / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    said = bad(["--job=summarize", "--what=data", f"--workdir={tmp_path / 'run'}",
                "--config.data.data_dir=/nowhere"], capsys)
    command, = re.findall(r"^ +(python launch.py .*)", said, re.MULTILINE)
    parsed = parse(shlex.split(command)[1:])
    assert (parsed.job, parsed.config.data.name) == ("prepare", "mnist")


def test_weights_without_a_run_get_a_command_that_prepares_data_too(tmp_path, capsys):
    cnnjax.save_weights(tmp_path / "a.safetensors", "simple_cnn", small(), widths=(4,))
    said = bad(["--job=predict", "--model=simple_cnn", f"--weights={tmp_path}/a.safetensors",
                "--config.data.name=mnist", f"--workdir={tmp_path / 'out'}",
                "--config.data.data_dir=/nowhere"], capsys)
    command, = re.findall(r"^ +(python launch.py .*)", said, re.MULTILINE)
    parsed = parse(shlex.split(command)[1:])
    assert (parsed.job, parsed.config.data.name) == ("prepare", "mnist")


def small():
    """Variables of a small CNN for grey images, all zeros."""
    module = cnnjax.create_model("simple_cnn", 10, widths=(4,))
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(
        module.init, jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32)))


def test_the_home_folder_may_be_written_as_the_shell_does(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(parse(["launch.py", LENET, "--workdir=~/run"]).workdir) == "/home/somebody/run"


def test_a_platform_that_jax_does_not_find_is_one_message(root):
    done = subprocess.run([sys.executable, "launch.py", LENET, "--dry_run"], cwd=root, text=True,
                          capture_output=True, env=os.environ | {"JAX_PLATFORMS": "bogus"})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "JAX cannot start with JAX_PLATFORMS='bogus'" in done.stderr


def test_a_disk_that_fills_in_the_middle_of_a_job_is_a_message(capsys, tmp_path, monkeypatch):
    def job(config, folder, dry_run):
        folder.mkdir()
        write_whole(folder / "predictions.csv", "file,label\n")

    def full(path, content, write=Path.write_bytes):
        write(path, content[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predict, "run", job)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["launch.py", LENET, "--job=predict", f"--workdir={tmp_path / 'run'}"]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/run/predictions.csv could not be written: No space left on device" in said
    assert "run the same command" in said and not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("closed", ["photos/train", "experiment.py"])
def test_what_may_not_be_read_is_named(capsys, tmp_path, monkeypatch, closed):
    images(tmp_path / "photos/train", {"a": 2, "b": 2})
    shutil.copy("experiments/lenet5.py", tmp_path / "experiment.py")

    def deny(function):
        def denied(path, *args, **options):
            if str(path) == str(tmp_path / closed):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path, *args, **options)

        return denied

    monkeypatch.setattr(os, "scandir", deny(os.scandir))
    monkeypatch.setattr(io, "open", deny(io.open))  # That of pathlib.
    assert main(["launch.py", f"--config={tmp_path / 'experiment.py'}", "--job=prepare",
                 "--dry_run", f"--config.data.name=folder:{tmp_path / 'photos'}"]) == 2
    assert f"{tmp_path / closed}: Permission denied. Change" in capsys.readouterr().err


def test_a_dry_run_on_tar_files_writes_their_index_alone(capsys, tmp_path):
    import tarfile

    folder = images(tmp_path / "photos", {"a": 4})
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "train.tar", "w") as archive:
        for i in range(4):
            (folder / f"a/{i}.cls").write_text(str(i % 2))
            for name in (f"{i}.png", f"{i}.cls"):
                archive.add(folder / "a" / name, name)
    assert main(["launch.py", LENET, f"--workdir={tmp_path / 'run'}", "--job=prepare", "--dry_run",
                 f"--config.data.name=wds:{shards}"]) == 0
    assert {p.name[:13] for p in shards.iterdir()} == {"train.tar", ".cnnjax-index"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "shards"]
    capsys.readouterr()
    assert main(["launch.py", "--help"]) == 0
    assert "writes nothing but the index of tar files" in " ".join(capsys.readouterr().out.split())

"""Whole runs in this process: what a workdir holds, resuming, and finishing once."""

import contextlib
import gc
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from results import lines, summary

import cnnjax
from cnnjax import config as config_lib
from cnnjax import garbage, trees
from cnnjax.command_line import main
from cnnjax.jobs import ahead, backend, run_summary, workdir
from cnnjax.jobs import experiment as experiment_lib
from cnnjax.jobs.lock import Lock, held
from cnnjax.train.writers import read_metrics
from cnnjax.types import UserError

RUN = ["launch.py", "--config=experiments/simple_cnn.py", "--config.model.widths=(4, 8)",
       "--config.data.image_size=8", "--config.train.steps=40", "--config.log.every_steps=7",
       "--config.eval.every_steps=10", "--config.augment.pad_crop=1",
       "--config.model.dropout_rate=0.1", "--config.log.progress=none"]


def train(folder, *overrides):
    return main([*RUN, f"--workdir={folder}", *overrides])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert train(folder) == 0
    return folder


def test_a_workdir_holds_what_the_design_says(whole):
    files = {p.name for p in whole.iterdir()}
    assert files == {"config.json", "metrics.jsonl", "summary.json", "checkpoints", "tensorboard",
                     "curves.png", ".training"}
    found = summary(whole)
    assert set(found) == {
        "status", "model", "data", "data_fingerprint", "params", "multiply_adds", "input_shape",
        "steps",
        "top1", "top5", "examples_evaluated", "bad_files",
        "images_per_second", "seconds", "rollbacks", "checkpoint_errors",
        "params_sha256", "state_sha256", "versions", "git_commit"}
    assert found["status"] == "done" and found["steps"] == 40
    assert found["examples_evaluated"] == 360 and 0 <= found["top1"] <= found["top5"] <= 1


def test_each_step_of_the_metrics_appears_once_and_in_order(whole):
    steps = [r["step"] for r in lines(whole)]
    assert steps == [7, 10, 14, 20, 21, 28, 30, 35, 40]


def test_the_loss_falls(whole):
    losses = [r["train_loss"] for r in lines(whole) if "train_loss" in r]
    assert losses[-1] < losses[0]


def test_a_finished_run_prints_its_summary_and_changes_nothing(whole, capsys):
    before = sorted((p, p.stat().st_mtime_ns) for p in whole.rglob("*"))
    assert train(whole) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert sorted((p, p.stat().st_mtime_ns) for p in whole.rglob("*")) == before


def test_a_finished_run_that_goes_on_for_longer_opens_its_data_once(tmp_path, monkeypatch):
    assert train(tmp_path, "--config.train.stop_after_steps=1") == 0
    opened, open_dataset = [], experiment_lib.open_dataset
    monkeypatch.setattr(experiment_lib, "open_dataset",
                        lambda config: opened.append(config) or open_dataset(config))
    assert train(tmp_path, "--config.train.stop_after_steps=2") == 0
    assert summary(tmp_path)["steps"] == 2 and len(opened) == 1


def test_a_finished_folder_without_checkpoints_is_still_its_experiments(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("checkpoints"))
    assert train(folder) == 0 and "nothing to do" in " ".join(capsys.readouterr().out.split())
    assert train(folder, "--config.seed=9") == 2
    assert "seed: 0 there, 9 here" in capsys.readouterr().err


def test_two_processes_do_not_train_in_one_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workdir, "_PATIENCE", 0.0)
    folder = tmp_path / "run"
    other = Lock(folder / workdir.LOCK)
    assert other.take()
    assert train(folder, "--config.train.steps=2") == 2
    assert "Another process trains in" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [workdir.LOCK]
    other.release()
    assert train(folder, "--config.train.steps=2") == 0 and not held(folder / workdir.LOCK)


@pytest.mark.parametrize(("seed", "code", "says"), [
    (0, 0, "is finished; nothing to do"), (9, 2, "seed: 0 there, 9 here")])
def test_who_waited_for_another_process_that_finished_the_run_changes_nothing(
        seed, code, says, tmp_path, monkeypatch, capsys):
    folder, words = tmp_path / "run", ("--config.train.steps=2", "--config.log.plot=False")

    @contextlib.contextmanager
    def after_another(_):
        with monkeypatch.context() as patch:
            patch.setattr(workdir, "alone_in", contextlib.nullcontext)
            assert train(folder, *words) == 0
        capsys.readouterr()
        yield

    monkeypatch.setattr(workdir, "alone_in", after_another)
    assert train(folder, *words, f"--config.seed={seed}") == code
    said = capsys.readouterr()
    assert says in " ".join((said.out + said.err).split())
    assert summary(folder)["images_per_second"] is not None


def test_a_lock_that_cannot_be_taken_is_explained(tmp_path, capsys):
    (tmp_path / "run" / workdir.LOCK).mkdir(parents=True)
    assert train(tmp_path / "run", "--config.train.steps=2") == 2
    assert "cannot be written (Is a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(("old", "new", "same"), [
    ("folder:/a/photos", "folder:photos", True), ("imagenet:/a", "imagenet:~/b", True),
    ("folder:/a", "records:/a", False), ("mnist", "cifar10", False), ("mnist", "npz:x", False)])
def test_files_may_be_moved_and_the_fingerprint_says_whether_they_are_the_same(old, new, same):
    config = config_lib.default()
    config.data.name = old
    saved = config_lib.flatten(config)
    config.data.name = new
    with contextlib.nullcontext() if same else pytest.raises(UserError, match="data.name"):
        workdir.check_same_experiment(saved, config, Path("run"))


def test_a_finished_run_is_not_that_of_other_files(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in "ab":
        images = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=np.arange(40) % 4,
                 x_test=images[:8], y_test=np.arange(8) % 4)
    words = ("--config.train.steps=2", "--config.train.batch_size=8")
    assert train(tmp_path / "run", *words, f"--config.data.name=npz:{tmp_path / 'a.npz'}") == 0
    (tmp_path / "a.npz").rename(tmp_path / "c.npz")
    assert train(tmp_path / "run", *words, f"--config.data.name=npz:{tmp_path / 'c.npz'}") == 0
    assert "nothing to do" in " ".join(capsys.readouterr().out.split())
    for dry in ((), ("--dry_run",)):
        assert train(tmp_path / "run", *words, *dry,
                     f"--config.data.name=npz:{tmp_path / 'b.npz'}") == 2
        assert "is not the one that this run was trained on" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train(tmp_path / "run", *words, f"--config.data.name=npz:{tmp_path / 'c.npz'}") == 2
    assert "no checkpoint that says whether" in capsys.readouterr().err


def test_a_run_that_stopped_early_goes_on_to_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.stop_after_steps=23") == 0
    assert summary(folder)["status"] == "stopped" and summary(folder)["steps"] == 23
    assert train(folder) == 0
    for key in ("params_sha256", "state_sha256", "top1", "top5"):
        assert summary(folder)[key] == summary(whole)[key]


@pytest.mark.parametrize(("calls", "written", "saved"), [
    (9, [7], 9), (10, [7, 10], 10), (13, [7], 10), (17, [7, 10], 11)],
    ids=["between", "before an evaluation", "during an evaluation", "after it"])
def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_bits_and_lines(
        whole, tmp_path, monkeypatch, calls, written, saved):
    from cnnjax.jobs import signals

    @contextlib.contextmanager
    def after_calls():
        """The loop asks after each of 10 steps, before each of 6 batches of evaluation, ...."""
        count = iter(range(1, 1000))
        yield lambda: next(count) == calls

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(signals, "stop_requests", after_calls)
        assert train(folder) == 75
    assert [r["step"] for r in lines(folder)] == written
    assert (folder / "checkpoints" / str(saved)).is_dir()
    if written == [7] and saved == 10:  # A session that was killed when it had measured this.
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 10, "eval_top1": 0.5}\n')
    assert train(folder) == 0
    assert lines(folder) == lines(whole)
    assert summary(folder)["state_sha256"] == summary(whole)["state_sha256"]
    assert not list((folder / "checkpoints").glob("*-*"))


def test_a_finished_run_can_be_extended(whole, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.schedule.name=constant") == 0
    assert train(folder, "--config.schedule.name=constant", "--config.train.steps=50") == 0
    assert summary(folder)["steps"] == 50 and summary(folder)["status"] == "done"


def test_a_failed_start_leaves_the_workdir_to_the_corrected_one(tmp_path, capsys):
    folder = tmp_path / "run"

    def fails(*_):
        raise UserError("The images cannot be read.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment_lib, "make_train_feed", fails)
        assert train(folder) == 2
    assert train(folder, "--config.train.steps=2") == 0


def test_a_checkpoint_without_its_config_file_still_knows_its_experiment(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.steps=2") == 0
    (folder / "config.json").unlink()
    (folder / "summary.json").unlink()
    assert train(folder, "--config.train.steps=4", "--config.model.widths=(4, 4)") == 2
    assert "model.widths" in capsys.readouterr().err
    assert train(folder, "--config.train.steps=1") == 2
    assert "past the end" in capsys.readouterr().err


def test_an_extended_run_has_no_old_summary_until_it_ends(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.steps=2") == 0
    monkeypatch.setattr(run_summary, "write", lambda *args: None)
    assert train(folder, "--config.train.steps=4") == 0
    assert not (folder / "summary.json").exists()


def test_the_best_checkpoint_is_kept_though_saving_has_another_rhythm(tmp_path):
    from cnnjax.checkpoint import Checkpoints

    folder = tmp_path / "run"
    assert train(folder, "--config.checkpoint.every_steps=7", "--config.eval.every_steps=9",
                 "--config.checkpoint.keep_last=1") == 0
    scores = {r["step"]: r["eval_top1"] for r in lines(folder) if "eval_top1" in r}
    best = max(scores, key=lambda step: (scores[step], step))
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    assert checkpoints.steps() == sorted({best, 40}) and checkpoints.find("best") == best


def test_evaluate_takes_another_split(whole, capsys):
    assert main(["launch.py", "--job=evaluate", f"--workdir={whole}",
                 "--config.data.eval_split=train"]) == 0
    assert "1,437" in capsys.readouterr().out


def test_evaluate_gives_the_summarys_accuracy_from_the_workdir_alone(whole, capsys):
    assert main(["launch.py", "--job=evaluate", f"--workdir={whole}"]) == 0
    assert f"{summary(whole)['top1']:.4%}" in capsys.readouterr().out
    assert main(["launch.py", "--job=evaluate", f"--workdir={whole}",
                 "--config.eval.checkpoint=best"]) == 0


def test_the_record_beside_the_arrays_says_what_they_are(whole):
    from cnnjax.checkpoint import Checkpoints

    checkpoints = Checkpoints(whole / "checkpoints", read_only=True)
    record = checkpoints.record(40)
    assert record["model"]["name"] == "simple_cnn" and record["class_names"] == list("0123456789")
    assert record["preprocess"]["size"] == [8, 8] and record["data"]["fingerprint"]
    assert record["config"]["train"]["steps"] == 40 and record["versions"] == backend.versions()
    assert record["data"]["name"] == "digits"
    commits = [(commit or "").rstrip("+") for commit in (record["git_commit"],
                                                         backend.git_commit())]
    assert commits[0] == commits[1]
    assert record["metrics"]["eval_top1"] == summary(whole)["top1"]


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_last_good_checkpoint(tmp_path, capsys):
    folder = tmp_path / "run"
    code = train(folder, "--config.schedule.lr=1e6", "--config.model.batch_norm=False",
                 "--config.optimizer.clip_norm=0", "--config.schedule.warmup_steps=12",
                 "--config.checkpoint.every_steps=1", "--config.optimizer.weight_decay=1")
    out = capsys.readouterr().err
    assert code == 1 and "not finite at step" in out and "learning rate was" in out
    assert summary(folder)["status"] == "non_finite"
    assert "last good checkpoint" in out or "no checkpoint before" in out


def test_the_same_seed_gives_the_same_bits_and_another_does_not(whole, tmp_path):
    assert train(tmp_path / "a") == 0
    assert summary(tmp_path / "a")["state_sha256"] == summary(whole)["state_sha256"]
    assert train(tmp_path / "b", "--config.seed=1") == 0
    assert summary(tmp_path / "b")["params_sha256"] != summary(whole)["params_sha256"]


@pytest.mark.slow
def test_several_steps_in_a_call_end_at_the_same_step(tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.train.steps_per_call=3") == 0
    assert summary(folder)["steps"] == 40
    steps = [r["step"] for r in lines(folder)]
    assert steps == sorted(set(steps)) and all(s % 3 == 0 or s == 40 for s in steps)


def test_the_last_call_is_traced_when_the_first_has_returned_and_its_time_counts():
    events, batches = [], [(k, {"x": np.zeros((k, 2))}) for k in (3, 3, 1)]

    class Jitted:
        def __call__(self, state, constants, batch):
            return state

        def lower(self, state, constants, batch):
            events.append(("traced", state.shape, batch["x"].shape))
            return self

        def compile(self):
            return self

    call, watched = ahead.ending(ahead.Call(Jitted()), batches,
                                 {"x": jax.ShapeDtypeStruct((1, 2), np.float64)})
    for k, batch in watched:
        call(np.zeros(4), {}, batch)
        events.append(k)
    assert events == [3, ("traced", (4,), (1, 2)), 3, 1]


def test_the_rate_of_a_log_line_does_not_wait_for_the_steps_that_were_begun():
    config = config_lib.default()
    config.model.name, config.train.steps, config.data.image_size = "lenet5", 3000, 16
    experiment = experiment_lib.build(config)
    rates = [experiment.learning_rate(step) for step in (0, 5, 1023, 1024, 2999)]
    np.testing.assert_allclose(rates, [experiment.phases[0].learning_rate(step)
                                       for step in (0, 5, 1023, 1024, 2999)], rtol=1e-6)
    begun = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, x: jnp.sin(x @ x), x))
    result = begun(np.ones((500, 500), np.float32)), begun(np.eye(500, dtype=np.float32))
    assert experiment.learning_rate(6) != rates[1] and not result[1].is_ready()


def test_what_was_called_ahead_is_what_the_first_call_returns():
    draw = ahead.Call(jax.jit(lambda seed: jax.random.normal(jax.random.key(seed), (3,))))
    draw.prepare(np.uint32(5), calls=True)
    made = draw._compiling.result()[1]
    assert draw(np.uint32(5)) is made
    for seed in (5, 6):  # And later ones their own.
        np.testing.assert_array_equal(draw(np.uint32(seed)),
                                      jax.random.normal(jax.random.key(seed), (3,)))


@pytest.mark.parametrize("command", [
    [*RUN, "--workdir={}/run", "--config.train.steps=1"],
    [*RUN, "--workdir={}/run", "--config.train.steps=1", "--config.seeds=1"],
    ["launch.py", "--job=summarize", "--models=lenet5"]], ids=["train", "seeds", "compare"])
def test_python_looks_for_garbage_again_once_a_run_has_started(command, tmp_path):
    often = gc.get_threshold()
    garbage.look_seldom()
    assert gc.get_threshold()[0] > 10 * often[0]
    assert main([word.format(tmp_path) for word in command]) == 0
    assert gc.get_threshold() == often


@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize(("several", "steps", "calls"), [(1, 4, 4), (3, 7, 3)])
def test_the_step_that_compiles_ahead_is_the_one_that_trains(
        several, steps, calls, placement, tmp_path, monkeypatch):
    """The one of the last call, too, if that has fewer steps."""
    call, compiled, during = ahead.Call.__call__, [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(threading.get_ident())
        if "backend_compile" in event else None)

    def watched(self, state=None, *arguments):
        def here():
            return compiled.count(threading.get_ident())

        before = here()
        results = call(self, state, *arguments)
        if arguments:  # A training step.
            during.append(here() - before)
        return results

    monkeypatch.setattr(ahead.Call, "__call__", watched)
    folder, words = tmp_path / "run", [f"--config.data.placement={placement}",
                                       f"--config.train.steps_per_call={several}",
                                       f"--config.train.steps={steps}"]
    assert train(folder, *words, "--config.train.stop_after_steps=2") == 0
    assert train(folder, *words) == 0
    assert summary(folder)["steps"] == steps
    assert compiled and during == calls * [0]


@pytest.mark.slow
def test_products_of_bfloat16_train_nearly_as_float32_and_evaluate_as_it(tmp_path, root, capsys,
                                                                       monkeypatch):
    monkeypatch.chdir(root)

    def run(precision):
        assert main(["launch.py", "--config=experiments/resnet_cifar.py",
                     "--config.model.stage_sizes=(1, 1)", "--config.model.widths=(16, 16)",
                     "--config.model.shortcut=projection", "--config.train.batch_size=64",
                     "--config.train.steps=2", "--config.log.every_steps=1",
                     "--config.log.progress=none", f"--config.precision={precision}",
                     f"--workdir={tmp_path / precision}"]) == 0
        losses = [r["loss"] for r in lines(tmp_path / precision) if "loss" in r]
        return losses, summary(tmp_path / precision)["params_sha256"], capsys.readouterr().out

    (plain, digest, printed), (rounded, other, said) = run("float32"), run("bfloat16_products")
    assert "products of bfloat16" not in printed and "float32, products of bfloat16" in said
    np.testing.assert_allclose(rounded, plain, rtol=0.02)
    assert other != digest
    assert main(["launch.py", "--job=evaluate", f"--workdir={tmp_path / 'bfloat16_products'}"]) == 0
    assert f"{summary(tmp_path / 'bfloat16_products')['top1']:.4%}" in capsys.readouterr().out


def test_top5_is_null_under_six_classes(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (64, 8, 8), np.uint8)
    y = np.arange(64) % 5
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    folder = tmp_path / "run"
    data = f"--config.data.name=npz:{tmp_path / 'd.npz'}"
    assert train(folder, data) == 0
    assert summary(folder)["top5"] is None and summary(folder)["examples_evaluated"] == 10
    assert train(tmp_path / "other", data, "--config.checkpoint.metric=top5") == 2


def test_streaming_and_resident_data_train_to_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, "--config.data.placement=stream") == 0
    assert lines(folder) == lines(whole)
    assert jax.device_count() >= 1


RECIPE = ["--config.train.ema_decay=0.8", "--config.augment.mixup=0.4",
          "--config.augment.cutmix=1.0", "--config.augment.policy=trivial_augment_wide",
          "--config.augment.repeats=2", "--config.train.accumulate=2",
          "--config.train.loss=sigmoid"]


@pytest.mark.slow
def test_a_recipe_resumes_to_the_same_bits_and_its_averages_are_what_is_evaluated(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, *RECIPE) == 0
    assert train(parts, *RECIPE, "--config.train.stop_after_steps=7") == 0
    assert train(parts, *RECIPE) == 0
    assert summary(parts)["state_sha256"] == summary(whole)["state_sha256"]
    assert read_metrics(parts)[-1]["eval_loss"] == read_metrics(whole)[-1]["eval_loss"]
    name = summary(whole)["model"]
    _, variables, _ = cnnjax.load_weights(name, whole)
    assert trees.sha256(variables["params"]) != summary(whole)["params_sha256"]


@pytest.mark.parametrize(("flag", "message"), [
    ("augment.policy=rand_augmnt", "Did you mean 'rand_augment'"),
    ("augment.jitter=(0.1,0.1)", "four strengths"),
    ("augment.mixup=-1.0", "between 0.0 and"),
    ("train.accumulate=7", "--config.train.accumulate to a divisor of"),
    ("train.ema_decay=1.0", "train.ema_decay is 1.0")])
def test_a_wrong_recipe_is_explained(tmp_path, capsys, flag, message):
    flags = [f"--config.{part}" for part in flag.split()]
    assert train(tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err


def test_a_key_that_begins_like_one_that_may_change_may_not(tmp_path):
    config = config_lib.default()
    saved = workdir.to_json(config)
    config.train.steps, config.log.every_steps = 9, 3
    workdir.check_same_experiment(saved, config, tmp_path)
    config.train.steps_per_call = 4
    with pytest.raises(UserError, match="train.steps_per_call: 0 there, 4 here"):
        workdir.check_same_experiment(saved, config, tmp_path)


def test_a_run_goes_on_with_the_data_that_it_began_with_or_not_at_all(tmp_path, capsys):
    path = tmp_path / "data.npz"
    for seed, stop, code in ((0, 2, 0), (1, 4, 2)):
        images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8, 1), np.uint8)
        labels = np.arange(60) % 6
        np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
        assert train(tmp_path / "run", f"--config.data.name=npz:{path}",
                     "--config.train.batch_size=20",
                     f"--config.train.stop_after_steps={stop}") == code
    assert "its fingerprint was" in capsys.readouterr().err


def test_a_model_is_evaluated_on_the_classes_that_it_was_trained_for(tmp_path, capsys):
    pets = tmp_path / "pets"
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (pets / split / name).mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8), (20 * i,) * 3).save(pets / split / name / f"{i}.png")
    assert train(tmp_path / "run", f"--config.data.name=folder:{pets}", "--config.train.steps=2",
                 "--config.train.batch_size=20") == 0
    for split in ("train", "val"):
        (pets / split / "cat").rename(pets / split / "wolf")
    assert main(["launch.py", "--job=evaluate", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "was trained for: it lacks 'cat'; it has besides 'wolf'." in capsys.readouterr().err


def test_a_folder_has_checkpoints_once_one_is_finished(tmp_path):
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp-1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "damaged-2").mkdir()
    assert not workdir.has_checkpoints(tmp_path) and not workdir.holds_run(tmp_path)
    (tmp_path / "checkpoints" / "3").mkdir()
    assert workdir.has_checkpoints(tmp_path) and workdir.holds_run(tmp_path)


def test_a_lock_is_waited_for_as_long_as_was_said(tmp_path):
    path = tmp_path / "lock"
    assert not held(path)
    first, second = Lock(path), Lock(path)
    assert first.take() and not second.take()
    timer = threading.Timer(0.2, first.release)
    timer.start()
    assert second.take(seconds=30)
    timer.join()
    second.release()

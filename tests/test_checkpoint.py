"""Orbax checkpoints: what is kept, what comes back."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import checkpoint_files
from cnnjax.checkpoint import Checkpoints, DamagedCheckpoint
from cnnjax.checkpoint_folder import GoneCheckpoint
from cnnjax.train import step as step_lib
from cnnjax.types import UserError


@pytest.fixture
def sharding():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
    return step_lib.replicated(mesh)


def save(checkpoints, scores, sharding):
    for step, score in enumerate(scores, 1):
        metrics = {} if score is None else {"eval_top1": score}
        state = jax.device_put({"w": jnp.full(4, float(step))}, sharding)
        checkpoints.save(step, state, {"metrics": metrics, "model": {"name": "m"}})
    checkpoints.wait()


def test_the_last_and_the_best_are_kept(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
    save(checkpoints, [None, 0.9, 0.3, None, 0.4], sharding)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.find("best") == 2 and checkpoints.find("last") == 5
    assert checkpoints.find("4") == 4
    checkpoints.close()


def test_as_many_of_the_best_are_kept_as_were_asked_for(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=2)
    save(checkpoints, [0.2, 0.9, 0.3, 0.8, 0.1, None], sharding)
    assert checkpoints.steps() == [2, 4, 6] and checkpoints.find("best") == 2
    checkpoints.close()


def test_the_lowest_loss_is_the_best(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=1, metric="loss")
    for step, loss in enumerate([0.5, 0.2, 0.7, 0.6], 1):
        checkpoints.save(step, jax.device_put({"w": jnp.ones(1)}, sharding),
                         {"metrics": {"eval_loss": loss}})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4] and checkpoints.find("best") == 2
    checkpoints.close()


def test_arrays_and_record_come_back_as_they_were_saved(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    abstract = jax.eval_shape(lambda: {"w": jnp.zeros(4)})
    state = checkpoints.restore(1, abstract, sharding)
    np.testing.assert_array_equal(state["w"], np.ones(4))
    assert state["w"].sharding == sharding
    assert checkpoints.record(1) == {"metrics": {"eval_top1": 0.5}, "model": {"name": "m"}}
    checkpoints.close()


def test_a_reader_of_a_run_that_goes_on_has_what_is_there_now(tmp_path, sharding, capsys):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    reader = Checkpoints(tmp_path, read_only=True)
    assert reader.find("last") == 1
    state = jax.device_put({"w": jnp.full(4, 2.0)}, sharding)
    checkpoints.save(2, state, {"metrics": {"eval_top1": 0.4}})
    checkpoints.close()
    abstract = jax.eval_shape(lambda: {"w": jnp.zeros(4)})
    for read in (lambda: reader.record(1), lambda: reader.restore_parts(1, ["w"]),
                 lambda: reader.restore(1, abstract, sharding)):
        with pytest.raises(GoneCheckpoint, match="step 1 .* is gone"):
            read()
    with pytest.raises(UserError, match=r"no checkpoint '1'.*There are: last, 2"):
        reader.find("1")
    assert reader.find("last") == reader.find("best") == 2
    assert capsys.readouterr().err == ""


def test_a_state_that_went_while_it_was_read_is_not_taken_for_zeros(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    with pytest.raises(GoneCheckpoint), checkpoints._damage_of(1):
        (tmp_path / "1").rename(tmp_path / "gone")


def test_below_the_name_of_a_pattern_nothing_is_saved_but_what_was_moved_there_is_read(
        tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path / "a1")
    save(checkpoints, [0.5], sharding)
    checkpoints.close()
    moved = (tmp_path / "a1").rename(tmp_path / "a[1]")
    with pytest.raises(UserError, match="a pattern"):
        Checkpoints(moved)
    state = Checkpoints(moved, read_only=True).restore(
        1, jax.eval_shape(lambda: {"w": jnp.zeros(4)}), sharding)
    np.testing.assert_array_equal(state["w"], np.ones(4))


def test_what_is_saved_is_the_state_at_the_call_though_its_buffers_are_donated(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=9)
    state = jax.device_put({"w": jnp.zeros(100_000)}, sharding)
    add = jax.jit(lambda s: {"w": s["w"] + 1}, donate_argnums=0)
    for step in range(1, 5):
        state = add(state)
        checkpoints.save(step, state, {"metrics": {}})
        for _ in range(20):
            state = add(state)
    checkpoints.wait()
    for step in range(1, 5):
        back = checkpoints.restore(step, jax.eval_shape(lambda: state), sharding)
        assert np.unique(back["w"]).tolist() == [1 + 21 * (step - 1)]
    checkpoints.close()


def test_a_checkpoint_that_is_not_there_is_the_users_error_and_lists_what_is(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="none at all"):
        checkpoints.find("last")
    save(checkpoints, [0.5], sharding)
    with pytest.raises(UserError, match="last, 1, and best"):
        checkpoints.find("77")
    checkpoints.close()


def test_reading_a_checkpoint_runs_no_code_of_whoever_wrote_it(tmp_path, sharding, monkeypatch):
    """It is arrays and JSON: nothing in it is a pickle, and nothing unpickles."""
    import json
    import pickle

    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)

    def refuse(*arguments, **options):
        raise AssertionError("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    reader = Checkpoints(tmp_path, read_only=True)
    assert reader.record(1)["model"] == {"name": "m"}
    np.testing.assert_array_equal(reader.restore_parts(1, ["w"])["w"], np.ones(4))
    reader.restore(1, jax.eval_shape(lambda: {"w": jnp.zeros(4)}), sharding)
    json.loads((tmp_path / "1" / "record" / "metadata").read_text())
    assert not any(b"\x80\x04" in path.read_bytes()[:2] for path in tmp_path.rglob("*")
                   if path.is_file())


def test_a_flipped_bit_of_an_array_which_the_format_does_not_notice_is_noticed(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    for file in (tmp_path / "1").glob("*/**/*"):
        if file.is_file() and (whole := file.read_bytes()):
            for place in (0, len(whole) // 2, len(whole) - 1):
                file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
                with pytest.raises(DamagedCheckpoint, match=file.name):
                    checkpoints.find("1")
                file.write_bytes(whole)
    assert checkpoints.find("1") == 1


def test_a_start_reads_the_arrays_of_the_last_alone_and_of_others_before_they_are_used(
        tmp_path, sharding, monkeypatch):
    first = Checkpoints(tmp_path, keep_last=4)
    save(first, [None] * 4, sharding)
    first.close()
    read, checksum, told = set(), checkpoint_files._of, []
    monkeypatch.setattr(checkpoint_files, "_of", lambda path: read.add(path) or checksum(path))
    again = Checkpoints(tmp_path, keep_last=4, tell=told.append)
    assert {path.relative_to(tmp_path).parts[0] for path in read if "state" in path.parts} == {"4"}
    array = next(path for path in (tmp_path / "3" / "state").glob("d/*") if path.is_file())
    array.write_bytes(bytes(array.stat().st_size))
    again.set_aside({4: "diverged"})
    again.check_last()
    assert again.steps() == [1, 2] and "step 3" in told[0] and (tmp_path / "damaged-3").is_dir()
    again.close()


@pytest.mark.parametrize("lost", ["record", "state", "state/_METADATA"])
def test_without_checksums_what_every_checkpoint_has_is_missed(tmp_path, sharding, lost):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    (tmp_path / "1" / "checksums.json").unlink()
    assert checkpoints.find("1") == 1  # As of a version that wrote none.
    lost = tmp_path / "1" / lost
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    with pytest.raises(DamagedCheckpoint, match="is missing"):
        checkpoints.find("1")


def test_the_best_survives_a_restart(tmp_path, sharding):
    first = Checkpoints(tmp_path, keep_last=1, keep_best=1)
    save(first, [0.9, 0.1], sharding)
    first.close()
    second = Checkpoints(tmp_path, keep_last=1, keep_best=1)
    for step, score in ((3, 0.2), (4, 0.3)):
        second.save(step, jax.device_put({"w": jnp.ones(4)}, sharding),
                    {"metrics": {"eval_top1": score}})
    second.wait()
    assert second.steps() == [1, 4] and second.find("best") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"1", "4"}


def test_a_checkpoint_that_was_being_replaced_when_the_process_ended_comes_back(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    checkpoints.replace(1)
    assert checkpoints.steps() == [] and Checkpoints(tmp_path).steps() == [1]


def test_of_two_that_are_equally_good_the_later_is_the_best(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path, keep_last=3)
    save(checkpoints, [0.5, 0.9, 0.9], sharding)
    assert checkpoints.find("best") == 3
    checkpoints.close()


def test_a_replaced_checkpoint_stays_gone_if_the_new_one_was_finished(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, [0.5], sharding)
    checkpoints.replace(1)
    save(checkpoints, [0.7], sharding)
    checkpoints.close()
    assert {p.name for p in tmp_path.iterdir()} == {"1"}
    assert Checkpoints(tmp_path).record(1)["metrics"] == {"eval_top1": 0.7}


def test_what_is_set_aside_again_and_again_keeps_every_name(tmp_path):
    for number in range(3):
        (tmp_path / "7").mkdir()
        assert checkpoint_files.rename(tmp_path, {7: "bad"}) == [
            "bad-7" + (f"-{number}" if number else "")]
    assert {path.name for path in tmp_path.iterdir()} == {"bad-7", "bad-7-1", "bad-7-2"}


@pytest.mark.parametrize("said", ["No space left on device", "Too many open files",
                                  "Disk quota exceeded"])
def test_what_a_failed_save_has_run_out_of_is_said(said):
    error = ValueError('RESOURCE_EXHAUSTED: Error reading "params.conv1.bias/.zarray": Failed to '
                       f'open: "/runs/6/manifest.ocdbt": {said} [tensorstore_spec={{}}]')
    assert checkpoint_files.in_one_line(error) == said

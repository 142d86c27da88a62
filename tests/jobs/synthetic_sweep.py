"""Sweeps as files, of runs that nobody trained: what a report is tested on."""

import json
import math

import numpy as np

from cnnjax import sweeps
from cnnjax.sweeps import Trial

RECORDS, EVALUATIONS = 50, 10


def write_run(folder, top1, seed=0, model="simple_cnn", params=94_986, macs=3_000_000,
              seconds=60.0, train_top1=None, status="done", epochs=10.0,
              evaluations=EVALUATIONS):
    """Writes the files that an ordinary run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "seed": seed, "model": {"name": model}, "data": {"name": "digits"}}))
    train_top1 = top1 + 0.02 if train_top1 is None else train_top1
    noise = np.random.default_rng(seed)
    with (folder / "metrics.jsonl").open("w") as file:
        for i in range(1, RECORDS + 1):
            share = 1 - math.exp(-4 * i / RECORDS)
            last = i == RECORDS
            wobble = 0.0 if last else 0.02 * noise.standard_normal()
            train = train_top1 if last else min(1.0, train_top1 * share + wobble)
            record = {"step": 20 * i, "epoch": epochs * i / RECORDS, "lr": 0.1,
                      "train_loss": 2.3 - 2 * share, "train_top1": train, "seconds": float(i)}
            if i % (RECORDS // evaluations) == 0:
                record |= {"eval_top1": top1 if last else min(1.0, top1 * share),
                           "eval_loss": 2.3 - 1.8 * share}
            file.write(json.dumps(record) + "\n")
    if status:
        summary = {"status": status, "model": model, "data": "digits", "steps": 20 * RECORDS}
        if status in ("done", "stopped"):
            summary |= {"params": params, "multiply_adds": macs, "top1": top1, "top5": 0.99,
                        "examples_evaluated": 360, "images_per_second": 500.0, "seconds": seconds}
        (folder / "summary.json").write_text(json.dumps(summary))


def write_state(folder, state, message=""):
    """Writes what the sweep knows of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trial.json").write_text(json.dumps({"state": state, "message": message}))


def write_sweep(folder, trials, seeds, results, experiment="experiments/sweeps/degradation.py"):
    """Writes a sweep; results(trial, seed) are the arguments of `write_run`, or None."""
    sweeps.write(folder, trials, seeds, experiment=experiment)
    for trial in trials:
        for seed in seeds:
            found = results(trial, seed)
            if found is not None:
                run = sweeps.folder_of(folder, trial.name, seed)
                write_run(run, seed=seed, **found)
                write_state(run, "done")


def degradation(folder, seeds=(0, 1, 2)):
    """Writes plain and residual nets of four depths, the deep plain ones worse."""
    trials = [Trial(f"{family}_{depth}", {"model.name": f"{family}{depth}"},
                    {"family": family, "depth": depth})
              for depth in (20, 32, 44, 56) for family in ("plain", "residual")]

    def results(trial, seed):
        depth, plain = trial.tags["depth"], trial.tags["family"] == "plain"
        top1 = 0.88 + (-0.004 if plain else 0.0005) * (depth - 20) + 0.004 * (seed - 1)
        return dict(top1=top1, train_top1=top1 + 0.05, params=13_500 * depth,
                    macs=500_000 * depth, seconds=3.0 * depth + seed)

    write_sweep(folder, trials, seeds, results)
    return trials


def grid(folder, seeds=(0, 1, 2), rates=(0.001, 0.004, 0.016, 0.064, 1.024)):
    """Writes rates against batch sizes, the best along the diagonal."""
    trials = [Trial(f"batch_{batch}_lr_{lr}", {"train.batch_size": batch, "schedule.lr": lr},
                    {"lr": lr, "batch": batch})
              for batch in (8, 32, 128, 512) for lr in rates]
    write_sweep(folder, trials, seeds, lambda trial, seed: dict(
        top1=0.95 - 0.03 * abs(math.log2(trial.tags["lr"] / trial.tags["batch"] / 0.0005))
        + 0.002 * seed, seconds=10.0 + 100 / trial.tags["batch"]),
        experiment="experiments/sweeps/lr_batch.py")
    return trials


def families(folder, sizes=50, seeds=(0,)):
    """Writes four families of many sizes, 200 trials by default."""
    trials = [Trial(f"{family}_{i}", {"model.width": 1 + i / 10, "model.depth": 1.0},
                    {"family": family, "scale": round(1 + i / 10, 3)})
              for family in ("depth", "width", "resolution", "compound") for i in range(sizes)]
    worth = {"depth": 0.02, "width": 0.025, "resolution": 0.03, "compound": 0.045}

    def results(trial, seed):
        scale = trial.tags["scale"]
        return dict(top1=0.8 + worth[trial.tags["family"]] * math.log2(scale) + 0.003 * seed,
                    macs=int(4e6 * scale ** 2), params=int(3e5 * scale ** 2),
                    seconds=60 * scale ** 2)

    write_sweep(folder, trials, seeds, results,
                experiment="experiments/sweeps/efficientnet_scaling.py:fashion_mnist")
    return trials


def search(folder, seeds=(0,)):
    """Writes a base, two families that grow from it, and what a search has tried; one test each."""
    sizes = [("base", "base", 1.0)] + [
        (f"{family}_{factor:g}x", family, factor)
        for family in ("depth", "width") for factor in (2.0, 4.0)] + [
        (f"candidate_{i}", "candidate", 2.0) for i in range(4)]
    trials = [Trial(name, {}, {"family": family, "cost_factor": factor})
              for name, family, factor in sizes]

    def results(trial, seed):
        factor, number = trial.tags["cost_factor"], [t.name for t in trials].index(trial.name)
        return dict(top1=0.8 + 0.02 * factor + 0.01 * (number % 3), macs=int(4e6 * factor) + number,
                    evaluations=1)

    write_sweep(folder, trials, seeds, results,
                experiment="experiments/sweeps/efficientnet_scaling.py:search")
    return trials

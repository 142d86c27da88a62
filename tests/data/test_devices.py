"""Many devices and many processes, each in interpreters of their own."""

import os
import socket
import subprocess
import sys

import pytest

# Digests of everything that a run on this many devices sees.
SCRIPT = """
import hashlib, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from cnnjax import data
from cnnjax.data import augment

jax.default_backend = lambda: sys.argv[2]  # By whose formulations.
mesh = Mesh(np.asarray(jax.devices()), ("data",))
count = len(jax.devices())
sha = hashlib.sha256()

def use(images, key):
    return augment.pipeline(key, images, size=images.shape[1:3], mean=[0.5] * images.shape[-1],
                            std=[0.5] * images.shape[-1], resized_crop=(0.3, 1.0), flip=True,
                            pad_crop=2, jitter=(0.2, 0.2, 0.2, 0.1), erase=0.5, mesh=mesh,
                            policy=augment.make_policy("rand_augment", mesh=mesh))

use = jax.jit(use)

for placement in ("device", "stream"):
    for name in ("digits", "folder:" + sys.argv[1]):
        dataset = data.open_dataset(name)
        feed = data.make_train_feed(dataset.train, batch_size=16, seed=0, mesh=mesh,
                                    image_size=(8, 8), placement=placement)
        fetch = jax.jit(feed.fetch)
        for k, batch in feed.batches(2, 7, 2):
            if count == 1:  # A resident feed then leaves its indices to the call.
                batch = jax.device_put(batch, jax.devices()[0])
            assert all(len(a.sharding.device_set) == count for a in batch.values())
            assert all(a.addressable_shards[0].data.shape[:2] == (k, 16 // count)
                       for a in batch.values())
            for i in range(k):
                step = fetch(feed.constants, {n: a[i] for n, a in batch.items()})
                if count > 1:
                    assert step["image"].sharding.spec[0] == "data", step["image"].sharding
                step["moved"] = use(step["image"], jax.random.key(i))
                for n in sorted(step):
                    sha.update(np.asarray(step[n]).tobytes())
        feed = data.make_eval_feed(dataset.eval, batch_size=15, mesh=mesh, image_size=(8, 8),
                                   placement=placement)
        rows = list(feed.batches())
        assert len(rows) == -(-len(dataset.eval) // feed.batch_size)
        assert feed.batch_size % count == 0
        fetch = jax.jit(feed.fetch)
        rows = [jax.device_get(fetch(feed.constants, b)) for b in rows]
        mask = np.concatenate([r["mask"] for r in rows]) == 1
        assert mask.sum() == len(dataset.eval)
        for n in ("image", "index", "label"):
            sha.update(np.concatenate([r[n] for r in rows])[mask].tobytes())

if count > 1:
    feed = data.make_train_feed(data.open_dataset("digits").train, batch_size=16, seed=0,
                                mesh=mesh, image_size=(8, 8))
    _, batch = next(feed.batches(0, 1))
    text = jax.jit(lambda c, b, key: use(feed.fetch(c, b)["image"], key)).lower(
        feed.constants, {"index": batch["index"][0]}, jax.random.key(0)).compile().as_text()
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text, word
print("DIGEST", sha.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_eight_devices_see_what_one_sees_and_exchange_nothing(image_folder, run_python, platform):
    digests = {run_python(SCRIPT, image_folder, platform, devices=n).split("DIGEST ")[1]
               for n in (1, 8)}
    assert len(digests) == 1


def test_a_batch_for_eight_devices_is_explained(run_python):
    out = run_python("""
import jax, numpy as np
from cnnjax import data
mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("data",))
try:
    data.make_train_feed(data.open_dataset("digits").train, batch_size=100, seed=0, mesh=mesh,
                         image_size=(8, 8))
except ValueError as error:
    print(error)
""", devices=8)
    assert "--config.train.batch_size=96 or 104" in out


PROCESS = """
import sys
import jax, numpy as np
folder, port, process = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
from jax.sharding import Mesh
from cnnjax import data

assert jax.process_count() == 2 and len(jax.devices()) == 4
# Neither process holds neighbouring rows.
mesh = Mesh(np.asarray(sorted(jax.devices(), key=lambda d: (d.id % 2, d.id))), ("data",))
reads = []
dataset = data.open_dataset("folder:" + folder)
source = dataset.train.source
read = type(source).__getitem__
type(source).__getitem__ = lambda self, i: reads.append(i) or read(self, i)
order = data.TrainOrder(0, len(dataset.train)).at(range(32)).reshape(4, 8)
for placement in ("stream", "device"):
    feed = data.make_train_feed(dataset.train, batch_size=8, seed=0, mesh=mesh, image_size=(8, 8),
                                placement=placement)
    for start, (k, batch) in zip((0, 3), feed.batches(0, 4, 3)):
        assert batch["index"].shape == (k, 8)
        for shard in batch["index"].addressable_shards:
            assert (np.asarray(shard.data) == order[start:start + k][shard.index]).all()
    if placement == "stream":
        assert len(reads) == 16, len(reads)
    feed = data.make_eval_feed(dataset.eval, batch_size=6, mesh=mesh, image_size=(8, 8),
                               placement=placement)
    seen = [(int(i), float(m)) for b in feed.batches()
            for x, y in zip(b["index"].addressable_shards, b["mask"].addressable_shards)
            for i, m in zip(np.asarray(x.data), np.asarray(y.data))]
    print("SEEN", placement, *[i for i, m in seen if m])
"""


def test_each_process_reads_its_own_rows(image_folder, root):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu",
           "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(image_folder), str(port), str(i)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | env)
        for i in range(2)]
    outputs = [process.communicate(timeout=200) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    for placement in ("stream", "device"):
        seen = [line.split()[2:] for out, _ in outputs for line in out.splitlines()
                if line.startswith(f"SEEN {placement}")]
        assert sorted(map(int, sum(seen, []))) == list(range(8))


# Prints a digest of each row that this process's devices hold.
ROWS = """
import hashlib, sys
import jax, numpy as np
folder, port, process, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if count > 1:
    jax.distributed.initialize(f"localhost:{port}", num_processes=count, process_id=process)
from jax.sharding import Mesh
from cnnjax import data

if __name__ == "__main__":
    assert jax.process_count() == count and len(jax.devices()) == 2
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    dataset = data.open_dataset("folder:" + folder)
    for workers in (0, 2):
        feed = data.make_train_feed(dataset.train, batch_size=6, seed=3, mesh=mesh,
                                    image_size=(8, 8), random_resized_crop=(0.2, 0.9), repeats=2,
                                    workers=workers)
        step = 2
        for k, batch in feed.batches(2, 9, 3):
            for image, label, index in zip(*(
                    batch[name].addressable_shards for name in ("image", "label", "index"))):
                first = image.index[1].start or 0
                for i in range(k):
                    for row in range(image.data.shape[1]):
                        sha = hashlib.sha256(b"".join(
                            np.asarray(part.data[i, row]).tobytes()
                            for part in (image, label, index)))
                        print("ROW", workers, step + i, first + row, sha.hexdigest())
            step += k
"""


def rows_of(folder, root, processes):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // processes}"}
    running = [subprocess.Popen(
        [sys.executable, "-c", ROWS, str(folder), str(port), str(i), str(processes)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for i in range(processes)]
    outputs = [process.communicate(timeout=200) for process in running]
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return sorted(line.split()[1:] for out, _ in outputs for line in out.splitlines()
                  if line.startswith("ROW"))


def test_two_processes_see_what_one_with_two_devices_sees(image_folder, root):
    together, apart = (rows_of(image_folder, root, n) for n in (1, 2))
    assert len(together) == 2 * 7 * 6 and together == apart
    threads, workers = ([row[1:] for row in together if row[0] == n] for n in ("0", "2"))
    assert threads == workers

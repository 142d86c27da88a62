"""Files of torch.save are read as data: right values, and nothing in them is ever executed."""

import io
import itertools
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cnnjax.types import UserError
from cnnjax.weights import files

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("content", ["plain", "wrapped"])
def test_values_are_those_that_torch_saved(content, kind):
    found = files.read(GOLDEN / f"{content}_{kind}.pth").tensors
    expected = np.load(GOLDEN / "values.npz")
    assert set(found) == set(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(np.asarray(array, expected[name].dtype), expected[name])
    assert found["bfloat16"].dtype.name == "bfloat16" and found["float16"].dtype == np.float16


def test_counters_of_batches_are_left_out():
    found = files.read(GOLDEN / "module.pth").tensors
    assert set(found) == {"conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean",
                          "bn.running_var"}


@pytest.mark.parametrize(("file", "said"), [
    ("whole_module.pth", "torch.nn.modules"), ("torchscript.pth", "TorchScript")])
def test_a_whole_module_or_a_program_is_refused_and_says_what_to_save(file, said):
    with pytest.raises(UserError, match="nothing in the file was executed") as error:
        files.read(GOLDEN / file)
    assert said in str(error.value) and "state_dict()" in str(error.value)


# The files below are written by hand, opcode by opcode.

def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="0", count=4, kind="FloatStorage", module="torch", view=b""):
    return (b"(" + text("storage") + name(module, kind) + text(key) + text("cpu") + number(count)
            + view + b"tQ")


def tensor(offset=0, shape=(2, 2), strides=(2, 1), **of_storage):
    return (name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(**of_storage)
            + number(offset) + numbers(shape) + numbers(strides) + b"\x89"
            + name("collections", "OrderedDict") + b")RtR")


def state(*values):
    items = b"".join(text(f"w{i}") + value for i, value in enumerate(values))
    return b"\x80\x02}(" + items + b"u."


VALUES = np.arange(4, dtype="<f4").tobytes()


def zipped(path, pickled, entries=(("data/0", VALUES),), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for entry, data in entries:
            archive.writestr(f"archive/{entry}", data)
    return path


def legacy(path, pickled, keys=("0",), count=4, values=VALUES):
    head = [pickle.dumps(value, 2) for value in
            (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001})]
    path.write_bytes(b"".join([*head, pickled, pickle.dumps(list(keys), 2),
                               struct.pack("<Q", count), values]))
    return path


WRITERS = pytest.mark.parametrize("write", [zipped, legacy])


@WRITERS
def test_the_values_of_a_file_are_not_copied(write, tmp_path):
    pickled, values = state(tensor(shape=(4, 1_000_000), strides=(1_000_000, 1),
                                   count=4_000_000)), bytes(16_000_000)
    path = (zipped(tmp_path / "a.pth", pickled, [("data/0", values)]) if write is zipped
            else legacy(tmp_path / "a.pth", pickled, count=4_000_000, values=values))
    tracemalloc.start()
    found = files.read(path).tensors["w0"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.nbytes == len(values) and peak < 4_000_000 and not found.flags.writeable


@WRITERS
def test_files_written_by_hand_are_read_like_those_of_torch(write, tmp_path):
    found = files.read(write(tmp_path / "a.pth", state(tensor()))).tensors
    np.testing.assert_array_equal(found["w0"], [[0, 1], [2, 3]])


class Payload:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def attacks(mark):
    """(what, pickle) of files that would create `mark` if anything in them ran."""
    command = f"touch {mark}"
    code = f"open({str(mark)!r}, 'w')"
    good = tensor()
    call = b"(" + text(command) + b"tR"
    nested = pickle.dumps({"state_dict": {"w": Payload(os.system, command)}}, 2)
    yield "os.system", pickle.dumps(Payload(os.system, command), 2)
    yield "os.system in a newer protocol", pickle.dumps(Payload(os.system, command), 4)
    yield "nested", nested
    yield "eval", pickle.dumps({"w": Payload(eval, code)}, 2)
    yield "exec", pickle.dumps({"w": Payload(exec, code)}, 0)
    yield "posix.system behind a good tensor", state(good, name("posix", "system") + call)
    yield "after a good tensor, discarded", state(good)[:-1] + name("os", "system") + call + b"0."
    yield "subprocess", state(name("subprocess", "call") + call)
    yield "builtins.getattr", state(name("builtins", "getattr") + b"(" + name("os", "system")
                                    + text("x") + b"tR")
    yield "attributes of a name", state(name("torch", "FloatStorage.__init__") + call)
    yield "a dotted name", b"\x80\x04" + text("torch") + text("serialization.os.system") + b"\x93" \
        + call + b"."
    yield "a name that is no text", b"\x80\x04}" + text("x") + b"\x93" + call + b"."
    yield "INST", b"(" + text(command) + b"ios\nsystem\n."
    yield "OBJ", b"(" + name("os", "system") + text(command) + b"o."
    yield "NEWOBJ", state(name("os", "system") + b"(" + text(command) + b"t\x81")
    yield "NEWOBJ_EX", state(name("os", "system") + b"(" + text(command) + b"t}\x92")
    yield "EXT1", state(b"\x82\x01")
    yield "setstate", state(name("torch.nn", "Module") + b")\x81}" + text("__setstate__")
                            + name("os", "system") + b"sb")
    yield "build on a function", state(name("torch._utils", "_rebuild_tensor_v2") + b"}"
                                       + text("__code__") + text(code) + b"sb")
    yield "build on a tensor", state(good + b"}" + text("array") + name("os", "system") + b"sb")
    yield "_load_from_bytes", state(name("torch.storage", "_load_from_bytes") + b"(C"
                                    + bytes([len(nested)]) + nested + b"tR")
    yield "numpy", state(name("numpy", "load") + call)
    yield "an allowed call of a bad one", state(name("collections", "OrderedDict") + b"("
                                                + name("os", "system") + call + b"tR")
    yield "a call as a value", state(name("torch", "FloatStorage") + b")R")
    yield "a persistent id", state(text(command) + b"Q")
    yield "a persistent id in text", state(f"Pos.system {command}\n".encode())
    yield "out of band", state(b"\x97")


ATTACKS = [what for what, _ in attacks("x")]


@WRITERS
@pytest.mark.parametrize("what", ATTACKS)
def test_a_malicious_file_is_refused_and_nothing_runs(what, write, tmp_path):
    mark = tmp_path / "mark"
    path = write(tmp_path / "bad.pth", dict(attacks(mark))[what])
    with pytest.raises(UserError, match="nothing in the file was executed"):
        files.read(path)
    assert not mark.exists()


def test_the_attacks_are_real(tmp_path):
    for what in ("os.system", "nested", "eval", "INST"):
        mark = tmp_path / what.replace(" ", "_")
        pickle.loads(dict(attacks(mark))[what])
        assert mark.exists()


DEEP = "t" * 100_000
HUGE = 2**61

BROKEN = {
    "beyond the storage": tensor(offset=1),
    "strides beyond": tensor(strides=(4, 1)),
    "a negative offset": tensor(offset=-4),
    "a negative stride": tensor(strides=(-1, 1)),
    "a negative size": tensor(shape=(-2, -2)),
    "strides that overflow": tensor(strides=(HUGE, HUGE)),
    "sizes that overflow": tensor(shape=(2**32, 2**32), strides=(0, 0)),
    "a view that repeats": tensor(shape=(1000, 1000), strides=(0, 0)),
    "an empty tensor": tensor(shape=(0, 2**40)),
    "more strides than axes": tensor(strides=(2, 1, 1)),
    "a size of text": (name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + number(0)
                       + b"(" + text("2") + b"t" + numbers((1,)) + b"tR"),
    "a storage larger than the file": tensor(count=HUGE),
    "a storage of another size": tensor(count=5, shape=(5,), strides=(1,)),
    "a storage that is not there": tensor(key="1"),
    "a storage outside the archive": tensor(key="../../../../etc/passwd"),
    "a storage of complex numbers": tensor(kind="ComplexFloatStorage"),
    "no storage": (name("torch._utils", "_rebuild_tensor_v2") + b"(" + b"}" + number(0)
                   + numbers((2,)) + numbers((1,)) + b"tR"),
    "one storage in two types": tensor() + b"0" + tensor(kind="LongStorage", count=2),
    "a key that hashes without end": b"}" + b")" + b"\x85" * 100_000 + b"}s",
    "a list within itself": b"]q\x00h\x00a",
    "a text of 2 GB": b"X" + struct.pack("<I", 2**31) + b"x",
    "a text longer than any": b"\x8d" + struct.pack("<Q", 2**63 - 1) + b"x",
    "many axes": tensor(shape=(1,) * 100, strides=(1,) * 100),
}


@WRITERS
@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_lies_about_its_tensors_is_one_message(what, write, tmp_path):
    with pytest.raises(UserError):
        files.read(write(tmp_path / "bad.pth", state(BROKEN[what])))


def test_a_legacy_file_that_claims_more_values_than_it_has_allocates_nothing(tmp_path):
    path = legacy(tmp_path / "bad.pth", state(tensor(count=2**40)), count=2**40)
    with pytest.raises(UserError, match="bytes left"):
        files.read(path)


@pytest.mark.parametrize(("entries", "said"), [
    ((("data/0", VALUES), ("data/0", VALUES)), "two entries of one name"),
    ((("data/0", VALUES), ("more/data.pkl", b"")), "2 entries data.pkl"),
    ((("../data/0", VALUES),), "no storage"),
    ((("data/0", VALUES[:8]),), "has 8 bytes"),
    ((("data/0", VALUES), ("byteorder", b"big")), "big-endian"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_unlike_torchs_is_refused(entries, said, tmp_path):
    with pytest.raises(UserError, match=said):
        files.read(zipped(tmp_path / "bad.pth", state(tensor()), entries))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.pth"]


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    path = zipped(tmp_path / "bomb.pth", state(tensor(count=25_000_000, shape=(25_000_000,),
                                                      strides=(1,))),
                  [("data/0", bytes(100_000_000))], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(UserError, match="compressed"):
        files.read(path)


def test_entries_that_claim_more_than_the_file_holds_are_refused(tmp_path):
    path = zipped(tmp_path / "bad.pth", state(tensor()))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # The directory's entry of the storage: its two sizes.
    data[at + 20:at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(UserError):
        files.read(path)


@pytest.mark.parametrize("source", ["plain_zip", "plain_legacy", "wrapped_legacy"])
def test_a_file_cut_short_or_changed_anywhere_is_a_message_or_an_array(source, tmp_path):
    data = (GOLDEN / f"{source}.pth").read_bytes()
    rng = np.random.default_rng(0)
    cuts = [data[:n] for n in np.linspace(0, len(data) - 1, 40).astype(int)]
    flips = []
    for at in rng.integers(0, len(data), 150):
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 256))
        flips.append(bytes(changed))
    path = tmp_path / "bad.pth"
    for content in itertools.chain(cuts, flips):
        path.write_bytes(content)
        try:
            found = files.read(path).tensors
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(array, np.ndarray) for array in found.values())


@pytest.mark.parametrize(("content", "said"), [
    (b"", "not a whole file"), (b"hello", "not a whole file"), (b"PK\x03\x04", "not a whole file")])
def test_what_is_no_file_of_weights_says_so(content, said, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=said):
        files.read(tmp_path / "a.pth")


def test_a_pickle_without_tensors_says_where_they_were_looked_for(tmp_path):
    with pytest.raises(UserError, match="holds no state dict.*model_state_dict"):
        files.read(zipped(tmp_path / "a.pth", pickle.dumps({"epoch": 3}, 2)))


def test_averaged_weights_are_preferred_and_prefixes_of_wrappers_go(tmp_path):
    def inner(key, values):
        return b"}(" + text("_orig_mod.module.w0") + tensor(key=key) + b"u"

    content = b"\x80\x02}(" + text("state_dict") + inner("0", VALUES) + text("state_dict_ema") + (
        inner("1", VALUES)) + b"u."
    other = np.arange(4, 8, dtype="<f4").tobytes()
    path = zipped(tmp_path / "a.pth.tar", content, [("data/0", VALUES), ("data/1", other)])
    found = files.read(path).tensors
    assert list(found) == ["w0"]
    np.testing.assert_array_equal(next(iter(found.values())), [[4, 5], [6, 7]])


def test_no_word_of_a_file_is_printed_whole(tmp_path):
    path = zipped(tmp_path / "a.pth", state(name("m" * 10_000, "n" * 10_000)))
    with pytest.raises(UserError) as error:
        files.read(path)
    assert len(str(error.value)) < 1_000


def test_the_reader_takes_from_a_stream_no_more_than_its_pickle():
    from cnnjax.weights.pickles import Reader

    stream = io.BytesIO(pickle.dumps([1, 2.5, "a", None, True, (3, b"x")], 4) + b"rest")
    assert Reader({}, frozenset(), lambda _: None).read(stream) == [1, 2.5, "a", None, True,
                                                                    (3, b"x")]
    assert stream.read() == b"rest"

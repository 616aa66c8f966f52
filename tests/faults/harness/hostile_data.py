"""Data folders and files of other projects, as an attacker or a broken exporter would make them.

A case is `MUTATION[+MUTATION]:USE:SEED`. The mutations change a copy of a valid data folder, one after another; an
attacker computes checksums that fit, so they are made to fit afterwards. The use is the command that gets the folder.
"""

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import ad_model.train  # noqa: F401  so that forked children need not import it
import data_gen.exchange.xland
import data_gen.generation.generate
import data_gen.scoring.report  # noqa: F401
import eval.evaluate
import eval.report  # noqa: F401
import publish.data  # noqa: F401
from icrl.config.loader import dump, validate
from icrl.run.records import record_text
from icrl.support.files import sha256
from tests.conftest import TINY
from tests.faults.harness.hostile import (
    ANSI,
    INSTEAD,
    RIGHT_TO_LEFT,
    TEXTS,
    Bomb,
    attempt_words,
    make_secrets,
    replace_file,
    replaced,
    sparse,
)
from tests.faults.harness.outcomes import Outcome
from tests.faults.harness.watched import watched

NUMBER = 220

Mutation = Callable[[Path, random.Random, Path], None]
"""Changes a data folder: (folder, random numbers, home)."""

CARTPOLE = {"name": "gymnasium", "env_id": "CartPole-v1"}
FAMILIES: list[Any] = [
    {**CARTPOLE, "vary": {"x": {"call": "trap_module:load", "seeds": 2}}},
    {**CARTPOLE, "vary": {"x": {"call": "torch.hub:load", "seeds": 2, "repo_or_dir": ".", "source": "local"}}},
    {**CARTPOLE, "layouts": 3, "wrappers": [{"name": "trap_module:load"}]},
    {"name": "gymnasium", "env_id": "trap_module:X-v0", "layouts": 3},
    {"name": "pixels", "of": {"name": "trap_module:Family"}},
    {"name": "pixels", "of": "trap_module:Family"},
    {"name": "pixels", "of": {"name": "pixels", "of": {"name": "trap_module:Family"}}},
    {"name": "dark_room", "size": {"call": "trap_module:load"}},
    {"name": "dark_room", "size": [[{"name": "trap_module:Family"}]]},
    {"name": "dark_room", "of": {"params": {"name": "trap_module:Family"}}},
    {"name": "dark_room", "size": 2**16, "episode_length": 1},
    {"name": "meta_world", "benchmark": "trap_module:Family"},
    {"name": "trap_module:Family"},
    {"name": "os:system", "command": "touch executed"},
    {"name": "builtins:exec", "params": {"source": "import trap_module"}},
]


# the record


def _record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "info.json").read_bytes())
    return content


def _write_record(folder: Path, record: Any) -> None:
    """With the checksum that fits, if the record can have one."""
    (folder / "info.json").unlink(missing_ok=True)
    try:
        (folder / "info.json").write_text(record_text(record))
    except (ValueError, TypeError, AttributeError, UnicodeError):
        pairs = record.items() if isinstance(record, dict) else ()
        plain = {key: value for key, value in pairs if key != "checksum"} or record
        (folder / "info.json").write_text(json.dumps(plain))


def _with(**changes: Any) -> Mutation:
    return lambda folder, rng, home: _write_record(folder, {**_record(folder), **changes})


def _family(folder: Path, rng: random.Random, home: Path) -> None:
    _write_record(folder, {**_record(folder), "tasks": rng.choice(FAMILIES)})


def _sources(folder: Path, rng: random.Random, home: Path) -> None:
    parameter = rng.choice([{"call": "trap_module:load"}, rng.choice(TEXTS), float("nan"), 1e400, [[[1]]]])
    names = ["trap_module:Family", ANSI, RIGHT_TO_LEFT, "a\nerror: b", "x" * 10**5, "q_learning"]
    _write_record(folder, {**_record(folder), "sources": [{"name": rng.choice(names), rng.choice(TEXTS): parameter}]})


def _fuzzed(folder: Path, rng: random.Random, home: Path) -> None:
    _write_record(folder, replaced(_record(folder), rng))


def _fuzzed_space(folder: Path, rng: random.Random, home: Path) -> None:
    _write_record(folder, replaced(_record(folder), rng, (rng.choice(["observation_space", "action_space"]),)))


def _space(folder: Path, rng: random.Random, home: Path) -> None:
    box = {"type": "Box", "shape": [2], "dtype": "float32", "low": 0.0, "high": 1.0}
    space = rng.choice(
        [
            {**box, "shape": [2**24]},
            {**box, "shape": [2**12, 2**12], "dtype": "float64"},
            {**box, "shape": [10**9]},
            {**box, "shape": [-(10**5), -(10**5)]},
            {**box, "dtype": "1000000000f8", "shape": [1]},
            {**box, "dtype": "U1000000", "shape": [1000]},
            {**box, "dtype": "V100000000", "shape": [10]},
            {**box, "dtype": "O"},
            {**box, "low": [0.0] * 10**5},
            {**box, "low": None, "high": -1.0},
            {"type": "Discrete", "n": 2**62, "start": 0},
            {"type": "Discrete", "n": 10**30, "start": 0},
            {"type": "Discrete", "n": 0, "start": 0},
            {"type": "MultiDiscrete", "nvec": [[2] * 1000] * 1000, "start": [[0] * 1000] * 1000},
            {"type": "Dict", "spaces": {f"k{number}": box for number in range(3000)}},
            {"type": "Dict", "spaces": {ANSI: box}},
            {"type": "Tuple", "spaces": [{**box, "shape": [2**20]}] * 16},
            {"type": "Dict", "spaces": {}},
            {"type": ["Box"]},
            {"type": "trap_module:Family"},
        ]
    )
    which = rng.choice(["observation_space", "action_space"])
    _write_record(folder, {**_record(folder), which: space})


def _counts(folder: Path, rng: random.Random, home: Path) -> None:
    names = ["num_histories", "num_steps", "episode_length", "split_seed"]
    name = rng.choice([*names, "num_train_tasks", "num_validation_tasks", "num_test_tasks"])
    value = rng.choice([-1, 0, 1, 7, 10**9, 10**12, 2**63, 10**400, 10**4000, 2.5, True])
    _write_record(folder, {**_record(folder), name: value})


def _shard_names(folder: Path, rng: random.Random, home: Path) -> None:
    record = _record(folder)
    names = [
        *(ANSI + ".h5", RIGHT_TO_LEFT + ".h5", "a\nb.h5", "[t]*.h5", "x" * 300 + ".h5", "x" * 10**6 + ".h5", "."),
        *("../secret/secret.h5", "/etc/passwd", str(home / "secret" / "secret.h5"), "a/../../secret.h5", "\0.h5", ""),
        *(
            "https://127.0.0.1:9/x.h5",
            "hf://datasets/x/y/z.h5",
            "/dev/zero",
            "info.json",
            "README.md",
            "tasks-train.npz",
        ),
        *("file::x.h5", "C:x.h5", "..\\x.h5", "-rf.h5", "~root/x.h5", "sub/./x.h5", "config.yaml", "zip://x.h5"),
    ]
    name = rng.choice(names)
    old = folder / record["shards"][0]["file"]
    if "/" not in name and "\0" not in name and 0 < len(name) < 250 and not (folder / name).exists():
        old.rename(folder / name)
    record["shards"][0]["file"] = name
    _write_record(folder, record)


def _text(text: str | bytes) -> Mutation:
    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        content = text.encode() if isinstance(text, str) else text
        (folder / "info.json").write_bytes(content.replace(b"RECORD", json.dumps(_record(folder))[1:-1].encode()))

    return mutate


def _big_record(folder: Path, rng: random.Random, home: Path) -> None:
    """80 MB of JSON, each byte of which stands for many."""
    part = rng.choice(["[],", "{},", '"\U0001f600",'])
    text = json.dumps(_record(folder))[:-1]
    (folder / "info.json").write_text(f'{text}, "more": [{part * (80 * 10**6 // len(part.encode()))} 0]}}')


# the shards


def _shard(folder: Path, rng: random.Random) -> Path:
    return folder / rng.choice(sorted(path.name for path in folder.glob("*.h5")))


def _seal(folder: Path) -> None:
    """The checksums that fit, for files that are files."""
    record = _record(folder)
    for shard in record["shards"]:
        if isinstance(shard["file"], str) and "\0" not in shard["file"] and (folder / shard["file"][:200]).is_file():
            shard["sha256"] = sha256(folder / shard["file"])
    for name in record.get("files", {}):
        if (folder / name).is_file():
            record["files"][name] = sha256(folder / name)
    _write_record(folder, record)


def _values(folder: Path, rng: random.Random, home: Path) -> None:
    """Values that would change results."""
    path = _shard(folder, rng)
    with h5py.File(path, "r+") as file:
        how = rng.choice(["nan", "inf", "action", "observation", "task", "source", "float action"])
        if how in ("nan", "inf"):
            file["reward"][0, 3] = float(how)
        elif how == "float action":
            values = file["action"][()].astype(np.float32) + 0.5
            del file["action"]
            file["action"] = values
        else:
            file[how][(0,) * file[how].ndim] = 200
    _seal(folder)


def _dataset(change: Callable[[h5py.File, str, random.Random, Path], None]) -> Mutation:
    """Replaces one column of one shard by another member of that name."""

    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        with h5py.File(_shard(folder, rng), "r+") as file:
            name = rng.choice(["reward", "action", "observation", "terminated"])
            change(file, name, rng, home)
        _seal(folder)

    return mutate


def _external_link(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    del file[name]
    file[name] = h5py.ExternalLink(str(home / "secret" / "secret.h5"), "reward")


def _soft_link(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink(rng.choice(["/elsewhere", f"/{name}", "/nothing"]))


def _external_storage(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    size = int(np.prod(shape)) * dtype.itemsize
    file.create_dataset(name, shape, dtype, external=[(str(home / "secret" / "secret.txt"), 0, size)])


def _virtual(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    name = "reward"  # of the secret's own shape
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, np.float32)
    source = h5py.VirtualSource(str(home / "secret" / "secret.h5"), "reward", (32, 144))
    layout[tuple(slice(0, min(a, b)) for a, b in zip(shape[:2], (32, 144), strict=True))] = source[
        : min(32, shape[0]), : min(144, shape[1])
    ]
    file.create_virtual_dataset(name, layout)


def _type(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    shape = file[name].shape
    del file[name]
    how = rng.choice(["vlen", "string", "compound", "opaque", "reference", "enum", "time", "bitfield", "big", "named"])
    match how:
        case "vlen":
            file.create_dataset(name, shape, h5py.vlen_dtype(np.int32))
        case "string":
            file.create_dataset(name, shape, h5py.string_dtype())
        case "compound":
            file.create_dataset(name, shape, np.dtype([("a", "f4"), ("b", "f4")]))
        case "opaque":
            file.create_dataset(name, shape, h5py.opaque_dtype(np.dtype("V8")))
        case "reference":
            file.create_dataset(name, shape, h5py.ref_dtype)
        case "enum":
            file.create_dataset(name, shape, h5py.enum_dtype({"A": 0, "B": 42}, basetype="i1"))
        case "time" | "bitfield":
            kind = h5py.h5t.UNIX_D32LE if how == "time" else h5py.h5t.STD_B8LE
            h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape))
        case "big":
            file.create_dataset(name, shape, np.dtype(">c16"))
        case "named":
            file[name] = np.dtype("f4")


def _shape(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    histories, steps, *rest = file[name].shape
    dtype = file[name].dtype
    del file[name]
    how = rng.choice(["huge", "sparse", "chunk", "zero", "scalar", "null", "many", "bomb", "small bomb"])
    match how:
        case "huge":
            file.create_dataset(name, (10**9, 10**6), dtype, chunks=(1, 10**4))
        case "sparse":
            file.create_dataset(name, (histories, 10**9), dtype, chunks=(1, 10**4), compression="gzip")
        case "chunk":
            most = (None,) * (2 + len(rest))
            file.create_dataset(name, (histories, steps, *rest), dtype, chunks=(1, 2**28, *rest), maxshape=most)
        case "zero":
            file.create_dataset(name, (histories, 0, *rest), dtype)
        case "scalar":
            file[name] = dtype.type(0)
        case "null":
            file[name] = h5py.Empty(dtype)
        case "many":
            file.create_dataset(name, (1,) * 32, dtype)
        case "bomb" | "small bomb":  # a megabyte of file that really holds 1.5 GB of zeros, or a tenth of that
            length = 15 * 10**8 // dtype.itemsize if how == "bomb" else 10**8
            made = file.create_dataset(name, (1, length), dtype, chunks=(1, 2**26), compression="gzip")
            block = np.zeros(2**26, dtype)
            for first in range(0, length, 2**26):
                made[0, first : first + 2**26] = block[: length - first]


def _filter(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(tuple(shape))
    created.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    made = h5py.h5d.create(
        file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), dcpl=created
    )
    made.write_direct_chunk((0,) * len(shape), b"\x28\xb5\x2f\xfd" + bytes(50), filter_mask=0)


def _groups(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    """A cycle of groups, a group in place of a column, and many members."""
    if rng.random() < 0.3:
        del file[name]
        file.create_group(name)[name] = file
    for number in range(3000):
        file[f"observation.{number}{ANSI if number == 7 else ''}"] = file["/"]


def _attributes(file: h5py.File, name: str, rng: random.Random, home: Path) -> None:
    for target in (file, file[name]):
        target.attrs["name"] = ANSI
        target.attrs.create("fingerprint", "x" * 60000)
        target.attrs.create("CLASS", rng.choice([b"DIMENSION_SCALE", np.zeros(3), h5py.Empty("f4")]))


def _pickled_shard(folder: Path, rng: random.Random, home: Path) -> None:
    _shard(folder, rng).write_bytes(pickle.dumps(Bomb(folder.parent / "executed")))
    _seal(folder)


def _flipped_header(folder: Path, rng: random.Random, home: Path) -> None:
    path = _shard(folder, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 4, 30])):
        content[rng.randrange(min(len(content), 4000))] = rng.randrange(256)
    path.write_bytes(content)
    _seal(folder)


def _truncated(folder: Path, rng: random.Random, home: Path) -> None:
    path = _shard(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    _seal(folder)


# parquet


def _parquet(folder: Path, rng: random.Random, home: Path) -> None:
    """All shards as Parquet, some of them hostile."""
    import pyarrow as pa
    import pyarrow.parquet

    record = _record(folder)
    how = rng.choice(["good", "metadata", "extension", "strings", "nested", "null", "zeros", "flip", "types", "empty"])
    for shard in record["shards"]:
        path = folder / shard["file"]
        with h5py.File(path) as file:
            columns = {name: file[name][()] for name in file}
        arrays = {name: pa.array(values if values.ndim == 1 else values.tolist()) for name, values in columns.items()}
        table = pa.table(arrays)
        path.unlink()
        path = path.with_suffix(".parquet")
        shard["file"] = path.name
        match how:
            case "metadata":
                huge = {b"pandas": b"x" * 10**6, b"ARROW:schema": b"noise", b"huggingface": ANSI.encode()}
                table = table.replace_schema_metadata(huge)
            case "extension":
                bomb = pickle.dumps(Bomb(folder.parent / "executed"))
                hidden = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb}
                field = pa.field("reward", table["reward"].type, metadata=hidden)
                table = table.set_column(table.column_names.index("reward"), field, table["reward"])
            case "strings":
                table = table.set_column(0, table.column_names[0], pa.array([ANSI] * len(table)))
            case "nested":
                table = table.set_column(0, table.column_names[0], pa.array([[[[[[1]]]]]] * len(table)))
            case "null":
                table = table.set_column(0, table.column_names[0], pa.nulls(len(table)))
            case "zeros":
                table = table.set_column(0, "reward", pa.array([[0.0] * 3 * 10**6] * len(table)))
            case "types":
                kind = rng.choice([pa.decimal128(30), pa.date64(), pa.duration("s"), pa.binary(), pa.float16()])
                table = table.set_column(0, table.column_names[0], pa.nulls(len(table), kind))
            case "empty":
                table = table.slice(0, 0)
        pyarrow.parquet.write_table(table, path)
        if how == "flip":
            content = bytearray(path.read_bytes())
            for _ in range(20):
                content[-rng.randrange(1, 3000)] = rng.randrange(256)
            path.write_bytes(content)
    _write_record(folder, record)
    _seal(folder)


# tasks


def _npz(folder: Path, rng: random.Random, home: Path) -> None:
    path = folder / rng.choice(["tasks-train.npz", "tasks-validation.npz", "tasks-test.npz"])
    goal = np.load(path)["goal"]
    how = rng.choice(
        [
            "pickle",
            "path",
            "eval",
            "huge",
            "fortran",
            "object",
            "bomb",
            "many",
            "twice",
            "version",
            "negative",
            "text",
            "nan",
            "members",
            "long header",
            "name",
            "encrypted",
        ]
    )

    def header(text: str, data: bytes = b"") -> bytes:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1") + data

    members: dict[str, bytes] = {}
    match how:
        case "pickle" | "object":
            buffer = io.BytesIO()
            np.save(buffer, np.array([Bomb(folder.parent / "executed")] * 12, object), allow_pickle=True)
            members = {"goal.npy": buffer.getvalue()}
        case "path":
            buffer = io.BytesIO()
            np.save(buffer, goal)
            members = {"../../goal.npy": buffer.getvalue(), "/tmp/goal.npy": buffer.getvalue()}
        case "eval":
            members = {"goal.npy": header("__import__('trap_module')\n", goal.tobytes())}
        case "huge":
            members = {"goal.npy": header("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 2)}\n")}
        case "fortran":
            buffer = io.BytesIO()
            np.save(buffer, np.asfortranarray(goal))
            members = {"goal.npy": buffer.getvalue()}
        case "bomb":
            buffer = io.BytesIO()
            np.save(buffer, np.zeros((10**8, 2), np.int64))
            members = {"goal.npy": buffer.getvalue()}
        case "many":
            members = {f"{number}.npy": header("{}") for number in range(20000)}
        case "negative":
            members = {"goal.npy": header("{'descr': '<i8', 'fortran_order': False, 'shape': (-13, -2)}\n", bytes(208))}
        case "version":
            members = {"goal.npy": b"\x93NUMPY\x09\x00" + bytes(100)}
        case "text":
            members = {"goal.npy": SECRET_TEXT}
        case "long header":
            members = {"goal.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 50_000_000) + b"[" * 50_000_000}
        case "name":
            buffer = io.BytesIO()
            np.save(buffer, goal)
            members = {f"{ANSI}.npy": buffer.getvalue()}
        case "nan":
            buffer = io.BytesIO()
            np.save(buffer, np.full(goal.shape, np.nan))
            members = {"goal.npy": buffer.getvalue()}
        case _:
            buffer = io.BytesIO()
            np.save(buffer, goal)
            members = {"goal.npy": buffer.getvalue(), "more.npy": buffer.getvalue()[:-8]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if how == "twice":
            archive.writestr("goal.npy", members["goal.npy"])
    if how == "encrypted":
        content = bytearray(path.read_bytes())
        content[6] |= 1
        path.write_bytes(content)
    _seal(folder)


SECRET_TEXT = b"goal = 1\n"


# files in the place of files


def _instead(how: str, sealed: bool = True) -> Mutation:
    def mutate(folder: Path, rng: random.Random, home: Path) -> None:
        names = ["info.json", "tasks-train.npz", "tasks-validation.npz", "tasks-test.npz", "README.md", "config.yaml"]
        name = rng.choice([*names, _shard(folder, rng).name, _shard(folder, rng).name])
        if not sealed and name.endswith(".npz"):
            _write_record(folder, {**_record(folder), "files": {}})
        replace_file(folder / name, how, home)

    return mutate


def _secret_tasks(folder: Path, rng: random.Random, home: Path) -> None:
    """Without a recorded checksum, and with tasks that nothing is known of."""
    name = rng.choice(["tasks-train.npz", "tasks-validation.npz", "tasks-test.npz"])
    _write_record(folder, {**_record(folder), "files": {}, "tasks": None})
    (folder / name).unlink()
    (folder / name).symlink_to(home / "secret" / rng.choice(["secret.npz", "secret.txt"]))


def _secret_config(folder: Path, rng: random.Random, home: Path) -> None:
    (folder / "config.yaml").unlink(missing_ok=True)
    (folder / "config.yaml").symlink_to(home / "secret" / rng.choice(["config.yaml", "secret.json", "secret.txt"]))


def _linked_folder(folder: Path, rng: random.Random, home: Path) -> None:
    folder.rename(folder.with_name("real"))
    folder.symlink_to("real", target_is_directory=True)
    (folder / "again").symlink_to(folder, target_is_directory=True)


def _config(folder: Path, rng: random.Random, home: Path) -> None:
    """A config beside the data that names code."""
    texts = [
        "name: x\ntasks: {name: 'trap_module:Family'}\ndata: {sources: [q_learning]}\n",
        "name: x\ntasks: {name: gymnasium, env_id: 'trap_module:X-v0', layouts: 3}\ndata: {sources: [q_learning]}\n",
        "tasks: dark_room\ndata: {sources: ['trap_module:Family']}\nevaluation: {figures: ['trap_module:load']}\n",
        "!!python/object/apply:os.system ['touch executed']\n",
        f"name: '{RIGHT_TO_LEFT}'\n# {ANSI}\n",
        "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b]\n",
        "[" * 5000,
    ]
    (folder / "config.yaml").write_text(rng.choice(texts))


def _readme(folder: Path, rng: random.Random, home: Path) -> None:
    text = (
        "---\nconfigs: !!python/object/apply:os.system ['touch executed']\ndataset_info: {name: 'trap_module:Family'}\n"
    )
    (folder / "README.md").write_text(text + f"---\n{ANSI}\n")
    (folder / "loading_script.py").write_text("import trap_module\n")
    (folder / f"{folder.name}.py").write_text("import trap_module\n")


MUTATIONS: dict[str, Mutation] = {
    "family": _family,
    "sources": _sources,
    "swept": _with(swept=[ANSI, "trap_module:Family", "reward"]),
    "versions": _with(made_with={ANSI: "x", "torch": RIGHT_TO_LEFT, "a\nb": "<script>"}),
    "given": _with(given={"repo": "../../x", "commit": ANSI, "folder": "/etc", "streaming": False}),
    "streamed": _with(given={"repo": "me/x", "commit": "main", "streaming": True}),
    "learners": _with(meta_learners={"data.sources.0": {"weights": ANSI, "environment_steps": 10**400}}),
    "statistics": _with(statistics={"reward_scale": 1e-320, "observation_statistics": {}}),
    "fuzz": _fuzzed,
    "space": _space,
    "space-fuzz": _fuzzed_space,
    "counts": _counts,
    "shard-names": _shard_names,
    "digits": _text('{"num_steps": ' + "9" * 5000 + ", RECORD}"),
    "nested": _text('{"more": ' + "[" * 100_000 + "]" * 100_000 + ", RECORD}"),
    "twice": _text('{RECORD, "shards": []}'),
    "nan": _text('{"sources": [{"name": "x", "a": NaN, "b": -Infinity, "c": 1e999}], RECORD}'),
    "utf-16": _text("{RECORD}".encode("utf-16")),
    "surrogate": _text('{RECORD, "sources": [{"name": "\\ud800"}]}'),
    "list": _text("[1, 2, 3]"),
    "big": _big_record,
    "values": _values,
    "external-link": _dataset(_external_link),
    "soft-link": _dataset(_soft_link),
    "external-storage": _dataset(_external_storage),
    "virtual": _dataset(_virtual),
    "type": _dataset(_type),
    "shape": _dataset(_shape),
    "filter": _dataset(_filter),
    "groups": _dataset(_groups),
    "attributes": _dataset(_attributes),
    "pickled-shard": _pickled_shard,
    "flipped": _flipped_header,
    "truncated": _truncated,
    "parquet": _parquet,
    "npz": _npz,
    "secret-tasks": _secret_tasks,
    "secret-config": _secret_config,
    "linked-folder": _linked_folder,
    "config": _config,
    "readme": _readme,
    **{f"instead-{how}": _instead(how) for how in INSTEAD},
    "unsealed-secret": _instead("secret", sealed=False),
}
WEIGHTS = {"fuzz": 4, "space": 4, "shard-names": 4, "type": 3, "shape": 4, "npz": 5, "parquet": 3, "family": 3}
MUST_REFUSE = {"values", "external-link", "external-storage", "virtual", "pickled-shard"}
"""Mutations of shards that change results, or read other files, if they are accepted."""

USES = ("run", "push", "info", "parquet", "given", "own-info", "own-push")
READ_EVERYTHING = ("run", "push", "own-push")
"""Uses that read every column."""


# what a command reads in another project's format


def _xland(path: Path, rng: random.Random, home: Path) -> bool:
    """A file in XLand-100B's layout with one fault; True if it must be refused."""
    shutil.copy(home / "xland.h5", path)
    with h5py.File(path, "r+") as file:
        group = file["0"]
        how = rng.choice(
            [
                "external",
                "virtual",
                "soft",
                "attribute",
                "digits",
                "group",
                "sparse",
                "chunk",
                "types",
                "values",
                "fifo",
                "raw",
                "surrogate",
                "ansi",
                "long",
                "zero",
            ]
        )
        match how:
            case "external":
                del group["rewards"]
                group["rewards"] = h5py.ExternalLink(str(home / "secret" / "secret.h5"), "reward")
            case "soft":
                del group["rewards"]
                group["rewards"] = h5py.SoftLink("/0/actions")
            case "virtual":
                _virtual_rewards(group, home)
            case "raw":
                shape = group["actions"].shape
                del group["actions"]
                where = [(str(home / "secret" / "secret.txt"), 0, int(np.prod(shape)))]
                group.create_dataset("actions", shape, np.uint8, external=where)
            case "attribute":
                group.attrs["ruleset-id"] = rng.choice([1.5, "x", 2**63, -(2**62)])
            case "digits":
                group.attrs["env-id"] = f"XLand-MiniGrid-R1-{'9' * 5000}x9"
            case "ansi":
                group.attrs["env-id"] = ANSI
            case "long":
                group.attrs["env-id"] = f"XLand-MiniGrid-R1-{'9' * 300}x9"
            case "surrogate":
                group.attrs["benchmark-id"] = b"\xff\xfe" + ANSI.encode()
            case "group":
                file.move("0", rng.choice(["9" * 5000, "²", ANSI, "1e5"]))
            case "sparse":
                for name in list(group):
                    rest, dtype = group[name].shape[2:], group[name].dtype
                    del group[name]
                    group.create_dataset(name, (2, 4 * 10**8, *rest), dtype, chunks=(1, 4096, *rest))
            case "chunk":
                dtype = group["actions"].dtype
                shape = group["actions"].shape
                del group["actions"]
                group.create_dataset(
                    "actions", shape, dtype, chunks=(1, 2**31), maxshape=(None, None), compression="gzip"
                )[...] = 0
            case "types":
                shape = group["actions"].shape
                del group["actions"]
                if rng.random() < 0.5:
                    group.create_dataset("actions", shape, h5py.vlen_dtype(np.uint8))
                else:
                    h5py.h5d.create(group.id, b"actions", h5py.h5t.STD_B8LE, h5py.h5s.create_simple(shape))
            case "values":
                group[rng.choice(["actions", "states", "expert_actions"])][0, 0] = 255
            case "zero":
                shape = group["actions"].shape
                del group["actions"]
                group.create_dataset("actions", (shape[0], 0), np.uint8)
    if how == "fifo":
        replace_file(path, rng.choice(["fifo", "zero", "folder", "huge", "empty"]), home)
    return how in ("external", "virtual", "raw", "values", "fifo")


def _virtual_rewards(group: h5py.Group, home: Path) -> None:
    shape = group["rewards"].shape
    del group["rewards"]
    layout = h5py.VirtualLayout(shape, np.float16)
    rows, steps = min(32, shape[0]), min(144, shape[1])
    layout[:rows, :steps] = h5py.VirtualSource(str(home / "secret" / "secret.h5"), "reward", (32, 144))[:rows, :steps]
    group.create_virtual_dataset("rewards", layout)


def _minari(store: Path, rng: random.Random, home: Path) -> bool:
    """A store with one Minari data set with one fault; True if it must be refused."""
    shutil.copytree(home / "minari", store)
    data = store / "me" / "data-v0" / "data"
    metadata = json.loads((data / "metadata.json").read_text())
    main = data / "main_data.hdf5"
    how = rng.choice(
        [
            "external",
            "soft",
            "virtual",
            "raw",
            "metadata",
            "metadata",
            "spec",
            "arrow",
            "types",
            "sparse",
            "cycle",
            "instead",
            "attributes",
            "format",
            "record",
        ]
    )
    match how:
        case "metadata":
            metadata = replaced(metadata, rng)
        case "record":
            metadata["learning_histories"] = replaced(metadata.get("learning_histories", {}), rng)
        case "format":
            metadata["data_format"] = rng.choice(["arrow", "trap_module:Family", ANSI, 7])
        case "spec":
            spec = {"id": "trap_module:X-v0", "entry_point": "trap_module:load", "kwargs": {"x": ANSI}}
            metadata["env_spec"] = json.dumps(
                {**spec, "additional_wrappers": [], "vector_entry_point": "trap_module:load"}
            )
        case "instead":
            replace_file(rng.choice([main, data / "metadata.json"]), rng.choice(INSTEAD), home)
        case "arrow":
            metadata["data_format"] = "arrow"
            (data / "0").mkdir()
            (data / "0" / "x.arrow").write_bytes(pickle.dumps(Bomb(store.parent / "executed")))
        case _:
            with h5py.File(main, "r+") as file:
                group = file["episode_0"]
                length = len(group["rewards"])
                match how:
                    case "external":
                        del group["rewards"]
                        group["rewards"] = h5py.ExternalLink(str(home / "secret" / "secret.h5"), "reward")
                        if rng.random() < 0.5:
                            del file["episode_0"]
                            file["episode_0"] = h5py.ExternalLink(str(home / "secret" / "secret.h5"), "/")
                    case "soft":
                        del group["rewards"]
                        group["rewards"] = h5py.SoftLink("/episode_0/rewards")
                    case "virtual":
                        del group["rewards"]
                        layout = h5py.VirtualLayout((length,), np.float64)
                        source = h5py.VirtualSource(str(home / "secret" / "secret.h5"), "reward", (32, 144))
                        layout[:] = source[0, :length]
                        group.create_virtual_dataset("rewards", layout)
                    case "raw":
                        del group["rewards"]
                        where = [(str(home / "secret" / "secret.txt"), 0, 8 * length)]
                        group.create_dataset("rewards", (length,), np.float64, external=where)
                    case "types":
                        del group["rewards"]
                        group.create_dataset("rewards", (length,), h5py.vlen_dtype(np.float64))
                    case "sparse":
                        del group["rewards"]
                        group.create_dataset("rewards", (10**9,), np.float64, chunks=(10**5,))
                    case "cycle":
                        del group["observations"]
                        group["observations"] = group
                    case "attributes":
                        key = rng.choice(["total_steps", "id", "seed"])
                        group.attrs[key] = rng.choice([-1, 10**12, ANSI, np.zeros(3)])
    if how in ("metadata", "record", "format", "spec", "arrow"):
        (data / "metadata.json").write_text(json.dumps(metadata))
    return how in ("external", "virtual", "raw")


# the kind


def prepare(home: Path) -> None:
    """A complete run, its data folder, and a valid file of every foreign format."""
    make_secrets(home)
    config = validate({**TINY, "name": "made", "output": str(home / "runs")})
    (home / "made.yaml").write_text(dump(config))
    made = watched(["generate", "made.yaml"], home)
    assert made.code == 0, made.errors
    shutil.copytree(home / "runs" / "made" / "data", home / "data")
    shutil.copy(home / "runs" / "made" / "config.yaml", home / "data" / "config.yaml")
    rng = np.random.default_rng(0)
    with h5py.File(home / "xland.h5", "w") as file:
        for number in range(2):
            group = file.create_group(str(number))
            group.attrs.update({"env-id": "XLand-MiniGrid-R1-9x9", "benchmark-id": "trivial-1m", "ruleset-id": number})
            done = np.zeros((2, 400), bool)
            done[:, 99::100] = True
            group["states"] = rng.integers(0, 156, (2, 400, 5, 5), np.uint8)
            group["actions"] = rng.integers(0, 6, (2, 400), np.uint8)
            group["rewards"] = np.where(done, 0.5, 0).astype(np.float16)
            group["dones"] = done
            group["expert_actions"] = rng.integers(0, 6, (2, 400), np.uint8)
    exported = watched(
        ["export", "minari", "runs/made", "--id", "me/data-v0", "--histories", "0"],
        home,
        call=lambda: _in_store(
            home / "minari", ["export", "minari", "runs/made", "--id", "me/data-v0", "--histories", "0"]
        ),
    )
    assert exported.code == 0, exported.errors


def _in_store(store: Path, words: list[str]) -> int:
    """Runs a command with a Minari store of its own."""
    import os

    from icrl.cli import main

    os.environ["MINARI_DATASETS_PATH"] = str(store)
    store.mkdir(exist_ok=True)
    return main(words)


def cases(home: Path, number: int) -> list[str]:
    """Every mutation at least once, then as many more as asked for; a fifth of them are pairs of mutations."""
    rng = random.Random(13)
    names = [name for name, times in ((name, WEIGHTS.get(name, 1)) for name in MUTATIONS) for _ in range(times)]
    chosen: list[str] = []
    for seed in range(number):
        if seed % 6 == 5:
            chosen.append(f"{rng.choice(['xland', 'xland', 'minari'])}::{seed}")
            continue
        name = names[seed % len(names)] if seed < 2 * len(names) else rng.choice(names)
        if seed >= len(names) and rng.random() < 0.25:
            name += f"+{rng.choice(names)}"
        chosen.append(f"{name}:{rng.choice([*USES, 'run', 'push'])}:{seed}")
    return chosen


def attempt(home: Path, case: str, folder: Path) -> Outcome:
    """Makes the hostile folder or file, and gives it to the command."""
    names, use, seed = case.split(":")
    rng = random.Random(int(seed))
    if names == "xland":
        refuse = _xland(folder / "x.h5", rng, home)
        words = ["import", "xland", "x.h5", "--to", "imported"]
        return attempt_words("hostile_data", case, words, folder, home, refuse)
    if names == "minari":
        refuse = _minari(folder / "store", rng, home)
        words = ["import", "minari", "me/data-v0", "--to", "imported"]
        call = lambda: _in_store(folder / "store", words)  # noqa: E731
        return attempt_words("hostile_data", case, words, folder, home, refuse, call)
    place = folder / "made" / "data" if use.startswith("own") else folder / "theirs"
    shutil.copytree(home / "data", place)
    if use.startswith("own"):
        shutil.copy(home / "runs" / "made" / "config.yaml", place.parent / "config.yaml")
    shutil.copy(home / "made.yaml", folder / "made.yaml")
    for name in names.split("+"):
        try:
            MUTATIONS[name](place, rng, home)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError):
            if "+" not in names:  # the second mutation may find nothing to change after the first
                raise
    words = _words(use, place, folder)
    refuse = names in MUST_REFUSE and use in READ_EVERYTHING
    return attempt_words("hostile_data", case, words, folder, home, refuse)


def _words(use: str, place: Path, folder: Path) -> list[str]:
    """The command that gets the folder `place`."""
    relative = str(place.relative_to(folder))
    match use:
        case "run":  # generate, train and evaluate with given data
            return ["run", _given_config(folder, relative)]
        case "given":
            return ["generate", _given_config(folder, relative)]
        case "push":
            return ["push", "data", relative, "--repo", "me/x", "--dry-run"]
        case "parquet":
            return ["push", "data", relative, "--repo", "me/x", "--dry-run", "--format", "parquet"]
        case "info":
            return ["info", relative]
        case "own-info":
            return ["info", "made"]
        case "own-push":
            return ["push", "data", "made", "--repo", "me/x", "--dry-run"]
    raise ValueError(use)


def _given_config(folder: Path, relative: str) -> str:
    values: dict[str, Any] = {**TINY, "name": "mine", "output": "runs", "data": {"folder": relative}}
    (folder / "mine.yaml").write_text(dump(validate(values)))
    return "mine.yaml"


__all__ = ["NUMBER", "attempt", "cases", "prepare", "sparse"]

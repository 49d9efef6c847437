"""What people see of our files with h5py and h5dump. Usage: h5py_test.py WRITE_SAMPLES"""
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
except ImportError as problem:
    print(f"skipped: {problem}; install python3-h5py")
    sys.exit(77)


def expected(salt, parameter, rows, cols):
    r, c = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    return (salt * 100000 + parameter * 10000 + r * 100 + c + 0.25).astype(np.float32)


def check_view(path):
    with h5py.File(path, "r") as f:
        shapes = [("model.embed_tokens.weight", 0, 37, 8), ("model.layers.0.self_attn.q_proj.weight", 1, 24, 8),
                  ("model.layers.0.mlp.down_proj.weight", 2, 8, 40)]
        for prefix, salt in [("", 1), ("adam_m/", 2), ("adam_v/", 3)]:
            for name, parameter, rows, cols in shapes:
                tensor = f[prefix + name]
                assert tensor.dtype == np.float32 and tensor.is_virtual, name
                np.testing.assert_array_equal(tensor[:], expected(salt, parameter, rows, cols))
            np.testing.assert_array_equal(f[prefix + "model.norm.weight"][:], expected(salt, 3, 1, 8)[0])
        assert f["model.norm.weight"].attrs["dtype"] == b"F32"
        assert f.attrs["step"] == 120


def check_shard(path):
    with h5py.File(path, "r") as f:
        group = f["policy/weights/F32"]
        data = group["data"][:]
        for parameter, r0, r1, c0, c1, offset in zip(*(group[k][:] for k in (
                "parameter", "row_begin", "row_end", "column_begin", "column_end", "offset"))):
            box = data[offset:offset + (r1 - r0) * (c1 - c0)].reshape(r1 - r0, c1 - c0)
            np.testing.assert_array_equal(box, expected(1, parameter, r1, c1)[r0:, c0:])


def check_manifest(path):
    with h5py.File(path, "r") as f:
        assert f.attrs["stage"] == b"zero" and f.attrs["policy_version"] == 127
        assert list(f["files/name"].asstr()) == [f"shard_{i:05}.h5" for i in range(3)]
        assert f["models/policy/name"].asstr()[3] == "model.norm.weight"
        assert dict(zip(f["mesh/axis"].asstr(), f["mesh/ranks"])) == {"data": 3, "tensor": 1}


def check_rollouts(folder):
    seen = 0
    for name in ("part_00000.h5", "part_00001.h5"):
        with h5py.File(os.path.join(folder, name), "r") as f:
            offsets = f["offsets"][:]
            for i in range(len(f["group"])):
                tokens = f["tokens"][offsets[i]:offsets[i + 1]]
                np.testing.assert_array_equal(tokens, 100 * seen + np.arange(5 + seen % 7))
                assert f["reward"][i] == 0.1 * seen and f["sample"][i] == seen % 4
                text = "nul\0 and größe" if seen == 1 else f"answer {seen}: 数学"
                assert f["text"].asstr()[i].rstrip("\0") == text, f["text"][i]
                seen += 1
            accuracy = f["scores/accuracy"]
            assert len(accuracy["value"]) == len(f["group"])
            assert f["finish_reason"].attrs["codes"] == b"0 unfinished, 1 stop, 2 length, 3 context"
            assert f["tokens"].compression == "gzip" and f["tokens"].shuffle
            assert f.attrs["step"] == 120
    assert seen == 20
    dump = shutil.which("h5dump")
    if dump:
        shown = subprocess.run([dump, "-d", "/text", os.path.join(folder, "part_00000.h5")], capture_output=True,
                               text=True, check=True).stdout
        assert "answer 0" in shown, shown


with tempfile.TemporaryDirectory() as folder:
    subprocess.run([sys.argv[1], folder], check=True)
    checkpoint = os.path.join(folder, "checkpoints", "step_00000120")
    os.chdir("/")
    check_view(os.path.join(checkpoint, "model.h5"))
    check_view(os.path.join(folder, "elsewhere.h5"))
    os.chdir(folder)
    check_view("elsewhere.h5")
    for shard in range(3):
        check_shard(os.path.join(checkpoint, f"shard_{shard:05}.h5"))
    check_manifest(os.path.join(checkpoint, "manifest.h5"))
    check_rollouts(os.path.join(folder, "rollouts", "step_00000120"))
print("h5py reads view, shards, manifest and rollouts")

"""Model folders that are not whole, or not the model that they say: refused at the start, naming file and tensor."""
import json
import pathlib
import shutil
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import program

TENSOR = "model.layers.1.mlp.up_proj.weight"


def read_safetensors(path):
    """(header, data) of a file."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + size]), bytearray(raw[8 + size:])


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))


class Model(program.Case):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        shutil.copytree(program.shared_model(), self.model)
        self.tensors = self.model / "model.safetensors"

    def change_header(self, change):
        header, data = read_safetensors(self.tensors)
        change(header)
        write_safetensors(self.tensors, header, data)

    def change_config(self, **changes):
        path = self.model / "config.json"
        config = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                config.pop(key, None)
            else:
                config[key] = value
        path.write_text(json.dumps(config))

    def options(self):
        return ["--model.policy.folder", self.model]

    def assert_model_refused(self, *words, code=2, ranks=2, options=None):
        message = self.assert_refused(self.train(*(options or self.options()), ranks=ranks), code, *words)
        metrics = self.run_directory / "metrics.jsonl"
        self.assertEqual(metrics.read_text() if metrics.exists() else "", "", "a step has been done")
        return message

    def test_the_folder_as_exported_is_taken(self):
        self.done(*self.options(), ranks=2)

    def test_a_folder_that_is_not_there(self):
        shutil.rmtree(self.model)
        self.assert_model_refused(self.model, "there is no such model")

    def test_a_folder_without_configuration(self):
        (self.model / "config.json").unlink()
        self.assert_model_refused(self.model, "config.json")

    def test_a_folder_without_tensors(self):
        self.tensors.unlink()
        self.assert_model_refused(self.model, "safetensors")

    def test_a_folder_without_tokenizer_where_one_is_needed(self):
        (self.model / "tokenizer.json").unlink()
        data = self.folder / "data.jsonl"
        data.write_text('{"prompt": "2,3,5->10", "completion": "2"}\n')
        self.assert_model_refused(self.model, "tokenizer", options=[
            *self.options(), "--task.kind", "json_lines", "--task.train", data, "--task.evaluation", data,
            "--task.demonstrations", data])

    def test_a_tensor_that_is_missing_is_named(self):
        self.change_header(lambda header: header.pop(TENSOR))
        self.assert_model_refused(self.model, TENSOR)

    def test_a_tensor_of_another_shape_is_named_with_both(self):
        self.change_config(intermediate_size=48)
        self.assert_model_refused(self.model, "mlp.gate_proj.weight", "32", "48")

    def test_an_architecture_that_is_unknown_lists_those_that_are_known(self):
        self.change_config(model_type="mamba", architectures=["MambaForCausalLM"])
        self.assert_model_refused(self.model / "config.json", "mamba", "llama", "qwen2", "qwen3")

    def test_a_configuration_that_lacks_a_size_names_it(self):
        self.change_config(hidden_size=None)
        self.assert_model_refused(self.model / "config.json", "hidden_size")

    def test_a_configuration_that_is_no_json_is_named(self):
        (self.model / "config.json").write_text('{"model_type": "llama",')
        self.assert_model_refused(self.model / "config.json", "JSON")

    def test_a_file_that_is_cut_short_says_how_much_is_there(self):
        size = self.tensors.stat().st_size
        for keep in (4, 100, size // 2, size - 1):
            with self.subTest(keep=keep):
                shutil.copy(program.shared_model() / "model.safetensors", self.tensors)
                with open(self.tensors, "r+b") as file:
                    file.truncate(keep)
                self.assert_model_refused(self.tensors)

    def test_a_header_that_is_damaged_is_named(self):
        raw = bytearray(self.tensors.read_bytes())
        raw[:8] = struct.pack("<Q", 1 << 60)
        self.tensors.write_bytes(raw)
        self.assert_model_refused(self.tensors)

    def test_a_tokenizer_of_another_vocabulary_is_refused(self):
        path = self.model / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        vocab = tokenizer["model"]["vocab"]
        a, b = list(vocab)[10], list(vocab)[11]
        vocab[a], vocab[b] = vocab[b], vocab[a]
        path.write_text(json.dumps(tokenizer))
        self.assert_model_refused(self.model, "vocabular")

    def test_nodes_with_other_files_under_the_same_path_are_found(self):
        other = self.folder / "other"
        shutil.copytree(self.model, other / "model")
        header, data = read_safetensors(self.tensors)
        data[header[TENSOR]["data_offsets"][0]] ^= 1
        write_safetensors(other / "model/model.safetensors", header, data)
        for zero in (1, 3):
            with self.subTest(zero=zero):
                here = self.command("--model.policy.folder", "model", "--parallel.zero", zero)
                result = self.execute([*program.launcher(1, mpi=True), *here, ":", "-n", "1", "-wdir", str(other), *here])
                self.assert_refused(result, 2, "model that stage imitate starts from is not the same on all ranks",
                                    "shared file system")

    def test_a_weight_that_is_no_number_is_named(self):
        header, data = read_safetensors(self.tensors)
        begin = header[TENSOR]["data_offsets"][0]
        for printed, bits in (("nan", 0x7FC00000), ("inf", 0x7F800000)):
            with self.subTest(printed):
                broken = bytearray(data)
                broken[begin + 4 * 5:begin + 4 * 6] = struct.pack("<I", bits)
                write_safetensors(self.tensors, header, broken)
                self.assert_model_refused(self.tensors, TENSOR, f"holds {printed} at row 0, column 5")


if __name__ == "__main__":
    program.main(jobs=4)

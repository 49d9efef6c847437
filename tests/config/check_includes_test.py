"""Each rule of tools/check_includes is seen to fail on a small tree that breaks it."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECKER = sys.argv[1]

BREACHES = {
    "folder": ("parallel/a.cpp", '#include "kernels/device.hpp"\n', "parallel may not include kernels"),
    "sideways": ("src/rollout/a.cpp", '#include "src/update/loss.hpp"\n', "src/rollout may not include src/update"),
    "upwards": ("src/base/a.hpp", '#include "io/fs.hpp"\n', "src/base may not include io"),
    "tests": ("io/a.cpp", '#include "tests/support/x.hpp"\n', "io may not include tests"),
    "relative": ("io/a.cpp", '#include "fs.hpp"\n', "include from the root"),
    "mpi": ("src/model/a.cpp", "#include <mpi.h>\n", "may include mpi.h"),
    "options": ("src/stages/a.cpp", "#include <boost/program_options.hpp>\n", "may include boost/program_options"),
    "sum": ("src/sums/a.cpp", '#include "parallel/mpi_float_sum.hpp"\n', "may include parallel/mpi_float_sum.hpp"),
    "heavy": ("io/a.hpp", "#include <nlohmann/json.hpp>\n", "is heavy"),
    "environment": ("io/a.cpp", 'auto x = std::getenv("HOME");\n', "read the environment"),
    "signals": ("src/stages/a.cpp", "#include <csignal>\n", "touch signals"),
    "path": ("io/README.md", "see /ho" "me/me/notes\n", "path of one machine"),
}
FINE = {
    "src/stages/a.cpp": '#include "src/rollout/a.hpp"\n#include "parallel/mesh.hpp"\n// getenv("X") in a comment\n',
    "tests/support/a.cpp": 'auto x = std::getenv("X");\n',
    "io/a.cpp": "#include <hdf5.h>\n#include <nlohmann/json.hpp>\n",
}


def run(files):
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            file = pathlib.Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return subprocess.run([sys.executable, CHECKER, folder], capture_output=True, text=True)


class Checker(unittest.TestCase):
    def test_a_tree_that_keeps_the_rules_passes(self):
        result = run(FINE)
        self.assertEqual(result.returncode, 0, result.stdout)

    def test_each_breach_is_found_and_named(self):
        for name, (path, text, message) in BREACHES.items():
            with self.subTest(name):
                result = run({**FINE, path: text})
                self.assertEqual(result.returncode, 1)
                self.assertIn(message, result.stdout)
                self.assertIn(path, result.stdout)

    def test_an_empty_tree_is_no_success(self):
        self.assertEqual(run({}).returncode, 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

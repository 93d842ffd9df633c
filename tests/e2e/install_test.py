"""An installed tree is enough to build and run the examples."""
import os
import pathlib
import subprocess
import unittest

from support import Workspace

SOURCE = pathlib.Path(os.environ.get("SENNIT_SOURCE", "."))
BUILD = pathlib.Path(os.environ.get("SENNIT_BUILD", "build/release"))


def run(*command, code=0):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    if done.returncode != code:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class Install(Workspace):
    def test_examples(self):
        prefix, build = self.root / "prefix", self.root / "examples"
        run("cmake", "--install", BUILD, "--prefix", prefix)
        for path in ("bin/sennit", "include/sennit/sennit.h", "share/man/man1/sennit.1", "share/bash-completion/completions/sennit",
                     "share/sennit/peers/torch_peer.py", "share/sennit/peers/native_peer"):
            self.assertTrue((prefix / path).exists(), path)
        run("cmake", "-S", SOURCE / "examples", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", build)
        checkpoint = self.trained("tiny")
        self.assertGreater(len(run(build / "generate", checkpoint, "The old man").stdout), 10)
        ranked = run(build / "similar", checkpoint, "the sea", "rain under the sail", "the sea").stdout.splitlines()
        self.assertRegex(ranked[0], r"^1 .*the sea$")
        answers = run(build / "continuations", checkpoint, "The old man", self.root / "kept").stdout.splitlines()
        self.assertRegex(answers[0], r"^11 tokens kept in \d+ bytes$")
        self.assertIn("nowhere", run(build / "generate", self.root / "nowhere", "x", code=1).stderr)


if __name__ == "__main__":
    unittest.main()

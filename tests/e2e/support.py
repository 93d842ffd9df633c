"""A workspace with a small corpus and a way to call the program, for the tests of the whole."""
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import unittest

SENNIT = os.environ.get("SENNIT", "build/release/sennit")
MODEL = {"vocab": 257, "d_model": 32, "blocks": [{"repeat": 2, "mixer": "gla", "heads": 2}]}


def text(seed, sentences):
    """Sentences of few words, so that a few steps learn something."""
    rng = random.Random(seed)
    words = "the a sea ship old young man woman saw took lost found rope sail wind rain under over".split()
    return " ".join(" ".join(rng.choices(words, k=8)).capitalize() + "." for _ in range(sentences)) + "\n"


def sennit(*arguments, code=0, env=None, **options):
    """Runs the program and returns what it wrote; fails unless it ends with `code`."""
    done = subprocess.run([SENNIT, *map(str, arguments)], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
                          env={**os.environ, **(env or {})}, **options)
    if done.returncode != code:
        raise AssertionError(f"sennit {' '.join(map(str, arguments))}: exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}")
    return done


def answer(*arguments, **options):
    return json.loads(sennit(*arguments, "--json", **options).stdout)


class Workspace(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="sennit-e2e-"))
        cls.addClassCleanup(shutil.rmtree, cls.root, ignore_errors=True)
        folder = cls.root / "text"
        folder.mkdir()
        for seed, (split, sentences) in enumerate({"train": 400, "valid": 40, "test": 40}.items()):
            (folder / f"{split}.txt").write_text(text(seed, sentences // 2) + "\f\n" + text(seed + 10, sentences // 2))
        cls.model = cls.file("model.json", MODEL)
        cls.data = cls.root / "data"
        sennit("tokenize", "encode", folder, "--out", cls.data)

    @classmethod
    def file(cls, name, content):
        path = cls.root / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    @classmethod
    def train_arguments(cls, out, **options):
        given = {"steps": 30, "rows": 2, "length": 64, "warmup": 5, "eval-every": 0, "eval-tokens": 500, "save-every": 0, **options}
        return ["train", cls.model, "--data", cls.data, "--out", out, *(f"--{k}={v}" for k, v in given.items())]

    @classmethod
    def trained(cls, name, **options):
        out = cls.root / name
        sennit(*cls.train_arguments(out, **options), "--quiet")
        return out


def checkpoints(run):
    return sorted((run / "checkpoints").glob("step-*[0-9]"))


def weights(run):
    return (checkpoints(run)[-1] / "model.safetensors").read_bytes()

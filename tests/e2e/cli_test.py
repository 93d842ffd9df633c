"""Every command as a person or a script calls it, and what it says when something is wrong."""
import json
import os
import shutil
import signal
import subprocess
import time
import unittest

from support import MODEL, SENNIT, Workspace, answer, checkpoints, sennit


class Cli(Workspace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.run_folder = cls.trained("run", **{"eval-every": 10})

    def refused(self, *arguments, code=1, says=()):
        error = sennit(*arguments, code=code).stderr
        for words in [says] if isinstance(says, str) else says:
            self.assertIn(words, error)
        self.assertTrue(error.startswith("sennit: "), error)
        self.assertNotIn("internal error", error)

    def test_help_of_every_command(self):
        self.assertIn("Usage", sennit("--help").stdout)
        commands = answer("list", "commands")["commands"]
        self.assertGreaterEqual(len(commands), 10)
        for command in commands:
            shown = sennit(*command["name"].split(), "--help").stdout
            self.assertIn("Usage: sennit", shown)
            self.assertIn("Example: ", shown)

    def test_no_command(self):
        sennit(code=2)
        self.refused("trian", code=2, says="`train`")
        self.refused("run", code=2)
        self.assertRegex(sennit("--version").stdout, r"^sennit \d+\.\d+\.\d+\n$")

    def test_run(self):
        whole = answer("run", self.run_folder, "-p", "The old man", "--max-tokens", 24, "--exact", "--seed", 3)
        self.assertEqual(whole["tokens"], 24)
        self.assertEqual(whole["reason"], "max_tokens")
        plain = sennit("run", self.run_folder, "-p", "The old man", "--max-tokens", 24, "--exact", "--seed", 3, "--quiet")
        self.assertEqual(plain.stdout.rstrip("\n"), whole["text"].rstrip("\n"))
        self.assertEqual(plain.stderr, "")
        state = self.root / "session"
        first = answer("run", self.run_folder, "-p", "The old man", "--max-tokens", 9, "--exact", "--seed", 3, "--state-save", state)
        second = answer("run", self.run_folder, "--max-tokens", 15, "--exact", "--seed", 3, "--state-load", state)
        self.assertEqual(first["ids"] + second["ids"], whole["ids"])
        stop = whole["text"][5:8]
        self.assertNotIn(stop, answer("run", self.run_folder, "-p", "The old man", "--max-tokens", 24, "--exact", "--seed", 3, "--stop", stop)["text"])
        prompt = self.file("prompt.txt", "The old man")
        self.assertEqual(answer("run", self.run_folder, "--file", prompt, "--max-tokens", 24, "--exact", "--seed", 3)["ids"], whole["ids"])

    def test_interrupted_answer(self):
        command = [SENNIT, "run", str(self.run_folder), "-p", "The old man", "--max-tokens", "1000000000", "--ignore-end"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        _, statistics = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertIn("(cancelled)", statistics)

    def test_eval(self):
        by_file = answer("eval", self.run_folder, "--split", "valid")
        by_text = answer("eval", self.run_folder, "--text", self.root / "text/valid.txt")
        self.assertGreater(by_file["tokens"], 100)
        for key in ("loss", "tokens", "bytes"):
            self.assertEqual(by_file[key], by_text[key])
        self.assertLess(by_file["bits_per_byte"], 8)
        strided = answer("eval", self.run_folder, "--length", 32, "--stride", 8)
        self.assertEqual(strided["tokens"], by_file["tokens"])

    def test_eval_with_windows(self):
        model = self.file("softmax.json", {"vocab": 257, "d_model": 32, "blocks": [{"repeat": 2, "mixer": "softmax"}]})
        run = self.root / "softmax"
        sennit("train", model, "--data", self.data, "--out", run, "--steps", 10, "--rows", 2, "--length", 64, "--warmup", 2, "--quiet")
        wide = answer("eval", run, "--window", 512, "--precision", "f32")
        self.assertEqual(wide["spans"], [{"full": [], "loss": wide["loss"]}])
        near = answer("eval", run, "--window", 1, "--full", 1)["spans"]
        self.assertEqual(near[0]["full"], [])
        self.assertNotEqual(near[0]["loss"], wide["loss"])
        self.assertIn("full attention in no block", sennit("eval", run, "--window", 2).stdout)
        self.refused("eval", self.run_folder, "--window", 512, says=["exact attention", "--window"])

    def test_inspect(self):
        run = answer("inspect", self.run_folder, "--stats")
        self.assertEqual((run["kind"], run["status"], run["steps_done"]), ("training run", "finished", 30))
        tensors = run["checkpoint"]["tensors"]
        count = 0
        for t in tensors:
            n = 1
            for d in t["shape"]:
                n *= d
            count += n
            self.assertLessEqual(t["min"], t["mean"])
            self.assertLessEqual(t["mean"], t["max"])
        self.assertEqual(count, run["checkpoint"]["parameters"])
        self.assertEqual(count, sum(run["checkpoint"]["parameters_by_part"].values()))
        self.assertEqual(answer("inspect", self.model)["parameters"], count)
        checkpoint = checkpoints(self.run_folder)[-1]
        kinds = {checkpoint: "checkpoint", checkpoint / "model.safetensors": "safetensors", self.data: "token files",
                 self.data / "train.tokens": "token file", self.data / "sennit_tokenizer.json": "tokenizer"}
        for path, kind in kinds.items():
            self.assertEqual(answer("inspect", path)["kind"], kind)
            self.assertTrue(sennit("inspect", path).stdout.startswith("kind"))
        state = self.root / "kept"
        sennit("run", self.run_folder, "-p", "x", "--max-tokens", 1, "--state-save", state)
        self.assertEqual(answer("inspect", state)["kind"], "state file")

    def test_list(self):
        everything = answer("list")
        for kind, entries in everything.items():
            self.assertTrue(entries, kind)
            self.assertEqual(answer("list", kind)[kind], entries)
            self.assertIn(entries[0]["name"], sennit("list", kind).stdout)
            self.assertIn("| --- |", sennit("list", kind, "--markdown").stdout)
        self.refused("list", "mixers", "sofmax", says="`softmax`?")

    def test_doctor(self):
        said = answer("doctor", "--quick")
        self.assertTrue(said["levels"][0]["runs"], "scalar runs everywhere")
        self.assertEqual(sum(level["used"] for level in said["levels"]), 1)
        self.assertTrue(all(level["runs"] != bool(level["why_not"]) for level in said["levels"]))
        printed = sennit("doctor", "--quick").stdout
        self.assertIn(said["cpu"], printed)
        cores = len(os.sched_getaffinity(0))
        self.assertEqual(len(said["core_to_core_ns"]), min(cores - 1, 64))
        self.assertEqual("core to core" in printed, cores > 1)

    def test_bench(self):
        names = sennit("bench", "--list").stdout.splitlines()
        self.assertGreater(len(names), 20)
        self.assertEqual(len(names), len(set(names)))
        report = answer("bench", "rmsnorm 8192x1024 forward+", "--repeats", 1)
        (case,) = report["cases"]
        self.assertLess(case["error"], 1e-5)
        self.assertGreater(case["seconds"], 0)
        self.assertTrue(all(c["all_threads"] > 0 for c in report["ceilings"]))
        self.refused("bench", "no such case", "--repeats", 1, says="--list")
        page = self.root / "growth.html"
        grown = {m["mixer"]: m for m in answer("bench", "gla", "--lengths", "64..256", "--repeats", 1, "--html", page)["mixers"]}
        self.assertEqual(set(grown), {"softmax", "gla"})
        self.assertEqual([p["length"] for p in grown["gla"]["points"]], [64, 128, 256])
        self.assertAlmostEqual(grown["gla"]["declared_exponent"], 1, places=2)
        self.assertIn("time ~ n^", page.read_text())
        self.refused("bench", "mixers", "--lengths", "64..x", says="1k..64k")
        asked = subprocess.run([SENNIT, "bench", "--answer"], input="gelu 8192x1024 forward\nnothing\n", capture_output=True, text=True, timeout=120)
        ready, seconds, none = asked.stdout.split()
        self.assertEqual((ready, none), ("ready", "none"))
        self.assertGreater(float(seconds), 0)

    def test_trials_of_mixers(self):
        page = self.root / "trials.html"
        said = answer("compare", "--mixers", "gla,min_gru", "--task", "recall", "--task-set", "pairs=2", "--task-set", "length=16", "--steps", 3,
                      "--sequences", 2, "--d-model", 16, "--html", page)
        names = [t["mixer"] for t in said["trials"]]
        self.assertIn("min_gru", names)
        self.assertIn("gla: retention", names)
        self.assertEqual(said["task"]["pairs"], 2)
        self.assertIn("Accuracy against state", page.read_text())
        self.assertTrue(said["complete"])
        self.refused("compare", says="--mixers")
        self.refused("compare", "--mixers", "sofmax", says="`softmax`?")
        self.refused("compare", "--mixers", "linformer", says="causal")
        self.refused("compare", "--mixers", "gla", "--task", "recal", says="`recall`?")
        self.refused("compare", "--mixers", "gla", "--task-set", "pears=2", says="`pairs`?")

    def test_trials_at_once_give_the_same_and_are_kept(self):
        trial = ["compare", "--mixers", "gla: linear attention,softmax,power_attention", "--defaults", "--task-set", "pairs=2",
                 "--task-set", "length=16", "--steps", 3, "--sequences", 2, "--d-model", 16]
        learnt = lambda said: [(t["mixer"], t["accuracy"], t["loss"], t["accuracy_by_steps"]) for t in said["trials"]]
        kept = self.root / "trials"
        alone = answer(*trial)
        self.assertEqual([t["mixer"] for t in alone["trials"]], ["gla: linear attention", "softmax", "power_attention"])
        several = answer(*trial, "--jobs", 3, "--threads-each", 2, "--keep", kept)
        self.assertEqual(learnt(several), learnt(alone))
        self.assertEqual(len(list(kept.iterdir())), 3)
        # What is there is taken from there, times and all; what is not is trained.
        (kept / "softmax.json").unlink()
        again = answer(*trial, "--keep", kept)
        self.assertEqual([a["seconds"] == b["seconds"] for a, b in zip(again["trials"], several["trials"])], [True, False, True])
        self.assertEqual(learnt(again), learnt(alone))
        other = answer(*trial, "--keep", kept, "--seed", 2)
        self.assertNotEqual(learnt(other), learnt(alone))
        self.refused("compare", "--mixers", "gla: linear attentoin", says="sennit list mixers gla")
        self.refused("compare", "--mixers", "softmax", "--d-model", 15, "--quiet", says="15")
        odd = sennit("compare", "--mixers", "softmax,min_gru", "--defaults", "--d-model", 15, "--steps", 2, "--sequences", 2, "--quiet").stdout
        self.assertIn("softmax was not trained: ", odd)
        self.assertRegex(odd, r"\nmin_gru +\d")

    def test_interrupted_trials_go_on(self):
        kept = self.root / "interrupted"
        trial = ["compare", "--mixers", "softmax,gla,min_gru", "--defaults", "--task-set", "pairs=2", "--task-set", "length=16",
                 "--steps", 100, "--sequences", 8, "--d-model", 32, "--keep", kept]
        process = subprocess.Popen([SENNIT, *map(str, trial), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not (kept / "softmax.json").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        some = json.loads(said)
        self.assertFalse(some["complete"])
        self.assertLess(len(some["trials"]), 3)
        whole = answer(*trial)
        self.assertEqual([t["mixer"] for t in whole["trials"]], ["softmax", "gla", "min_gru"])
        self.assertEqual(whole["trials"][0], some["trials"][0])

    def test_compare_and_plan(self):
        page, table = self.root / "report.html", self.root / "report.md"
        both = answer("compare", self.run_folder, checkpoints(self.run_folder)[-1], "--lengths", "16,64", "--rows", 1, "--length", 16, "--html", page, "--markdown", table)
        self.assertEqual([d["position"] for d in both["runs"][0]["decode"]], [16, 64])
        self.assertEqual(len(both["runs"][0]["curves"]["valid_loss_by_tokens"]), 3)
        shown = page.read_text()
        self.assertGreaterEqual(shown.count("<svg"), 6)
        for outside in ("http:", "https:", "src=", "href=", "nan"):
            self.assertNotIn(outside, shown)
        self.assertIn("valid bits/byte", table.read_text())
        self.assertIn("loss", sennit("compare", self.run_folder, "--no-measure", "--text").stdout)
        plan = answer("plan", self.model, "--rows", 1, "--length", 32)
        self.assertEqual(plan["parameters"], answer("inspect", self.model)["parameters"])
        self.assertGreater(plan["training"]["peak_bytes"], 16 * plan["parameters"])

    def test_plan_heads(self):
        def model(d, heads):
            block = {"repeat": 2, "mixer": "softmax", "heads": heads, "head_dim": 8, "channel": "mlp"}
            return {"vocab": 257, "d_model": d, "blocks": [block]}
        ladder = []
        for d, heads in ((16, 4), (16, 1), (32, 2)):
            file, out = self.file("rung.json", model(d, heads)), self.root / f"rung-{d}-{heads}"
            sennit("train", file, "--data", self.data, "--out", out, "--steps", 20, "--rows", 2, "--length", 64, "--eval-every", 20, "--quiet")
            ladder.append(out)
        given, out = self.file("given.json", model(32, 4)), self.root / "planned.json"
        plan = answer("plan-heads", given, "--ladder", *ladder, "--slack", 0.5, "--out", out)
        self.assertEqual(plan["context"], 32768)
        self.assertLess(plan["share"], 1)
        for cost in ("flops", "bytes"):
            self.assertLessEqual(plan["planned"][cost], plan["given"][cost])
        self.assertLessEqual(plan["planned"]["loss"], plan["given"]["loss"] + 0.5)
        self.assertEqual(answer("inspect", out)["parameters"], plan["planned"]["parameters"])
        self.assertIn("planned costs", sennit("plan-heads", given, "--ladder", *ladder).stdout)
        self.refused("plan-heads", given, "--ladder", self.run_folder, says=("softmax", "gla"))
        self.refused("plan-heads", given, "--ladder", ladder[0], ladder[1], says="3 trained models")

    def test_prefill(self):
        block = {"repeat": 2, "mixer": "softmax", "heads": 2}
        file, run = self.file("whole.json", {"vocab": 257, "d_model": 32, "blocks": [block]}), self.root / "whole"
        sennit("train", file, "--data", self.data, "--out", run, "--steps", 20, "--rows", 2, "--length", 64, "--eval-every", 0, "--quiet")
        prompt = self.file("long.txt", "The old man took the rope. " * 60)
        def ids(*more):
            return answer("run", run, "--file", prompt, "--max-tokens", 12, "--precision", "f32", "--temperature", 0, *more)["ids"]
        everything = ids()
        for name in ("stripes", "permuted_blocks"):
            self.assertEqual(ids("--prefill", json.dumps({"name": name, "mass": 1})), everything)
            self.assertEqual(len(ids("--prefill", name)), 12)
            loss = answer("eval", run, "--length", 256, "--prefill", json.dumps({"name": name, "mass": 1, "from": 64}))["loss"]
            self.assertAlmostEqual(loss, answer("eval", run, "--length", 256)["loss"], places=3)
        self.refused("run", run, "-p", "x", "--prefill", "strips", says=("stripes", "strips"))
        self.refused("run", self.run_folder, "-p", "x", "--prefill", "stripes", says="softmax")

    def test_completion_and_manual(self):
        for shell in ("bash", "zsh", "fish"):
            script = sennit("completion", shell).stdout
            self.assertIn("max-tokens", script)
            self.assertIn("tokenize", script)
        manual = sennit("man").stdout
        self.assertTrue(manual.startswith(".TH SENNIT 1"))
        self.assertIn("\\-\\-max\\-tokens", manual)

    def test_tokenize(self):
        learnt = answer("tokenize", "train", self.root / "text", "--out", self.root / "sp", "--vocab-size", 300)
        self.assertEqual(learnt["vocab"], 300)
        coded = answer("tokenize", "encode", self.root / "text", "--tokenizer", self.root / "sp", "--out", self.root / "sp-data")
        self.assertGreater(coded["bytes"], coded["tokens"])
        self.refused("eval", self.run_folder, "--data", self.root / "sp-data", says="tokenizer")
        self.refused("train", self.model, "--data", self.root / "sp-data", "--out", self.root / "no", "--steps", 1, says="vocab")

    def test_bad_model_files(self):
        def refused(change, *says):
            path = self.file("bad.json", {**MODEL, **change} if isinstance(change, dict) else change)
            self.refused("plan", path, says=(str(path), *says))
        refused({"d_modl": 3}, "`d_model`?")
        refused({"d_model": "wide"}, "d_model", "wide")
        refused({"d_model": 10**12}, "d_model")
        refused({"vocab": -1}, "vocab")
        refused({"blocks": []}, "blocks")
        refused({"blocks": [{"mixer": "glaa"}]}, "`gla`?")
        refused({"blocks": [{"mixer": "gla", "heads": 0}]}, "heads")
        refused({"blocks": [{"mixer": "gla", "repeat": 10**9}]}, "repeat")
        refused('{"vocab": 12,', "1:14")
        self.refused("plan", self.root / "nowhere.json", says="nowhere.json")
        # Tokens that see later ones cannot learn to predict the next: training refuses before it begins.
        ahead, out = self.file("ahead.json", {**MODEL, "blocks": [{"mixer": "gla"}, {"mixer": "vim"}]}), self.root / "ahead"
        self.refused("train", ahead, "--data", self.data, "--out", out, "--steps", 1, says=("vim", "causal", "block 1"))
        self.assertFalse(out.exists())

    def test_bad_checkpoints(self):
        self.refused("run", self.root / "nowhere", "-p", "x", says="nowhere")
        self.refused("run", self.root, "-p", "x", says="config.json")
        self.refused("run", self.run_folder, says="prompt")
        good = checkpoints(self.run_folder)[-1]
        for name, damage in {"short": lambda b: b[:-100], "flipped": lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], "empty": lambda b: b"", "huge": lambda b: b"\xff" * 8 + b[8:]}.items():
            bad = self.root / name
            shutil.copytree(good, bad)
            (bad / "model.safetensors").write_bytes(damage((good / "model.safetensors").read_bytes()))
            self.refused("run", bad, "-p", "x", says="model.safetensors")
        bad = self.root / "other-model"
        shutil.copytree(good, bad)
        config = json.loads((bad / "config.json").read_text())
        config["sennit"]["d_model"] = 64
        (bad / "config.json").write_text(json.dumps(config))
        self.refused("run", bad, "-p", "x", says=("expected", "64"))
        bare = self.root / "bare"
        shutil.copytree(good, bare)
        (bare / "sennit_tokenizer.json").unlink()
        self.refused("run", bare, "-p", "x", says="tokenizer")

    def test_bad_data(self):
        empty = self.root / "no-text"
        empty.mkdir()
        (empty / "train.txt").write_text("")
        self.refused("tokenize", "encode", empty, "--out", self.root / "no-data")
        self.refused("tokenize", "encode", self.root / "nowhere", "--out", self.root / "no-data", says="nowhere")
        self.refused("train", self.model, "--data", empty, "--out", self.root / "no-run", "--steps", 1)
        cut = self.root / "cut"
        shutil.copytree(self.data, cut)
        (cut / "train.tokens").write_bytes((self.data / "train.tokens").read_bytes()[:200])
        self.refused("train", self.model, "--data", cut, "--out", self.root / "no-run", "--steps", 1, says="train.tokens")

    def test_bad_flags(self):
        for flags in (["--temperature", "-1"], ["--top-p", "2"], ["--max-tokens", "many"], ["--precision", "f12"], ["--nonsense"]):
            self.refused("run", self.run_folder, "-p", "x", *flags, code=2)
        self.refused("eval", self.run_folder, "--stride", 64, "--length", 32, says="--stride")
        self.refused("train", self.model, "--data", self.data, "--out", self.root / "no-run", says="minutes")


if __name__ == "__main__":
    unittest.main()

"""Models of other programs as people handle them: looked at, converted, quantized, adapted, and refused."""
import json
import os
import pathlib
import shutil
import unittest

from support import Workspace, answer, checkpoints, sennit

GOLDEN = pathlib.Path(os.environ.get("SENNIT_SOURCE", ".")) / "tests" / "golden"


class Formats(Workspace):
    def folder(self, name, family, **changes):
        """A copy of a golden model with other settings."""
        path = self.root / name
        shutil.copytree(GOLDEN / family, path)
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **changes}))
        (path / "sennit_tokenizer.json").write_text('{"tokenizer": "bytes"}')
        return path

    def test_inspect_says_what_a_foreign_model_is(self):
        for family in ("llama3", "rwkv7", "bert", "bamba"):
            path = self.root / f"{family}.gguf"
            sennit("convert", GOLDEN / family, path, "--no-check")
            folder, file = answer("inspect", GOLDEN / family), answer("inspect", path, "--stats")
            self.assertEqual((folder["kind"], file["kind"]), ("checkpoint", "GGUF"))
            self.assertTrue(folder["family"].startswith("Hugging Face"))
            self.assertEqual(folder["parameters"], file["parameters"])
            self.assertNotIn("not_understood", file)
            self.assertLessEqual(file["tensors"][0]["min"], file["tensors"][0]["max"])
            self.assertTrue(sennit("inspect", path).stdout.startswith("kind"))

    def test_random_weights_get_a_vocabulary(self):
        for vocab, said in ((300, "bytes, filled up to 300 tokens"), (99, "none")):
            shape, path = self.root / f"{vocab}.json", self.root / f"{vocab}.gguf"
            shape.write_text(json.dumps({"vocab": vocab, "d_model": 16, "blocks": [{"mixer": "softmax", "heads": 2, "channel": "swiglu"}]}))
            self.assertIn(said, answer("convert", shape, path)["tokenizer"])
            run = sennit("run", path, "-p", "any text", "--max-tokens", 3, "--json", code=0 if vocab == 300 else 1)
            if vocab == 300:
                self.assertEqual(json.loads(run.stdout)["prompt_tokens"], len("any text"))
        trained = self.root / "trained"
        shutil.copytree(GOLDEN / "llama3", trained)
        self.assertEqual(answer("convert", trained, self.root / "trained.gguf", "--no-check")["tokenizer"], "none")

    def test_caches_in_few_bits(self):
        shape, model = self.root / "attends.json", self.root / "attends.gguf"
        shape.write_text(json.dumps({"vocab": 300, "d_model": 64, "blocks": [{"repeat": 2, "mixer": "softmax", "heads": 2, "kv_heads": 1, "channel": "swiglu"}]}))
        converted = self.root / "attends"
        sennit("convert", shape, model)
        sennit("convert", shape, converted)
        sizes = {}
        for cache in ("f32", "bf16", "f16", "q8_0"):
            state, how = self.root / f"{cache}.state", ["--temperature", 0, "--ignore-end", "--exact", "--cache", cache]
            first = answer("run", model, "-p", "abc" * 30, "--max-tokens", 12, *how, "--state-save", state)["ids"]
            rest = answer("run", model, "--max-tokens", 12, *how, "--state-load", state)["ids"]
            self.assertEqual(first + rest, answer("run", model, "-p", "abc" * 30, "--max-tokens", 24, *how)["ids"])
            other = "f16" if cache == "q8_0" else "q8_0"
            error = sennit("run", model, "-p", "x", "--state-load", state, "--cache", other, code=1).stderr
            self.assertTrue(other in error and cache in error, error)
            self.assertEqual(answer("inspect", state)["metadata"]["sennit.cache"], cache)
            sizes[cache] = answer("inspect", shape, "--cache", cache)["state_bytes_at_1k"]
            timed = answer("bench", "--model", shape, "--cache", cache, "--prompt", 8, "--generate", 2, "--repeats", 1)
            self.assertEqual(len(timed["cases"]), 2)
            (compared,) = answer("compare", converted, "--cache", cache, "--lengths", "64", "--rows", 1, "--length", 64)["runs"]
            self.assertIn({"tokens": 1024, "bytes": sizes[cache]}, compared["state"])
        self.assertEqual((2 * sizes["bf16"], 2 * sizes["f16"]), (sizes["f32"], sizes["f32"]))
        self.assertLess(sizes["q8_0"] * 3.5, sizes["f32"])
        self.assertIn("q8_0", sennit("run", model, "-p", "x", "--cache", "q4_0", code=2).stderr)

    def test_unknown_architectures_are_described(self):
        path = self.folder("unknown", "llama3", model_type="llama9", new_setting=3)
        error = sennit("run", path, "-p", "x", code=1).stderr
        for words in ("llama9", "llama is nearest", "new_setting"):
            self.assertIn(words, error)
        self.assertIn("llama is nearest", answer("inspect", path)["not_understood"])
        strange = self.root / "strange"
        strange.mkdir()
        (strange / "config.json").write_text('{"model_type": "other", "width": 3}')
        shutil.copy(GOLDEN / "gpt2/expected.safetensors", strange / "model.safetensors")
        error = sennit("convert", strange, self.root / "no.gguf", code=1).stderr
        for words in ("no family knows", "logits", "width"):
            self.assertIn(words, error)

    def test_encoders_embed_and_do_not_write(self):
        bert = self.root / "bert"
        shutil.copytree(GOLDEN / "bert", bert)
        error = sennit("run", bert, "-p", "x", "--tokenizer", "bytes", code=1).stderr
        self.assertIn("at most 40 tokens", error, "a tokenizer that does not fit")
        wide = self.root / "wide.json"
        wide.write_text(json.dumps({"vocab": 257, "d_model": 16, "pattern": "bidirectional", "learned_positions": 40, "token_types": 2, "embedding_norm": "layernorm",
                                    "norm": "none", "blocks": [{"block": "postnorm", "mixer": "softmax", "heads": 2, "position": "none", "norm": "layernorm"}]}))
        self.assertGreater(answer("inspect", wide)["parameters"], 0)
        self.assertIn("reads both ways", sennit("train", wide, "--data", self.data, "--out", self.root / "no", "--steps", 1, code=1).stderr)

    def test_prices_of_formats(self):
        run = self.trained("priced")
        formats = {f["weights"]: f for f in answer("quantize", run, "--prices", "--text", self.root / "text/valid.txt")["formats"]}
        self.assertEqual(formats["f32"]["kl_divergence"], 0)
        for weights in ("q8_0", "int8"):
            self.assertLess(formats[weights]["bytes"], formats["f32"]["bytes"] / 3)
            self.assertLess(formats[weights]["kl_divergence"], formats["q4_0"]["kl_divergence"])
        self.assertGreater(formats["q4_0"]["tokens_per_second"], 0)
        self.assertIn("perplexity", sennit("quantize", run, "--prices").stdout)
        self.assertIn(".gguf", sennit("quantize", run, code=1).stderr)

    def test_weights_in_few_bits(self):
        run = self.trained("rounded")
        losses = {w: answer("eval", run, *(["--weights", w] if w else []))["loss"] for w in ("", "q8_0", "int8")}
        self.assertEqual(len(set(losses.values())), 3)
        for weights in ("q8_0", "int8"):
            self.assertAlmostEqual(losses[weights], losses[""], delta=0.02)
        how = ["-p", "The old man", "--max-tokens", 12, "--exact", "--seed", 3, "--weights", "int8"]
        self.assertEqual(answer("run", run, *how)["ids"], answer("run", run, *how, "--precision", "f32")["ids"])
        self.assertIn("int8", sennit("run", run, "-p", "x", "--weights", "int7", code=2).stderr)

    def test_a_chat_template_goes_along(self):
        folder, gguf, back = self.root / "chatty", self.root / "chatty.gguf", self.root / "chatty-back"
        shutil.copytree(checkpoints(self.trained("talks", steps=5))[-1], folder)
        template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
        (folder / "chat_template.jinja").write_text(template)
        sennit("convert", folder, gguf)
        sennit("convert", gguf, back, "--to", "sennit")
        self.assertEqual((back / "chat_template.jinja").read_text(), template)
        said = [answer("run", m, "--chat", "-p", "hello  you", "--max-tokens", 8, "--temperature", 0) for m in (folder, gguf, back)]
        for other in said[1:]:
            self.assertEqual((other["ids"], other["prompt_tokens"]), (said[0]["ids"], said[0]["prompt_tokens"]))

    def test_long_convolutions_become_recurrences(self):
        shape, small, file = self.root / "hyena.json", self.root / "small", self.root / "small.gguf"
        shape.write_text(json.dumps({"vocab": 300, "d_model": 16, "blocks": [{"mixer": "hyena", "length": 64, "channel": "mlp"}, {"mixer": "softmax"}]}))
        said = answer("distill", shape, small, "--order", 12)
        self.assertEqual([(b["block"], b["to"]) for b in said["blocks"]], [(0, "laughing_hyena")])
        self.assertLessEqual(said["blocks"][0]["order"], 12)
        self.assertGreater(answer("distill", shape, file, "--order", 40)["same_top_token"], 0.8)
        self.assertEqual(len(answer("run", file, "-p", "any text", "--max-tokens", 5, "--ignore-end")["ids"]), 5)
        self.assertIn("long convolutions", sennit("distill", small, self.root / "again", code=1).stderr)
        self.assertFalse((self.root / "again").exists())

    def test_key_heads_become_their_means(self):
        shape, few = self.root / "heads.json", self.root / "few"
        shape.write_text(json.dumps({"vocab": 300, "d_model": 16, "blocks": [{"repeat": 2, "mixer": "softmax"}, {"mixer": "gla"}]}))
        for mixer in ("softmax", "key_driven"):
            said = answer("group", shape, few, "--kv-heads", 2, "--mixer", mixer)
            self.assertEqual(said["blocks"], 2)
            blocks = json.loads((few / "config.json").read_text())["sennit"]["blocks"]
            self.assertEqual(blocks[0]["mixer"], {"name": mixer, "kv_heads": 2})
            shutil.rmtree(few)
        self.assertIn("a divisor", sennit("group", shape, few, "--kv-heads", 3, code=1).stderr)
        self.assertFalse(few.exists())

    def test_adapters(self):
        base, tuned = self.trained("base", steps=5), self.root / "tuned"
        shutil.copytree(checkpoints(base)[-1], tuned)
        adapter = self.root / "adapter"
        self.assertIn("the same numbers", sennit("adapter", base, tuned, adapter, code=1).stderr)
        self.assertFalse(adapter.exists())
        # Another training's weights of one matrix.
        other = self.trained("other", steps=9, seed=5)
        self.assertIn("matrices only", sennit("adapter", base, other, adapter, code=1).stderr)
        (tuned / "model.safetensors").write_bytes(with_tensor(checkpoints(base)[-1], checkpoints(other)[-1], "blocks.0.channel.up.weight"))
        said = answer("adapter", base, tuned, adapter, "--rank", 32)
        self.assertEqual(said["matrices"], 1)
        self.assertLess(said["left_out"], 1e-3)
        common = ["-p", "The old man", "--max-tokens", 12, "--temperature", 0, "--precision", "f32"]
        wanted = answer("run", tuned, *common)["ids"]
        self.assertEqual(answer("run", base, "--adapter", adapter, *common)["ids"], wanted)
        merged = self.root / "merged.gguf"
        report = answer("convert", base, merged, "--adapter", adapter)
        self.assertEqual([a["ours"] for a in report["adapted"]], ["blocks.0.channel.up.weight"])
        self.assertEqual(answer("run", merged, *common)["ids"], wanted)
        self.assertIn("adapter_config.json", sennit("run", base, "--adapter", self.root, "-p", "x", code=1).stderr)


def with_tensor(first, second, name):
    """The bytes of the first checkpoint's safetensors with one tensor of the second, and without its checksum."""
    def read(folder):
        raw = (folder / "model.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        return json.loads(raw[8:8 + size]), raw[8 + size:]
    (header, data), (other, source) = read(first), read(second)
    begin, end = header[name]["data_offsets"]
    start, stop = other[name]["data_offsets"]
    data = data[:begin] + source[start:stop] + data[end:]
    header.pop("__metadata__", None)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


if __name__ == "__main__":
    unittest.main()

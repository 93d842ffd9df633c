"""The checkpoint that comes with the repository: whole, small enough, and it knows English from a heap of words."""
import json
import os
import pathlib
import random
import unittest

from support import Workspace, answer, sennit

MODEL = pathlib.Path(os.environ.get("SENNIT_SOURCE", ".")) / "models" / "sennit-hybrid"
TEXT = """The ship lay in the harbour for three days, and nobody came on board. On the fourth morning the captain sent for
the mate and told him that they would sail with the tide. He had a letter in his hand, and he looked at it for a long time
before he spoke again. The men were called on deck, and the sails were set. By noon the land was out of sight, and the
wind had gone round to the west. It was the beginning of a long voyage, and none of them knew how it would end."""


class Shipped(Workspace):
    def bits_per_byte(self, name, text):
        path = self.root / name
        path.write_text(text)
        return answer("eval", MODEL, "--text", path)["bits_per_byte"]

    def test_is_whole_and_small(self):
        for name in ("README.md", "config.json", "model.json", "model.safetensors", "tokenizer.model", "loss.png"):
            self.assertTrue((MODEL / name).is_file(), name)
        self.assertLess(sum(f.stat().st_size for f in MODEL.iterdir()), 25e6)
        facts = answer("inspect", MODEL)
        self.assertGreaterEqual(facts["parameters"], 10_000_000)
        mixers = {block["mixer"] for block in json.loads((MODEL / "model.json").read_text())["blocks"]}
        self.assertGreater(len(mixers), 1, "a hybrid")

    def test_knows_english_from_a_heap_of_words(self):
        words = TEXT.split()
        heap = words[:]
        random.Random(1).shuffle(heap)
        text, shuffled = self.bits_per_byte("text.txt", TEXT), self.bits_per_byte("heap.txt", " ".join(heap))
        self.assertLess(text, 1.9)
        self.assertGreater(shuffled, text + 0.5)

    def test_reads_and_writes_the_same_as_a_gguf_file(self):
        there, back = self.root / "hybrid.gguf", self.root / "back"
        sennit("convert", MODEL, there)
        sennit("convert", there, back, "--to", "sennit")
        said = [answer("run", m, "-p", "The old man  looked at\nthe sea", "--max-tokens", 16, "--temperature", 0)
                for m in (MODEL, there, back)]
        for other in said[1:]:
            self.assertEqual((other["ids"], other["text"], other["prompt_tokens"]), (said[0]["ids"], said[0]["text"], said[0]["prompt_tokens"]))

    def test_writes_words_that_do_not_run_in_circles(self):
        said = answer("run", MODEL, "-p", "The old man looked at the sea and", "--max-tokens", 120, "--temperature", 0.7, "--seed", 1)["text"]
        words = said.lower().split()
        self.assertGreater(len(words), 50)
        self.assertGreater(len(set(words)), len(words) // 3)
        common = {"the", "and", "of", "to", "a", "in", "he", "was", "his", "that", "it", "as", "with", "for", "is", "not"}
        self.assertGreater(sum(w.strip(".,;:") in common for w in words), len(words) // 5)


if __name__ == "__main__":
    unittest.main()

"""Talking with a model, scores of a text and embeddings: as a person at a terminal and as a program call them."""
import json
import math
import os
import pty
import select
import shutil
import signal
import subprocess
import time
import unittest

from support import SENNIT, Workspace, answer, checkpoints, sennit

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments):
        self.screen, side = pty.openpty()
        self.process = subprocess.Popen([SENNIT, *map(str, arguments)], stdin=side, stdout=side, stderr=side, start_new_session=True,
                                        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0))
        os.close(side)
        self.shown = ""

    def until(self, text, seconds=60):
        """Everything shown from the last call to the first appearance of `text`."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            if time.monotonic() > end:
                raise AssertionError(f"no {text!r} in {self.shown!r}")
            if select.select([self.screen], [], [], 0.1)[0]:
                self.shown += os.read(self.screen, 65536).decode(errors="replace")
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, text):
        os.write(self.screen, text.encode())

    def end(self):
        self.type("\x04")
        code = self.process.wait(timeout=60)
        os.close(self.screen)
        return code


class Run(Workspace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.run_folder = cls.trained("run")
        cls.chatty = cls.root / "chatty"
        shutil.copytree(checkpoints(cls.run_folder)[-1], cls.chatty)
        (cls.chatty / "chat_template.jinja").write_text(TEMPLATE)

    def piped(self, text, *arguments):
        done = subprocess.run([SENNIT, "run", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_a_turn_reads_its_own_text_and_answers_the_whole(self):
        common = ["--max-tokens", 9, "--exact", "--temperature", 0, "--json"]
        first, second = self.piped("hello\nand then\n", self.chatty, "--chat", "--system", "be brief", *common)
        whole = "<system>be brief\n<user>hello\n<assistant>"
        self.assertEqual(first["ids"], answer("run", self.chatty, "-p", whole, *common[:-1])["ids"])
        self.assertEqual(first["prompt_tokens"], len(whole))
        self.assertEqual(second["prompt_tokens"], len("\n<user>and then\n<assistant>"))
        if "\N{REPLACEMENT CHARACTER}" not in first["text"]:
            whole += first["text"] + "\n<user>and then\n<assistant>"
            self.assertEqual(second["ids"], answer("run", self.chatty, "-p", whole, *common[:-1])["ids"])

    def test_json_lines_come_as_pieces(self):
        events = self.piped('{"role": "user", "content": "hello"}\n"again"\n', self.chatty, "--chat", "--json-lines", "--max-tokens", 12)
        ends = [i for i, e in enumerate(events) if e.get("done")]
        self.assertEqual(len(ends), 2)
        first = events[: ends[0]]
        self.assertGreater(len(first), 1)
        self.assertEqual("".join(e["text"] for e in first), events[ends[0]]["text"])
        bad = subprocess.run([SENNIT, "run", self.chatty, "--chat", "--json-lines"], input="{}\n", capture_output=True, text=True, timeout=60)
        self.assertEqual(bad.returncode, 1)
        self.assertIn("content", bad.stderr)

    def test_a_person_at_a_terminal(self):
        t = Terminal("run", self.chatty, "--max-tokens", 8, "--temperature", 0)
        self.assertIn("Ctrl-C", t.until("\n> "))
        t.type("hello\n")
        self.assertIn("(max_tokens)", t.until("\n> "))
        t.type("one \\\n")
        t.until(". ")
        t.type("two\n")
        t.until("\n> ")
        t.type("/help\n")
        self.assertIn("/clear", t.until("\n> "))
        t.type("/clear\n")
        t.until("> ")
        t.type("half a line\x03")
        t.until("\n> ")
        self.assertEqual(t.end(), 0)

    def test_control_c_stops_the_answer_and_not_the_program(self):
        t = Terminal("run", self.chatty, "--max-tokens", 100000000, "--ignore-end")
        for _ in range(2):
            t.until("> ")
            t.type("hello\n")
            t.until("hello")
            time.sleep(0.3)
            t.type("\x03")
            t.until("(cancelled)")
        t.until("> ")
        self.assertEqual(t.end(), 0)

    def test_a_model_without_a_template_goes_on_with_the_text(self):
        t = Terminal("run", self.run_folder, "--max-tokens", 4)
        self.assertIn("no chat template", t.until("\n> "))
        t.type("The old man\n")
        t.until("4 tokens")
        t.until("> ")
        self.assertEqual(t.end(), 0)

    def test_scores_are_exact_and_add_up_to_the_loss(self):
        text = (self.root / "text/valid.txt").read_text().split("\f")[0][:1500]
        path = self.file("scored.txt", text)
        scored = answer("run", self.run_folder, "--file", path, "--echo", "--logprobs", 2, "--max-tokens", 1, "--temperature", 0, "--precision", "f32")
        prompt = scored["prompt_logprobs"]
        self.assertEqual(len(prompt), len(text))
        self.assertIsNone(prompt[0]["logprob"])
        self.assertEqual("".join(p["text"] for p in prompt), text)
        for entry in prompt[1:]:
            self.assertGreaterEqual(entry["top"][0]["logprob"], entry["top"][1]["logprob"])
            self.assertGreaterEqual(entry["top"][0]["logprob"] + 1e-12, entry["logprob"])
        (chosen,) = scored["logprobs"]
        self.assertEqual(chosen["id"], chosen["top"][0]["id"])
        measured = answer("eval", self.run_folder, "--text", path, "--length", 1500, "--precision", "f32")
        mean = -sum(p["logprob"] for p in prompt[1:]) / len(prompt[1:])
        self.assertLess(abs(mean - measured["loss"]), 0.01 * measured["loss"], "the loss counts an end of the text too")
        exact = answer("run", self.run_folder, "--file", path, "--echo", "--logprobs", 2, "--max-tokens", 0, "--exact")
        again = answer("run", self.run_folder, "-p", text[:700], "--echo", "--logprobs", 2, "--max-tokens", 0, "--exact")
        self.assertEqual(exact["prompt_logprobs"][:700], again["prompt_logprobs"])
        table = sennit("run", self.run_folder, "-p", "The", "--echo", "--logprobs", 1, "--max-tokens", 1).stdout
        self.assertIn("log-probability", table)

    def test_embeddings(self):
        texts = self.file("texts.txt", "the old man\na ship\nrain over the sea\n")
        for pooling in ("mean", "cls", "last"):
            together = answer("run", self.run_folder, "--embed", "--file", texts, "--pooling", pooling, "--normalize", "--exact")["embeddings"]
            self.assertEqual([len(row) for row in together], [32, 32, 32])
            (alone,) = answer("run", self.run_folder, "--embed", "-p", "a ship", "--pooling", pooling, "--normalize", "--exact")["embeddings"]
            self.assertEqual(alone, together[1])
            self.assertAlmostEqual(math.fsum(x * x for x in alone), 1, places=5)
        self.assertEqual(len(sennit("run", self.run_folder, "--embed", "-p", "a ship").stdout.split()), 32)
        error = sennit("run", self.run_folder, "--embed", "--file", self.file("empty.txt", "one\n\ntwo\n"), code=1).stderr
        self.assertIn("text 1", error)

    def test_a_dialogue_goes_on_in_another_process(self):
        common = ["--chat", "--max-tokens", 9, "--exact", "--temperature", 0]
        for folder, cache in ((self.chatty, "f32"), (self.chatty, "bf16"), (self.run_folder, "f32")):
            how = [folder, *common, "--cache", cache]
            whole = self.piped("hello\nand then\nat last\n", *how, "--json")
            state = self.root / f"{cache}.dialogue"
            first = self.piped("hello\n", *how, "--json", "--state-save", state)
            rest = self.piped("and then\nat last\n", *how, "--json", "--state-load", state)
            self.assertEqual([e["ids"] for e in first + rest], [e["ids"] for e in whole])
            self.assertEqual([e["prompt_tokens"] for e in first + rest], [e["prompt_tokens"] for e in whole])
        text = self.root / "text.state"
        sennit("run", self.chatty, "-p", "The", "--max-tokens", 2, "--state-save", text)
        self.assertIn("a dialogue", sennit("run", self.chatty, "--chat", "--state-load", text, "-p", "x", code=1).stderr)
        error = sennit("run", self.chatty, "--chat", "--system", "be brief", "--state-load", state, "-p", "x", code=1).stderr
        self.assertIn("--system", error)

    def test_refusals(self):
        self.assertIn("nowhere", sennit("run", self.chatty, "--chat", "--state-load", "nowhere", "-p", "hello", code=1).stderr)
        broken = self.file("broken.jinja", "{% for %}")
        self.assertIn("chat template", sennit("run", self.chatty, "--chat-template", broken, "-p", "x", code=1).stderr)


if __name__ == "__main__":
    unittest.main()

"""Training that is killed, interrupted, or runs out of disk loses nothing it had, and ends with the same bits."""
import resource
import signal
import subprocess
import time
import unittest

from support import SENNIT, Workspace, checkpoints, sennit, weights

STEPS = {"steps": 400, "save-every": 20}


class Training(Workspace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.reference = weights(cls.trained("reference", **STEPS))

    def begin(self, out):
        """Starts a run and waits for its first checkpoint."""
        process = subprocess.Popen([SENNIT, *map(str, self.train_arguments(out, **STEPS))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while not (out.exists() and checkpoints(out)) and time.time() < deadline:
            time.sleep(0.002)
        return process

    def finish(self, out):
        self.assertLess(checkpoints(out)[-1].name, "step-000000400")
        sennit(*self.train_arguments(out, **STEPS), "--quiet")
        self.assertEqual(weights(out), self.reference)

    def test_kill(self):
        out = self.root / "killed"
        process = self.begin(out)
        process.kill()
        self.assertEqual(process.wait(), -signal.SIGKILL)
        self.finish(out)

    def test_interrupt(self):
        out = self.root / "interrupted"
        process = self.begin(out)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=60), 130)
        self.finish(out)

    def test_threads(self):
        for threads in (1, 2, 3):
            out = self.root / f"threads-{threads}"
            sennit(*self.train_arguments(out, **STEPS), "--quiet", env={"SENNIT_THREADS": str(threads)})
            self.assertEqual(weights(out), self.reference)

    def test_other_options_are_refused(self):
        out = self.trained("fixed")
        self.assertIn("rate", sennit(*self.train_arguments(out), "--rate=0.1", code=1).stderr)

    def test_full_disk(self):
        out = self.root / "full"
        process = self.begin(out)
        process.kill()
        process.wait()
        last = checkpoints(out)[-1]
        before = {p.name: p.read_bytes() for p in last.iterdir()}

        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
        done = sennit(*self.train_arguments(out, **STEPS), "--quiet", code=1, preexec_fn=small_files)
        self.assertIn("sennit: ", done.stderr)
        self.assertEqual(checkpoints(out)[-1], last)
        self.assertEqual({p.name: p.read_bytes() for p in last.iterdir()}, before)
        sennit("run", out, "-p", "The", "--max-tokens", 3)
        self.finish(out)


if __name__ == "__main__":
    unittest.main()

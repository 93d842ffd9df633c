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
# llama.cpp rounding the activations to it). GPT-2's f32: ggml looks GELU up in a table of f16. In quantized formats both
# round the activations to 8 bits, each in its own blocks; a recurrence makes more of it, and there a third of what the
# format itself changes is allowed, as the same model in f32 shows.
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


def mamba2_mixer(at, heads, head_dim, state, groups):
    inner, mixed = heads * head_dim, heads * head_dim + 2 * groups * state
    return {at + "in_proj.weight": (inner + mixed + heads, D), at + "conv1d.weight": (mixed, 1, 4), at + "conv1d.bias": (mixed,), at + "dt_bias": (heads,),
            at + "A_log": (heads,), at + "D": (heads,), at + "norm.weight": (inner,), at + "out_proj.weight": (D, inner)}


def mamba2():
    config = {"model_type": "mamba2", "vocab_size": VOCAB, "hidden_size": D, "state_size": 32, "num_hidden_layers": LAYERS, "num_heads": 16, "head_dim": 32,
              "n_groups": 2, "expand": 2, "conv_kernel": 4, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False}
    shapes = {"backbone.embeddings.weight": (VOCAB, D), "backbone.norm_f.weight": (D,), "lm_head.weight": (VOCAB, D)}
    for n in range(LAYERS):
        at = f"backbone.layers.{n}."
        shapes |= {at + "norm.weight": (D,)} | mamba2_mixer(at + "mixer.", 16, 32, 32, 2)
    return config, shapes


def rwkv7():
    rank = 32
    config = {"model_type": "rwkv7", "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": 2 * D, "num_hidden_layers": LAYERS, "head_dim": 64,
              "decay_low_rank_dim": rank, "gate_low_rank_dim": rank, "a_low_rank_dim": rank, "v_low_rank_dim": rank, "norm_eps": 1e-5,
              "tie_word_embeddings": False}
    shapes = {"model.embeddings.weight": (VOCAB, D), "lm_head.weight": (VOCAB, D)}
    norms = ["model.norm", "model.layers.0.pre_norm"]
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        norms += [at + "attn_norm", at + "ffn_norm", at + "attn.g_norm"]
        shapes |= {at + f"attn.x_{k}": (1, 1, D) for k in "rwkvag"} | {at + f"attn.{k}_proj.weight": (D, D) for k in "rkvo"}
        shapes |= {at + "attn.k_k": (D,), at + "attn.k_a": (D,), at + "attn.r_k": (D // 64, 64), at + "ffn.x_k": (D,),
                   at + "ffn.key.weight": (2 * D, D), at + "ffn.value.weight": (D, 2 * D)}
        for letter in "wag" if n == 0 else "wagv":
            lora = at + f"attn.{letter}_lora.lora."
            shapes |= {lora + "0.weight": (rank, D), lora + "2.weight": (D, rank)} | ({} if letter == "g" else {lora + "2.bias": (D,)})
    for name in norms:
        shapes |= {name + ".weight": (D,), name + ".bias": (D,)}
    return config, shapes


def bamba():
    config = {"model_type": "bamba", "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": 2 * D, "num_hidden_layers": 3, "num_attention_heads": 8,
              "num_key_value_heads": 4, "attn_layer_indices": [1], "mamba_n_heads": 16, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 32,
              "mamba_d_conv": 4, "mamba_expand": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": False}
    shapes = {"model.embed_tokens.weight": (VOCAB, D), "model.final_layernorm.weight": (D,), "lm_head.weight": (VOCAB, D)}
    for n in range(3):
        at = f"model.layers.{n}."
        shapes |= {at + "input_layernorm.weight": (D,), at + "pre_ff_layernorm.weight": (D,), at + "feed_forward.gate_proj.weight": (2 * D, D),
                   at + "feed_forward.up_proj.weight": (2 * D, D), at + "feed_forward.down_proj.weight": (D, 2 * D)}
        if n == 1:
            shapes |= {at + f"self_attn.{k}_proj.weight": (D if k in "qo" else D // 2, D) for k in "qkvo"}
        else:
            shapes |= mamba2_mixer(at + "mamba.", 16, 32, 32, 1)
    return config, shapes


def bert():
    config = {"model_type": "bert", "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": 2 * D, "num_hidden_layers": LAYERS, "num_attention_heads": 8,
              "max_position_embeddings": 128, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    shapes = {"embeddings.word_embeddings.weight": (VOCAB, D), "embeddings.position_embeddings.weight": (128, D),
              "embeddings.token_type_embeddings.weight": (2, D), "embeddings.LayerNorm.weight": (D,), "embeddings.LayerNorm.bias": (D,)}
    for n in range(LAYERS):
        at = f"encoder.layer.{n}."
        for name, rows, columns in [("attention.self.query", D, D), ("attention.self.key", D, D), ("attention.self.value", D, D),
                                    ("attention.output.dense", D, D), ("intermediate.dense", 2 * D, D), ("output.dense", D, 2 * D)]:
            shapes |= {at + name + ".weight": (rows, columns), at + name + ".bias": (rows,)}
        for name in ["attention.output.LayerNorm", "output.LayerNorm"]:
            shapes |= {at + name + ".weight": (D,), at + name + ".bias": (D,)}
    return config, shapes


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
MODELS = {  # name -> (config, shapes), formats
    "llama": (llama("llama", rope_scaling=LLAMA3), ["f32", "f16", "q8_0", "q4_0", "q4_k"]),
    "qwen2": (llama("qwen2", rope_scaling=YARN), ["f32"]),
    "qwen3": (llama("qwen3"), ["f32", "q4_k"]),
    "gpt2": (gpt2(), ["f32"]),
    "mamba": (mamba(), ["f32"]),
    "mamba2": (mamba2(), ["f32", "q8_0"]),
    "rwkv7": (rwkv7(), ["f32", "q8_0"]),
    "bamba": (bamba(), ["f32", "q4_k"]),
    "bert": (bert(), ["f32", "f16"]),
}
TEXT = "".join(chr(32 + t % 90) for t in TOKENS)  # for encoders: a byte is a token


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def log_probabilities(row):
    top = max(row)
    total = top + math.log(sum(math.exp(x - top) for x in row))
    return [x - total for x in row]


def apart(first, second):
    """The largest difference of two models' log-probabilities."""
    return max(abs(x - y) for a, b in zip(first, second, strict=True) for x, y in zip(log_probabilities(a), log_probabilities(b), strict=True))


def embeddings_differ(packages, path):
    """The length of the difference of two embeddings of length 1."""
    (ours,) = json.loads(run(BUILD / "sennit", "run", path, "--embed", "-p", TEXT, "--normalize", "--json", "--precision", "f32"))["embeddings"]
    theirs = json.loads(run("node", HERE / "llama_cpp.mjs", packages, path, ",".join(str(ord(c)) for c in TEXT), "embed"))["embedding"]
    size = math.sqrt(sum(x * x for x in theirs))
    return math.sqrt(sum((x - y / size) ** 2 for x, y in zip(ours, theirs, strict=True)))


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
                if name == "bert":
                    off = embeddings_differ(packages, path)
                    good = off < 2e-3  # ggml looks GELU up in a table of f16, and in its tanh form
                    print(f"{name} {form}: embeddings differ by {off:.3g}" + ("" if good else "  FAILED"), flush=True)
                    failures += [] if good else [f"{name} {form}"]
                    continue
                arguments = [path, ",".join(map(str, TOKENS)), length]
                ours = json.loads(run(BUILD / "tests" / "logits", *arguments))
                theirs = json.loads(run("node", HERE / "llama_cpp.mjs", packages, *arguments))
                if form == "f32":
                    exact = ours["logits"]
                worst, noise = apart(ours["logits"], theirs["logits"]), apart(ours["logits"], exact)
                same = ours["continuation"] == theirs["continuation"]
                good = worst <= max(ALLOWED.get(f"{name} {form}", ALLOWED[form]), noise / 3) and same
                print(f"{name} {form}: log-probabilities differ by at most {worst:.3g}" + (f" where the format changes them by {noise:.3g}" if noise else "") + (f", {length} likeliest tokens {'the same' if same else 'DIFFER'}" if length else "")
                      + ("" if good else "  FAILED"), flush=True)
                if not good:
                    failures.append(f"{name} {form}")
    if failures:
        sys.exit("failed: " + ", ".join(failures))


main()

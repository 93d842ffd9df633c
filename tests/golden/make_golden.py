#!/usr/bin/python3
"""Writes the golden models beside this script, with Debian's python3-torch: for each family a tiny Hugging Face folder of
random weights (config.json, model.safetensors), and what a plain reference of the family makes of it in double precision:
expected.safetensors (tokens, logits, loss) and gradients/ (the loss's, under the same names). Run it again to renew them:
    tests/golden/make_golden.py [FAMILY...]
"""
import json
import math
import pathlib
import struct
import sys

import torch

import hybrids
import recurrent
from layers import VOCAB, attend, convolve, layer_norm, rms, rope_angles, silu, turn

torch.set_default_dtype(torch.float64)
HERE = pathlib.Path(__file__).resolve().parent
TOKENS = 21


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, t in sorted(tensors.items()):
        kind = "I32" if t.dtype == torch.int32 else "F32"
        raw = (t if kind == "I32" else t.detach().float()).contiguous().numpy().tobytes()
        header[name] = {"dtype": kind, "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def weights(shapes, seed):
    """Random f32 weights as double leaves; norms near 1, the rest of a size that makes logits of about 1."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in shapes.items():
        w = torch.randn(shape, generator=g)
        if name.endswith("A_log"):
            w = torch.log(1 + torch.arange(shape[-1]).expand(shape)) + 0.1 * w if len(shape) == 2 else 0.5 * w
        elif len(shape) == 1:
            w = 0.3 * w + (0 if name.endswith("bias") else 1)
        else:
            w = w / math.sqrt(shape[-1]) if "embed" not in name and "wte" not in name and "wpe" not in name else 0.7 * w
        out[name] = w.float().double().requires_grad_()
    return out


def llama_shapes(c):
    d, f, dim = c["hidden_size"], c["intermediate_size"], c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    h, g = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    shapes = {"model.embed_tokens.weight": (VOCAB, d), "model.norm.weight": (d,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCAB, d)
    bias = c["model_type"] == "qwen2" or c.get("attention_bias", False)
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        for name, rows, columns in [("q", h, d), ("k", g, d), ("v", g, d), ("o", d, h)]:
            shapes[at + f"self_attn.{name}_proj.weight"] = (rows, columns)
            if bias and (name != "o" or c.get("attention_bias", False)):
                shapes[at + f"self_attn.{name}_proj.bias"] = (rows,)
        if c["model_type"] == "qwen3":
            shapes[at + "self_attn.q_norm.weight"] = shapes[at + "self_attn.k_norm.weight"] = (dim,)
        shapes |= {at + "mlp.gate_proj.weight": (f, d), at + "mlp.up_proj.weight": (f, d), at + "mlp.down_proj.weight": (d, f),
                   at + "input_layernorm.weight": (d,), at + "post_attention_layernorm.weight": (d,)}
    return shapes


def llama(c, w, tokens):
    eps, t = c["rms_norm_eps"], len(tokens)
    dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    angles, scale = rope_angles(c, dim, t)
    x = w["model.embed_tokens.weight"][tokens]
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        linear = lambda u, name: u @ w[at + name + ".weight"].T + w.get(at + name + ".bias", torch.zeros(()))
        u = rms(x, w[at + "input_layernorm.weight"], eps)
        q, k, v = (linear(u, f"self_attn.{p}_proj").reshape(t, -1, dim) for p in "qkv")
        if at + "self_attn.q_norm.weight" in w:
            q, k = rms(q, w[at + "self_attn.q_norm.weight"], eps), rms(k, w[at + "self_attn.k_norm.weight"], eps)
        narrow = c["model_type"] == "mistral" or c.get("layer_types", ["full"] * 99)[n] == "sliding_attention"
        core = attend(turn(q, angles, scale), turn(k, angles, scale), v, c.get("sliding_window") if narrow else None)
        x = x + linear(core, "self_attn.o_proj")
        u = rms(x, w[at + "post_attention_layernorm.weight"], eps)
        x = x + linear(silu(linear(u, "mlp.gate_proj")) * linear(u, "mlp.up_proj"), "mlp.down_proj")
    return rms(x, w["model.norm.weight"], eps) @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def gpt2_shapes(c):
    d = c["n_embd"]
    shapes = {"transformer.wte.weight": (VOCAB, d), "transformer.wpe.weight": (c["n_positions"], d),
              "transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}
    for n in range(c["n_layer"]):
        at = f"transformer.h.{n}."
        for name, rows, columns in [("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, 4 * d), ("mlp.c_proj", 4 * d, d)]:
            shapes[at + name + ".weight"], shapes[at + name + ".bias"] = (rows, columns), (columns,)
        for name in ["ln_1", "ln_2"]:
            shapes[at + name + ".weight"] = shapes[at + name + ".bias"] = (d,)
    return shapes


def gpt2(c, w, tokens):
    t, eps = len(tokens), c["layer_norm_epsilon"]
    norm = lambda u, name: layer_norm(u, w[name + ".weight"], w[name + ".bias"], eps)
    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][:t]
    for n in range(c["n_layer"]):
        at = f"transformer.h.{n}."
        conv1d = lambda u, name: u @ w[at + name + ".weight"] + w[at + name + ".bias"]
        q, k, v = conv1d(norm(x, at + "ln_1"), "attn.c_attn").reshape(t, 3, c["n_head"], -1).unbind(1)
        x = x + conv1d(attend(q, k, v), "attn.c_proj")
        u = conv1d(norm(x, at + "ln_2"), "mlp.c_fc")
        u = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u ** 3)))
        x = x + conv1d(u, "mlp.c_proj")
    return norm(x, "transformer.ln_f") @ w["transformer.wte.weight"].T


def mamba_shapes(c):
    d, inner, state, rank = c["hidden_size"], c["intermediate_size"], c["state_size"], c["time_step_rank"]
    shapes = {"backbone.embeddings.weight": (VOCAB, d), "backbone.norm_f.weight": (d,)}
    for n in range(c["num_hidden_layers"]):
        at = f"backbone.layers.{n}."
        shapes |= {at + "norm.weight": (d,), at + "mixer.in_proj.weight": (2 * inner, d), at + "mixer.conv1d.weight": (inner, 1, c["conv_kernel"]),
                   at + "mixer.conv1d.bias": (inner,), at + "mixer.x_proj.weight": (rank + 2 * state, inner),
                   at + "mixer.dt_proj.weight": (inner, rank), at + "mixer.dt_proj.bias": (inner,), at + "mixer.A_log": (inner, state),
                   at + "mixer.D": (inner,), at + "mixer.out_proj.weight": (d, inner)}
    return shapes


def mamba(c, w, tokens):
    eps, inner, state, rank = (c[k] for k in ["layer_norm_epsilon", "intermediate_size", "state_size", "time_step_rank"])
    x = w["backbone.embeddings.weight"][tokens]
    for n in range(c["num_hidden_layers"]):
        p = lambda name: w[f"backbone.layers.{n}.{name}"]
        u, z = (rms(x, p("norm.weight"), eps) @ p("mixer.in_proj.weight").T).split(inner, -1)
        u = convolve(u, p("mixer.conv1d.weight"), p("mixer.conv1d.bias"))
        dt, b, cs = (u @ p("mixer.x_proj.weight").T).split([rank, state, state], -1)
        dt = torch.nn.functional.softplus(dt @ p("mixer.dt_proj.weight").T + p("mixer.dt_proj.bias"))
        h, ys = torch.zeros(inner, state), []
        for t in range(len(tokens)):
            h = torch.exp(-dt[t, :, None] * torch.exp(p("mixer.A_log"))) * h + dt[t, :, None] * b[t] * u[t, :, None]
            ys.append(h @ cs[t] + p("mixer.D") * u[t])
        x = x + (torch.stack(ys) * silu(z)) @ p("mixer.out_proj.weight").T
    return rms(x, w["backbone.norm_f.weight"], eps) @ w["backbone.embeddings.weight"].T


def bert_shapes(c):
    d, f = c["hidden_size"], c["intermediate_size"]
    at = "bert.embeddings."
    shapes = {at + "word_embeddings.weight": (VOCAB, d), at + "position_embeddings.weight": (c["max_position_embeddings"], d),
              at + "token_type_embeddings.weight": (c["type_vocab_size"], d), at + "LayerNorm.weight": (d,), at + "LayerNorm.bias": (d,)}
    for n in range(c["num_hidden_layers"]):
        at = f"bert.encoder.layer.{n}."
        for name, rows, columns in [("attention.self.query", d, d), ("attention.self.key", d, d), ("attention.self.value", d, d),
                                    ("attention.output.dense", d, d), ("intermediate.dense", f, d), ("output.dense", d, f)]:
            shapes[at + name + ".weight"], shapes[at + name + ".bias"] = (rows, columns), (rows,)
        for name in ["attention.output.LayerNorm", "output.LayerNorm"]:
            shapes[at + name + ".weight"] = shapes[at + name + ".bias"] = (d,)
    return shapes


def bert(c, w, tokens):
    """Its rows times the embedding stand for logits, so that every number of the rows counts."""
    t, eps, h = len(tokens), c["layer_norm_eps"], c["num_attention_heads"]
    norm = lambda u, name: layer_norm(u, w[name + ".weight"], w[name + ".bias"], eps)
    at = "bert.embeddings."
    x = w[at + "word_embeddings.weight"][tokens] + w[at + "position_embeddings.weight"][:t] + w[at + "token_type_embeddings.weight"][0]
    x = norm(x, at + "LayerNorm")
    for n in range(c["num_hidden_layers"]):
        at = f"bert.encoder.layer.{n}."
        linear = lambda u, name: u @ w[at + name + ".weight"].T + w[at + name + ".bias"]
        q, k, v = (linear(x, f"attention.self.{p}").reshape(t, h, -1) for p in ["query", "key", "value"])
        scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
        core = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(t, -1)
        x = norm(x + linear(core, "attention.output.dense"), at + "attention.output.LayerNorm")
        u = linear(x, "intermediate.dense")
        u = u * 0.5 * (1 + torch.erf(u / math.sqrt(2)))
        x = norm(x + linear(u, "output.dense"), at + "output.LayerNorm")
    return x @ w["bert.embeddings.word_embeddings.weight"].T


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 24,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": False, "torch_dtype": "float32", "eos_token_id": 2}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": VOCAB, "n_positions": 32, "n_ctx": 32, "n_embd": 16,
        "n_layer": 2, "n_head": 2, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
        "tie_word_embeddings": True}
MAMBA = {"model_type": "mamba", "architectures": ["MambaForCausalLM"], "vocab_size": VOCAB, "hidden_size": 16, "state_size": 4,
         "num_hidden_layers": 2, "layer_norm_epsilon": 1e-5, "expand": 1.5, "intermediate_size": 24, "conv_kernel": 4, "use_bias": False,
         "use_conv_bias": True, "hidden_act": "silu", "time_step_rank": 3, "tie_word_embeddings": True, "residual_in_fp32": True}
BERT = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "hidden_act": "gelu", "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute", "hidden_dropout_prob": 0.1, "pad_token_id": 0}
FAMILIES = {
    "llama3": (LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                         "original_max_position_embeddings": 16}, "attention_bias": True}, llama_shapes, llama),
    "llama_linear": (LLAMA | {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.5}}, llama_shapes, llama),
    "llama_yarn": (LLAMA | {"rope_theta": None, "rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
                                                                    "original_max_position_embeddings": 512},
                            "eos_token_id": [1, 2], "dtype": "float32"}, llama_shapes, llama),
    "llama_longrope": (LLAMA | {"head_dim": 8, "rope_scaling": {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.5, 2.0],
                                                                "long_factor": [1.0, 2.0, 4.0, 8.0], "original_max_position_embeddings": 32}},
                       llama_shapes, llama),
    "mistral": (LLAMA | {"model_type": "mistral", "sliding_window": 6}, llama_shapes, llama),
    "qwen2": (LLAMA | {"model_type": "qwen2", "tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 5,
                       "layer_types": ["full_attention", "sliding_attention"]}, llama_shapes, llama),
    "qwen3": (LLAMA | {"model_type": "qwen3", "head_dim": 8, "rms_norm_eps": 1e-6, "attention_bias": False}, llama_shapes, llama),
    "gpt2": (GPT2, gpt2_shapes, gpt2),
    "mamba": (MAMBA, mamba_shapes, mamba),
    "bert": (BERT, bert_shapes, bert),
    **recurrent.FAMILIES,
    **hybrids.FAMILIES,
}


def main():
    for seed, (name, (config, shapes, forward)) in enumerate(FAMILIES.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        config = {k: v for k, v in config.items() if v is not None or k == "n_inner"}
        w = weights(shapes(config), seed + 1)
        tokens = torch.randint(VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(seed))
        logits = forward(config, w, tokens)
        loss = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:])
        loss.backward()
        folder = HERE / name
        (folder / "gradients").mkdir(parents=True, exist_ok=True)
        for at in [folder, folder / "gradients"]:
            (at / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        write_safetensors(folder / "model.safetensors", w)
        write_safetensors(folder / "gradients" / "model.safetensors", {k: v.grad for k, v in w.items()})
        write_safetensors(folder / "expected.safetensors", {"tokens": tokens.int(), "logits": logits, "loss": loss.reshape(1)})
        print(name, f"loss {loss.item():.4f}, logits of size {logits.std().item():.2f}")


main()

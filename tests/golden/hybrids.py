"""References of models that mix layers: Bamba (Mamba-2 and attention), and flash-linear-attention's GLA and Gated DeltaNet, the latter
with a layer of attention among its own."""
import math

import torch

from layers import VOCAB, attend, convolve, rms, rope_angles, silu, turn
from recurrent import mamba2_mixer, mamba2_mixer_shapes


def mlp_shapes(at, d, f):
    return {at + "gate_proj.weight": (f, d), at + "up_proj.weight": (f, d), at + "down_proj.weight": (d, f)}


def mlp(w, at, u):
    return (silu(u @ w[at + "gate_proj.weight"].T) * (u @ w[at + "up_proj.weight"].T)) @ w[at + "down_proj.weight"].T


def attention_shapes(at, d, heads, kv_heads, bias=False):
    shapes = {}
    for name, rows in [("q", d), ("k", d // heads * kv_heads), ("v", d // heads * kv_heads), ("o", d)]:
        shapes[at + f"{name}_proj.weight"] = (rows, d)
        if bias and name != "o":
            shapes[at + f"{name}_proj.bias"] = (rows,)
    return shapes


def attention(w, at, u, heads, config, fraction=1.0, window=None):
    t, dim = len(u), u.shape[1] // heads
    q, k, v = ((u @ w[at + f"{p}_proj.weight"].T + w.get(at + f"{p}_proj.bias", torch.zeros(()))).reshape(t, -1, dim) for p in "qkv")
    turned = int(dim * fraction)
    angles, scale = rope_angles(config, turned, t)
    q, k = (torch.cat([turn(y[..., :turned], angles, scale), y[..., turned:]], -1) for y in (q, k))
    return attend(q, k, v, window) @ w[at + "o_proj.weight"].T


def bamba_shapes(c):
    d = c["hidden_size"]
    shapes = {"model.embed_tokens.weight": (VOCAB, d), "model.final_layernorm.weight": (d,), "lm_head.weight": (VOCAB, d)}
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        shapes |= {at + "input_layernorm.weight": (d,), at + "pre_ff_layernorm.weight": (d,)} | mlp_shapes(at + "feed_forward.", d, c["intermediate_size"])
        if n in c["attn_layer_indices"]:
            shapes |= attention_shapes(at + "self_attn.", d, c["num_attention_heads"], c["num_key_value_heads"])
        else:
            shapes |= mamba2_mixer_shapes(at + "mamba.", d, c["mamba_n_heads"], c["mamba_d_head"], c["mamba_d_state"], c["mamba_n_groups"], c["mamba_d_conv"])
    return shapes


def bamba(c, w, tokens):
    eps, x = c["rms_norm_eps"], w["model.embed_tokens.weight"][tokens]
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        u = rms(x, w[at + "input_layernorm.weight"], eps)
        if n in c["attn_layer_indices"]:
            x = x + attention(w, at + "self_attn.", u, c["num_attention_heads"], c, fraction=0.5)
        else:
            x = x + mamba2_mixer(lambda name: w[at + "mamba." + name], u, c["mamba_n_heads"], c["mamba_d_head"], c["mamba_d_state"], c["mamba_n_groups"], eps)
        x = x + mlp(w, at + "feed_forward.", rms(x, w[at + "pre_ff_layernorm.weight"], eps))
    return rms(x, w["model.final_layernorm.weight"], eps) @ w["lm_head.weight"].T


def fla_shapes(c):
    d = c["hidden_size"]
    shapes = {"model.embeddings.weight": (VOCAB, d), "model.norm.weight": (d,), "lm_head.weight": (VOCAB, d)}
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        shapes |= {at + "attn_norm.weight": (d,), at + "mlp_norm.weight": (d,)} | mlp_shapes(at + "mlp.", d, c["intermediate_size"])
        if n in (c.get("attn") or {"layers": []})["layers"]:
            shapes |= attention_shapes(at + "attn.", d, c["attn"]["num_heads"], c["attn"]["num_kv_heads"], c["attn"]["qkv_bias"])
        else:
            shapes |= MIXER_SHAPES[c["model_type"]](at + "attn.", c)
    return shapes


def fla(c, w, tokens):
    eps, x = c["norm_eps"], w["model.embeddings.weight"][tokens]
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        u, a = rms(x, w[at + "attn_norm.weight"], eps), c.get("attn") or {"layers": []}
        if n in a["layers"]:
            x = x + attention(w, at + "attn.", u, a["num_heads"], {"rope_theta": a["rope_theta"], "max_position_embeddings": 0}, window=a["window_size"])
        else:
            x = x + MIXERS[c["model_type"]](lambda name: w[at + "attn." + name], u, c)
        x = x + mlp(w, at + "mlp.", rms(x, w[at + "mlp_norm.weight"], eps))
    return rms(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


def gla_shapes(at, c):
    d, k, v = c["hidden_size"], int(c["hidden_size"] * c["expand_k"]), int(c["hidden_size"] * c["expand_v"])
    return {at + "q_proj.weight": (k, d), at + "k_proj.weight": (k, d), at + "v_proj.weight": (v, d), at + "g_proj.weight": (v, d), at + "o_proj.weight": (d, v),
            at + "gk_proj.0.weight": (16, d), at + "gk_proj.1.weight": (k, 16), at + "gk_proj.1.bias": (k,), at + "g_norm_swish_gate.weight": (v // c["num_heads"],)}


def gla(p, u, c):
    t, h = len(u), c["num_heads"]
    q, k, v = ((u @ p(f"{name}_proj.weight").T).reshape(t, h, -1) for name in "qkv")
    decay = torch.nn.functional.logsigmoid(u @ p("gk_proj.0.weight").T @ p("gk_proj.1.weight").T + p("gk_proj.1.bias")).reshape(t, h, -1) / 16
    S, ys = torch.zeros(h, q.shape[-1], v.shape[-1]), []
    for i in range(t):
        S = torch.exp(decay[i])[:, :, None] * S + k[i][:, :, None] * v[i][:, None]
        ys.append((q[i][:, :, None] * S).sum(1) / math.sqrt(q.shape[-1]))
    y = rms(torch.stack(ys), p("g_norm_swish_gate.weight"), c["norm_eps"]).reshape(t, -1)
    return (y * silu(u @ p("g_proj.weight").T)) @ p("o_proj.weight").T


def gated_delta_shapes(at, c):
    d, h = c["hidden_size"], c["num_heads"]
    k, v, width = h * c["head_dim"], int(h * c["head_dim"] * c["expand_v"]), c["conv_size"]
    return {at + "q_proj.weight": (k, d), at + "k_proj.weight": (k, d), at + "v_proj.weight": (v, d), at + "g_proj.weight": (v, d), at + "o_proj.weight": (d, v),
            at + "a_proj.weight": (h, d), at + "b_proj.weight": (h, d), at + "A_log": (h,), at + "dt_bias": (h,), at + "o_norm.weight": (v // h,),
            at + "q_conv1d.weight": (k, 1, width), at + "k_conv1d.weight": (k, 1, width), at + "v_conv1d.weight": (v, 1, width)}


def gated_delta(p, u, c):
    t, h = len(u), c["num_heads"]
    q, k, v = (convolve(u @ p(f"{name}_proj.weight").T, p(f"{name}_conv1d.weight")).reshape(t, h, -1) for name in "qkv")
    q, k = (y / torch.sqrt((y * y).sum(-1, keepdim=True) + 1e-6) for y in (q, k))
    beta = torch.sigmoid(u @ p("b_proj.weight").T) * (2 if c["allow_neg_eigval"] else 1)
    fade = torch.exp(-torch.exp(p("A_log")) * torch.nn.functional.softplus(u @ p("a_proj.weight").T + p("dt_bias")))
    S, ys = torch.zeros(h, q.shape[-1], v.shape[-1]), []
    for i in range(t):
        S = fade[i][:, None, None] * S
        S = S + (beta[i][:, None] * k[i])[:, :, None] * (v[i] - (k[i][:, :, None] * S).sum(1))[:, None]
        ys.append((q[i][:, :, None] * S).sum(1) / math.sqrt(q.shape[-1]))
    y = rms(torch.stack(ys), p("o_norm.weight"), c["norm_eps"]).reshape(t, -1)
    return (y * silu(u @ p("g_proj.weight").T)) @ p("o_proj.weight").T


MIXER_SHAPES, MIXERS = {"gla": gla_shapes, "gated_deltanet": gated_delta_shapes}, {"gla": gla, "gated_deltanet": gated_delta}
BAMBA = {"model_type": "bamba", "architectures": ["BambaForCausalLM"], "vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
         "num_attention_heads": 2, "num_key_value_heads": 1, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1,
         "mamba_d_state": 6, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False, "hidden_act": "silu", "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": False, "partial_rotary_factor": 0.5}
FLA = {"vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "hidden_act": "swish", "norm_eps": 1e-6, "fuse_norm": True,
       "tie_word_embeddings": False}
GLA = FLA | {"model_type": "gla", "architectures": ["GLAForCausalLM"], "num_heads": 2, "expand_k": 0.5, "expand_v": 1.0, "use_short_conv": False, "attn": None}
DELTA = FLA | {"model_type": "gated_deltanet", "architectures": ["GatedDeltaNetForCausalLM"], "num_hidden_layers": 3, "num_heads": 2, "head_dim": 6, "expand_v": 2.0,
               "conv_size": 4, "allow_neg_eigval": True,
               "attn": {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "qkv_bias": True, "window_size": 7, "rope_theta": 10000.0}}
FAMILIES = {"bamba": (BAMBA, bamba_shapes, bamba), "gla": (GLA, fla_shapes, fla), "gated_deltanet": (DELTA, fla_shapes, fla)}

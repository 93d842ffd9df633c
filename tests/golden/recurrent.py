"""References of families whose state has one size: Mamba-2 and RWKV-7."""
import torch

from layers import VOCAB, before, convolve, layer_norm, rms, silu


def mamba2_mixer_shapes(at, d, heads, head_dim, state, groups, conv):
    inner, mixed = heads * head_dim, heads * head_dim + 2 * groups * state
    return {at + "in_proj.weight": (inner + mixed + heads, d), at + "conv1d.weight": (mixed, 1, conv), at + "conv1d.bias": (mixed,),
            at + "dt_bias": (heads,), at + "A_log": (heads,), at + "D": (heads,), at + "norm.weight": (inner,), at + "out_proj.weight": (d, inner)}


def mamba2_mixer(p, u, heads, head_dim, state, groups, eps):
    """p(name) is a weight; equation 3 of the paper with one decay a head, then a norm over each group of channels."""
    inner = heads * head_dim
    z, mixed, dt = (u @ p("in_proj.weight").T).split([inner, inner + 2 * groups * state, heads], -1)
    x, b, c = convolve(mixed, p("conv1d.weight"), p("conv1d.bias")).split([inner, groups * state, groups * state], -1)
    dt = torch.nn.functional.softplus(dt + p("dt_bias"))
    b, c = (v.reshape(-1, groups, state).repeat_interleave(heads // groups, 1) for v in (b, c))
    x = x.reshape(-1, heads, head_dim)
    S, ys = torch.zeros(heads, head_dim, state), []
    for t in range(len(u)):
        S = torch.exp(-dt[t] * torch.exp(p("A_log")))[:, None, None] * S + (dt[t, :, None] * x[t])[:, :, None] * b[t][:, None]
        ys.append((S * c[t][:, None]).sum(-1) + p("D")[:, None] * x[t])
    y = (torch.stack(ys).reshape(-1, inner) * silu(z)).reshape(-1, groups, inner // groups)
    return rms(y, p("norm.weight").reshape(groups, -1), eps).reshape(-1, inner) @ p("out_proj.weight").T


def mamba2_shapes(c):
    d = c["hidden_size"]
    shapes = {"backbone.embeddings.weight": (VOCAB, d), "backbone.norm_f.weight": (d,), "lm_head.weight": (VOCAB, d)}
    for n in range(c["num_hidden_layers"]):
        at = f"backbone.layers.{n}."
        shapes |= {at + "norm.weight": (d,)}
        shapes |= mamba2_mixer_shapes(at + "mixer.", d, c["num_heads"], c["head_dim"], c["state_size"], c["n_groups"], c["conv_kernel"])
    return shapes


def mamba2(c, w, tokens):
    eps, x = c["layer_norm_epsilon"], w["backbone.embeddings.weight"][tokens]
    for n in range(c["num_hidden_layers"]):
        at = f"backbone.layers.{n}."
        u = rms(x, w[at + "norm.weight"], eps)
        x = x + mamba2_mixer(lambda name: w[at + "mixer." + name], u, c["num_heads"], c["head_dim"], c["state_size"], c["n_groups"], eps)
    return rms(x, w["backbone.norm_f.weight"], eps) @ w["lm_head.weight"].T


def rwkv7_shapes(c):
    d, f, dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    shapes = {"model.embeddings.weight": (VOCAB, d), "lm_head.weight": (VOCAB, d)}
    norms = ["model.norm", "model.layers.0.pre_norm"]
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        norms += [at + "attn_norm", at + "ffn_norm", at + "attn.g_norm"]
        shapes |= {at + f"attn.x_{k}": (1, 1, d) for k in "rwkvag"}
        shapes |= {at + f"attn.{k}_proj.weight": (d, d) for k in "rkvo"}
        shapes |= {at + "attn.k_k": (d,), at + "attn.k_a": (d,), at + "attn.r_k": (d // dim, dim)}
        for letter, key in [("w", "decay"), ("a", "a"), ("v", "v"), ("g", "gate")]:
            if letter == "v" and n == 0:
                continue
            rank, lora = c[f"{key}_low_rank_dim"], at + f"attn.{letter}_lora.lora."
            shapes |= {lora + "0.weight": (rank, d), lora + "2.weight": (d, rank)}
            if letter != "g":
                shapes[lora + "2.bias"] = (d,)
        shapes |= {at + "ffn.x_k": (d,), at + "ffn.key.weight": (f, d), at + "ffn.value.weight": (d, f)}
    for name in norms:
        shapes |= {name + ".weight": (d,), name + ".bias": (d,)}
    return shapes


def rwkv7(c, w, tokens):
    t, d, dim, eps = len(tokens), c["hidden_size"], c["head_dim"], c["norm_eps"]
    norm = lambda u, name: layer_norm(u, w[name + ".weight"], w[name + ".bias"], eps)
    x, first = norm(w["model.embeddings.weight"][tokens], "model.layers.0.pre_norm"), None
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        p = lambda name: w[at + "attn." + name]
        u = norm(x, at + "attn_norm")
        mixed = {k: u + (before(u) - u) * p(f"x_{k}")[0] for k in "rwkvag"}
        lora = lambda k, f: f(mixed[k] @ p(f"{k}_lora.lora.0.weight").T) @ p(f"{k}_lora.lora.2.weight").T
        same = lambda y: y
        r, k, v = (mixed[q] @ p(f"{q}_proj.weight").T for q in "rkv")
        decay = torch.exp(-0.6065306597126334 * torch.sigmoid(lora("w", torch.tanh) + p("w_lora.lora.2.bias")))
        if first is None:
            first = v
        else:
            v = v + (first - v) * torch.sigmoid(lora("v", same) + p("v_lora.lora.2.bias"))
        a, g = torch.sigmoid(lora("a", same) + p("a_lora.lora.2.bias")), lora("g", torch.sigmoid)
        heads = lambda y: y.reshape(t, -1, dim)
        h = torch.nn.functional.normalize(heads(k * p("k_k")), dim=-1, eps=1e-12)
        k = k * (1 + (a - 1) * p("k_a"))
        r_, k_, v_, a_, w_ = map(heads, (r, k, v, a, decay))
        S, ys = torch.zeros(d // dim, dim, dim), []  # [heads, key, value]
        for i in range(t):
            held = (h[i][:, :, None] * S).sum(1)
            S = w_[i][:, :, None] * S - (a_[i] * h[i])[:, :, None] * held[:, None] + k_[i][:, :, None] * v_[i][:, None]
            ys.append((r_[i][:, :, None] * S).sum(1))
        y = torch.stack(ys)
        y = y - y.mean(-1, keepdim=True)
        y = (y / torch.sqrt((y * y).mean(-1, keepdim=True) + dim * eps)).reshape(t, d) * p("g_norm.weight") + p("g_norm.bias")
        y = y + ((r_ * k_ * p("r_k")).sum(-1, keepdim=True) * v_).reshape(t, d)
        x = x + (y * g) @ p("o_proj.weight").T
        u = norm(x, at + "ffn_norm")
        u = u + (before(u) - u) * w[at + "ffn.x_k"]
        x = x + torch.relu(u @ w[at + "ffn.key.weight"].T) ** 2 @ w[at + "ffn.value.weight"].T
    return norm(x, "model.norm") @ w["lm_head.weight"].T


MAMBA2 = {"model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_heads": 4,
          "head_dim": 8, "state_size": 6, "n_groups": 2, "conv_kernel": 4, "expand": 2, "layer_norm_epsilon": 1e-5, "use_bias": False, "use_conv_bias": True,
          "rms_norm": True, "hidden_act": "silu", "time_step_limit": [0.0, {"__float__": "Infinity"}], "tie_word_embeddings": False}
RWKV7 = {"model_type": "rwkv7", "architectures": ["RWKV7ForCausalLM"], "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 3, "head_dim": 8,
         "intermediate_size": 64, "decay_low_rank_dim": 4, "gate_low_rank_dim": 6, "a_low_rank_dim": 5, "v_low_rank_dim": 3, "hidden_act": "sqrelu",
         "norm_first": True, "norm_bias": True, "norm_eps": 8e-5, "tie_word_embeddings": False}
FAMILIES = {"mamba2": (MAMBA2, mamba2_shapes, mamba2), "rwkv7": (RWKV7, rwkv7_shapes, rwkv7)}

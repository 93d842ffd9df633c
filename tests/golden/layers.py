"""Layers that the references have in common, as their papers write them, on rows [T, d]."""
import math

import torch

VOCAB = 40


def rms(x, w, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w


def layer_norm(x, w, b, eps):
    x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w + b


def silu(x):
    return x * torch.sigmoid(x)


def rope_angles(config, dim, length):
    """[length, dim / 2] and the factor of cos and sin, from the published formulas of each scaling."""
    s = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = s.get("rope_theta", config.get("rope_theta", 10000.0))
    kind, factor = s.get("rope_type", "default"), s.get("factor", 1.0)
    i = torch.arange(0, dim, 2).double()
    inv = base ** (-i / dim)
    original, scale = s.get("original_max_position_embeddings", config["max_position_embeddings"]), 1.0
    if kind == "linear":
        inv = inv / factor
    elif kind == "llama3":
        wavelength = 2 * math.pi / inv
        low, high = original / s["low_freq_factor"], original / s["high_freq_factor"]
        smooth = (original / wavelength - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        middle = (1 - smooth) * inv / factor + smooth * inv
        inv = torch.where(wavelength > low, inv / factor, torch.where(wavelength < high, inv, middle))
    elif kind == "yarn":
        place = lambda turns: dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(math.floor(place(32)), 0), min(math.ceil(place(1)), dim - 1)
        ramp = ((torch.arange(dim // 2) - low) / max(high - low, 0.001)).clamp(0, 1)
        inv = inv / factor * ramp + inv * (1 - ramp)
        scale = 0.1 * math.log(factor) + 1
    elif kind == "longrope":
        inv = inv / torch.tensor(s["short_factor"])
        scale = math.sqrt(1 + math.log(config["max_position_embeddings"] / original) / math.log(original))
    return torch.arange(length)[:, None] * inv, scale


def turn(x, angles, scale):
    """x [T, heads, dim], halves (i, i + dim / 2)."""
    half = x.shape[-1] // 2
    cos, sin = (scale * torch.cos(angles))[:, None], (scale * torch.sin(angles))[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def attend(q, k, v, window=None):
    """[T, H, d], [T, G, d], [T, G, d] -> [T, H d]"""
    t, groups = q.shape[0], q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
    distance = torch.arange(t)[:, None] - torch.arange(t)[None]
    hidden = (distance < 0) | (distance >= (window or t))
    return torch.einsum("hij,jhd->ihd", scores.masked_fill(hidden, -math.inf).softmax(-1), v).reshape(t, -1)


def convolve(x, w, shift=0.0):
    """Causal, a channel by itself: x [T, C], w [C, 1, width], then silu."""
    width = w.shape[-1]
    padded = torch.cat([torch.zeros(width - 1, x.shape[1]), x])
    return silu(sum(padded[j:j + len(x)] * w[:, 0, j] for j in range(width)) + shift)


def before(x):
    """The row of the token before, zeros at the start."""
    return torch.cat([torch.zeros(1, x.shape[1]), x[:-1]])

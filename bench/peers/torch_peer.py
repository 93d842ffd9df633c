#!/usr/bin/python3
"""PyTorch as a peer of `sennit bench --peers`: answers each case on stdin with the seconds one run took."""
import os
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

if "/blas/libblas.so" in open("/proc/self/maps").read():
    sys.exit(print("PyTorch multiplies with the reference BLAS, ten times slower than it can: install libopenblas0-pthread"))

torch.set_num_threads(int(os.environ.get("SENNIT_THREADS", len(os.sched_getaffinity(0)))))
torch.set_flush_denormal(True)
prepared = {}


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x, mask):
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(d, dim=2)
        q, k, v = (a.view(b, t, self.heads, d // self.heads).transpose(1, 2) for a in (q, k, v))
        scores = q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5
        y = torch.softmax(scores.masked_fill(mask, float("-inf")), dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, vocab=8192, d=512, layers=8, heads=8, length=512):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, d), nn.Embedding(length, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.register_buffer("mask", torch.triu(torch.ones(length, length, dtype=torch.bool), 1))
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, self.mask)
        return self.norm(x) @ self.tokens.weight.T


def training(precision):
    torch.manual_seed(1)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids, targets = torch.randint(8192, (4, 512)), torch.randint(8192, (4 * 512,))

    def run():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model(ids).float().view(-1, 8192), targets)
        loss.backward()
        optimizer.step()

    return run


def attention(queries, keys, backward, precision):
    dtype = torch.float32 if precision == "f32" else torch.bfloat16
    q = torch.randn(8, queries, 64, dtype=dtype, requires_grad=bool(backward))
    k, v = (torch.randn(8, keys, 64, dtype=dtype, requires_grad=bool(backward)) for _ in range(2))
    mask = torch.triu(torch.ones(queries, keys, dtype=torch.bool), keys - queries + 1)

    def head(h):
        scores = (q[h] @ k[h].T * 0.125).masked_fill_(mask, float("-inf"))
        return torch.softmax(scores, dim=-1) @ v[h]

    def run():
        for h in range(8):  # one head at a time: all at once would need 8 n^2 numbers
            y = head(h)
            if backward:
                y.sum().backward()

    return run


def product(precision, m, k, n):
    dtype = torch.float32 if precision == "f32" else torch.bfloat16
    x, w = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
    return lambda: F.linear(x, w)


def lstm(backward):
    layer = nn.LSTM(512, 512, bias=False)
    x = torch.randn(512, 4, 512, requires_grad=bool(backward))

    def run():
        with torch.set_grad_enabled(bool(backward)):
            y, _ = layer(x)
            if backward:
                y.sum().backward()

    return run


def prepare(case):
    kind, *args = case.split()
    if kind == "train":
        return training(args[0])
    if kind == "attention":
        return attention(*map(int, args[:3]), args[3])
    if kind == "lstm":
        return lstm(int(args[0]))
    if kind == "product":
        return product(args[0], *map(int, args[1:]))
    return None


print("ready", flush=True)
for line in sys.stdin:
    case = line.strip()
    if case not in prepared:
        prepared[case] = prepare(case)
        if prepared[case]:
            prepared[case]()
    if prepared[case] is None:
        print("none", flush=True)
        continue
    begin = time.perf_counter()
    prepared[case]()
    print(time.perf_counter() - begin, flush=True)

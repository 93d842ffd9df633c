#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "bench/cases.h"
#include "sequence/attention.h"

namespace sennit::bench {
namespace {

constexpr int64_t kHeads = 8, kDim = 64;
constexpr double kScale = 0.125;

struct Span {
  int64_t queries, keys;
  bool backward, paired = false;
  CacheFormat cache = CacheFormat::f32;  // of keys and values
};

struct Operands {
  Var q, k, v, y;  // keys and values as floats
  Var kept_k, kept_v;
  AttentionSegment segment;
};

double dot(const Var& a, int64_t i, const Var& b, int64_t j, int64_t head) {
  double s = 0;
  for (int64_t p = head * kDim; p < (head + 1) * kDim; ++p) s += at(a, i, p) * at(b, j, p);
  return s;
}

// Softmax weights of query i.
std::vector<double> weights(const Operands& o, int64_t i, int64_t head) {
  std::vector<double> w;
  double total = 0;
  for (int64_t j = 0; j <= i + o.segment.offset; ++j) w.push_back(std::exp(kScale * dot(o.q, i, o.k, j, head))), total += w.back();
  for (double& x : w) x /= total;
  return w;
}

// The rows of some queries; with `backward`, also their gradients for dy = y.
double attention_error(const Operands& o, bool backward) {
  Deviation forward, gradient;
  for (const int64_t i : {int64_t{0}, o.segment.queries / 2, o.segment.queries - 1})
    for (const int64_t head : {int64_t{0}, kHeads - 1}) {
      const std::vector<double> w = weights(o, i, head);
      std::vector<double> y(kDim), dq(kDim);
      for (size_t j = 0; j < w.size(); ++j)
        for (int64_t p = 0; p < kDim; ++p) y[p] += w[j] * at(o.v, static_cast<int64_t>(j), head * kDim + p);
      for (int64_t p = 0; p < kDim; ++p) forward.add(at(o.y, i, head * kDim + p), y[p]);
      if (!backward) continue;
      double mean = 0;
      for (int64_t p = 0; p < kDim; ++p) mean += at(o.y, i, head * kDim + p) * y[p];
      for (size_t j = 0; j < w.size(); ++j) {
        const double dw = dot(o.y, i, o.v, static_cast<int64_t>(j), head) - mean;
        for (int64_t p = 0; p < kDim; ++p) dq[p] += kScale * w[j] * dw * at(o.k, static_cast<int64_t>(j), head * kDim + p);
      }
      for (int64_t p = 0; p < kDim; ++p) gradient.add(o.q.grad().data()[i * kHeads * kDim + head * kDim + p], dq[p]);
    }
  return std::max(forward.relative(), gradient.relative());
}

Work work(Span kind) {
  auto o = std::make_shared<Operands>();
  o->segment = {0, kind.queries, 0, 0, kind.keys, kind.keys - kind.queries};
  o->q = Var::leaf(random_rows(kind.queries, kHeads * kDim, "q", -2, 2));
  o->k = Var::leaf(random_rows(kind.keys, kHeads * kDim, "k", -2, 2));
  o->v = Var::leaf(random_rows(kind.keys, kHeads * kDim, "v"));
  const auto kept = [&](const Var& x) { return Var(rounded(x.value(), kHeads, kind.cache)); };
  if (kind.cache != CacheFormat::f32) {
    o->kept_k = kept(o->k), o->kept_v = kept(o->v);
    o->k = Var(widened(o->kept_k.value(), kHeads)), o->v = Var(widened(o->kept_v.value(), kHeads));
  }
  const auto run = [o, kind] {
    Recording on(kind.backward);
    if (kind.backward)
      for (Var* x : {&o->q, &o->k, &o->v}) x->clear_grad();
    const bool floats = kind.cache == CacheFormat::f32;
    o->y = attention(o->q, {floats ? &o->k : &o->kept_k, 1}, {floats ? &o->v : &o->kept_v, 1}, {&o->segment, 1},
                     {.heads = kHeads, .kv_heads = kHeads, .scale = static_cast<float>(kScale), .exact = false, .paired = kind.paired});
    if (kind.backward) backward_of_squares(o->y);
  };
  return {run, [o, run, kind] { return run(), attention_error(*o, kind.backward); }};
}

}  // namespace

void add_attention(std::vector<Case>& cases) {
  for (const Span kind : {Span{4096, 4096, false}, Span{16384, 16384, false}, Span{4096, 4096, true}, Span{4096, 4096, false, true},
                          Span{16384, 16384, false, true}, Span{4096, 4096, true, true}, Span{1, 16384, false},
                          Span{1, 16384, false, false, CacheFormat::bf16}, Span{1, 16384, false, false, CacheFormat::f16},
                          Span{1, 16384, false, false, CacheFormat::q8_0}}) {
    const bool decode = kind.queries == 1;
    const char* what = decode ? "decode" : kind.backward ? "forward+backward" : "forward";
    const int64_t pairs = visible_pairs({0, kind.queries, 0, 0, kind.keys, kind.keys - kind.queries}, true, 0);
    const bool floats = kind.cache == CacheFormat::f32;
    const int64_t head_bytes = kernels::cached_units(kind.cache, kDim) * kernels::cached_unit_bytes(kind.cache);
    cases.push_back({.name = fmt::format("attention {}{} n={} 8x64{}{}", what, kind.paired ? " bf16" : "", kind.keys, floats ? "" : " ",
                                         floats ? "" : to_string(kind.cache)),
                     .flops = 4.0 * static_cast<double>(pairs * kHeads * kDim) * (kind.backward ? 3.5 : 1),
                     .bytes = decode ? static_cast<double>(2 * kind.keys * kHeads * head_bytes) : 0,
                     .precision = kind.paired ? Precision::bf16 : Precision::f32,
                     .tokens = static_cast<double>(kind.queries),
                     .peer = floats ? fmt::format("attention {} {} {} {}", kind.queries, kind.keys, kind.backward ? 1 : 0,
                                                  kind.paired ? "bf16" : "f32")
                                    : "",
                     .allowed = kind.paired ? 2e-2 : 1e-4,
                     .prepare = [kind] { return work(kind); }});
  }
}

}  // namespace sennit::bench

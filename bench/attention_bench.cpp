// Exact attention against the peak of multiply-adds (prefill, gradients: the visible half counted) and the bandwidth of
// memory (decode).
#include <fmt/format.h>

#include <memory>

#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/attention.h"
#include "peaks.h"
#include "tensor/tensor.h"

namespace sennit::bench {
namespace {

using kernels::AttentionTask;

Tensor random_rows(int64_t rows, int64_t width, uint64_t seed) {
  Tensor x({rows, width});
  const Rng rng(seed);
  for (int64_t i = 0; i < x.elements(); ++i)
    x.data()[i] = static_cast<float>(rng.uniform_at(static_cast<uint64_t>(i)) - 0.5);
  return x;
}

// All heads of one sequence; a head's numbers lie side by side in a row.
struct Layer {
  int64_t queries, keys, heads, dim, width = heads * dim;
  Tensor q = random_rows(queries, width, 1), k = random_rows(keys, width, 2), v = random_rows(keys, width, 3);
  Tensor o{{queries, width}}, d_o = random_rows(queries, width, 4), lse{{heads, queries}};
  Tensor dq = Tensor::zeros({queries, width}), dk = Tensor::zeros({keys, width}), dv = Tensor::zeros({keys, width});

  AttentionTask task(int64_t head) const {
    const int64_t at = head * dim;
    return {.q = q.data() + at,
            .k = k.data() + at,
            .v = v.data() + at,
            .q_stride = width,
            .k_stride = width,
            .v_stride = width,
            .queries = queries,
            .keys = keys,
            .key_dim = dim,
            .value_dim = dim,
            .offset = keys - queries,
            .causal = true,
            .scale = 0.125f};
  }
  void forward() {
    const int64_t tiles = (queries + kernels::kAttentionRows - 1) / kernels::kAttentionRows;
    parallel_for(heads * tiles, 1, [&](int64_t begin, int64_t end) {
      Tensor scratch({kernels::attention().scratch_floats(task(0))});
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / tiles, first = i % tiles * kernels::kAttentionRows;
        kernels::attention().forward(task(head), first, std::min(queries, first + kernels::kAttentionRows),
                                     o.data() + head * dim, width, lse.data() + head * queries, scratch.data());
      }
    });
  }
  void backward() {
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      Tensor scratch({kernels::attention().scratch_floats(task(0))});
      for (int64_t h = begin; h < end; ++h)
        kernels::attention().backward(task(h), o.data() + h * dim, d_o.data() + h * dim, width,
                                      lse.data() + h * queries, dq.data() + h * dim, dk.data() + h * dim,
                                      dv.data() + h * dim, width, width, width, scratch.data());
    });
  }
};

void add_training(std::vector<Case>& cases, int64_t n, int64_t heads, int64_t dim) {
  const auto layer = std::make_shared<Layer>(Layer{n, n, heads, dim});
  const double half = 4.0 * static_cast<double>(n * n * dim * heads) / 2;
  const std::string shape = fmt::format("{} heads x {}, n = {} causal", heads, dim, n);
  cases.push_back({"forward " + shape, half, [=] { return half / peak_f32_flops(); }, [=] { layer->forward(); }});
  cases.push_back({"forward+backward " + shape, 3.5 * half, [=] { return 3.5 * half / peak_f32_flops(); },
                   [=] {
                     layer->forward();
                     layer->backward();
                   }});
}

void add_decode(std::vector<Case>& cases, int64_t keys, int64_t heads, int64_t dim) {
  const auto layer = std::make_shared<Layer>(Layer{1, keys, heads, dim});
  const auto bytes = static_cast<double>(layer->k.bytes());
  cases.push_back({fmt::format("decode {} heads x {}, {} keys, bytes", heads, dim, keys), 2 * bytes,
                   [=] {
                     return bytes / peak_read_bytes(layer->k.raw(), layer->k.bytes()) +
                            bytes / peak_read_bytes(layer->v.raw(), layer->v.bytes());
                   },
                   [=] { layer->forward(); }});
}

}  // namespace
}  // namespace sennit::bench

int main(int argc, char** argv) {
  using namespace sennit;
  std::vector<bench::Case> cases;
  bench::add_training(cases, 4096, 8, 64);
  bench::add_training(cases, 2048, 4, 128);
  bench::add_decode(cases, 16384, 8, 64);
  bench::run_cases(std::move(cases), argc, argv);
}

#include "bench/ceilings.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/parallel.h"
#include "bench/loops.h"

namespace sennit::bench {
namespace {

constexpr int64_t kMemory = int64_t{256} << 20, kPage = 4096;
volatile float sink;

// Seconds of body(thread) on each of `threads` at once.
double seconds_on(int threads, const std::function<void(int64_t)>& body) {
  return seconds_of([&] {
    parallel_for(threads, 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) body(i);
    });
  });
}

double rate(const Unit& unit, int threads) {
  if (!unit.loop) return 0;
  const int64_t rounds = unit.operations > 1000 ? 1 << 16 : 2 << 20;
  return unit.operations * kChains * static_cast<double>(rounds * threads) /
         seconds_on(threads, [&](int64_t) { sink = unit.loop(rounds); });
}

// Bytes a second that body(at, bytes, streams) walks through, whatever number of streams is best on this processor.
template <class Body>
double streamed(int threads, Body&& body) {
  double best = 0;
  const int64_t part = kMemory / threads / kPage * kPage;
  for (const int streams : {1, 2, 4})
    best = std::max(best, static_cast<double>(part * threads) /
                              seconds_on(threads, [&](int64_t i) { body(i * part, part, streams); }));
  return best;
}

int64_t cache_size(int name, int64_t otherwise) {
  const int64_t bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

}  // namespace

double seconds_of(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> x) {
  if (x.empty()) return 0;
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

Ceilings::Ceilings() : memory_(Tensor::zeros({kMemory / 4})) {
  const int64_t l2 = cache_size(_SC_LEVEL2_CACHE_SIZE, 1 << 20), l3 = cache_size(_SC_LEVEL3_CACHE_SIZE, 16 << 20);
  all_ = {
      {"f32 multiply-add", false, [](int n) { return rate(f32_unit(), n); }},
      {"bf16 pairs, AVX-512", false, [](int n) { return rate(bf16_unit(), n); }},
      {"int8 products, VNNI or AVX2", false, [](int n) { return rate(int8_unit(), n); }},
      {"bf16 tiles 2x2, AMX", false, [](int n) { return rate(amx_bf16_unit(true), n); }},
      {"bf16 tiles 1x2, AMX", false, [](int n) { return rate(amx_bf16_unit(false), n); }},
      {"int8 tiles 2x2, AMX", false, [](int n) { return rate(amx_int8_unit(true), n); }},
      {"int8 tiles 1x2, AMX", false, [](int n) { return rate(amx_int8_unit(false), n); }},
      {"read from memory", true, [this](int n) { return read(n); }},
      {"copy in memory", true, [this](int n) { return copy(n); }},
      {"update in memory", true, [this](int n) { return update(n); }},
      {"read from L3", true, [this, l2, l3](int n) { return cached(std::min(4 * l2, l3 / (2 * thread_count())), n); }},
      {"read from L2", true, [this, l2](int n) { return cached(l2 / 2, n); }}};
}

double Ceilings::products(Precision precision) const {
  const int n = thread_count();
  const double f32 = rate(f32_unit(), n);
  if (precision == Precision::f32) return f32;
  return std::max({f32, rate(bf16_unit(), n), rate(amx_bf16_unit(true), n), rate(amx_bf16_unit(false), n)});
}

double Ceilings::whole_products() const {
  const int n = thread_count();
  return std::max(
      {rate(f32_unit(), n), rate(int8_unit(), n), rate(amx_int8_unit(true), n), rate(amx_int8_unit(false), n)});
}

double Ceilings::read(int threads) const {
  const std::byte* base = memory_.raw();
  return streamed(threads, [base](int64_t at, int64_t bytes, int n) { sink = read_loop(base + at, bytes, n); });
}

double Ceilings::update(int threads) {
  std::byte* base = memory_.raw();
  return 2 * streamed(threads, [base](int64_t at, int64_t bytes, int n) { update_loop(base + at, bytes, n); });
}

double Ceilings::copy(int threads) {
  const int64_t part = kMemory / 2 / threads / kPage * kPage;
  std::byte* base = memory_.raw();
  const double t =
      seconds_on(threads, [&](int64_t i) { copy_loop(base + i * part, base + kMemory / 2 + i * part, part); });
  return static_cast<double>(2 * part * threads) / t;
}

double Ceilings::cached(int64_t window, int threads) const {
  window = std::clamp(window / kPage * kPage, kPage, kMemory / threads / kPage * kPage);
  const int64_t passes = std::max<int64_t>(2, (int64_t{64} << 20) / window);
  const auto pass = [&](int64_t i) { sink = read_loop(memory_.raw() + i * window, window, 4); };
  seconds_on(threads, pass);
  const double t = seconds_on(threads, [&](int64_t i) {
    for (int64_t p = 0; p < passes; ++p) pass(i);
  });
  return static_cast<double>(window * passes * threads) / t;
}

}  // namespace sennit::bench

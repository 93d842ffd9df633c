#include <algorithm>
#include <memory>

#include "base/parallel.h"
#include "bench/case.h"
#include "bench/peaks.h"
#include "bench/peer.h"
#include "tensor/tensor.h"

namespace sennit::bench {
namespace {

double median(std::vector<double> x) {
  if (x.empty()) return 0;
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

struct Timed {
  const Case* c;
  std::function<void()> run;
  std::vector<double> floors, times, peers;
};

// Seconds the machine needs at least, by its pace in this moment.
double floor_of(const Case& c, const Tensor& memory) {
  const double compute = c.flops / (c.precision == Precision::bf16 ? peak_bf16_flops() : peak_f32_flops());
  const double transfer = c.bytes > 0 ? c.bytes / peak_read_bytes(memory.raw(), memory.bytes()) : 0;
  return std::max(compute, transfer);
}

}  // namespace

std::vector<Result> run(const std::vector<Case>& cases, const Options& options,
                        const std::function<void(int, int, const std::string&)>& progress) {
  FlushDenormals flush;
  const Tensor memory = Tensor::zeros({64 << 20});  // 256 MiB: beyond the caches
  std::unique_ptr<Peer> peer;
  if (!options.peer_script.empty()) peer = std::make_unique<Peer>(options.peer_script);
  std::vector<Timed> timed;
  for (const Case& c : cases)
    if (c.name.find(options.filter) != std::string::npos) timed.push_back({&c, {}, {}, {}, {}});
  const int total = static_cast<int>(timed.size()) * (options.repeats + 1);
  int done = 0;
  for (int r = -1; r < options.repeats; ++r)  // the first round prepares and warms up
    for (Timed& t : timed) {
      if (progress) progress(done++, total, t.c->name);
      if (!t.run) t.run = t.c->prepare();
      const double floor = floor_of(*t.c, memory), seconds = seconds_of(t.run);
      const double other = peer && !t.c->peer.empty() ? peer->seconds(t.c->peer) : -1;
      if (r < 0) continue;
      t.floors.push_back(floor);
      t.times.push_back(seconds);
      if (other > 0) t.peers.push_back(other);
    }
  std::vector<Result> results;
  for (const Timed& t : timed)
    results.push_back({.name = t.c->name, .floor = median(t.floors), .seconds = median(t.times), .fastest = *std::min_element(t.times.begin(), t.times.end()),
                       .flops = t.c->flops, .bytes = t.c->bytes, .tokens = t.c->tokens, .peer = median(t.peers)});
  return results;
}

}  // namespace sennit::bench

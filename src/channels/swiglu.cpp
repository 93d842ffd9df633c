// GLU Variants Improve Transformer (Shazeer, arXiv:2002.05202), equation 6: y = W_down (silu(W_gate x) * W_up x)
#include "channels/channel.h"
#include "ops/maps.h"

namespace sennit::channels {
namespace {

struct SwiGlu : Channel {
  struct Options {
    int64_t hidden = 0;
    Fields fields() {
      return {{"hidden", &hidden, "width between; 0: 8/3 d_model rounded up to a multiple of 32", {.min = 0, .max = 1 << 20}}};
    }
  };
  static Info info() { return {"SwiGLU", "arXiv:2002.05202"}; }

  SwiGlu(const Dims& d, const Options& o, Rng rng) : width(o.hidden ? o.hidden : (8 * d.d_model / 3 + 31) / 32 * 32) {
    gate = Linear(d.d_model, width, rng.fork("gate"));
    up = Linear(d.d_model, width, rng.fork("up"));
    down = Linear(width, d.d_model, rng.fork("down"), {.scale = d.out_scale});
  }
  Var forward(const Var& x, const Context& c) override { return down(swiglu(gate(x, c), up(x, c)), c); }
  naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const override {
    naive::Matrix g = naive::linear(x, w, "gate");
    const naive::Matrix u = naive::linear(x, w, "up");
    for (size_t i = 0; i < g.a.size(); ++i) g.a[i] = naive::silu(g.a[i]) * u.a[i];
    return naive::linear(g, w, "down");
  }
  int64_t flops(int64_t rows) const override { return rows * width * (6 * down.out() + 2); }
  void visit(const ParameterVisitor& v) override {
    v("gate", gate);
    v("up", up);
    v("down", down);
  }

  int64_t width;
  Linear gate, up, down;
};

}  // namespace

void register_swiglu(Registry<Channel>& r) { r.add<SwiGlu>("swiglu"); }

}  // namespace sennit::channels

// The two-layer network of Attention Is All You Need (Vaswani et al., arXiv:1706.03762), equation 2:
//   y = W_down f(W_up x + b_up) + b_down
#include "channels/channel.h"
#include "nn/activation.h"

namespace sennit::channels {
namespace {

struct Mlp : Channel {
  struct Options {
    int64_t hidden = 0;
    std::string activation = "gelu";
    bool bias = true;
    Fields fields() {
      return {{"hidden", &hidden, "width between; 0: 4 d_model", {.min = 0, .max = 1 << 20}},
              {"activation", &activation, "the function f", {.choices = activation_names()}},
              {"bias", &bias, "learn the shifts b"}};
    }
  };
  static Info info() { return {"Two-layer network", "arXiv:1706.03762"}; }

  Mlp(const Dims& d, const Options& o, Rng rng) : options(o), width(o.hidden ? o.hidden : 4 * d.d_model) {
    up = Linear(d.d_model, width, rng.fork("up"), {.bias = o.bias});
    down = Linear(width, d.d_model, rng.fork("down"), {.bias = o.bias, .scale = d.out_scale});
  }
  Var forward(const Var& x, const Context& c) override { return down(activation(options.activation, up(x, c)), c); }
  naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const override {
    naive::Matrix h = naive::linear(x, w, "up");
    for (double& a : h.a) a = naive::activation(options.activation, a);
    return naive::linear(h, w, "down");
  }
  int64_t flops(int64_t rows) const override { return rows * width * (4 * down.out() + 1); }
  void visit(const ParameterVisitor& v) override {
    v("up", up);
    v("down", down);
  }

  Options options;
  int64_t width;
  Linear up, down;
};

}  // namespace

void register_mlp(Registry<Channel>& r) { r.add<Mlp>("mlp"); }

}  // namespace sennit::channels

// What crosses windows in ScatterFormer (He et al., arXiv:2401.00912, section 3.3; the branches are those of
// InceptionNeXt, arXiv:2303.16900): a quarter of the channels is convolved with 3 by 3 places around a token, a quarter
// with a strip down the plane, a quarter with a strip across it, and the rest stays as it is,
//   y = [K_3x3 conv x_1, K_down conv x_2, K_across conv x_3, x_4]
// All are depthwise, over the tokens that are there: scattered ones, as the batch says, or a line or a grid of them.
// With a two-layer network for its channel mixer a block of it is the paper's cross-window interaction.
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "ops/layout.h"
#include "sequence/place_conv.h"
#include "sequence/windows.h"

namespace sennit::mixers {
namespace {

struct StripConv : Mixer {
  struct Options {
    int64_t strip = 13, columns = 0;
    Fields fields() {
      return {{"strip", &strip, "places that a strip is long: an odd number", {.min = 3, .max = 255}},
              columns_field(&columns)};
    }
  };
  static Info info() {
    return {.title = "Strip convolutions (ScatterFormer)",
            .paper = "arXiv:2401.00912",
            .equation = "y = [K_3x3 conv x_1, K_down conv x_2, K_across conv x_3, x_4]",
            .cost = "O(n d strip)",
            .patterns = {Pattern::bidirectional},
            .no_state = "every token sees those after it",
            .settings = {{"grid", R"({"columns": 6, "strip": 5})"}}};
  }
  StripConv(const Dims& d, const Options& o, Rng rng)
      : width(d.d_model), group(d.d_model / 4), wide(std::max<int64_t>(1, o.columns)) {
    if (o.strip % 2 == 0) fail({"strip_conv", "strips of an odd number of places", fmt::format("{}", o.strip)});
    if (group == 0) fail({"strip_conv", "4 channels or more", fmt::format("{}", width)});
    const int64_t away = o.strip / 2;
    branches[0].reach = {wide, 1, 1}, branches[1].reach = {wide, away, 0}, branches[2].reach = {wide, 0, away};
    for (Branch& b : branches) {
      const double bound = 1 / std::sqrt(static_cast<double>(b.reach.taps()));
      b.taps.init(uniform_init({b.reach.taps(), group}, -bound, bound, rng.fork(b.name)));
      b.taps.decays = false;
    }
  }
  void visit(const ParameterVisitor& p) override {
    for (Branch& b : branches) p(b.name, b.taps);
  }
  StateSpec state_spec() const override { return {}; }
  int64_t grid_columns() const override { return wide; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<StripConv>("strip_conv", batch);
    check_places("strip_conv", wide, batch);
    const Pooled<Place> places = places_of(batch, wide);
    std::vector<Var> parts;
    for (const Branch& b : branches)
      parts.push_back(
          place_conv(columns(x, std::ssize(parts) * group, group), b.taps, b.reach, batch.segments, places));
    parts.push_back(columns(x, 3 * group, width - 3 * group));
    return concat_columns(parts);
  }
  int64_t flops(int64_t n) const override {
    // Pairs of places of an axis that are up to `away` apart.
    const auto pairs = [](int64_t length, int64_t away) {
      int64_t count = length;
      for (int64_t d = 1; d <= away; ++d) count += 2 * std::max<int64_t>(0, length - d);
      return count;
    };
    int64_t all = 0;
    for (const Branch& b : branches) all += pairs(n / wide, b.reach.rows_away) * pairs(wide, b.reach.columns_away);
    return 2 * all * group;
  }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix y = run.x;
    for (int64_t i = 0; i < 3; ++i) {
      const int64_t down = branches[i].reach.rows_away, across = branches[i].reach.columns_away;
      const naive::Matrix& taps = run.w.at(branches[i].name);
      for (int64_t t = 0; t < y.rows; ++t)
        for (int64_t c = 0; c < group; ++c) {
          double& sum = y(t, i * group + c) = 0;
          for (int64_t s = 0; s < y.rows; ++s) {
            const int64_t below = run.place(s, wide).row - run.place(t, wide).row,
                          right = run.place(s, wide).column - run.place(t, wide).column;
            if (std::abs(below) <= down && std::abs(right) <= across)
              sum += taps((below + down) * (2 * across + 1) + right + across, c) * run.x(s, i * group + c);
          }
        }
    }
    return y;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context&) override {
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({width, n, n}), x.value()};
    for (int64_t c = 0; c < width; ++c)
      for (int64_t t = 0; t < n; ++t) {
        float* const row = m.weights.data() + (c * n + t) * n;
        if (c >= 3 * group) {
          row[t] = 1;
          continue;
        }
        const Branch& b = branches[static_cast<size_t>(c / group)];
        each_neighbour(b.reach, t, n, false,
                       [&](int64_t s, int64_t tap) { row[s] = b.taps.value().data()[tap * group + c % group]; });
      }
    return m;
  }

  struct Branch {
    const char* name;
    Neighbours reach = {};
    Parameter taps = {};
  };
  int64_t width, group, wide;
  std::array<Branch, 3> branches = {Branch{"square"}, Branch{"down"}, Branch{"across"}};
};

}  // namespace

void register_strip_conv(Registry<Mixer>& r) {
  r.add<StripConv>("strip_conv");
}

}  // namespace sennit::mixers

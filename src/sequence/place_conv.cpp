#include "sequence/place_conv.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"
#include "ops/count.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kNobody = -1;

// Who stands where each tap of each token looks [N, taps], or nobody.
struct Standing {
  Pooled<int64_t> table;
  int64_t taps, pairs = 0;

  Standing(const Neighbours& reach, std::span<const Segment> segments, std::span<const Place> places)
      : table(places.size() * static_cast<size_t>(reach.taps()), kNobody), taps(reach.taps()) {
    struct Token {
      int64_t row, column, at;
      auto place() const { return std::pair{row, column}; }
      bool operator<(const Token& o) const { return place() < o.place(); }
    };
    Pooled<Token> tokens;
    for (const Segment& s : segments) {
      tokens.clear();
      for (int64_t t = s.begin; t < s.begin + s.length; ++t) tokens.push_back({places[t].row, places[t].column, t});
      std::sort(tokens.begin(), tokens.end());
      for (size_t i = 1; i < tokens.size(); ++i)
        if (tokens[i].place() == tokens[i - 1].place())
          fail({"place_conv", "tokens that stand apart",
                fmt::format("two at ({}, {})", tokens[i].row, tokens[i].column)});
      for (const Token& t : tokens)
        for (int64_t down = -reach.rows_away; down <= reach.rows_away; ++down) {
          const int64_t row = t.row + down, first = t.column - reach.columns_away, wide = 2 * reach.columns_away + 1;
          auto seen = std::lower_bound(tokens.begin(), tokens.end(), Token{row, first, 0});
          for (; seen != tokens.end() && seen->row == row && seen->column < first + wide; ++seen, ++pairs)
            table[static_cast<size_t>(t.at * taps + (down + reach.rows_away) * wide + seen->column - first)] = seen->at;
        }
    }
  }
  int64_t at(int64_t token, int64_t tap) const { return table[static_cast<size_t>(token * taps + tap)]; }
};

// to[t] += sum over taps of w[tap] from[s]. Mirrored, it sends gradients back: who sees s by a tap stands where the
// opposite tap of s looks.
void convolve(const Standing& standing, const Tensor& from, const Tensor& w, bool mirrored, Tensor& to) {
  const int64_t width = from.row_size();
  parallel_for(to.rows(), 64, [&](int64_t b, int64_t e) {
    for (int64_t t = b; t < e; ++t)
      for (int64_t tap = 0; tap < standing.taps; ++tap)
        if (const int64_t s = standing.at(t, tap); s != kNobody)
          kernels::elementwise().multiply_add(from.data() + s * width,
                                              w.data() + (mirrored ? standing.taps - 1 - tap : tap) * width,
                                              to.data() + t * width, width);
  });
}

}  // namespace

Var place_conv(const Var& x, const Var& weights, const Neighbours& reach, std::span<const Segment> segments,
               std::span<const Place> places) {
  SENNIT_CHECK(std::ssize(places) == x.rows() && weights.rows() == reach.taps() && weights.columns() == x.columns(),
               "place_conv: x {}, weights {}, {} places", x.shape().str(), weights.shape().str(), places.size());
  Standing standing(reach, segments, places);
  const int64_t width = x.columns(), flops = 2 * standing.pairs * width;
  count_flops(flops);
  Tensor y = Tensor::zeros(x.shape());
  convolve(standing, x.value(), weights.value(), false, y);
  return record(std::move(y), {x, weights},
                [=, standing = std::move(standing), x = x.value(), w = weights.value()](std::span<const Tensor> dy,
                                                                                        Gradients& into) {
                  count_flops(2 * flops);
                  convolve(standing, dy[0], w, true, into.sum(0));
                  Tensor& dw = into.sum(1);
                  parallel_for(standing.taps, 1, [&](int64_t b, int64_t e) {
                    for (int64_t tap = b; tap < e; ++tap)
                      for (int64_t t = 0; t < x.rows(); ++t)
                        if (const int64_t s = standing.at(t, tap); s != kNobody)
                          kernels::elementwise().multiply_add(dy[0].data() + t * width, x.data() + s * width,
                                                              dw.data() + tap * width, width);
                  });
                });
}

}  // namespace sennit

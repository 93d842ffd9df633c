#pragma once
#include "sequence/plane.h"
#include "support/sequence_cases.h"

// The operations of tokens in a plane, as sequence_cases.h has those of a line.
namespace sennit::cases {

// Causal, on a grid: with a state, so that the first piece starts within a row.
inline Operation plane_conv_case(const std::string& name, const Neighbours& near, bool differences = false) {
  constexpr int64_t kChannels = 5, kPosition = 5;
  const int64_t taps = near.taps(), kept = near.before(), wide = 2 * near.columns_away + 1;
  return {.name = name,
          .shapes =
              [=](int64_t n) {
                return std::vector<Shape>{{n, kChannels}, {taps, kChannels}, {kept, kChannels}};
              },
          .apply =
              [=](const Vars& in) {
                return carried(in[0].rows(), in[2], [&](const Batch& b) {
                  return (differences ? plane_differences : plane_conv)(in[0], in[1], near, b, 0);
                });
              },
          .definition =
              [=](const Matrices& in) {
                int64_t at = kPosition;
                const auto pieces = pieces_of(in[0].rows);
                return defined(in[0].rows, kChannels, in[2], [&](int64_t t, Matrix& state, double* y) {
                  if (t == pieces[1].begin || t == pieces[2].begin) at = 0;
                  Matrix all(kept + 1, kChannels);  // up to this token
                  std::copy(state.a.begin(), state.a.end(), all.a.begin());
                  for (int64_t c = 0; c < kChannels; ++c) all(kept, c) = in[0](t, c);
                  for (int64_t p = std::max<int64_t>(0, at - kept); p <= at; ++p) {
                    const int64_t down = p / near.columns - at / near.columns,
                                  right = p % near.columns - at % near.columns;
                    if (down < -near.rows_away || std::abs(right) > near.columns_away) continue;
                    for (int64_t c = 0; c < kChannels; ++c)
                      y[c] += in[1]((down + near.rows_away) * wide + right + near.columns_away, c) *
                              (all(p - at + kept, c) - (differences ? in[0](t, c) : 0));
                  }
                  std::copy(all.a.begin() + kChannels, all.a.end(), state.a.begin());
                  ++at;
                });
              }};
}

inline std::vector<Operation> plane() {
  return {plane_conv_case("plane_conv", grid_neighbours(4, 1)), plane_conv_case("plane_conv_line", line_neighbours(2)),
          plane_conv_case("plane_differences", grid_neighbours(3, 1), true)};
}

}  // namespace sennit::cases

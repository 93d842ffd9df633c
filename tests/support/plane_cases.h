#pragma once
#include "sequence/place_conv.h"
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

// Tokens in about every second place of six columns.
inline Place scattered_place(int64_t t) {
  const int64_t at = 2 * t + t / 3 % 2;
  return {at / 6, at % 6};
}
inline Operation place_conv_case(const std::string& name, const Neighbours& near) {
  constexpr int64_t kChannels = 5;
  const int64_t wide = 2 * near.columns_away + 1;
  return {.name = name,
          .shapes =
              [=](int64_t n) {
                return std::vector<Shape>{{n, kChannels}, {near.taps(), kChannels}};
              },
          .apply =
              [=](const Vars& in) {
                std::vector<Place> places;
                for (int64_t t = 0; t < in[0].rows(); ++t) places.push_back(scattered_place(t));
                return Vars{place_conv(in[0], in[1], near, whole_segments(in[0].rows()), places)};
              },
          .definition =
              [=](const Matrices& in) {
                Matrix y(in[0].rows, kChannels);
                for (const Piece& piece : pieces_of(y.rows))
                  for (int64_t t = piece.begin; t < piece.begin + piece.length; ++t)
                    for (int64_t s = piece.begin; s < piece.begin + piece.length; ++s) {
                      const Place to = scattered_place(t), from = scattered_place(s);
                      const int64_t down = from.row - to.row, right = from.column - to.column;
                      if (std::abs(down) > near.rows_away || std::abs(right) > near.columns_away) continue;
                      for (int64_t c = 0; c < kChannels; ++c)
                        y(t, c) += in[1]((down + near.rows_away) * wide + right + near.columns_away, c) * in[0](s, c);
                    }
                return Matrices{y};
              }};
}

inline std::vector<Operation> plane() {
  return {place_conv_case("place_conv", {1, 2, 1}), place_conv_case("place_conv_strip", {1, 0, 3}),
          plane_conv_case("plane_conv", grid_neighbours(4, 1)), plane_conv_case("plane_conv_line", line_neighbours(2)),
          plane_conv_case("plane_differences", grid_neighbours(3, 1), true)};
}

}  // namespace sennit::cases

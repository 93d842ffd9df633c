#pragma once
#include "sequence/recurrences.h"
#include "sequence/whole.h"
#include "support/compositions.h"

// Every operation of src/sequence, over three sequences in one batch: one that goes on from a state, one that keeps
// nothing, and one that starts and keeps what it ends with.
namespace sennit::cases {

struct Piece {
  int64_t begin, length;
};
inline std::array<Piece, 3> pieces_of(int64_t n) {
  const int64_t first = n / 2, second = n > first ? 1 : 0;
  return {Piece{0, first}, Piece{first, second}, Piece{first + second, n - first - second}};
}

// Runs an operation over the pieces: its output, and the last states of the first and the third.
template <class Core>
Vars carried(int64_t n, const Var& state, Core&& core) {
  static const Context context;
  const auto p = pieces_of(n);
  SequenceState first, third;
  first.layer(0).set(0, state);
  const Segment segments[] = {{p[0].begin, p[0].length, 5, &first},
                              {p[1].begin, p[1].length, 0, nullptr},
                              {p[2].begin, p[2].length, 0, &third}};
  const Var y = core(Batch{segments, &context});
  return {y, first.layer(0).get(0), third.layer(0).get(0)};
}

// The same by a composition of one piece: whole(begin, length, state) gives its rows and its last state.
template <class Whole>
Vars composed_pieces(int64_t n, const Var& state, Whole&& whole) {
  const auto p = pieces_of(n);
  const Var zeros(Tensor::zeros(state.shape()));
  const Vars a = whole(p[0], state), b = whole(p[1], zeros), c = whole(p[2], zeros);
  const Var ys[] = {a[0], b[0], c[0]};
  return {concat_rows(ys), a[1], c[1]};
}

// And by a definition of one token: step(t, state, y row).
template <class Step>
Matrices defined(int64_t n, int64_t width, const Matrix& state, Step&& step) {
  Matrix y(n, width);
  Matrices states = {state, Matrix(state.rows, state.cols), Matrix(state.rows, state.cols)};
  const auto p = pieces_of(n);
  for (size_t i = 0; i < p.size(); ++i)
    for (int64_t t = p[i].begin; t < p[i].begin + p[i].length; ++t)
      step(t, states[i], &y.a[static_cast<size_t>(t * width)]);
  return {y, states[0], states[2]};
}

constexpr int64_t kHeads = 2, kKey = 5, kValue = 3;
constexpr float kScale = 0.5f;

inline Operation gla_case(const std::string& name, int64_t gates) {
  return {.name = name,
          .shapes =
              [=](int64_t n) {
                return std::vector<Shape>{{n, kHeads * kKey},
                                          {n, kHeads * kKey},
                                          {n, kHeads * kValue},
                                          {gates ? n : 0, gates},
                                          {kHeads, kKey, kValue}};
              },
          .apply =
              [=](const Vars& in) {
                return carried(in[0].rows(), in[4], [&](const Batch& b) {
                  return gla(in[0], in[1], in[2], gates ? in[3] : Var(), b, {.heads = kHeads, .scale = kScale});
                });
              },
          .definition =
              [=](const Matrices& in) {
                return defined(in[0].rows, kHeads * kValue, in[4], [&](int64_t t, Matrix& s, double* y) {
                  for (int64_t h = 0; h < kHeads; ++h)
                    for (int64_t k = 0; k < kKey; ++k)
                      for (int64_t v = 0; v < kValue; ++v) {
                        const double decay = gates ? std::exp(in[3](t, gates == kHeads ? h : h * kKey + k)) : 1;
                        double& cell = s(h, k * kValue + v);
                        cell = decay * cell + in[1](t, h * kKey + k) * in[2](t, h * kValue + v);
                        y[h * kValue + v] += kScale * in[0](t, h * kKey + k) * cell;
                      }
                });
              },
          .ranges = {{-1, 1}, {-1, 1}, {-1, 1}, {-1, 0}, {-1, 1}},
          .composition =
              [=](const Vars& in) {
                const Vars own = {in[0], in[1], in[2], gates ? in[3] : Var()};
                return composed_pieces(in[0].rows(), in[4], [&](Piece p, const Var& s) {
                  return composed::recurrence(p.begin, p.length, s, [&](int64_t t, Var& state) {
                    return composed::gla_step(own, t, state, kHeads, kScale);
                  });
                });
              }};
}

inline Operation delta_case(const std::string& name, bool gated) {
  return {.name = name,
          .shapes =
              [=](int64_t n) {
                return std::vector<Shape>{{n, kHeads * kKey}, {n, kHeads * kKey},      {n, kHeads * kValue},
                                          {n, kHeads},        {gated ? n : 0, kHeads}, {kHeads, kKey, kValue}};
              },
          .apply =
              [=](const Vars& in) {
                return carried(in[0].rows(), in[5], [&](const Batch& b) {
                  return gated_delta(in[0], in[1], in[2], in[3], gated ? in[4] : Var(), b,
                                     {.heads = kHeads, .scale = kScale});
                });
              },
          .definition =
              [=](const Matrices& in) {
                return defined(in[0].rows, kHeads * kValue, in[5], [&](int64_t t, Matrix& s, double* y) {
                  for (int64_t h = 0; h < kHeads; ++h)
                    for (int64_t v = 0; v < kValue; ++v) {
                      const double decay = gated ? std::exp(in[4](t, h)) : 1;
                      double held = 0;
                      for (int64_t k = 0; k < kKey; ++k) held += in[1](t, h * kKey + k) * s(h, k * kValue + v);
                      for (int64_t k = 0; k < kKey; ++k) {
                        double& cell = s(h, k * kValue + v);
                        cell = decay * (cell - in[3](t, h) * in[1](t, h * kKey + k) * held) +
                               in[3](t, h) * in[1](t, h * kKey + k) * in[2](t, h * kValue + v);
                        y[h * kValue + v] += kScale * in[0](t, h * kKey + k) * cell;
                      }
                    }
                });
              },
          .ranges = {{-1, 1}, {-0.7, 0.7}, {-1, 1}, {0, 1}, {-1, 0}, {-1, 1}},
          .composition =
              [=](const Vars& in) {
                const Vars own = {in[0], in[1], in[2], in[3], gated ? in[4] : Var()};
                return composed_pieces(in[0].rows(), in[5], [&](Piece p, const Var& s) {
                  return composed::recurrence(p.begin, p.length, s, [&](int64_t t, Var& state) {
                    return composed::delta_step(own, t, state, kHeads, kScale);
                  });
                });
              }};
}

inline Operation scan_case() {
  constexpr int64_t kChannels = 7, kStates = 4;
  return {.name = "selective_scan",
          .shapes =
              [](int64_t n) {
                return std::vector<Shape>{{n, kChannels}, {n, kChannels}, {kChannels, kStates}, {n, kStates},
                                          {n, kStates},   {kChannels},    {kChannels, kStates}};
              },
          .apply =
              [](const Vars& in) {
                return carried(in[0].rows(), in[6], [&](const Batch& b) {
                  return selective_scan({in[0], in[1], in[2], in[3], in[4], in[5]}, b, 0);
                });
              },
          .definition =
              [](const Matrices& in) {
                return defined(in[0].rows, kChannels, in[6], [&](int64_t t, Matrix& h, double* y) {
                  for (int64_t c = 0; c < kChannels; ++c) {
                    y[c] = in[5](0, c) * in[0](t, c);
                    for (int64_t s = 0; s < kStates; ++s) {
                      h(c, s) = std::exp(in[1](t, c) * in[2](c, s)) * h(c, s) + in[1](t, c) * in[3](t, s) * in[0](t, c);
                      y[c] += in[4](t, s) * h(c, s);
                    }
                  }
                });
              },
          .ranges = {{-1, 1}, {0.01, 1}, {-2, -0.1}, {-1, 1}, {-1, 1}, {-1, 1}, {-1, 1}},
          .composition =
              [](const Vars& in) {
                return composed_pieces(in[0].rows(), in[6], [&](Piece p, const Var& s) {
                  return composed::recurrence(p.begin, p.length, s,
                                              [&](int64_t t, Var& h) { return composed::scan_step(in, t, h); });
                });
              }};
}

inline Operation conv_case(const std::string& name, int64_t width, bool bias) {
  constexpr int64_t kChannels = 70;
  return {.name = name,
          .shapes =
              [=](int64_t n) {
                return std::vector<Shape>{
                    {n, kChannels}, {kChannels, width}, {bias ? kChannels : 0}, {width - 1, kChannels}};
              },
          .apply =
              [=](const Vars& in) {
                return carried(in[0].rows(), in[3],
                               [&](const Batch& b) { return short_conv(in[0], in[1], bias ? in[2] : Var(), b, 0); });
              },
          .definition =
              [=](const Matrices& in) {
                return defined(in[0].rows, kChannels, in[3], [&](int64_t t, Matrix& past, double* y) {
                  for (int64_t c = 0; c < kChannels; ++c) {
                    y[c] = (bias ? in[2](0, c) : 0) + in[1](c, width - 1) * in[0](t, c);
                    for (int64_t j = 0; j + 1 < width; ++j) y[c] += in[1](c, j) * past(j, c);
                    for (int64_t j = 0; j + 2 < width; ++j) past(j, c) = past(j + 1, c);
                    past(width - 2, c) = in[0](t, c);
                  }
                });
              },
          .composition =
              [=](const Vars& in) {
                return composed_pieces(in[0].rows(), in[3], [&](Piece p, const Var& s) {
                  return composed::short_conv(rows(in[0], p.begin, p.length), in[1], bias ? in[2] : Var(), s);
                });
              }};
}

inline Operation rotary_case(const std::string& name, bool interleaved, int64_t dims) {
  const auto segments = [](int64_t n) {
    const auto p = pieces_of(n);
    return std::vector<Segment>{{p[0].begin, p[0].length, 100, nullptr},
                                {p[1].begin, p[1].length, 0, nullptr},
                                {p[2].begin, p[2].length, 3, nullptr}};
  };
  const RotaryOptions o{.heads = 2, .dims = dims, .base = 100, .interleaved = interleaved};
  return {.name = name,
          .shapes =
              [](int64_t n) {
                return std::vector<Shape>{{n, 16}};
              },
          .apply = [=](const Vars& in) { return Vars{rotary(in[0], segments(in[0].rows()), o)}; },
          .definition =
              [=](const Matrices& in) {
                Matrix y = in[0];
                for (const Segment& s : segments(y.rows))
                  for (int64_t t = s.begin; t < s.begin + s.length; ++t)
                    for (int64_t h = 0; h < 2; ++h)
                      for (int64_t i = 0; i < dims / 2; ++i) {
                        const double angle = static_cast<double>(s.position + t - s.begin) *
                                             std::pow(100.0, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
                        const int64_t a = 8 * h + (interleaved ? 2 * i : i), b = a + (interleaved ? 1 : dims / 2);
                        y(t, a) = in[0](t, a) * std::cos(angle) - in[0](t, b) * std::sin(angle);
                        y(t, b) = in[0](t, a) * std::sin(angle) + in[0](t, b) * std::cos(angle);
                      }
                return Matrices{y};
              },
          .composition = [=](const Vars& in) { return Vars{composed::rotary(in[0], segments(in[0].rows()), o)}; }};
}

// Keys and values of two sources would hide nothing new: one source, with a past of 3 keys before the first piece.
inline Operation attention_case(const std::string& name, bool causal, int64_t window, bool slopes) {
  constexpr int64_t kQueryHeads = 4, kDim = 6, kWidth = 3, kPast = 3;
  static const float kSlopes[] = {0.5f, 0.25f, 0.125f, 0.0625f};
  const AttentionOptions o{.heads = kQueryHeads,
                           .kv_heads = 2,
                           .scale = 0.4f,
                           .causal = causal,
                           .window = window,
                           .slopes = slopes ? std::span<const float>(kSlopes) : std::span<const float>()};
  const auto segments = [](int64_t n) {
    const auto p = pieces_of(n);
    std::vector<AttentionSegment> all = {{p[0].begin, p[0].length, 0, 0, kPast + p[0].length, kPast}};
    for (const Piece& q : {p[1], p[2]}) all.push_back({q.begin, q.length, 0, kPast + q.begin, q.length, 0});
    return all;
  };
  return {
      .name = name,
      .shapes =
          [=](int64_t n) {
            return std::vector<Shape>{{n, kQueryHeads * kDim}, {n + kPast, 2 * kDim}, {n + kPast, 2 * kWidth}};
          },
      .apply =
          [=](const Vars& in) {
            return Vars{attention(in[0], std::span(&in[1], 1), std::span(&in[2], 1), segments(in[0].rows()), o)};
          },
      .definition =
          [=](const Matrices& in) {
            Matrix y(in[0].rows, kQueryHeads * kWidth);
            for (const AttentionSegment& s : segments(in[0].rows))
              for (int64_t i = 0; i < s.queries; ++i)
                for (int64_t h = 0; h < kQueryHeads; ++h) {
                  double total = 0;
                  for (const bool adding : {false, true})
                    for (int64_t j = 0; j < s.keys; ++j) {
                      const int64_t distance = i + s.offset - j;
                      if ((causal && distance < 0) || (window && distance >= window)) continue;
                      double score = 0;
                      for (int64_t p = 0; p < kDim; ++p)
                        score +=
                            0.4f * in[0](s.query_begin + i, h * kDim + p) * in[1](s.key_begin + j, h / 2 * kDim + p);
                      const double weight =
                          std::exp(score - (slopes ? kSlopes[h] * std::fabs(static_cast<double>(distance)) : 0));
                      if (!adding) total += weight;
                      for (int64_t p = 0; p < kWidth && adding; ++p)
                        y(s.query_begin + i, h * kWidth + p) +=
                            weight / total * in[2](s.key_begin + j, h / 2 * kWidth + p);
                    }
                }
            return Matrices{y};
          },
      .composition =
          [=](const Vars& in) { return Vars{composed::attention(in[0], in[1], in[2], segments(in[0].rows()), o)}; }};
}

inline std::vector<Segment> whole_segments(int64_t n) {
  std::vector<Segment> all;
  for (const Piece& p : pieces_of(n)) all.push_back({p.begin, p.length, 0, nullptr});
  return all;
}
inline Operation sums_case(const std::string& name, bool softmax) {
  constexpr int64_t kChannels = 9;
  return {.name = name,
          .shapes =
              [](int64_t n) {
                return std::vector<Shape>{{n, kChannels}};
              },
          .apply =
              [=](const Vars& in) {
                const auto segments = whole_segments(in[0].rows());
                return Vars{softmax ? sequence_softmax(in[0], segments) : sequence_sums(in[0], segments)};
              },
          .definition =
              [=](const Matrices& in) {
                Matrix y(in[0].rows, kChannels);
                for (const Piece& p : pieces_of(y.rows))
                  for (int64_t c = 0; c < kChannels; ++c) {
                    double sum = 0;
                    const auto part = [&](int64_t t) { return softmax ? std::exp(in[0](t, c)) : in[0](t, c); };
                    for (int64_t t = p.begin; t < p.begin + p.length; ++t) sum += part(t);
                    for (int64_t t = p.begin; t < p.begin + p.length; ++t) y(t, c) = softmax ? part(t) / sum : sum;
                  }
                return Matrices{y};
              }};
}
inline Operation means_case() {
  constexpr int64_t kChannels = 5;
  return {.name = "sequence_means",
          .shapes = [](int64_t n) { return std::vector<Shape>{{n, kChannels}}; },
          .apply = [](const Vars& in) { return Vars{sequence_means(in[0], whole_segments(in[0].rows()))}; },
          .definition =
              [](const Matrices& in) {
                const auto pieces = pieces_of(in[0].rows);
                return Matrices{made(std::ssize(pieces), kChannels, [&](int64_t i, int64_t c) {
                  const Piece& p = pieces[static_cast<size_t>(i)];
                  double sum = 0;
                  for (int64_t t = p.begin; t < p.begin + p.length; ++t) sum += in[0](t, c);
                  return p.length ? sum / static_cast<double>(p.length) : 0;
                })};
              }};
}
inline Operation whole_products_case() {
  return {.name = "whole_products",
          .shapes =
              [](int64_t n) {
                return std::vector<Shape>{{n, kHeads * kKey}, {n, kHeads * kKey}, {n, kHeads * kValue}};
              },
          .apply =
              [](const Vars& in) {
                return Vars{whole_products(in[0], in[1], in[2], whole_segments(in[0].rows()), kHeads)};
              },
          .definition =
              [](const Matrices& in) {
                Matrix y(in[0].rows, kHeads * kValue);
                for (const Piece& p : pieces_of(y.rows))
                  for (int64_t t = p.begin; t < p.begin + p.length; ++t)
                    for (int64_t s = p.begin; s < p.begin + p.length; ++s)
                      for (int64_t h = 0; h < kHeads; ++h)
                        for (int64_t k = h * kKey; k < (h + 1) * kKey; ++k)
                          for (int64_t v = h * kValue; v < (h + 1) * kValue; ++v)
                            y(t, v) += in[0](t, k) * in[1](s, k) * in[2](s, v);
                return Matrices{y};
              },
          .ranges = {{-1, 1}, {-1, 1}, {-1, 1}}};
}

inline std::vector<Operation> sequence() {
  return {sums_case("sequence_sums", false),
          sums_case("sequence_softmax", true),
          means_case(),
          whole_products_case(),
          gla_case("gla_no_gate", 0),
          gla_case("gla_scalar_gate", kHeads),
          gla_case("gla_vector_gate", kHeads * kKey),
          delta_case("delta", false),
          delta_case("gated_delta", true),
          scan_case(),
          conv_case("short_conv", 4, true),
          conv_case("short_conv_bare", 2, false),
          rotary_case("rotary", false, 8),
          rotary_case("rotary_interleaved_part", true, 4),
          attention_case("attention", true, 0, false),
          attention_case("attention_window", true, 7, false),
          attention_case("attention_slopes", true, 0, true),
          attention_case("attention_bidirectional", false, 0, false)};
}

}  // namespace sennit::cases

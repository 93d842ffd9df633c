#pragma once
#include <cmath>

#include "nn/activation.h"
#include "ops/arithmetic.h"
#include "ops/features.h"
#include "support/compositions.h"
#include "support/operations.h"

// Every operation of src/ops.
namespace sennit::cases {

constexpr int64_t kColumns = 12;

inline std::vector<Shape> one(int64_t n) {
  return {{n, kColumns}};
}
inline std::vector<Shape> two(int64_t n) {
  return {{n, kColumns}, {n, kColumns}};
}

inline Operation map_case(const std::string& name, Var (*f)(const Var&), double (*definition)(double), double low = -4,
                          double high = 4) {
  return {.name = name,
          .shapes = one,
          .apply = [f](const Vars& in) { return Vars{f(in[0])}; },
          .definition = [definition](const Matrices& in) { return Matrices{mapped(in[0], definition)}; },
          .ranges = {{low, high}}};
}

inline std::vector<Operation> maps() {
  using naive::sigmoid, naive::silu, naive::softplus;
  return {map_case("exp", exp, [](double x) { return std::exp(x); }),
          map_case(
              "log", log, [](double x) { return std::log(x); }, 0.5, 3),
          map_case("sigmoid", sennit::sigmoid, sigmoid),
          map_case("log_sigmoid", log_sigmoid, [](double x) { return -softplus(-x); }),
          map_case("silu", sennit::silu, silu),
          map_case("gelu", gelu, [](double x) { return naive::activation("gelu", x); }),
          map_case("gelu_erf", gelu_erf, [](double x) { return naive::activation("gelu_erf", x); }),
          map_case("relu", relu, [](double x) { return std::fmax(x, 0); }),
          map_case("relu2", relu2, [](double x) { return x > 0 ? x * x : 0; }),
          map_case("sine", sine, [](double x) { return std::sin(x); }),
          map_case("tanh", tanh, [](double x) { return std::tanh(x); }),
          map_case("softplus", sennit::softplus, softplus),
          map_case(
              "elu", [](const Var& x) { return activation("elu", x); },
              [](double x) { return x > 0 ? 1 + x : std::exp(x); }),
          {.name = "swiglu",
           .shapes = two,
           .apply = [](const Vars& in) { return Vars{swiglu(in[0], in[1])}; },
           .definition =
               [](const Matrices& in) {
                 return Matrices{zipped(in[0], in[1], [](double g, double u) { return silu(g) * u; })};
               },
           .ranges = {{-4, 4}},
           .composition = [](const Vars& in) { return Vars{multiply(sennit::silu(in[0]), in[1])}; }}};
}

inline Operation pair_case(const std::string& name, Var (*f)(const Var&, const Var&),
                           double (*definition)(double, double)) {
  return {.name = name,
          .shapes = two,
          .apply = [f](const Vars& in) { return Vars{f(in[0], in[1])}; },
          .definition = [definition](const Matrices& in) { return Matrices{zipped(in[0], in[1], definition)}; }};
}

inline std::vector<Operation> arithmetic() {
  const auto with_row = [](int64_t n) { return std::vector<Shape>{{n, kColumns}, {kColumns}}; };
  return {
      pair_case("add", add, [](double a, double b) { return a + b; }),
      pair_case("subtract", subtract, [](double a, double b) { return a - b; }),
      pair_case("multiply", multiply, [](double a, double b) { return a * b; }),
      map_case(
          "affine", [](const Var& x) { return affine(x, -1.5f, 0.25f); }, [](double x) { return -1.5 * x + 0.25; }),
      map_case(
          "scale", [](const Var& x) { return scale(x, 3); }, [](double x) { return 3 * x; }),
      {"add_row", with_row, [](const Vars& in) { return Vars{add_row(in[0], in[1])}; },
       [](const Matrices& in) {
         return Matrices{made(in[0].rows, kColumns, [&](int64_t i, int64_t j) { return in[0](i, j) + in[1](0, j); })};
       }},
      {"multiply_row", with_row, [](const Vars& in) { return Vars{multiply_row(in[0], in[1])}; },
       [](const Matrices& in) {
         return Matrices{made(in[0].rows, kColumns, [&](int64_t i, int64_t j) { return in[0](i, j) * in[1](0, j); })};
       }},
      {"multiply_groups",
       [](int64_t n) {
         return std::vector<Shape>{{n, kColumns}, {n, 3}};
       },
       [](const Vars& in) { return Vars{multiply_groups(in[0], in[1])}; },
       [](const Matrices& in) {
         return Matrices{
             made(in[0].rows, kColumns, [&](int64_t i, int64_t j) { return in[0](i, j) * in[1](i, j / 4); })};
       }},
      {"sum", one, [](const Vars& in) { return Vars{sum(in[0])}; },
       [](const Matrices& in) {
         return Matrices{made(1, 1, [&](int64_t, int64_t) {
           double s = 0;
           for (const double v : in[0].a) s += v;
           return s;
         })};
       }},
      {.name = "mean",
       .shapes = one,
       .apply = [](const Vars& in) { return Vars{mean(in[0])}; },
       .definition =
           [](const Matrices& in) {
             return Matrices{made(1, 1, [&](int64_t, int64_t) {
               double s = 0;
               for (const double v : in[0].a) s += v / static_cast<double>(in[0].a.size());
               return s;
             })};
           },
       .fewest = 1},
      {"sum_rows", one, [](const Vars& in) { return Vars{sum_rows(in[0])}; },
       [](const Matrices& in) {
         return Matrices{made(1, kColumns, [&](int64_t, int64_t j) {
           double s = 0;
           for (int64_t i = 0; i < in[0].rows; ++i) s += in[0](i, j);
           return s;
         })};
       }},
      {"sum_groups", one, [](const Vars& in) { return Vars{sum_groups(in[0], 4)}; },
       [](const Matrices& in) {
         return Matrices{made(in[0].rows, 4, [&](int64_t i, int64_t g) {
           return in[0](i, 3 * g) + in[0](i, 3 * g + 1) + in[0](i, 3 * g + 2);
         })};
       }},
      {"dropout", one, [](const Vars& in) { return Vars{dropout(in[0], 0.25f, 7)}; },
       [](const Matrices& in) {
         Matrix y = in[0];
         for (size_t i = 0; i < y.a.size(); ++i) y.a[i] = Rng(7).uniform_at(i) < 0.25 ? 0 : y.a[i] / 0.75;
         return Matrices{y};
       }}};
}

inline std::vector<int64_t> some_rows(int64_t n) {
  std::vector<int64_t> at;
  for (int64_t i = 0; i < n; ++i) at.push_back(i * i % n), at.push_back(n - 1 - i);
  return at;
}
inline std::vector<int32_t> some_ids(int64_t n, int32_t below) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>((i * i + 3 * i) % below));
  return ids;
}

inline std::vector<Operation> layout() {
  return {
      {"reshape", one,
       [](const Vars& in) {
         return Vars{reshape(in[0], {3, 4 * in[0].rows()})};
       },
       [](const Matrices& in) {
         Matrix y(3, 4 * in[0].rows);
         y.a = in[0].a;
         return Matrices{y};
       }},
      {"rows", one, [](const Vars& in) { return Vars{rows(in[0], in[0].rows() / 3, in[0].rows() / 2)}; },
       [](const Matrices& in) {
         return Matrices{
             made(in[0].rows / 2, kColumns, [&](int64_t i, int64_t j) { return in[0](i + in[0].rows / 3, j); })};
       }},
      {"columns", one, [](const Vars& in) { return Vars{columns(in[0], 3, 7)}; },
       [](const Matrices& in) {
         return Matrices{made(in[0].rows, 7, [&](int64_t i, int64_t j) { return in[0](i, j + 3); })};
       }},
      {"concat_rows",
       [](int64_t n) {
         return std::vector<Shape>{{n, kColumns}, {3, kColumns}, {n, kColumns}};
       },
       [](const Vars& in) { return Vars{concat_rows(in)}; },
       [](const Matrices& in) {
         Matrix y(2 * in[0].rows + 3, kColumns);
         y.a.clear();
         for (const Matrix& m : in) y.a.insert(y.a.end(), m.a.begin(), m.a.end());
         return Matrices{y};
       }},
      {"concat_columns",
       [](int64_t n) {
         return std::vector<Shape>{{n, kColumns}, {n, 1}, {n, kColumns}};
       },
       [](const Vars& in) { return Vars{concat_columns(in)}; },
       [](const Matrices& in) {
         return Matrices{made(in[0].rows, 25, [&](int64_t i, int64_t j) {
           return j < 12 ? in[0](i, j) : j == 12 ? in[1](i, 0) : in[2](i, j - 13);
         })};
       }},
      {"gather_rows", one, [](const Vars& in) { return Vars{gather_rows(in[0], some_rows(in[0].rows()))}; },
       [](const Matrices& in) {
         const auto at = some_rows(in[0].rows);
         return Matrices{made(std::ssize(at), kColumns, [&](int64_t i, int64_t j) { return in[0](at[i], j); })};
       }},
      {"transpose", one, [](const Vars& in) { return Vars{transpose(in[0])}; },
       [](const Matrices& in) {
         return Matrices{made(kColumns, in[0].rows, [&](int64_t i, int64_t j) { return in[0](j, i); })};
       }},
      {"repeat_groups", one, [](const Vars& in) { return Vars{repeat_groups(in[0], 4, 3)}; },
       [](const Matrices& in) {
         return Matrices{made(in[0].rows, 36, [&](int64_t i, int64_t j) { return in[0](i, j / 9 * 3 + j % 3); })};
       }},
      {.name = "embedding",
       .shapes =
           [](int64_t n) {
             return std::vector<Shape>{{n + 1, kColumns}};
           },
       .apply =
           [](const Vars& in) {
             return Vars{embedding(in[0], some_ids(2 * in[0].rows() - 2, static_cast<int32_t>(in[0].rows())))};
           },
       .definition =
           [](const Matrices& in) {
             const auto ids = some_ids(2 * in[0].rows - 2, static_cast<int32_t>(in[0].rows));
             return Matrices{made(std::ssize(ids), kColumns, [&](int64_t i, int64_t j) { return in[0](ids[i], j); })};
           },
       .composition =
           [](const Vars& in) {
             return Vars{
                 composed::embedding(in[0], some_ids(2 * in[0].rows() - 2, static_cast<int32_t>(in[0].rows())))};
           }}};
}

inline Matrix product(const Matrix& a, bool ta, const Matrix& b, bool tb) {
  const int64_t depth = ta ? a.rows : a.cols;
  return made(ta ? a.cols : a.rows, tb ? b.rows : b.cols, [&](int64_t i, int64_t j) {
    double s = 0;
    for (int64_t k = 0; k < depth; ++k) s += (ta ? a(k, i) : a(i, k)) * (tb ? b(j, k) : b(k, j));
    return s;
  });
}

inline std::vector<int32_t> some_targets(int64_t n) {
  std::vector<int32_t> t = some_ids(n, 19);
  for (size_t i = 2; i < t.size(); i += 5) t[i] = -1;
  return t;
}

inline std::vector<Operation> products() {
  std::vector<Operation> all;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      all.push_back({std::string("matmul") + (ta ? "_ta" : "") + (tb ? "_tb" : ""),
                     [=](int64_t n) {
                       return std::vector<Shape>{ta ? Shape{9, n} : Shape{n, 9}, tb ? Shape{20, 9} : Shape{9, 20}};
                     },
                     [=](const Vars& in) { return Vars{matmul(in[0], in[1], {.transpose_a = ta, .transpose_b = tb})}; },
                     [=](const Matrices& in) { return Matrices{product(in[0], ta, in[1], tb)}; }});
  all.push_back({.name = "linear",
                 .shapes =
                     [](int64_t n) {
                       return std::vector<Shape>{{n, kColumns}, {21, kColumns}};
                     },
                 .apply = [](const Vars& in) { return Vars{linear(in[0], in[1])}; },
                 .definition = [](const Matrices& in) { return Matrices{product(in[0], false, in[1], true)}; },
                 .composition = [](const Vars& in) { return Vars{composed::linear(in[0], in[1], {})}; }});
  all.push_back({.name = "linear_bias",
                 .shapes =
                     [](int64_t n) {
                       return std::vector<Shape>{{n, kColumns}, {21, kColumns}, {21}};
                     },
                 .apply = [](const Vars& in) { return Vars{linear(in[0], in[1], in[2])}; },
                 .definition =
                     [](const Matrices& in) {
                       Matrix y = product(in[0], false, in[1], true);
                       for (int64_t i = 0; i < y.rows; ++i)
                         for (int64_t j = 0; j < y.cols; ++j) y(i, j) += in[2](0, j);
                       return Matrices{y};
                     },
                 .composition = [](const Vars& in) { return Vars{composed::linear(in[0], in[1], in[2])}; }});
  all.push_back(
      {.name = "linear_cross_entropy",
       .shapes =
           [](int64_t n) {
             return std::vector<Shape>{{n, kColumns}, {19, kColumns}};
           },
       .apply = [](const Vars& in) { return Vars{linear_cross_entropy(in[0], in[1], some_targets(in[0].rows()))}; },
       .definition =
           [](const Matrices& in) {
             const Matrix z = product(in[0], false, in[1], true);
             const auto targets = some_targets(z.rows);
             double loss = 0, count = 0;
             for (int64_t i = 0; i < z.rows; ++i) {
               if (targets[i] < 0) continue;
               double total = 0;
               for (int64_t j = 0; j < z.cols; ++j) total += std::exp(z(i, j));
               loss += std::log(total) - z(i, targets[i]), ++count;
             }
             return Matrices{made(1, 1, [&](int64_t, int64_t) { return count > 0 ? loss / count : 0; })};
           },
       .ranges = {{-1, 1}, {-1, 1}},
       .composition =
           [](const Vars& in) {
             return Vars{composed::linear_cross_entropy(in[0], in[1], some_targets(in[0].rows()))};
           }});
  return all;
}

// Rows of x by groups, less their mean when asked, over their root mean square (or root of the sum), times w plus b.
inline Matrix normalised(const Matrix& x, int64_t groups, bool centre, bool by_sum, double epsilon, const Matrix* w,
                         const Matrix* b) {
  const int64_t d = x.cols / groups;
  return made(x.rows, x.cols, [&](int64_t i, int64_t j) {
    const int64_t first = j / d * d;
    double mean = 0, square = 0;
    for (int64_t p = 0; p < d && centre; ++p) mean += x(i, first + p) / static_cast<double>(d);
    for (int64_t p = 0; p < d; ++p) square += (x(i, first + p) - mean) * (x(i, first + p) - mean);
    const double y = (x(i, j) - mean) / std::sqrt((by_sum ? square : square / static_cast<double>(d)) + epsilon);
    const auto part = [&](const Matrix* m) { return (*m)(0, m->cols == x.cols ? j : j % d); };
    return y * (w ? part(w) : 1) + (b ? part(b) : 0);
  });
}

inline Operation norm_case(const std::string& name, int64_t groups, int64_t weights, bool centre, bool bias) {
  const NormOptions o{.groups = groups, .epsilon = 0.01f};
  return {.name = name,
          .shapes =
              [=](int64_t n) {
                std::vector<Shape> s = {{n, kColumns}};
                if (weights) s.push_back({weights});
                if (bias) s.push_back({weights});
                return s;
              },
          .apply =
              [=](const Vars& in) {
                const Var w = weights ? in[1] : Var(), b = bias ? in[2] : Var();
                return Vars{centre ? layernorm(in[0], w, b, o) : rmsnorm(in[0], w, o)};
              },
          .definition =
              [=](const Matrices& in) {
                return Matrices{normalised(in[0], groups, centre, false, 0.01f, weights ? &in[1] : nullptr,
                                           bias ? &in[2] : nullptr)};
              },
          .composition =
              [=](const Vars& in) {
                const Var w = weights ? in[1] : Var(), b = bias ? in[2] : Var();
                return Vars{centre ? composed::layernorm(in[0], w, b, o) : composed::rmsnorm(in[0], w, o)};
              }};
}

inline std::vector<Operation> norms() {
  const NormOptions unit{.groups = 3, .epsilon = 0.01f};
  return {norm_case("rmsnorm", 1, kColumns, false, false),
          norm_case("rmsnorm_bare", 1, 0, false, false),
          norm_case("rmsnorm_shared", 3, 4, false, false),
          norm_case("rmsnorm_spanning", 3, kColumns, false, false),
          norm_case("layernorm", 1, kColumns, true, true),
          norm_case("layernorm_bare", 1, 0, true, false),
          norm_case("layernorm_shared", 3, 4, true, true),
          norm_case("layernorm_spanning", 3, kColumns, true, true),
          {.name = "l2norm",
           .shapes = one,
           .apply = [=](const Vars& in) { return Vars{l2norm(in[0], unit)}; },
           .definition =
               [](const Matrices& in) { return Matrices{normalised(in[0], 3, false, true, 0.01f, nullptr, nullptr)}; },
           .composition = [=](const Vars& in) { return Vars{composed::l2norm(in[0], unit)}; }},
          {.name = "softmax",
           .shapes = one,
           .apply = [](const Vars& in) { return Vars{softmax(in[0])}; },
           .definition =
               [](const Matrices& in) {
                 return Matrices{made(in[0].rows, kColumns, [&](int64_t i, int64_t j) {
                   double total = 0;
                   for (int64_t p = 0; p < kColumns; ++p) total += std::exp(in[0](i, p));
                   return std::exp(in[0](i, j)) / total;
                 })};
               },
           .composition = [](const Vars& in) { return Vars{composed::softmax(in[0])}; }},
          {.name = "taylor_features",
           .shapes = one,
           .apply = [](const Vars& in) { return Vars{taylor_features(in[0], 3)}; },
           .definition =
               [](const Matrices& in) {
                 constexpr int64_t kDim = kColumns / 3;
                 Matrix y(in[0].rows, 3 * taylor_count(kDim));
                 for (int64_t i = 0; i < y.rows; ++i)
                   for (int64_t h = 0, at = 0; h < 3; ++h) {
                     const auto x = [&](int64_t c) { return in[0](i, h * kDim + c); };
                     y(i, at++) = 1;
                     for (int64_t a = 0; a < kDim; ++a) y(i, at++) = x(a);
                     for (int64_t a = 0; a < kDim; ++a)
                       for (int64_t b = a; b < kDim; ++b) y(i, at++) = x(a) * x(b) / (a == b ? std::sqrt(2.0) : 1);
                   }
                 return Matrices{y};
               }}};
}

}  // namespace sennit::cases

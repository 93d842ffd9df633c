// implicit_matrix MIXER TOKENS: prints, as JSON, what each token of a random mixer of 64 channels on random rows reads
// of the others: the mean over heads of the absolute implicit matrix or, where a mixer declares none, the size of the
// gradient of a random sum of the token's outputs with respect to each row. scripts/pictures draws it.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "mixers/mixer.h"

namespace {

using namespace sennit;

constexpr int64_t kWidth = 64;

Json from_matrix(const ImplicitMatrix& matrix, int64_t n) {
  const int64_t heads = matrix.weights.shape(0);
  Json rows = Json::array();
  for (int64_t i = 0; i < n; ++i) {
    Json row = Json::array();
    for (int64_t j = 0; j < n; ++j) {
      double mean = 0;
      for (int64_t h = 0; h < heads; ++h)
        mean += std::fabs(matrix.weights.data()[(h * n + i) * n + j]) / static_cast<double>(heads);
      row.push_back(mean);
    }
    rows.push_back(row);
  }
  return rows;
}

Json from_gradients(Mixer& mixer, const Tensor& x, Pattern pattern) {
  const int64_t n = x.rows();
  const Context context;
  const Segment whole[] = {{0, n, 0, nullptr}};
  Rng rng(7);
  Tensor direction({kWidth});
  for (float& v : direction.span()) v = static_cast<float>(rng.normal());
  Json rows = Json::array();
  for (int64_t i = 0; i < n; ++i) {
    const Var in = Var::leaf(x.clone());
    Tensor seed = Tensor::zeros(x.shape());
    seed.slice(i, 1).copy_from(direction.reshape({1, kWidth}));
    backward(mixer.forward(in, {whole, &context, pattern}), seed);
    Json row = Json::array();
    for (int64_t j = 0; j < n; ++j) {
      double square = 0;
      for (const float g : in.grad().slice(j, 1).span()) square += double{g} * g;
      row.push_back(std::sqrt(square));
    }
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return fmt::print(stderr, "usage: implicit_matrix MIXER TOKENS\n"), 2;
  try {
    const int64_t n = std::stoll(argv[2]);
    const Json parsed = Json::parse(argv[1], nullptr, false);
    const Json part = parsed.is_discarded() ? Json(argv[1]) : parsed;
    const auto mixer = mixers::registry().make(part, {.d_model = kWidth}, Rng(5), "command line");
    const std::string name = part.is_string() ? part.get<std::string>() : part.at("name").get<std::string>();
    const Pattern pattern = mixers::registry().find(name, "command line").info.patterns.front();
    // What a token adds of itself would outshine all the rest.
    mixer->parameters([](const std::string& parameter, Parameter& p) {
      if (parameter == "skip") p.init(Tensor::zeros(p.value().shape()));
    });
    Tensor x({n, kWidth});
    Rng rng(6);
    for (float& v : x.span()) v = static_cast<float>(rng.normal());
    const auto matrix = mixer->implicit(Var(x), Context{});
    const Json rows = matrix ? from_matrix(*matrix, n) : from_gradients(*mixer, x, pattern);
    fmt::print("{}\n", json_text(Json{{"by", matrix ? "weight" : "gradient"}, {"rows", rows}}));
    return 0;
  } catch (const std::exception& e) {
    return fmt::print(stderr, "implicit_matrix: {}\n", e.what()), 1;
  }
}

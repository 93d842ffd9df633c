// implicit_matrix MIXER TOKENS: prints, as JSON, the mean over heads of the absolute implicit matrix of a random mixer
// of 64 channels on random rows. scripts/pictures draws it.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "mixers/mixer.h"

int main(int argc, char** argv) {
  using namespace sennit;
  if (argc != 3) return fmt::print(stderr, "usage: implicit_matrix MIXER TOKENS\n"), 2;
  try {
    constexpr int64_t kWidth = 64;
    const int64_t n = std::stoll(argv[2]);
    NoGrad off;
    const auto mixer = mixers::registry().make(
        Json::parse(argv[1], nullptr, false).is_discarded() ? Json(argv[1]) : Json::parse(argv[1]), {.d_model = kWidth},
        Rng(5), "command line");
    // What a token adds of itself would outshine all the rest.
    mixer->parameters([](const std::string& name, Parameter& p) {
      if (name == "skip") p.init(Tensor::zeros(p.value().shape()));
    });
    Tensor x({n, kWidth});
    Rng rng(6);
    for (float& v : x.span()) v = static_cast<float>(rng.normal());
    const auto matrix = mixer->implicit(Var(x), Context{});
    if (!matrix) return fmt::print(stderr, "{} has no implicit matrix\n", argv[1]), 1;
    const int64_t heads = matrix->weights.shape(0);
    Json rows = Json::array();
    for (int64_t i = 0; i < n; ++i) {
      Json row = Json::array();
      for (int64_t j = 0; j < n; ++j) {
        double mean = 0;
        for (int64_t h = 0; h < heads; ++h)
          mean += std::fabs(matrix->weights.data()[(h * n + i) * n + j]) / static_cast<double>(heads);
        row.push_back(mean);
      }
      rows.push_back(row);
    }
    fmt::print("{}\n", rows.dump());
    return 0;
  } catch (const std::exception& e) {
    return fmt::print(stderr, "implicit_matrix: {}\n", e.what()), 1;
  }
}

#include "decoding/embedding.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_file.h"
#include "model/stored_model.h"

namespace sennit {
namespace {

constexpr int64_t kRows = 2048;  // of texts that are read together

std::vector<float> pooled(const Tensor& rows, const Segment& s, const EmbeddingOptions& o) {
  const int64_t d = rows.row_size();
  const int64_t first = o.pooling == Pooling::last ? s.begin + s.length - 1 : s.begin;
  const int64_t end = o.pooling == Pooling::cls ? s.begin + 1 : s.begin + s.length;
  std::vector<double> sums(static_cast<size_t>(d));
  for (int64_t i = first; i < end; ++i)
    for (int64_t c = 0; c < d; ++c) sums[static_cast<size_t>(c)] += rows.data()[i * d + c];
  double scale = 1 / static_cast<double>(end - first), squares = 0;
  for (const double x : sums) squares += x * x;
  if (o.normalize && squares > 0) scale = 1 / std::sqrt(squares);
  std::vector<float> y;
  for (const double x : sums) y.push_back(static_cast<float>(x * scale));
  return y;
}

}  // namespace

Pooling parse_pooling(const std::string& name) {
  if (name == "mean") return Pooling::mean;
  if (name == "cls") return Pooling::cls;
  if (name == "last") return Pooling::last;
  fail({"pooling", "mean, cls or last", name});
}

Pooling stored_pooling(const std::string& path) {
  if (is_gguf(path)) {
    const io::GgufFile file(path);
    const int64_t kind = file.metadata().integer(file.metadata().text("general.architecture") + ".pooling_type", 1);
    if (kind < 0 || kind > 3) fail({"pooling", "a pooling_type from 0 to 3", std::to_string(kind), path});
    return kind == 2 ? Pooling::cls : kind == 3 ? Pooling::last : Pooling::mean;
  }
  const std::string config = path + "/1_Pooling/config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(config, ignored)) return Pooling::mean;
  const Json said = io::read_json_file(config);
  const auto asks = [&](const char* key) { return said.is_object() && said.value(key, Json()) == true; };
  const bool mean = asks("pooling_mode_mean_tokens"), cls = asks("pooling_mode_cls_token"),
             last = asks("pooling_mode_lasttoken");
  if (mean + cls + last != 1) fail({"pooling", "one of mean, cls and last", "another kind, or several", config});
  return cls ? Pooling::cls : last ? Pooling::last : Pooling::mean;
}

std::vector<std::vector<float>> embed(Model& model, const std::vector<std::vector<int32_t>>& texts,
                                      const EmbeddingOptions& options) {
  const NoGrad off;
  std::vector<std::vector<float>> all;
  for (size_t first = 0; first < texts.size();) {
    std::vector<int32_t> tokens;
    std::vector<Segment> segments;
    for (; first < texts.size() && (segments.empty() || std::ssize(tokens) + std::ssize(texts[first]) <= kRows);
         ++first) {
      if (texts[first].empty()) fail({"embed", "at least one token", "none", fmt::format("text {}", first)});
      segments.push_back({std::ssize(tokens), std::ssize(texts[first]), 0, nullptr});
      tokens.insert(tokens.end(), texts[first].begin(), texts[first].end());
    }
    const Tensor rows = model.hidden(tokens, {segments, &options.context}).value();
    for (const Segment& s : segments) all.push_back(pooled(rows, s, options));
  }
  return all;
}

}  // namespace sennit

#include "measure/comparison.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "metrics/run_store.h"
#include "model/checkpoint.h"
#include "train/run_folder.h"

namespace sennit::measure {
namespace {

constexpr size_t kCurvePoints = 240;

// At most kCurvePoints points, each the mean over a window around it of a fortieth of the curve.
Curve smoothed(const Curve& all) {
  std::vector<double> sums = {0};
  for (const auto& p : all) sums.push_back(sums.back() + p.second);
  const size_t points = std::min(kCurvePoints, all.size()), reach = all.size() / 80;
  Curve out;
  for (size_t i = 0; i < points; ++i) {
    const size_t at = points > 1 ? i * (all.size() - 1) / (points - 1) : 0, begin = at - std::min(at, reach),
                 end = std::min(all.size(), at + reach + 1);
    out.push_back({all[at].first, (sums[end] - sums[begin]) / static_cast<double>(end - begin)});
  }
  return out;
}

int64_t integer(const Json& object, const char* key) {
  return object.contains(key) && object.at(key).is_number_integer() ? object.at(key).get<int64_t>() : 0;
}

void read_metrics(const train::RunFolder& folder, RunFacts& f) {
  const Json settings = folder.read_settings();
  const Json options = settings.is_object() ? settings.value("options", Json::object()) : Json::object();
  const double step_tokens = static_cast<double>(std::max<int64_t>(
      1, integer(options, "rows") * integer(options, "length") * std::max<int64_t>(1, integer(options, "accumulate"))));
  if (!std::filesystem::exists(folder.path() + "/metrics.sqlite")) return;
  const metrics::RunStore store(folder.path());
  std::vector<double> rates;
  std::vector<double> clock = {0};  // seconds of training after each step: pauses between sittings do not count
  for (const auto& s : store.series("train/tokens_per_second")) {
    rates.push_back(s.value);
    clock.resize(std::max<size_t>(clock.size(), static_cast<size_t>(s.step) + 1), clock.back());
    clock[static_cast<size_t>(s.step)] += step_tokens / s.value;
  }
  auto curve = [&](const char* name, bool by_seconds) {
    Curve c;
    for (const auto& s : store.series(name))
      if (std::isfinite(s.value))
        c.push_back({by_seconds ? clock[std::min(static_cast<size_t>(s.step), clock.size() - 1)]
                                : static_cast<double>(s.step) * step_tokens,
                     s.value});
    return c;
  };
  f.train_by_tokens = smoothed(curve("train/loss", false)), f.train_by_seconds = smoothed(curve("train/loss", true));
  f.valid_by_tokens = curve("valid/loss", false), f.valid_by_seconds = curve("valid/loss", true);
  const auto bits = store.series("valid/bits_per_byte");
  if (!bits.empty()) f.bits_per_byte = bits.back().value;
  if (!f.valid_by_tokens.empty()) f.valid_loss = f.valid_by_tokens.back().second;
  f.seconds = clock.back();
  if (!rates.empty()) {
    std::nth_element(rates.begin(), rates.begin() + std::ssize(rates) / 2, rates.end());
    f.train_rate = rates[rates.size() / 2];
  }
  f.steps = std::max<int64_t>(folder.last_step(), 0);
  f.tokens = f.steps * static_cast<int64_t>(step_tokens);
}

std::string name_of(const std::string& path) {
  const std::filesystem::path p = std::filesystem::path(path).lexically_normal();
  return (p.has_filename() ? p.filename() : p.parent_path().filename()).string();
}

}  // namespace

const PrefillCost* RunFacts::prefill_at(int64_t length) const {
  for (const PrefillCost& c : inference.prefill)
    if (c.length == length) return &c;
  return nullptr;
}

const DecodeCost* RunFacts::decode_at(int64_t position) const {
  for (const DecodeCost& c : inference.decode)
    if (c.position == position) return &c;
  return nullptr;
}

int64_t RunFacts::state_bytes_at(int64_t length) const {
  for (const auto& [n, bytes] : state_bytes)
    if (n == length) return bytes;
  return 0;
}

RunFacts facts_of(const std::string& path, const CompareOptions& options, const Watch& watch) {
  RunFacts f;
  f.name = name_of(path), f.path = path;
  LoadedModel loaded = load_checkpoint(path);
  f.checkpoint = loaded.path;
  f.model = write_model_spec(loaded.model->spec());
  f.parameters = loaded.model->parameter_count();
  const train::RunFolder folder(path);
  if (folder.begun()) read_metrics(folder, f);
  for (int64_t n = 256; n <= 65536; n *= 2) f.state_bytes.push_back({n, loaded.model->state_bytes(n, options.context.cache)});
  if (!options.measure) return f;
  f.inference = inference_cost(*loaded.model, options.context, options.lengths,
                               [&](const std::string& what) { return !watch || watch(f.name + ": " + what); });
  if (!watch || watch(f.name + ": training step"))
    f.training = training_cost(*loaded.model, options.context, options.rows, options.length);
  return f;
}

Json to_json(const RunFacts& f) {
  Json j{{"name", f.name},
         {"path", f.path},
         {"checkpoint", f.checkpoint},
         {"parameters", f.parameters},
         {"steps", f.steps},
         {"tokens", f.tokens},
         {"train_seconds", f.seconds},
         {"train_tokens_per_second", f.train_rate},
         {"valid_loss", f.valid_loss},
         {"valid_bits_per_byte", f.bits_per_byte}};
  if (f.training)
    j["training_step"] = {
        {"tokens", f.training->tokens}, {"seconds", f.training->seconds}, {"peak_bytes", f.training->peak_bytes}};
  j["prefill"] = Json::array(), j["decode"] = Json::array(), j["state"] = Json::array();
  for (const auto& c : f.inference.prefill)
    j["prefill"].push_back({{"length", c.length}, {"seconds", c.seconds}, {"peak_bytes", c.peak_bytes}});
  for (const auto& c : f.inference.decode)
    j["decode"].push_back({{"position", c.position}, {"seconds", c.seconds}, {"state_bytes", c.state_bytes}});
  for (const auto& [n, bytes] : f.state_bytes) j["state"].push_back({{"tokens", n}, {"bytes", bytes}});
  auto curve = [](const Curve& c) {
    Json points = Json::array();
    for (const auto& [x, y] : c) points.push_back({x, y});
    return points;
  };
  j["curves"] = {{"train_loss_by_tokens", curve(f.train_by_tokens)},
                 {"train_loss_by_seconds", curve(f.train_by_seconds)},
                 {"valid_loss_by_tokens", curve(f.valid_by_tokens)},
                 {"valid_loss_by_seconds", curve(f.valid_by_seconds)}};
  j["model"] = f.model;
  return j;
}

}  // namespace sennit::measure

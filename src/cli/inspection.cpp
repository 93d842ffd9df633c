#include "cli/inspection.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/token_file.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "measure/size.h"
#include "metrics/run_store.h"
#include "model/checkpoint.h"
#include "model/vocabulary.h"
#include "tokenizers/tokenizer.h"
#include "train/run_folder.h"

namespace sennit::cli {
namespace {

namespace fs = std::filesystem;

bool present(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Json stats_of(const Tensor& stored) {
  const Tensor t = stored.to(DType::f32);
  double low = std::numeric_limits<double>::infinity(), high = -low, sum = 0, squares = 0;
  int64_t odd = 0;
  for (const float x : t.span()) {
    if (!std::isfinite(x)) {
      ++odd;
      continue;
    }
    low = std::min<double>(low, x), high = std::max<double>(high, x), sum += x, squares += static_cast<double>(x) * x;
  }
  const double n = static_cast<double>(std::max<int64_t>(1, t.elements() - odd)), mean = sum / n;
  Json s{
      {"min", low}, {"mean", mean}, {"max", high}, {"deviation", std::sqrt(std::max(0.0, squares / n - mean * mean))}};
  if (odd) s["not_finite"] = odd;
  return s;
}

Json tensors_json(const io::Safetensors& file, bool stats) {
  Json all = Json::array();
  for (const std::string& name : file.names()) {
    const io::SafetensorsEntry& e = file.entry(name);
    Json t{{"name", name}, {"dtype", e.dtype}, {"shape", e.shape}, {"bytes", e.end - e.begin}};
    if (stats && (e.dtype == "F32" || e.dtype == "BF16" || e.dtype == "F16")) t.update(stats_of(file.tensor(name)));
    all.push_back(t);
  }
  return all;
}

Json size_json(const ModelSpec& spec, const std::string& path, CacheFormat cache) {
  const measure::ModelSize size(spec, path);
  return {{"parameters", size.parameters()},
          {"parameters_by_part", size.parts()},
          {"blocks", spec.blocks.size()},
          {"state_bytes_at_1k", size.state_bytes(1024, cache)},
          {"state_bytes_at_64k", size.state_bytes(65536, cache)},
          {"flops_per_token_at_1k", size.flops(1024) / 1024}};
}

Json tokenizer_json(const tokenizers::Tokenizer& t) {
  const auto s = t.special();
  return {{"name", t.name()}, {"vocab", t.vocab_size()},
          {"bos", s.bos},     {"eos", s.eos},
          {"unk", s.unk},     {"fingerprint", fmt::format("{:016x}", t.fingerprint())}};
}
Json tokenizer_json(const std::string& path) {
  return tokenizer_json(*tokenizers::load_tokenizer(path));
}

Json tokens_json(const std::string& path) {
  const data::TokenFile file(path);
  file.verify();
  Json j{{"kind", "token file"},
         {"path", path},
         {"tokens", file.tokens()},
         {"documents", file.documents()},
         {"vocab", file.vocab_size()},
         {"end_token", file.end_token()},
         {"tokenizer_fingerprint", fmt::format("{:016x}", file.fingerprint())}};
  const std::string folder = fs::path(path).parent_path().string();
  if (tokenizers::has_tokenizer(folder)) {
    const auto t = tokenizers::load_tokenizer(folder);
    j["fits_the_tokenizer_beside_it"] = t->fingerprint() == file.fingerprint();
    std::vector<int32_t> head(static_cast<size_t>(std::min<int64_t>(file.tokens(), 48)));
    file.read(0, head);
    if (t->fingerprint() == file.fingerprint()) j["begins"] = t->decode(head);
  }
  return j;
}

Json model_json(const Json& file, const std::string& path, CacheFormat cache) {
  const ModelSpec spec = read_model_spec(file, path);
  Json j{{"kind", "model file"}, {"path", path}};
  j.update(size_json(spec, path, cache));
  j["model"] = write_model_spec(spec);
  return j;
}

// A model of another program: what it is of ours, where it is.
void add_foreign(const std::string& path, CacheFormat cache, Json& j) {
  try {
    const StoredModel stored = read_stored_model(path);
    const ModelSpec spec = read_model_spec(stored.model_file, path);
    j["family"] = stored.origin;
    if (stored.context_length) j["context_length"] = stored.context_length;
    if (!stored.unread.empty()) j["settings_not_understood"] = stored.unread;
    for (const TensorUse& u : stored.uses)
      if (u.ours.empty()) j["tensors_not_used"].push_back(u.theirs);
    j.update(size_json(spec, path, cache));
    j["model"] = stored.model_file;
  } catch (const Error& e) {
    j["not_understood"] = e.what();
  }
}

Json gguf_value(const io::GgufValue& v) {
  constexpr size_t kShown = 16;
  return std::visit(
      [&](const auto& items) {
        if (!v.list) return Json(items.at(0));
        if (items.size() <= kShown) return Json(items);
        return Json(fmt::format("{} of {}", items.size(), to_string(v.type)));
      },
      v.items);
}

Json gguf_json(const std::string& path, bool stats, CacheFormat cache) {
  const io::GgufFile file(path);
  Json j{{"kind", "GGUF"}, {"path", path}};
  add_foreign(path, cache, j);
  for (const auto& [key, value] : file.metadata().entries()) j["metadata"][key] = gguf_value(value);
  if (const auto t = tokenizer_of(file.metadata(), path)) j["tokenizer"] = tokenizer_json(*t);
  int64_t bytes = 0;
  j["tensors"] = Json::array();
  for (const io::GgufEntry& e : file.entries()) {
    Json t{{"name", e.name},
           {"dtype", io::layout_of(e.format).name},
           {"shape", Json::array()},
           {"bytes", e.end - e.begin}};
    for (int i = 0; i < e.shape.rank(); ++i) t["shape"].push_back(e.shape[i]);
    if (stats) t.update(stats_of(io::decoded(file.tensor(e.name))));
    bytes += e.end - e.begin;
    j["tensors"].push_back(t);
  }
  j["bytes"] = bytes;
  return j;
}

Json safetensors_json(const std::string& path, bool stats) {
  const io::Safetensors file(path);
  Json j{{"kind", "safetensors"}, {"path", path}};
  int64_t bytes = 0;
  for (const auto& f : file.files()) {
    for (const auto& e : f.entries()) bytes += e.end - e.begin;
    for (const auto& [key, value] : f.metadata()) j["metadata"][key] = value;
  }
  if (j.contains("metadata") && j["metadata"].contains("sennit.states")) j["kind"] = "state file";
  j["bytes"] = bytes;
  j["checksum"] = file.verify() ? "right" : "none";
  j["tensors"] = tensors_json(file, stats);
  return j;
}

Json checkpoint_json(const std::string& folder, bool stats, CacheFormat cache) {
  const std::string config = folder + "/config.json";
  const Json file = io::read_json_file(config, {.max_bytes = 16 << 20, .non_finite = true});
  Json j{{"kind", "checkpoint"}, {"path", folder}};
  if (file.is_object() && file.contains("sennit")) {
    const ModelSpec spec = read_model_spec(file.at("sennit"), config);
    j.update(size_json(spec, config, cache));
    j["model"] = write_model_spec(spec);
  } else {
    add_foreign(folder, cache, j);
    j["config"] = file;
  }
  if (tokenizers::has_tokenizer(folder)) j["tokenizer"] = tokenizer_json(folder);
  const Json weights = safetensors_json(folder, stats);
  for (const char* key : {"bytes", "checksum", "tensors"}) j[key] = weights.at(key);
  return j;
}

Json run_json(const train::RunFolder& folder, bool stats, CacheFormat cache) {
  const Json settings = folder.read_settings();
  Json j{{"kind", "training run"}, {"path", folder.path()}, {"steps_done", folder.last_step()}};
  if (settings.is_object() && settings.contains("data")) j["data"] = settings.at("data");
  if (settings.is_object() && settings.contains("options")) j["options"] = settings.at("options");
  if (present(folder.path() + "/metrics.sqlite")) {
    const metrics::RunStore store(folder.path());
    if (const auto status = store.get("status")) j["status"] = *status;
    for (const std::string& name : store.names())
      if (const auto series = store.series(name); !series.empty()) j["last"][name] = series.back().value;
  }
  if (folder.last_step() > 0) j["checkpoint"] = checkpoint_json(resolve_checkpoint(folder.path()), stats, cache);
  return j;
}

Json folder_json(const std::string& path, bool stats, CacheFormat cache) {
  const train::RunFolder run(path);
  if (run.begun()) return run_json(run, stats, cache);
  if (present(path + "/config.json")) return checkpoint_json(path, stats, cache);
  Json j{{"kind", "token files"}, {"path", path}};
  for (const char* split : {"train", "valid", "test"})
    if (const std::string file = fmt::format("{}/{}.tokens", path, split); present(file)) j[split] = tokens_json(file);
  if (tokenizers::has_tokenizer(path)) {
    if (j.size() == 2) j["kind"] = "tokenizer";
    j["tokenizer"] = tokenizer_json(path);
  }
  if (j.size() == 2)
    fail({"inspect", "a checkpoint, a training run, token files or a tokenizer", "a folder without any", path});
  return j;
}

}  // namespace

Json inspection(const std::string& path, bool stats, CacheFormat cache) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return folder_json(path, stats, cache);
  const std::string head(io::MappedFile::open(path)->text().substr(0, 16)), name = fs::path(path).filename().string();
  if (head.rfind("SNTTOKEN", 0) == 0) return tokens_json(path);
  if (head.rfind("GGUF", 0) == 0) return gguf_json(path, stats, cache);
  if (head.size() > 8 && head[8] == '{' && name.find(".json") == std::string::npos)
    return safetensors_json(path, stats);
  if (name.ends_with(".index.json")) return safetensors_json(path, stats);
  if (name.ends_with(".model") || name.ends_with(".tiktoken") || name == "tokenizer.json" ||
      name == "sennit_tokenizer.json") {
    Json j{{"kind", "tokenizer"}, {"path", path}};
    j.update(tokenizer_json(path));
    return j;
  }
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || head[first] != '{')
    fail({"inspect", "a model file, safetensors, token or state file, or tokenizer", "none of these", path});
  const Json file = io::read_json_file(path);
  return model_json(file.is_object() && file.contains("sennit") ? file.at("sennit") : file, path, cache);
}

report::Table tensor_table(const Json& tensors) {
  const bool stats = std::any_of(tensors.begin(), tensors.end(), [](const Json& t) { return t.contains("min"); });
  report::Table table{{{"tensor"}, {"dtype"}, {"shape"}}, {}};
  if (stats)
    for (const char* title : {"min", "mean", "max", "deviation"}) table.columns.push_back({title, true});
  for (const Json& t : tensors) {
    std::vector<std::string> row = {t.at("name"), t.at("dtype"),
                                    fmt::format("[{}]", fmt::join(t.at("shape").get<std::vector<int64_t>>(), ", "))};
    if (stats)
      for (const char* key : {"min", "mean", "max", "deviation"})
        row.push_back(t.contains(key) ? fmt::format("{:.4g}", t.at(key).get<double>()) : "");
    table.add(row);
  }
  return table;
}

}  // namespace sennit::cli

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/inspection.h"
#include "cli/loaded.h"
#include "cli/progress_bar.h"
#include "report/table.h"

namespace sennit::cli {
namespace {

std::string value_text(const std::string& key, const Json& v) {
  if (v.is_string()) return v.get<std::string>();
  if (!v.is_number()) return json_text(v);
  if (key.find("bytes") != std::string::npos && key != "bytes_per_token") return bytes_text(v.get<double>());
  return v.is_number_float() ? fmt::format("{:.6g}", v.get<double>()) : json_text(v);
}

// Nested objects as indented lines; tensors as a table.
void print(const Json& object, const std::string& indent) {
  for (const auto& [key, value] : object.items()) {
    if (key == "tensors") {
      fmt::print("\n{}", tensor_table(value).text());
    } else if (value.is_object() && key != "model" && key != "config") {
      fmt::print("{}{}:\n", indent, key);
      print(value, indent + "  ");
    } else if (key == "model" || key == "config") {
      fmt::print("{}{}:\n{}\n", indent, key, json_text(value, 1));
    } else if (value.is_array() && !value.empty() && value[0].is_object()) {
      for (const Json& v : value) {
        fmt::print("{}{}:\n", indent, key);
        print(v, indent + "  ");
      }
    } else {
      fmt::print("{}{:<22} {}\n", indent, key, value_text(key, value));
    }
  }
}

struct Inspect {
  std::string path, cache = "f32";
  bool stats = false, json = false;

  int run() const {
    const Json found = inspection(path, stats, parse_cache_format(cache, "--cache"));
    if (json)
      fmt::print("{}\n", json_text(found, 1));
    else
      print(found, "");
    return 0;
  }
};

}  // namespace

void add_inspect(Commands& commands) {
  auto i = std::make_shared<Inspect>();
  CLI::App& app = commands.add("inspect", "Say what a file or folder is and what is in it", [i] { return i->run(); });
  app.add_option("path", i->path,
                 "a checkpoint, Hugging Face folder, GGUF file, training run, model file, safetensors or state file, "
                 "token file, tokenizer, or folder "
                 "of token files")
      ->required();
  app.add_flag("--stats", i->stats, "read every tensor: min, mean, max, deviation");
  ModelChoice::add_cache(app, i->cache);
  add_json_flag(app, i->json);
  app.footer("Example: sennit inspect runs/gla --stats");
}

}  // namespace sennit::cli

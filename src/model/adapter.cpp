#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/tensor_rules.h"
#include "ops/layout.h"
#include "ops/products.h"

namespace sennit {
namespace {

using io::StoredTensor;

constexpr const char* kPrefix = "base_model.model.";

// What adapter_config.json says.
struct Settings {
  double alpha = 1;
  bool root = false;                     // rsLoRA
  std::map<std::string, double> alphas;  // by the end of a module's name

  double scale(const std::string& module, int64_t rank) const {
    double a = alpha;
    for (const auto& [end, value] : alphas)
      if (module == end || module.ends_with("." + end)) a = value;
    return a / (root ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
  }
};

Settings read_settings(const std::string& path) {
  const Json json = io::read_json_file(path);
  Config c(json, path);
  if (c.text("peft_type", "") != "LORA") c.refuse("peft_type", "LORA");
  Settings s{.alpha = c.number("lora_alpha", 8), .root = c.flag("use_rslora", false), .alphas = {}};
  if (c.flag("lora_bias", false)) c.refuse("lora_bias", "false");
  if (const Json* patterns = c.part("alpha_pattern"); patterns && !patterns->empty()) {
    if (!patterns->is_object()) c.refuse("alpha_pattern", "an object");
    for (const auto& [end, value] : patterns->items()) {
      const bool plain = std::all_of(end.begin(), end.end(), [](char x) {
        return std::isalnum(static_cast<unsigned char>(x)) || x == '_' || x == '.';
      });
      if (!plain || !value.is_number()) c.refuse("alpha_pattern", "numbers by the ends of modules' names");
      s.alphas[end] = value.get<double>();
    }
  }
  return s;
}

// What an adapter holds for one tensor of theirs.
struct AdapterPart {
  Tensor a, b, magnitude, whole;
  bool embedding = false;  // A and B make the transposed difference
};

std::map<std::string, AdapterPart> read_parts(const io::Safetensors& file, const std::string& path) {
  std::map<std::string, AdapterPart> parts;
  for (const std::string& full : file.names()) {
    const Tensor stored = file.tensor(full);
    constexpr DType kNumbers[] = {DType::f32, DType::bf16, DType::f16, DType::f64};
    if (std::find(std::begin(kNumbers), std::end(kNumbers), stored.dtype()) == std::end(kNumbers))
      fail({"adapter", fmt::format("`{}` in f32, bf16, f16 or f64", full), to_string(stored.dtype()), path});
    const Tensor t = stored.to(DType::f32);
    const std::string name = full.starts_with(kPrefix) ? full.substr(std::string(kPrefix).size()) : full;
    const size_t at = name.rfind(".lora_");
    if (at == name.npos) {
      parts[name].whole = t;
      continue;
    }
    AdapterPart& p = parts[name.substr(0, at) + ".weight"];
    const std::string kind = name.substr(at + 1);
    if (kind == "lora_A.weight" || kind == "lora_embedding_A")
      p.a = t;
    else if (kind == "lora_B.weight" || kind == "lora_embedding_B")
      p.b = t;
    else if (kind == "lora_magnitude_vector" || kind == "lora_magnitude_vector.weight")
      p.magnitude = t;
    else
      fail({"adapter", "lora_A, lora_B or lora_magnitude_vector of a module", full, path});
    p.embedding |= kind.starts_with("lora_embedding");
  }
  return parts;
}

const TensorRule* find_rule(const std::vector<TensorRule>& rules, const std::string& name) {
  for (const TensorRule& rule : rules)
    for (const std::string& theirs : {rule.theirs, rule.alias})
      if (!theirs.empty() &&
          (theirs == name || theirs.substr(theirs.find('.') + 1) == name || name.substr(name.find('.') + 1) == theirs))
        return &rule;
  return nullptr;
}

// W [out, in] and what the adapter adds, together.
Tensor adapted(const Tensor& w, const AdapterPart& p, const Settings& s, const std::string& name, const std::string& path) {
  const bool fits = p.a && p.b && p.a.shape().rank() == 2 && p.b.shape().rank() == 2 && p.a.rows() == p.b.row_size() &&
                    p.a.rows() > 0;
  const int64_t out = fits ? p.b.rows() : 0, in = fits ? p.a.row_size() : 0;
  if (!fits || (p.embedding ? Shape{in, out} : Shape{out, in}) != w.shape())
    fail({"adapter", fmt::format("A [r, in] and B [out, r] for `{}` {}", name, w.shape().str()),
          p.a && p.b ? fmt::format("{} and {}", p.a.shape().str(), p.b.shape().str()) : "one of them alone", path});
  const NoGrad off;
  Var delta = matmul(Var(p.b), Var(p.a));
  if (p.embedding) delta = transpose(delta);
  Tensor y = w.clone();
  const float scale = static_cast<float>(s.scale(name.substr(0, name.rfind('.')), p.a.rows()));
  for (int64_t i = 0; i < y.elements(); ++i) y.data()[i] += scale * delta.value().data()[i];
  if (!p.magnitude) return y;
  if (p.magnitude.elements() != y.rows())
    fail({"adapter", fmt::format("a magnitude for each of the {} rows of `{}`", y.rows(), name),
          p.magnitude.shape().str(), path});
  for (int64_t i = 0; i < y.rows(); ++i) {
    double squares = 0;
    float* row = y.data() + i * y.row_size();
    for (int64_t j = 0; j < y.row_size(); ++j) squares += double{row[j]} * row[j];
    const double factor = squares > 0 ? p.magnitude.data()[i] / std::sqrt(squares) : 0;
    for (int64_t j = 0; j < y.row_size(); ++j) row[j] = static_cast<float>(row[j] * factor);
  }
  return y;
}

}  // namespace

std::vector<TensorRule> portable_rules(const StoredModel& model) {
  std::map<std::string, Shape> shapes;
  for (const auto& [name, t] : model.tensors) shapes[name] = t.shape;
  const Described d = families::describe(model.model_file, shapes);
  for (const auto& e : families::registry().entries()) {
    const auto family = families::registry().make(e.name, {}, Rng(), model.path);
    try {
      return family->rules(d, Layout::huggingface, family->to_config(d).at("model_type"));
    } catch (const Error&) {
      continue;  // a family that has no place for it
    }
  }
  std::vector<TensorRule> own;
  for (const auto& [name, shape] : shapes) own.push_back({name, {name}});
  return own;
}

std::vector<TensorUse> apply_adapter(StoredModel& model, const std::string& folder) {
  const Settings settings = read_settings(folder + "/adapter_config.json");
  const std::string path = folder + "/adapter_model.safetensors";
  const auto rules = portable_rules(model);
  std::vector<TensorUse> uses;
  for (const auto& [name, part] : read_parts(io::Safetensors(path), path)) {
    const TensorRule* rule = find_rule(rules, name);
    if (!rule) fail({"adapter", "modules that the model has", fmt::format("`{}`", name), path});
    std::vector<StoredTensor> ours;
    std::vector<Shape> shapes;
    for (const std::string& o : rule->ours) ours.push_back(model.tensors.at(o)), shapes.push_back(ours.back().shape);
    StoredTensor changed;
    if (part.whole) {
      changed = io::stored(part.whole);
    } else {
      const bool turned = rule->change == TensorRule::Change::transposed;  // [in, out]: PEFT adapts it as [out, in]
      const NoGrad off;
      const Tensor w = io::decoded(to_theirs(*rule, ours));
      const Tensor y = adapted(turned ? transpose(Var(w)).value() : w, part, settings, name, path);
      changed = io::stored(turned ? transpose(Var(y)).value() : y);
    }
    const auto back = from_theirs(*rule, changed, shapes, path);
    for (size_t i = 0; i < back.size(); ++i) model.tensors[rule->ours[i]] = back[i];
    const std::string how =
        part.whole ? "replaced" : fmt::format("rank {}{}", part.a.rows(), part.magnitude ? ", with magnitudes" : "");
    uses.push_back({name, rule->ours.front() + (rule->ours.size() > 1 ? " and others" : ""), how, "f32"});
  }
  return uses;
}

}  // namespace sennit

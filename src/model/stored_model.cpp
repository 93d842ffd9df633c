#include "model/stored_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/tensor_rules.h"
#include "model/unknown_model.h"
#include "nn/init.h"
#include "products/int8.h"
#include "products/quantized.h"

namespace sennit {
namespace {

namespace fs = std::filesystem;
constexpr const char* kInt8 = "int8";

// Tensors by their own names, of either kind of file.
class Tensors {
 public:
  explicit Tensors(std::shared_ptr<const io::GgufFile> file) : gguf_(std::move(file)) {}
  explicit Tensors(const std::string& folder) : safetensors_(std::make_shared<io::Safetensors>(folder)) {
    safetensors_->verify();
  }

  std::vector<std::string> names() const {
    if (safetensors_) return safetensors_->names();
    std::vector<std::string> all;
    for (const io::GgufEntry& e : gguf_->entries()) all.push_back(e.name);
    return all;
  }
  bool contains(const std::string& name) const {
    return safetensors_ ? safetensors_->contains(name) : gguf_->find(name) != nullptr;
  }
  io::StoredTensor get(const std::string& name, const std::string& where) const {
    if (gguf_) return gguf_->tensor(name);
    const Tensor t = safetensors_->tensor(name);
    if (t.dtype() != DType::f32 && t.dtype() != DType::bf16 && t.dtype() != DType::f16)
      fail({"model", fmt::format("tensor `{}` to be f32, bf16 or f16", name), to_string(t.dtype()), where});
    return io::stored(t);
  }

 private:
  std::shared_ptr<const io::GgufFile> gguf_;
  std::shared_ptr<io::Safetensors> safetensors_;
};

// What a file calls the tensor of a rule: by either name, with or without the prefix before the first dot.
std::string name_in(const Tensors& tensors, const TensorRule& rule) {
  for (const std::string& name : {rule.theirs, rule.alias})
    for (const std::string& form : {name, name.substr(name.find('.') + 1)})
      if (!form.empty() && tensors.contains(form)) return form;
  return rule.theirs;
}

// Finds each rule's tensor, whatever prefix of the known ones the file uses, and takes it apart.
void take_tensors(const Family& family, const std::vector<TensorRule>& rules, const Tensors& tensors,
                  const std::map<std::string, Shape>& shapes, StoredModel& into) {
  std::set<std::string> used;
  std::string missing;
  for (const TensorRule& rule : rules) {
    const std::string name = name_in(tensors, rule);
    if (!tensors.contains(name)) {
      if (missing.empty()) missing = rule.theirs;
      continue;
    }
    used.insert(name);
    std::vector<Shape> wanted;
    for (const std::string& ours : rule.ours) wanted.push_back(shapes.at(ours));
    const io::StoredTensor theirs = tensors.get(name, into.path);
    const auto parts = from_theirs(rule, theirs, wanted, into.path);
    for (size_t i = 0; i < parts.size(); ++i) into.tensors[rule.ours[i]] = parts[i];
    std::string how = to_string(rule.change);
    if (rule.ours.size() > 1) how += how.empty() ? "split" : ", split";
    into.uses.push_back({name, fmt::format("{}", fmt::join(rule.ours, " + ")), how, io::layout_of(theirs.format).name});
  }
  std::string unknown;
  for (const std::string& name : tensors.names()) {
    if (used.count(name)) continue;
    const bool ignored = family.ignores(name);
    into.uses.push_back({name, "", ignored ? "not used: the model does without" : "not used: unknown", ""});
    if (!ignored && unknown.empty()) unknown = name;
  }
  if (!missing.empty())
    fail({"model", fmt::format("a tensor `{}`", missing),
          unknown.empty() ? "none" : fmt::format("none, but an unknown `{}`", unknown), into.path});
}

// Our parameters that no rule names are a fault of the family; rules name each at most once.
void check_rules(const std::vector<TensorRule>& rules, const std::map<std::string, Shape>& shapes) {
  std::set<std::string> named;
  for (const TensorRule& rule : rules)
    for (const std::string& ours : rule.ours)
      SENNIT_CHECK(shapes.count(ours) && named.insert(ours).second, "rule for `{}`", ours);
  SENNIT_CHECK(named.size() == shapes.size(), "{} rules for {} parameters", named.size(), shapes.size());
}

// Fills `model` from a model file in their settings and their tensors.
void read_theirs(const Registry<Family>::Entry& entry, Layout layout, const std::string& target, const Json& model_file,
                 const Tensors& tensors, StoredModel& model) {
  const auto family = families::registry().make(entry.name, {}, Rng(), model.path);
  model.model_file = write_model_spec(read_model_spec(model_file, model.path));
  const auto shapes = parameter_shapes(model.model_file, model.path);
  const auto rules = family->rules(families::describe(model.model_file, shapes), layout, target);
  check_rules(rules, shapes);
  take_tensors(*family, rules, tensors, shapes, model);
}

std::string known_names(Layout layout) {
  std::vector<std::string> all;
  for (const auto& e : families::registry().entries())
    for (const std::string& n : layout == Layout::gguf ? e.info.architectures : e.info.model_types) all.push_back(n);
  return fmt::format("one of {}", fmt::join(all, ", "));
}

void read_ours(const Json& model_file, const Tensors& tensors, StoredModel& model) {
  model.model_file = write_model_spec(read_model_spec(model_file, model.path));
  model.origin = "Sennit";
  std::set<std::string> names;
  for (const auto& [name, shape] : parameter_shapes(model.model_file, model.path)) {
    if (!tensors.contains(name))
      fail({"checkpoint", fmt::format("a tensor `{}` {}", name, shape.str()), "none of that name", model.path});
    model.tensors[name] = tensors.get(name, model.path);
    if (model.tensors[name].shape != shape)
      fail(
          {"checkpoint", fmt::format("`{}` to be {}", name, shape.str()), model.tensors[name].shape.str(), model.path});
    model.uses.push_back({name, name, "", io::layout_of(model.tensors[name].format).name});
    names.insert(name);
  }
  for (const std::string& name : tensors.names())
    if (!names.count(name))
      fail({"checkpoint", "only tensors of the model file", fmt::format("`{}`", name), model.path});
}

StoredModel read_gguf_model(const std::string& path) {
  StoredModel model;
  model.path = path;
  model.gguf = std::make_shared<const io::GgufFile>(path);
  const io::GgufMetadata& m = model.gguf->metadata();
  const std::string target = m.text("general.architecture");
  model.context_length = m.integer(target + ".context_length", 0);
  const Tensors tensors(model.gguf);
  if (target == "sennit") {
    read_ours(io::parse_json(m.text("sennit.model_file"), path + ": sennit.model_file"), tensors, model);
    return model;
  }
  const auto* entry = families::find(Layout::gguf, target);
  if (!entry)
    fail({"GGUF", "general.architecture to be " + known_names(Layout::gguf), target + describe_unknown(*model.gguf), path});
  model.origin = "GGUF " + target;
  read_theirs(*entry, Layout::gguf, target,
              families::registry().make(entry->name, {}, Rng(), path)->from_gguf(*model.gguf), tensors, model);
  return model;
}

StoredModel read_folder(const std::string& path) {
  StoredModel model;
  model.path = path;
  const std::string config_path = path + "/config.json";
  const Json json = io::read_json_file(config_path, {.max_bytes = 16 << 20, .non_finite = true});
  Config config(json, config_path);
  model.context_length = config.integer("max_position_embeddings", 0);
  if (const Json* ours = config.part("sennit")) {
    read_ours(*ours, Tensors(path), model);
    return model;
  }
  const std::string target = config.text("model_type", "");
  const auto* entry = families::find(Layout::huggingface, target);
  if (!entry)
    fail({"config", "`model_type` to be " + known_names(Layout::huggingface),
          (target.empty() ? "none" : target) + describe_unknown(json, Tensors(path).names(), path), config_path});
  model.origin = "Hugging Face " + target;
  const Json model_file = families::registry().make(entry->name, {}, Rng(), path)->from_config(config);
  model.unread = config.unread();
  read_theirs(*entry, Layout::huggingface, target, model_file, Tensors(path), model);
  return model;
}

io::BlockFormat block_format(const std::string& weights) {
  const auto format = io::parse_block_format(weights);
  if (!format) fail({"model", fmt::format("weights as one of {}", fmt::join(weight_forms(), ", ")), weights});
  return *format;
}

}  // namespace

bool is_gguf(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && fs::path(path).extension() == ".gguf";
}

// A model file alone: the weights that training would start from.
StoredModel read_model_file(const std::string& path) {
  Model model(read_model_spec(io::read_json_file(path), path), Rng(1), path);
  StoredModel out{.model_file = write_model_spec(model.spec()),
                  .tensors = {},
                  .path = path,
                  .origin = "a model file, with random weights",
                  .random = true,
                  .uses = {},
                  .unread = {},
                  .gguf = nullptr};
  model.parameters([&](const std::string& name, Parameter& p) { out.tensors[name] = io::stored(p.value()); });
  return out;
}

StoredModel read_stored_model(const std::string& path) {
  if (fs::path(path).extension() == ".json" && fs::is_regular_file(path)) return read_model_file(path);
  return is_gguf(path) ? read_gguf_model(path) : read_folder(resolve_checkpoint(path));
}

std::map<std::string, Shape> parameter_shapes(const Json& model_file, const std::string& where) {
  const BlankInit blank;
  Model model(read_model_spec(model_file, where), Rng(), where);
  std::map<std::string, Shape> shapes;
  model.parameters([&](const std::string& name, Parameter& p) { shapes[name] = p.value().shape(); });
  return shapes;
}

io::BlockFormat matrix_format(io::BlockFormat wanted, bool output, int64_t row) {
  using io::BlockFormat;
  const bool four = wanted == BlockFormat::q4_0 || wanted == BlockFormat::q4_1 || wanted == BlockFormat::q4_k;
  if (output && four) wanted = BlockFormat::q6_k;
  if (row % io::layout_of(wanted).numbers == 0) return wanted;
  const BlockFormat smaller = wanted == BlockFormat::q4_k   ? BlockFormat::q5_0
                              : wanted == BlockFormat::q5_k ? BlockFormat::q5_1
                                                            : BlockFormat::q8_0;
  return row % io::layout_of(smaller).numbers == 0 ? smaller : BlockFormat::f16;
}

std::vector<std::string> weight_forms() {
  std::vector<std::string> names;
  for (const io::BlockFormat f : io::block_formats())
    if (io::is_quantized(f)) names.push_back(io::layout_of(f).name);
  names.push_back(kInt8);
  return names;
}

int64_t kept_bytes(const io::StoredTensor& t, const std::string& weights, bool output) {
  if (io::is_quantized(t.format) || weights.empty()) return io::row_bytes(t.format, t.row_size()) * t.row_count();
  if (weights == kInt8) return Int8Matrix::bytes_of(t.row_count(), t.row_size());
  return io::row_bytes(matrix_format(block_format(weights), output, t.row_size()), t.row_size()) * t.row_count();
}

void set_prefill(StoredModel& stored, const std::string& prefill) {
  const Json part = prefill.front() == '{' ? io::parse_json(prefill, "--prefill") : Json(prefill);
  bool any = false;
  for (Json& block : stored.model_file.at("blocks")) {
    Json& mixer = block.at("mixer");
    if (detail::part_name(mixer, "mixer", stored.path) != "softmax") continue;
    if (mixer.is_string()) mixer = Json{{"name", mixer}};
    mixer["prefill"] = part, any = true;
  }
  if (!any) fail({"prefill", "a block of softmax attention", "none", stored.path});
}

std::unique_ptr<Model> make_model(const StoredModel& stored, const LoadingOptions& options) {
  std::unique_ptr<Model> model;
  {
    const BlankInit blank;
    model = std::make_unique<Model>(read_model_spec(stored.model_file, stored.path), Rng(), stored.path);
  }
  const bool tied = model->spec().tie_embeddings;
  model->parameters([&](const std::string& name, Parameter& p) {
    io::StoredTensor t = stored.tensors.at(name);
    if (!options.weights.empty() && p.quantizable && !io::is_quantized(t.format)) {
      if (options.weights == kInt8) return p.quantize(std::make_shared<Int8Matrix>(t));
      t = io::encoded(t, matrix_format(block_format(options.weights),
                                       name == "head.weight" || (tied && name == "embedding.weight"), t.row_size()));
    }
    if (p.quantizable && io::is_quantized(t.format) && !options.as_floats)
      p.quantize(std::make_shared<QuantizedMatrix>(t));
    else
      p.init(t.format == io::BlockFormat::f32 ? tensor_of(t).clone() : io::decoded(t));
  });
  return model;
}

}  // namespace sennit

#include "model/grouping.h"

#include <fmt/format.h>

#include "base/error.h"
#include "mixers/mixer.h"

namespace sennit {
namespace {

// Rows of heads [from dim, ...] -> [to dim, ...], the means of neighbours.
Tensor pooled_heads(const Tensor& rows, int64_t from, int64_t to) {
  const int64_t times = from / to, head = rows.elements() / from;
  Tensor means = Tensor::zeros(rows.shape().with(0, rows.shape(0) / times));
  for (int64_t h = 0; h < from; ++h)
    for (int64_t i = 0; i < head; ++i)
      means.data()[h / times * head + i] += rows.data()[h * head + i] / static_cast<float>(times);
  return means;
}

Json default_options(const std::string& mixer, const std::string& where) {
  return write_fields(mixers::registry().find(mixer, where).options()->fields());
}

// The part with another mixer's name, less what that one has no option for and softmax attention has as it comes.
Json renamed(const Json& part, const std::string& mixer, const std::string& where) {
  const Json plain = default_options("softmax", where), known = default_options(mixer, where);
  Json other{{"name", mixer}};
  for (const auto& [key, value] : part.items()) {
    if (known.contains(key))
      other[key] = value;
    else if (key != "name" && value != plain.at(key))
      fail({mixer, fmt::format("`{}` as it is by default", key), json_text(value), where});
  }
  return other;
}

}  // namespace

int64_t group_key_heads(StoredModel& model, const GroupingOptions& o) {
  const auto made = make_model(model, {.as_floats = true});
  const Json plain = default_options("softmax", model.path);
  ModelSpec spec = made->spec();
  int64_t changed = 0;
  for (int64_t i = 0; i < std::ssize(spec.blocks); ++i) {
    Json mixer = *spec.blocks[i].mixer;
    if (mixer.at("name") != "softmax") continue;
    const std::string prefix = fmt::format("blocks.{}.mixer.", i);
    const int64_t given = mixer.value("kv_heads", plain.at("kv_heads").get<int64_t>()),
                  from = given ? given : mixer.value("heads", plain.at("heads").get<int64_t>());
    if (o.kv_heads < 1 || from % o.kv_heads)
      fail({"grouping", fmt::format("a divisor of the {} key-value heads of block {}", from, i),
            fmt::format("{}", o.kv_heads), model.path});
    if (mixer.value("qk_norm", false))
      fail({"grouping", "key heads that are not normalised: their mean has another length",
            fmt::format("qk_norm in block {}", i), model.path});
    for (const char* name : {"k.weight", "k.bias", "v.weight", "v.bias"})
      if (const auto t = model.tensors.find(prefix + name); t != model.tensors.end())
        t->second = io::stored(pooled_heads(io::decoded(t->second), from, o.kv_heads));
    mixer["kv_heads"] = o.kv_heads;
    spec.blocks[i].mixer = std::make_shared<Json>(renamed(mixer, o.mixer, model.path));
    ++changed;
  }
  if (!changed) fail({"grouping", "a model with blocks of softmax attention", "none", model.path});
  model.model_file = write_model_spec(spec);
  Model(spec, Rng(0), model.path).parameters([&](const std::string& name, Parameter& p) {
    if (!p.learned) model.tensors.try_emplace(name, io::stored(p.value()));
  });
  return changed;
}

}  // namespace sennit

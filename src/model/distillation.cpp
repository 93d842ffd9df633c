#include "model/distillation.h"

#include <fmt/format.h>

#include "base/error.h"

namespace sennit {

std::vector<DistilledBlock> distill(StoredModel& model, const DistillOptions& options) {
  const auto made = make_model(model, {.as_floats = true});
  ModelSpec spec = made->spec();
  std::vector<DistilledBlock> all;
  for (int64_t i = 0; i < std::ssize(made->blocks()); ++i) {
    const std::vector<Mixer*> mixers = made->blocks()[i]->mixers();
    if (mixers.size() != 1) continue;
    const auto d = mixers[0]->distilled(options);
    if (!d) continue;
    const Json from = *spec.blocks[i].mixer, to = json_of(d->mixer);
    spec.blocks[i].mixer = std::make_shared<Json>(to);  // repeated blocks have one between them
    const std::string prefix = fmt::format("blocks.{}.mixer.", i);
    std::erase_if(model.tensors, [&](const auto& t) { return t.first.starts_with(prefix); });
    for (const auto& [name, tensor] : d->parameters) model.tensors[prefix + name] = io::stored(tensor);
    all.push_back({i, from.at("name"), to.at("name"), d->order, d->left_out});
  }
  if (all.empty()) fail({"distill", "a model with long convolutions (hyena)", "none", model.path});
  model.model_file = write_model_spec(spec);
  return all;
}

}  // namespace sennit

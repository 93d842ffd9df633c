#include "measure/spans.h"

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sennit::measure {

std::vector<size_t> full_blocks(const ModelSpec& spec) {
  std::vector<size_t> full;
  for (size_t b = 0; b < spec.blocks.size(); ++b) {
    const Json& mixer = *spec.blocks[b].mixer;
    if (mixer.at("name") == "softmax" && mixer.value("window", int64_t{0}) == 0) full.push_back(b);
  }
  return full;
}

std::unique_ptr<Model> with_windows(Model& model, const std::vector<size_t>& blocks, const std::set<size_t>& full,
                                    int64_t window) {
  ModelSpec spec = model.spec();
  for (const size_t b : blocks) {
    if (full.contains(b)) continue;
    Json mixer = *spec.blocks[b].mixer;
    mixer["window"] = window;
    spec.blocks[b].mixer = std::make_shared<Json>(std::move(mixer));
  }
  auto other = std::make_unique<Model>(spec, Rng());
  std::map<std::string, Parameter> weights;
  model.parameters([&](const std::string& name, Parameter& p) { weights[name] = p; });
  other->parameters([&](const std::string& name, Parameter& p) {
    const auto it = weights.find(name);
    if (it == weights.end()) fail({"windows", "weights that are floats", "a quantized matrix", name});
    p = it->second;
  });
  return other;
}

std::vector<Placement> place_full_blocks(const std::vector<size_t>& blocks, size_t most, double goal,
                                         const std::function<double(const std::set<size_t>& full)>& loss) {
  std::vector<Placement> steps = {{{}, loss({})}};
  while (steps.back().full.size() < std::min(most, blocks.size()) && steps.back().loss > goal) {
    Placement best{{}, 0};
    for (const size_t b : blocks) {
      std::set<size_t> full = steps.back().full;
      if (!full.insert(b).second) continue;
      const double of_these = loss(full);
      if (best.full.empty() || of_these < best.loss) best = {full, of_these};
    }
    steps.push_back(std::move(best));
  }
  return steps;
}

}  // namespace sennit::measure

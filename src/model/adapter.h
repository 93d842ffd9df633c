#pragma once
#include <functional>
#include <string>
#include <vector>

#include "families/family.h"
#include "model/stored_model.h"

// Low-rank adapters (LoRA, Hu et al., arXiv:2106.09685) as PEFT lays them out: a folder with adapter_config.json and
// adapter_model.safetensors. A weight W [out, in] becomes W + s B A, with s = alpha / r (or alpha / sqrt(r), rsLoRA,
// arXiv:2312.03732); with a magnitude m (DoRA, arXiv:2402.09353) each row is then scaled to the length m says.
namespace sennit {

// Changes the model's tensors to what the adapter makes of them; those become f32. The names are Hugging Face's for
// models that one of our families has a place for, whatever file they come from, else ours. Reports one entry a tensor
// changed. Throws Error naming the module for one that the model does not have, and for kinds of adapter and settings
// that are not known.
std::vector<TensorUse> apply_adapter(StoredModel& model, const std::string& folder);

struct ExtractedAdapter {
  int64_t matrices = 0;  // that differ
  double left_out = 0;   // the largest share of a matrix's difference, by its length, that the rank does not hold
};
// Writes the difference of two models of one shape as an adapter of rank r (or less, where a matrix is smaller) into an
// existing folder. Throws Error where they differ in what is no matrix.
ExtractedAdapter extract_adapter(const StoredModel& base, const StoredModel& tuned, int64_t rank,
                                 const std::string& folder);

// How Hugging Face's files name and lay out the tensors of a model, or ours do.
std::vector<TensorRule> portable_rules(const StoredModel& model);

}  // namespace sennit

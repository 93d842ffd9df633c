#pragma once
#include "families/family.h"

// The settings of rotary embedding in config.json and GGUF, for the families that have it. A position is a part of our
// model file with its defaults filled in.
namespace sennit::families {

// transformers 4 has rope_theta and rope_scaling, transformers 5 rope_parameters.
Json rope_from_config(Config& config);
void rope_to_config(const Json& position, int64_t context_length, Json& config);

Json rope_from_gguf(const io::GgufFile& file, const std::string& architecture);
void rope_to_gguf(const Json& position, const std::string& architecture, io::GgufMetadata& into);
// Factors of the frequencies that GGUF keeps as tensors.
std::vector<io::NamedStored> rope_extras(const Json& position, int64_t head_dim);

}  // namespace sennit::families

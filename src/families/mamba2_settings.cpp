#include "families/mamba2_settings.h"

#include <cmath>

namespace sennit::families {
namespace {

using Value = io::GgufValue;

std::string ours_of(size_t block) {
  return fmt::format("blocks.{}.mixer.", block);
}

}  // namespace

Mamba2Sizes mamba2_sizes(const Described& d, size_t block) {
  const std::string ours = ours_of(block);
  return {d.rows(ours + "in_x.weight"), d.rows(ours + "in_dt.weight"), d.rows(ours + "in_b.weight")};
}

Json mamba2_mixer(int64_t d_model, int64_t heads, int64_t head_dim, int64_t state, int64_t groups, int64_t conv,
                  double epsilon) {
  const double inner = static_cast<double>(heads) * static_cast<double>(head_dim);
  return {{"name", "mamba2"},       {"head_dim", head_dim}, {"state", state},
          {"groups", groups},       {"conv", conv},         {"expand", inner / static_cast<double>(d_model)},
          {"norm_epsilon", epsilon}};
}

void check_time_steps(Config& c) {
  for (const char* at_init : {"time_step_min", "time_step_max", "time_step_floor", "time_step_rank", "chunk_size",
                              "rescale_prenorm_residual", "residual_in_fp32", "mamba_chunk_size"})
    c.part(at_init);
  const Json* limit = c.part("time_step_limit");
  if (!limit) return;
  Json ends = *limit;
  if (ends.is_array() && ends.size() == 2) {
    const Json as_object{{"low", ends[0]}, {"high", ends[1]}};
    Config both(as_object, c.where() + ": time_step_limit");
    if (both.number("low", 0) <= 0 && both.number("high", HUGE_VAL) == HUGE_VAL) return;
  }
  c.refuse("time_step_limit", "from 0 to Infinity");
}

Json mamba2_from_gguf(const io::GgufFile& file, const std::string& architecture, int64_t d_model, double epsilon) {
  const io::GgufMetadata& m = file.metadata();
  const auto key = [&](const char* name) { return architecture + ".ssm." + name; };
  const int64_t heads = m.integer(key("time_step_rank")), inner = m.integer(key("inner_size"));
  if (heads < 1 || inner < 1 || inner % heads)
    fail({"GGUF", fmt::format("`{}` to be a multiple of `{}`", key("inner_size"), key("time_step_rank")),
          fmt::format("{} and {}", inner, heads), file.path()});
  return mamba2_mixer(d_model, heads, inner / heads, m.integer(key("state_size")), m.integer(key("group_count"), 1),
                      m.integer(key("conv_kernel")), epsilon);
}

void mamba2_to_gguf(const Described& d, size_t block, const std::string& architecture, io::GgufMetadata& into) {
  const Json& mixer = d.blocks[block].mixer;
  const Mamba2Sizes size = mamba2_sizes(d, block);
  const std::pair<const char*, int64_t> sizes[] = {{"conv_kernel", mixer.at("conv")},
                                                   {"inner_size", size.inner},
                                                   {"state_size", mixer.at("state")},
                                                   {"time_step_rank", size.heads},
                                                   {"group_count", mixer.at("groups")}};
  for (const auto& [name, n] : sizes)
    into.set(fmt::format("{}.ssm.{}", architecture, name), Value::of(static_cast<uint32_t>(n)));
}

void mamba2_rules(const Described& d, size_t block, const std::string& prefix, Layout layout,
                  std::vector<TensorRule>& all) {
  const bool hf = layout == Layout::huggingface;
  const std::string ours = ours_of(block);
  const Json& mixer = d.blocks[block].mixer;
  const Mamba2Sizes size = mamba2_sizes(d, block);
  const int64_t conv = mixer.at("conv"), groups = mixer.at("groups"), mixed = size.inner + 2 * size.shared;
  std::vector<std::string> in, filters, shifts;
  for (const char* part : {"z", "x", "b", "c", "dt"}) in.push_back(fmt::format("{}in_{}.weight", ours, part));
  for (const char* part : {"x", "b", "c"}) {
    filters.push_back(fmt::format("{}conv_{}.weight", ours, part));
    shifts.push_back(fmt::format("{}conv_{}.bias", ours, part));
  }
  all.push_back({prefix + (hf ? "in_proj.weight" : "in.weight"), in});
  all.push_back({prefix + "conv1d.weight", filters, {}, 0, hf ? Shape{mixed, 1, conv} : Shape{}});
  all.push_back({prefix + "conv1d.bias", shifts});
  all.push_back({prefix + (hf ? "dt_bias" : "dt.bias"), {ours + "in_dt.bias"}});
  all.push_back({prefix + (hf ? "A_log" : "a"),
                 {ours + "log_a"},
                 hf ? TensorRule::Change::none : TensorRule::Change::decay,
                 0,
                 hf ? Shape{} : Shape{size.heads, 1}});
  all.push_back({prefix + (hf ? "D" : "d"), {ours + "skip"}, {}, 0, hf ? Shape{} : Shape{size.heads, 1}});
  all.push_back({prefix + "norm.weight", {ours + "norm"}, {}, 0, hf ? Shape{} : Shape{groups, size.inner / groups}});
  all.push_back({prefix + (hf ? "out_proj.weight" : "out.weight"), {ours + "out.weight"}});
}

}  // namespace sennit::families

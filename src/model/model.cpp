#include "model/model.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/checksum.h"
#include "kernels/loss.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/products.h"
#include "products/weight_form.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kLossRows = 64;  // of logits at a time, where the output map is quantized

Pooled<int32_t> positions_of(const Batch& batch, int64_t most) {
  Pooled<int32_t> all(static_cast<size_t>(batch.rows()));
  for (const Segment& s : batch.segments) {
    if (s.position + s.length > most)
      fail({"model", fmt::format("at most {} tokens, for each of which it has learned a position", most),
            fmt::format("{}", s.position + s.length)});
    for (int64_t t = 0; t < s.length; ++t) all[s.begin + t] = static_cast<int32_t>(s.position + t);
  }
  return all;
}

// A block whose inside is computed again in backward: a function without side effects, so that the values that blocks
// hand up go in and out like the rows, and auxiliary losses come out beside them.
Var checkpointed_block(Block& block, const Var& x, const Batch& batch) {
  std::vector<Var> inputs;
  inputs.push_back(x);
  if (*batch.first_values) inputs.push_back(*batch.first_values);
  const auto hands_up = std::make_shared<bool>(false);
  const auto outputs = checkpoint(
      [&block, batch, hands_up](std::span<const Var> in) {
        Var first = in.size() > 1 ? in[1] : Var();
        std::vector<Var> losses;
        Context context = *batch.context;
        if (context.losses) context.losses = &losses;
        Batch at = batch;
        at.first_values = &first;
        at.context = &context;
        std::vector<Var> out = {block.forward(in[0], at)};
        if (first) out.push_back(first);
        *hands_up = static_cast<bool>(first);
        out.insert(out.end(), losses.begin(), losses.end());
        return out;
      },
      inputs);
  if (*hands_up) *batch.first_values = outputs[1];
  if (auto* losses = batch.context->losses)
    losses->insert(losses->end(), outputs.begin() + (*hands_up ? 2 : 1), outputs.end());
  return outputs[0];
}

}  // namespace

Model::Model(ModelSpec spec, Rng init, const std::string& where) : spec_(std::move(spec)) {
  const int64_t d = spec_.d_model;
  head_ = Linear(d, spec_.vocab, init.fork("head"), {.deviation = spec_.embedding_deviation});
  if (!spec_.tie_embeddings)
    embedding_.init(normal_init({spec_.vocab, d}, spec_.embedding_deviation, init.fork("embedding")));
  embedding_.quantizable = true;
  if (spec_.learned_positions)
    positions_.init(normal_init({spec_.learned_positions, d}, spec_.embedding_deviation, init.fork("positions")));
  if (spec_.token_types)
    types_.init(normal_init({spec_.token_types, d}, spec_.embedding_deviation, init.fork("types")));
  embedding_norm_ = norms::registry().make(*spec_.embedding_norm, {d}, init, where + ": embedding_norm");
  const double out_scale = 1 / std::sqrt(2.0 * static_cast<double>(spec_.blocks.size()));
  Mixer::Shared shared;
  for (size_t i = 0; i < spec_.blocks.size(); ++i) {
    const BlockSpec& b = spec_.blocks[i];
    const Block::Dims dims{.d_model = d,
                           .depth = static_cast<int64_t>(i),
                           .out_scale = out_scale,
                           .mixer = b.mixer.get(),
                           .channel = b.channel.get(),
                           .norm = b.norm.get(),
                           .where = fmt::format("{}: block {}", where, i),
                           .shared = &shared};
    blocks_.push_back(blocks::registry().make(*b.block, dims, init.fork("blocks").fork(i), dims.where));
    slots_.push_back(state_specs_.size());
    for (StateSpec& s : blocks_.back()->state_specs()) state_specs_.push_back(std::move(s));
  }
  norm_ = norms::registry().make(*spec_.norm, {d}, init, where + ": norm");
}

void Model::visit(const ParameterVisitor& v) {
  if (spec_.tie_embeddings)
    v("embedding.weight", head_.weight);
  else
    v("embedding.weight", embedding_), v("head", head_);
  v("positions.weight", positions_);
  v("token_types.weight", types_);
  v("embedding_norm", *embedding_norm_);
  for (size_t i = 0; i < blocks_.size(); ++i) v(fmt::format("blocks.{}", i), *blocks_[i]);
  v("norm", *norm_);
}

void Model::require_causal(const std::string& who) const {
  if (!causal())
    fail({who, "a model that reads from left to right", "one that reads both ways: it embeds texts (run --embed)"});
}

bool Model::wants_whole_prompts() const {
  for (const auto& block : blocks_)
    for (const Mixer* mixer : block->mixers())
      if (mixer->wants_whole_prompts()) return true;
  return false;
}

Var Model::embedded(std::span<const int32_t> tokens, const Batch& batch) const {
  Var x = looked_up(tokens);
  if (spec_.learned_positions) x = add(x, embedding(positions_, positions_of(batch, spec_.learned_positions)));
  if (spec_.token_types) x = add_row(x, reshape(rows(types_, 0, 1), {spec_.d_model}));
  return embedding_norm_->forward(x);
}

Var Model::looked_up(std::span<const int32_t> tokens) const {
  const Parameter& table = spec_.tie_embeddings ? head_.weight : embedding_;
  if (!table.quantized) return embedding(table, tokens);
  Tensor x({std::ssize(tokens), spec_.d_model});
  for (int64_t i = 0; i < x.rows(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= spec_.vocab)
      fail({"embedding", fmt::format("token ids from 0 to {}", spec_.vocab - 1), fmt::format("{}", tokens[i]),
            fmt::format("token {}", i)});
    table.quantized->row(tokens[i], x.data() + i * spec_.d_model);
  }
  return Var(std::move(x));
}

Var Model::hidden(std::span<const int32_t> tokens, const Batch& batch, bool checkpointed) {
  SENNIT_CHECK(batch.rows() == std::ssize(tokens), "{} tokens in a batch of {}", tokens.size(), batch.rows());
  for (const Segment& s : batch.segments)
    if (s.state) require_causal("model");
  if (checkpointed)  // the second run of a block would move the states on twice
    for (const Segment& s : batch.segments) SENNIT_CHECK(!s.state, "checkpointing with carried state");
  Var x = embedded(tokens, batch), first_values;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Batch at = batch.at(slots_[i]);
    at.first_values = &first_values;
    if (!causal()) at.pattern = Pattern::bidirectional;
    if (checkpointed && recording())
      x = checkpointed_block(*blocks_[i], x, at);
    else
      x = blocks_[i]->forward(x, at);
  }
  for (const Segment& s : batch.segments)
    if (s.state) s.state->position = s.position + s.length;
  return norm_->forward(x);
}

Var Model::logits(const Var& hidden, const Context& context) {
  return head_(hidden, context);
}

Var Model::loss(const Var& hidden, std::span<const int32_t> targets, const Context& context, Tensor* losses) {
  if (!head_.weight.quantized) return linear_cross_entropy(hidden, head_.weight, targets, context.precision, losses);
  Tensor each({hidden.rows()});
  double sum = 0, counted = 0;
  for (int64_t first = 0; first < hidden.rows(); first += kLossRows) {
    const int64_t n = std::min(kLossRows, hidden.rows() - first);
    const Var y = logits(rows(hidden.detach(), first, n), context);
    for (int64_t i = first; i < first + n; ++i) {
      const float* row = y.value().data() + (i - first) * spec_.vocab;
      each.data()[i] = targets[i] < 0 ? 0 : kernels::loss().cross_entropy(row, spec_.vocab, targets[i]);
      sum += each.data()[i], counted += targets[i] >= 0;
    }
  }
  if (losses) *losses = each;
  return Var(Tensor::full({1}, counted > 0 ? static_cast<float>(sum / counted) : 0));
}

int64_t Model::state_bytes(int64_t tokens, CacheFormat cache) const {
  int64_t n = 0;
  for (const StateSpec& spec : state_specs_)
    for (const StateField& f : spec) n += f.bytes(tokens, cache);
  return n;
}

int64_t Model::flops(int64_t n) const {
  int64_t total = 2 * n * spec_.vocab * spec_.d_model;
  for (const auto& b : blocks_) total += b->flops(n);
  return total;
}

std::string model_tag(Model& model) {
  io::Xxh64 hash;
  const std::string file = json_text(write_model_spec(model.spec()));
  hash.update(file.data(), file.size());
  model.parameters([&](const std::string&, Parameter& p) { hash.update(p.value().data(), p.value().bytes()); });
  return fmt::format("{:016x}", hash.digest());
}

}  // namespace sennit

#include "sequence/state.h"

#include <algorithm>

#include "base/error.h"
#include "ops/layout.h"

namespace sennit {

const char* to_string(Growth g) {
  return g == Growth::constant ? "constant" : g == Growth::per_token ? "per token" : "window";
}

int64_t StateField::rows(int64_t tokens) const {
  if (growth == Growth::constant) return shape[0];
  return growth == Growth::window ? tokens - rows_dropped(tokens, window) : tokens / every;
}

int64_t StateField::bytes(int64_t tokens, CacheFormat cache) const {
  return kept_shape(tokens, cache).elements() * dtype_bits(kept_dtype(cache)) / 8;
}

Shape StateField::kept_shape(int64_t tokens, CacheFormat cache) const {
  const Shape all = shape.with(0, rows(tokens));
  return heads ? all.with(1, heads * kernels::cached_units(cache, shape[1] / heads)) : all;
}

DType StateField::kept_dtype(CacheFormat cache) const { return heads ? cache_dtype(cache) : DType::f32; }

int64_t rows_dropped(int64_t tokens, int64_t window) {
  constexpr int64_t kRun = 64;
  return std::max<int64_t>(0, tokens - window) / kRun * kRun;
}

const Var& LayerState::get(size_t field) const {
  SENNIT_CHECK(has(field), "state field {}", field);
  return values_[field];
}

void LayerState::set(size_t field, Var value) {
  if (field >= values_.size()) values_.resize(field + 1);
  values_[field] = std::move(value);
}

Tensor LayerState::writable(size_t field, const Shape& shape) const {
  const bool free = has(field) && !recording() && !values_[field].needs_grad() && values_[field].value().unique();
  return free && values_[field].shape() == shape ? values_[field].value() : Tensor(shape);
}

Var LayerState::append(size_t field, const Var& fresh, int64_t window, int64_t heads) {
  const bool rounds = heads > 0 && cache_ != CacheFormat::f32;
  if (rounds && recording())
    fail({"state", "a cache of f32 where gradients are wanted", to_string(cache_)});
  const Var added = rounds ? Var(rounded(fresh.value(), heads, cache_)) : fresh;
  if (field >= values_.size()) values_.resize(field + 1);
  if (field >= buffers_.size()) buffers_.resize(field + 1), starts_.resize(field + 1, 0);
  Var& kept = values_[field];
  Tensor& buffer = buffers_[field];
  const int64_t before = kept ? kept.rows() : 0, after = before + added.rows();
  Var all;
  if (recording()) {
    const Var both[] = {kept, added};
    all = kept ? concat_rows(both) : added;
    buffer = Tensor();
  } else {
    if (!buffer || starts_[field] + after > buffer.rows()) {
      Tensor larger(added.shape().with(0, std::max<int64_t>(64, 2 * after)), added.value().dtype());
      if (before) larger.slice(0, before).copy_from(kept.value());
      buffer = std::move(larger);
      starts_[field] = 0;
    }
    buffer.slice(starts_[field] + before, added.rows()).copy_from(added.value());
    all = Var(buffer.slice(starts_[field], after));
  }
  const int64_t drop = window > 0 ? rows_dropped(after, window) : 0;  // `after` counts from a multiple of the run
  kept = drop ? rows(all, drop, after - drop) : all;
  starts_[field] += drop;
  return all;
}

void LayerState::truncate(size_t field, int64_t count) {
  if (has(field) && values_[field].rows() > count) values_[field] = rows(values_[field], 0, count);
}

void LayerState::detach() {
  for (Var& v : values_) v = v.detach();
}

LayerState LayerState::clone() const {
  LayerState copy(cache_);
  for (const Var& v : values_) copy.values_.emplace_back(v ? Var(v.value().clone()) : Var());
  return copy;
}

LayerState& SequenceState::layer(size_t slot) {
  if (slot >= layers_.size()) layers_.resize(slot + 1, LayerState(cache_));
  return layers_[slot];
}

SequenceState SequenceState::clone() const {
  SequenceState copy(cache_);
  copy.position = position;
  for (const LayerState& l : layers_) copy.layers_.push_back(l.clone());
  return copy;
}

void SequenceState::detach() {
  for (LayerState& l : layers_) l.detach();
}

int64_t SequenceState::bytes() const {
  int64_t n = 0;
  for (const LayerState& l : layers_)
    for (size_t f = 0; f < l.size(); ++f) n += l.has(f) ? l.get(f).value().bytes() : 0;
  return n;
}

}  // namespace sennit

#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "autograd/var.h"
#include "sequence/cache.h"

// What is kept of a sequence between one segment of it and the next.
namespace sennit {

enum class Growth {
  constant,   // one array a sequence
  per_token,  // a row a token, or a row for every so many: StateField::every
  window      // a row a token, at least the last `window` of them: see rows_dropped()
};
const char* to_string(Growth growth);

// One part of what a layer keeps of a sequence. For Growth::constant `shape` is the whole array, else one row of it.
struct StateField {
  std::string name;
  Shape shape;
  Growth growth = Growth::constant;
  int64_t window = 0;  // for Growth::window
  int64_t every = 1;   // for Growth::per_token: a row for each whole run of that many tokens
  int64_t heads = 0;   // keys or values of so many heads, which a cache keeps in its format; 0: always f32

  int64_t rows(int64_t tokens) const;  // after that many tokens; shape[0] where it does not grow
  int64_t bytes(int64_t tokens, CacheFormat cache = CacheFormat::f32) const;
  Shape kept_shape(int64_t tokens, CacheFormat cache) const;  // of the tensor then, and its type
  DType kept_dtype(CacheFormat cache) const;
};
using StateSpec = std::vector<StateField>;

// How many of the first `tokens` rows a window has let go: whole runs of 64, so that what is left starts at a multiple of
// 64 and kernels that work in blocks of keys meet the same blocks however a sequence was cut.
int64_t rows_dropped(int64_t tokens, int64_t window);

// What one layer keeps of one sequence: a value per field of its spec, undefined until first set. Values are Vars, so
// that gradients flow from one segment of a sequence to the one before; detach() cuts there.
class LayerState {
 public:
  explicit LayerState(CacheFormat cache = CacheFormat::f32) : cache_(cache) {}

  const Var& get(size_t field) const;
  bool has(size_t field) const { return field < values_.size() && values_[field].defined(); }
  void set(size_t field, Var value);

  // A buffer for a field's next value: the present one when it may be overwritten (nothing recorded and nobody else
  // holds it), else a new one.
  Tensor writable(size_t field, const Shape& shape) const;
  // Appends rows to a growing field and returns all that the field then holds. Without recording it writes into spare
  // capacity, so that a long run of tokens moves little; with recording it concatenates. With `window` > 0 the rows that
  // it lets go leave what is kept afterwards, not what is returned. Rows of `heads` > 0 are kept, and returned, in the
  // cache's format, each rounded as it comes; throws Error for one of few bits while operations are recorded.
  Var append(size_t field, const Var& rows, int64_t window = 0, int64_t heads = 0);
  // Forgets all but the first `count` rows of a growing field.
  void truncate(size_t field, int64_t count);

  void detach();
  LayerState clone() const;
  size_t size() const { return values_.size(); }

 private:
  std::vector<Var> values_;
  std::vector<Tensor> buffers_;  // the capacity behind growing fields
  std::vector<int64_t> starts_;  // the first live row in each buffer
  CacheFormat cache_;
};

// Everything a model keeps of one sequence. Moved, never copied by accident: clone() makes an independent snapshot.
class SequenceState {
 public:
  explicit SequenceState(CacheFormat cache = CacheFormat::f32) : cache_(cache) {}
  SequenceState(SequenceState&&) = default;
  SequenceState& operator=(SequenceState&&) = default;

  int64_t position = 0;  // tokens seen

  CacheFormat cache() const { return cache_; }  // of keys and values
  LayerState& layer(size_t slot);
  std::vector<LayerState>& layers() { return layers_; }
  const std::vector<LayerState>& layers() const { return layers_; }
  SequenceState clone() const;
  void detach();
  int64_t bytes() const;  // of the live values

 private:
  std::vector<LayerState> layers_;
  CacheFormat cache_;
};

}  // namespace sennit

#pragma once
#include <array>
#include <map>
#include <memory>
#include <optional>

#include "base/registry.h"
#include "nn/linear.h"
#include "nn/naive.h"
#include "sequence/batch.h"

namespace sennit {

struct MixerInfo {
  std::string title, paper;
  std::string equation;            // the recurrence or sum, in one line
  std::string cost;                // of n tokens, in words: "O(n^2 d)"
  std::vector<Pattern> patterns = {Pattern::causal};
  // Why a sequence must be there whole, for a causal mixer that cannot go on from a state; "" when it can.
  std::string no_state = "";
  // Options worth a name of their own, as JSON: older papers that are settings of this one.
  std::vector<std::pair<std::string, std::string>> settings = {};
};

// Which blocks of keys a mixer that chooses among them took for a query. Near ties fall differently in float and in double,
// so whoever is asked first, forward() or naive(), decides, and who comes later follows.
struct Choices {
  using Query = std::array<int64_t, 3>;  // segment of the batch, group of heads that choose together, place in the sequence
  std::map<Query, std::vector<int32_t>> blocks;   // ascending
  std::map<Query, std::vector<double>> scores;    // by naive(), of every block; inf: always taken, -inf: never
};

// The operands of the definition: one sequence (or the next piece of it) in double.
struct NaiveRun {
  const naive::Weights& w;
  const naive::Matrix& x;  // [T, d_model]
  Pattern pattern = Pattern::causal;
  int64_t position = 0;                          // of row 0
  const naive::Matrix* memory = nullptr;         // [M, d_model], for Pattern::cross
  std::map<std::string, naive::Matrix> state{};  // by field name, [shape[0], rest] or [tokens, row]; absent: fresh. In and out.
  std::span<const Place> places{};  // of the rows, where they are scattered over a plane
  Place place(int64_t t, int64_t columns) const {  // or in a plane that rows of `columns` tokens fill
    return places.empty() ? Place{t / columns, t % columns} : places[static_cast<size_t>(t)];
  }
  double* auxiliary = nullptr;      // when given, the sum of the auxiliary losses of forward() with Context::losses goes there
};

// A mixer's output as explicit matrices: core_h = weights_h values_h for each head, and y = output(x, core).
struct ImplicitMatrix {
  Tensor weights;  // [heads, T, T]
  Tensor values;   // [T, heads dv]
};

// A mixer of long filters as one of small recurrences, that says nearly the same.
struct DistillOptions {
  int64_t order = 16;    // numbers of state of a filter, at most
  double tolerance = 0;  // the singular value that may be left out, as a share of the largest: fewer where this is enough
};
struct Distilled {
  std::string mixer;  // its name and options, as JSON
  std::map<std::string, Tensor> parameters;
  int64_t order = 0;    // the largest of a filter
  double left_out = 0;  // the largest share of a filter's length, in squares, that its modes do not hold
};

// A token mixer: y [N, d] = forward(x [N, d], batch), the only thing that moves information between tokens.
class Mixer : public Module {
 public:
  using Info = MixerInfo;
  // Parameters that mixers of several blocks have in common. The first that asks for one makes and visits it.
  using Shared = std::map<std::string, std::shared_ptr<Parameter>>;
  struct Dims {
    int64_t d_model;
    int64_t depth = 0;      // how many blocks stand below
    double out_scale = 1;  // of the last map's initial weights: less than 1 keeps a deep residual stream level
    Shared* shared = nullptr;  // of the model; nullptr for a mixer by itself
  };
  // Throws Error when check_batch() of info() does.
  virtual Var forward(const Var& x, const Batch& batch) = 0;
  virtual StateSpec state_spec() const = 0;
  bool rewinds() const;  // whether its state can be cut back to fewer tokens; otherwise that needs a snapshot
  virtual naive::Matrix naive(NaiveRun& run) const = 0;
  // Operations of forward over one fresh sequence of n tokens in the first of its patterns (of products, scans and
  // attention; maps and norms are within a tenth of it at ordinary widths).
  virtual int64_t flops(int64_t n) const = 0;
  // In any of its patterns, with `memory` rows to look at across.
  virtual int64_t pattern_flops(Pattern /*pattern*/, int64_t n, int64_t /*memory*/) const { return flops(n); }

  // Tokens of the longest sequence that it reads, where its option `length` says so; 0: any.
  virtual int64_t longest() const { return 0; }
  // Of the grid that a sequence is, where it is one and not a line: a bidirectional batch holds whole rows of it.
  virtual int64_t grid_columns() const { return 1; }

  // Over one fresh sequence x [T, d] in the first of its patterns; nullopt where none exists.
  virtual std::optional<ImplicitMatrix> implicit(const Var& /*x*/, const Context&) { return std::nullopt; }
  virtual Var output(const Var& /*x*/, const Var& core, const Context&) { return core; }

  // Its filters as few modes; nullopt where it has none.
  virtual std::optional<Distilled> distilled(const DistillOptions&) { return std::nullopt; }

  // Whether what it reads is chosen by the data, at a jump. `choices`, where set, is filled or followed.
  virtual bool chooses() const { return false; }
  Choices* choices = nullptr;

  // Whether it reads a prompt faster, or otherwise, when all of it comes at once.
  virtual bool wants_whole_prompts() const { return false; }

  // Whether an auxiliary loss trains a parameter, and nothing else does; such a loss trains no other.
  virtual bool taught(const std::string& /*parameter*/) const { return false; }
};

namespace mixers {
Registry<Mixer>& registry();
// Throws Error when the batch's pattern is none of the mixer's, or a segment has a state where none can be kept: in a
// bidirectional batch, or where info.no_state says why.
void check_batch(const MixerInfo& info, const char* name, const Batch& batch);
template <class M>
void check_batch(const char* name, const Batch& batch) {
  static const MixerInfo info = M::info();
  check_batch(info, name, batch);
}
// The option of mixers whose tokens may lie in a plane, and what such a mixer asks of a bidirectional batch: throws
// Error when a sequence ends within a row, or when tokens are scattered and do not fill their grid.
Field columns_field(int64_t* columns);
void check_grid(const char* name, int64_t columns, const Batch& batch);
// The same of mixers that also know what to do with scattered tokens: each must have a place.
void check_places(const char* name, int64_t columns, const Batch& batch);
}  // namespace mixers

}  // namespace sennit

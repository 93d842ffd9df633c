#include "sequence/cells.h"

#include <limits>
#include <utility>

#include "base/error.h"
#include "ops/count.h"
#include "products/product.h"
#include "sequence/carry.h"
#include "sequence/cell_sheets.h"
#include "sequence/per_head.h"

namespace sennit {
namespace {

constexpr int64_t kPackedSteps = 8;  // from which on the matrix is packed, which costs as much as about four

class CellsForward {
 public:
  CellsForward(const CellSheets& sheets, const Tensor& x, const Tensor& r, Carry& carry, Tensor& y)
      : s_(sheets), x_(x), r_(r), carry_(carry), y_(y), split_(s_.threads_share_channels()) {
    if (s_.steps.count() >= kPackedSteps) pack();
    begin();
  }
  void run() {
    s_.deal(split_, s_.steps.count() * s_.kind.layers, [this](const CellShare& share, int64_t stage) {
      const int64_t t = stage / s_.kind.layers, layer = stage % s_.kind.layers;
      feed(share, t, layer);
      advance(share, t, layer);
    });
  }

 private:
  // The columns of a layer's gates side by side, or where threads share channels those of each gate by themselves.
  void pack() {
    const kernels::Feedback& k = kernels::feedback();
    int64_t floats = 0;
    each_block([&](int64_t gate, int64_t columns) {
      offset_[gate] = floats;
      floats += k.packed_floats(s_.dim, columns);
    });
    panels_ = Tensor({s_.heads, floats});
    each_block([&, this](int64_t gate, int64_t columns) {
      const int64_t each = (columns + k.columns - 1) / k.columns;
      parallel_for(s_.heads * each, 1, [&, this](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) {
          const int64_t head = i / each, at = i % each * k.columns;
          k.pack(matrix(head, gate, at), s_.gates_size(), s_.dim, std::min(k.columns, columns - at),
                 panels(head, gate, at));
        }
      });
    });
  }
  // Calls body(gate, columns) for the columns that are packed together, from those of a gate on.
  template <class Body>
  void each_block(Body&& body) const {
    for (int64_t layer = 0; layer < s_.kind.layers; ++layer) {
      const auto [first, gates] = s_.kind.layer[layer];
      for (int64_t g = 0; g < gates; g += split_ ? 1 : gates) body(first + g, split_ ? s_.dim : gates * s_.dim);
    }
  }
  const float* matrix(int64_t head, int64_t gate, int64_t at) const {
    return r_.data() + head * s_.matrix_size() + gate * s_.dim + at;
  }
  float* panels(int64_t head, int64_t gate, int64_t at) {
    return panels_.data() + head * panels_.row_size() + offset_[gate] + at * s_.dim;
  }

  void begin() {
    const auto fresh = [this](const float* from, float* to) {
      if (from) return static_cast<void>(from == to ? to : std::copy_n(from, s_.state_size(), to));
      std::fill_n(to, s_.state_size(), 0.0f);
      if (s_.kind.lowest >= 0)
        std::fill_n(to + s_.kind.lowest * s_.dim, s_.dim, -std::numeric_limits<float>::infinity());
    };
    for (int64_t head = 0; head < s_.heads; ++head) {
      const int64_t at = head * s_.state_size();
      for (int64_t i = 0; i < s_.steps.sequences(); ++i)
        fresh(moved(carry_.in(s_.steps.segment(i)), at), s_.before(head, 0, i));
      for (int64_t i = 0; i < std::ssize(s_.segments); ++i)
        if (s_.segments[i].length == 0) fresh(moved(carry_.in(i), at), carry_.out(i) + at);
    }
  }

  void feed(const CellShare& share, int64_t t, int64_t layer) {
    const kernels::Feedback& k = kernels::feedback();
    const auto [first, gates] = s_.kind.layer[layer];
    const int64_t kept = s_.kept_size();
    float* p = s_.kept(share.head, t, share.first);
    kernels::FeedProduct product{.a = layer ? p + s_.kind.middle * s_.dim : s_.before(share.head, t, share.first),
                                 .a_stride = share.stride * (layer ? kept : s_.state_size()),
                                 .m = share.rows(s_.steps.width(t)),
                                 .k = s_.dim,
                                 .b = nullptr,
                                 .b_row = panels_ ? k.columns : s_.gates_size(),
                                 .b_panel = k.columns * (panels_ ? s_.dim : 1),
                                 .n = 0,
                                 .c = nullptr,
                                 .c_stride = share.stride * kept,
                                 .accumulate = false};
    const auto multiply = [&, this, first = first](int64_t block, int64_t at, int64_t n) {
      product.b = panels_ ? panels(share.head, first + block, at) : matrix(share.head, first + block, at);
      product.n = n;
      product.c = p + (first + block) * s_.dim + at;
      k.multiply(product);
    };
    if (split_)
      sweep(gates, share.begin, share.end, sweep_columns(product.m), t, multiply);
    else
      multiply(0, 0, gates * s_.dim);
  }

  void advance(const CellShare& share, int64_t t, int64_t layer) const {
    const int64_t gates = s_.gates_size();
    for (int64_t i = share.first; i < s_.steps.width(t); i += share.stride) {
      const Segment& segment = s_.segment(i);
      const int64_t row = segment.begin + t;
      s_.kind.functions.advance(
          layer, {.x = x_.data() + row * x_.row_size() + share.head * gates,
                  .p = s_.kept(share.head, t, i),
                  .before = s_.before(share.head, t, i),
                  .after = t + 1 < segment.length ? s_.before(share.head, t + 1, i)
                                                  : carry_.out(s_.steps.segment(i)) + share.head * s_.state_size(),
                  .y = y_.data() + row * y_.row_size() + share.head * s_.dim,
                  .dim = s_.dim,
                  .begin = share.begin,
                  .end = share.end,
                  .limit = s_.kind.limit});
    }
  }

  const CellSheets& s_;
  const Tensor &x_, &r_;
  Carry& carry_;
  Tensor& y_;
  bool split_;
  Tensor panels_;           // by head; none: the matrix is read as it lies
  int64_t offset_[4] = {};  // of a gate's columns, among a head's
};

class CellsBackward {
 public:
  CellsBackward(const CellSheets& sheets, const Tensor& r, const Tensor& dy, Tensor& dx, Carry& carry)
      : s_(sheets), r_(r), dy_(dy), dx_(dx), carry_(carry), d_size_((s_.kind.states + s_.kind.layers - 1) * s_.dim) {
    pack();
    d_ = Tensor({s_.heads, s_.steps.sequences(), d_size_});
    each_state([this](int64_t segment, int64_t at, float* d) {
      if (const float* end = std::as_const(carry_).d_out(segment))
        std::copy_n(end + at, s_.state_size(), d);
      else
        std::fill_n(d, s_.state_size(), 0.0f);
    });
  }
  void run() {
    const int64_t layers = s_.kind.layers, stages = s_.steps.count() * layers;
    s_.deal(s_.threads_share_channels(), stages + 1, [=, this](const CellShare& share, int64_t turn) {
      const int64_t stage = stages - 1 - turn, next = stage + 1;
      if (next < stages) feed(share, next / layers, next % layers);
      if (stage >= 0) back(share, stage / layers, stage % layers);
    });
    each_state([this](int64_t segment, int64_t at, const float* d) { add(d, segment, at); });
    for (int64_t i = 0; i < std::ssize(s_.segments); ++i)
      if (const float* end = std::as_const(carry_).d_out(i); end && s_.segments[i].length == 0)
        for (int64_t at = 0; at < s_.heads * s_.state_size(); at += s_.state_size()) add(end + at, i, at);
  }

  // dr += what each token fed back times the gradients of what that came to, all tokens at once.
  void add_matrix(Tensor& dr) const {
    const int64_t tokens = s_.steps.tokens(), d = s_.dim;
    if (tokens == 0) return;
    parallel_for(s_.heads, s_.heads < thread_count() ? s_.heads : 1, [&, this](int64_t b, int64_t e) {
      for (int64_t head = b; head < e; ++head)
        for (int64_t layer = 0; layer < s_.kind.layers; ++layer) {
          const auto [first, gates] = s_.kind.layer[layer];
          const float* p = s_.kept(head, 0, 0);
          const MatrixView fed = layer ? MatrixView{p + s_.kind.middle * d, d, tokens, s_.kept_size(), true}
                                       : MatrixView{s_.before(head, 0, 0), d, tokens, s_.state_size(), true};
          multiply(fed, {p + first * d, tokens, gates * d, s_.kept_size()},
                   dr.data() + head * s_.matrix_size() + first * d, s_.gates_size(), {.accumulate = true});
        }
    });
  }

 private:
  // Calls body(segment, place of a head's state in it, gradients of that state).
  template <class Body>
  void each_state(Body&& body) {
    for (int64_t head = 0; head < s_.heads; ++head)
      for (int64_t i = 0; i < s_.steps.sequences(); ++i)
        body(s_.steps.segment(i), head * s_.state_size(), gradients(head, i));
  }
  float* gradients(int64_t head, int64_t sequence) {
    return d_.data() + (head * s_.steps.sequences() + sequence) * d_size_;
  }
  void add(const float* d, int64_t segment, int64_t at) {
    if (float* to = carry_.d_in(segment))
      for (int64_t i = 0; i < s_.state_size(); ++i) to[at + i] += d[i];
  }

  // The transpose of each layer's columns, head by head.
  void pack() {
    const kernels::Feedback& k = kernels::feedback();
    const int64_t columns = k.columns, each = (s_.dim + columns - 1) / columns, layers = s_.kind.layers;
    for (int64_t layer = 0; layer < layers; ++layer)
      layer_floats_[layer] = k.packed_floats(s_.kind.layer[layer].gates * s_.dim, s_.dim);
    panels_ = Tensor({s_.heads, layer_floats_[0] + layer_floats_[1]});
    parallel_for(s_.heads * layers * each, 1, [&, this](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t head = i / each / layers, layer = i / each % layers, at = i % each * columns;
        const auto [first, gates] = s_.kind.layer[layer];
        k.pack_transposed(r_.data() + head * s_.matrix_size() + at * s_.gates_size() + first * s_.dim, s_.gates_size(),
                          gates * s_.dim, std::min(columns, s_.dim - at), panels(head, layer, at));
      }
    });
  }
  float* panels(int64_t head, int64_t layer, int64_t column) {
    return panels_.data() + head * panels_.row_size() + layer * layer_floats_[0] +
           column * s_.kind.layer[layer].gates * s_.dim;
  }

  // From the gradients of what gates are fed to that of the vector that feeds them: h, or m.
  void feed(const CellShare& share, int64_t t, int64_t layer) {
    const kernels::Feedback& k = kernels::feedback();
    const auto [first, gates] = s_.kind.layer[layer];
    const int64_t depth = gates * s_.dim;
    kernels::FeedProduct product{.a = s_.kept(share.head, t, share.first) + first * s_.dim,
                                 .a_stride = share.stride * s_.kept_size(),
                                 .m = share.rows(s_.steps.width(t)),
                                 .k = depth,
                                 .b = nullptr,
                                 .b_row = k.columns,
                                 .b_panel = k.columns * depth,
                                 .n = 0,
                                 .c = nullptr,
                                 .c_stride = share.stride * d_size_,
                                 .accumulate = layer == 0};
    float* d = gradients(share.head, share.first) + (layer ? s_.state_size() : 0);
    sweep(1, share.begin, share.end, sweep_columns(product.m), t, [&, this](int64_t, int64_t at, int64_t n) {
      product.b = panels(share.head, layer, at);
      product.n = n;
      product.c = d + at;
      k.multiply(product);
    });
  }

  void back(const CellShare& share, int64_t t, int64_t layer) {
    for (int64_t i = share.first; i < s_.steps.width(t); i += share.stride) {
      const int64_t row = s_.segment(i).begin + t;
      s_.kind.functions.back(layer, {.p = s_.kept(share.head, t, i),
                                     .before = s_.before(share.head, t, i),
                                     .dy = dy_.data() + row * dy_.row_size() + share.head * s_.dim,
                                     .d = gradients(share.head, i),
                                     .dx = dx_.data() + row * dx_.row_size() + share.head * s_.gates_size(),
                                     .dim = s_.dim,
                                     .begin = share.begin,
                                     .end = share.end,
                                     .limit = s_.kind.limit});
    }
  }

  const CellSheets& s_;
  const Tensor &r_, &dy_;
  Tensor& dx_;
  Carry& carry_;
  int64_t d_size_, layer_floats_[2] = {};
  Tensor panels_, d_;  // [heads, layer_floats_], [heads, sequences, states dim and, with two layers, dm [dim]]
};

}  // namespace

Var run_cells(const CellKind& kind, const Var& x, const Var& r, int64_t heads, const Batch& batch, size_t field) {
  const int64_t dim = r.value().rows() / heads, width = heads * dim;
  SENNIT_CHECK(x.columns() == kind.gates * width && r.columns() == kind.gates * dim, "cells: {} and {}",
               x.shape().str(), r.shape().str());
  Carry carry(batch, field, {heads, kind.states, dim});
  Tensor y({x.rows(), width});
  const int64_t flops = x.rows() * width * kind.gates * (2 * dim + 8);
  count_flops(flops);
  CellSheets sheets(kind, heads, dim, batch.segments, recording());
  CellsForward(sheets, x.value(), r.value(), carry, y).run();
  return carry.record(
      batch, std::move(y), {x, r},
      [sheets = std::move(sheets), r = r.value(), flops](const Tensor& dy, Gradients& into, Carry& kept) {
        Tensor &dx = into.sum(0), &dr = into.sum(1);
        count_flops(2 * flops);
        CellsBackward back(sheets, r, dy, dx, kept);
        back.run();
        back.add_matrix(dr);
      });
}

}  // namespace sennit

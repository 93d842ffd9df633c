#pragma once
#include <functional>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "kernels/sum.h"
#include "tensor/tensor.h"

// Reverse-mode differentiation. A Var is a tensor with, perhaps, a place on the tape; operations on Vars record how to
// send gradients back to their inputs, and backward() runs the tape in reverse. Values are never changed by recording;
// gradients are f32. A tape belongs to one thread.
namespace sennit {

class Node;

namespace detail {
void retain_node(Node* node);
void release_node(Node* node);
}  // namespace detail

// A counted handle to a node of the tape.
class NodePtr {
 public:
  NodePtr() = default;
  explicit NodePtr(Node* node) : node_(node) { detail::retain_node(node_); }
  NodePtr(const NodePtr& o) : node_(o.node_) { detail::retain_node(node_); }
  NodePtr(NodePtr&& o) noexcept : node_(std::exchange(o.node_, nullptr)) {}
  NodePtr& operator=(NodePtr o) noexcept {
    std::swap(node_, o.node_);
    return *this;
  }
  ~NodePtr() { detail::release_node(node_); }
  Node* get() const { return node_; }
  Node* take() { return std::exchange(node_, nullptr); }  // without letting go of its count
  Node* operator->() const { return node_; }
  explicit operator bool() const { return node_ != nullptr; }

 private:
  Node* node_ = nullptr;
};

class Var {
 public:
  Var() = default;
  explicit Var(Tensor value) : value_(std::move(value)) {}  // a constant
  Var(Tensor value, NodePtr node, int slot) : value_(std::move(value)), node_(std::move(node)), slot_(slot) {}

  static Var leaf(Tensor value);  // a value whose gradient is wanted

  const Tensor& value() const { return value_; }
  Tensor& value() { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int64_t rows() const { return value_.rows(); }
  int64_t columns() const { return value_.row_size(); }
  bool defined() const { return value_.defined(); }
  explicit operator bool() const { return defined(); }

  bool needs_grad() const { return static_cast<bool>(node_); }
  Var detach() const { return Var(value_); }
  // The gradient that backward() left on a leaf; undefined when there is none.
  const Tensor& grad() const;
  Tensor& grad();
  void clear_grad();

  const NodePtr& node() const { return node_; }
  int slot() const { return slot_; }

 private:
  Tensor value_;
  NodePtr node_;
  int slot_ = 0;
};

// Where an operation's backward puts the gradients of its inputs.
class Gradients {
 public:
  explicit Gradients(Node& node) : node_(node) {}
  bool wants(int input) const;
  void add(int input, Tensor gradient);  // takes the tensor when it is the first
  // The running sum itself, zero at first, to be added into; a spare tensor for an input that wants none.
  Tensor& sum(int input);
  // The same, but where it `holds` nothing yet its memory is unset: every element is to be written, before the next sum
  // is asked for.
  Tensor& sum(int input, bool& holds);
  // Those of the first inputs: unset only where no other input adds to the sum, too.
  void sums(std::span<kernels::Sum> of);
  kernels::Sum first_sum();  // that of the first input

 private:
  Tensor& place(int input);

  Node& node_;
  std::vector<Tensor> spare_;
};

// dys[i] is the gradient of output i, undefined where nothing flowed back.
using Backward = std::function<void(std::span<const Tensor> dys, Gradients& into)>;

class Node {
 public:
  struct Input {
    NodePtr node;
    int slot;
    Shape shape;
  };
  std::vector<Input> inputs;
  std::vector<Tensor> grads;  // of the outputs (of the value itself, for a leaf)
  Backward backward;          // empty for a leaf
  uint64_t id = 0;            // later operations have larger ones
  bool queued = false;
  int references = 0;
};

// Whether operations record themselves (per thread; on at first).
bool recording();
class Recording {  // on or off while it lives
 public:
  explicit Recording(bool on);
  ~Recording();
  Recording(const Recording&) = delete;

 private:
  bool before_;
};
class NoGrad : Recording {
 public:
  NoGrad() : Recording(false) {}
};

// The outputs of an operation as Vars; on the tape when recording and some input needs a gradient. Nothing is allocated
// for an output that is not.
bool any_needs_grad(std::span<const Var> inputs);
std::vector<Var> record_all(std::vector<Tensor> ys, std::span<const Var> inputs, Backward backward);
template <class F>
Var record(Tensor y, std::span<const Var> inputs, F&& backward) {
  if (!any_needs_grad(inputs)) return Var(std::move(y));
  return record_all({std::move(y)}, inputs, std::forward<F>(backward))[0];
}
template <class F>
Var record(Tensor y, std::initializer_list<Var> inputs, F&& backward) {
  return record(std::move(y), std::span(inputs.begin(), inputs.size()), std::forward<F>(backward));
}

// Sends gradients from the roots to every leaf, adding to what the leaves hold, and frees the tape it passes. A seed may
// be left undefined for a root of one element: it is 1 then.
void backward(const Var& root, Tensor seed = {});
void backward(std::span<const std::pair<Var, Tensor>> roots);

// y = f(inputs), computed without keeping the tape inside f: backward runs f again. f must be deterministic and reach
// other leaves (parameters) only through its own recording.
using Function = std::function<std::vector<Var>(std::span<const Var>)>;
std::vector<Var> checkpoint(const Function& f, std::span<const Var> inputs);

}  // namespace sennit

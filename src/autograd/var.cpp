#include "autograd/var.h"

#include <algorithm>
#include <atomic>
#include <queue>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"

namespace sennit {
namespace {

thread_local bool t_recording = true;

uint64_t next_id() {
  static std::atomic<uint64_t> id{0};
  return ++id;
}

// Adds `gradient` to the place; the first one is taken, not copied, unless someone else may still write to it.
void accumulate(Tensor& place, Tensor gradient) {
  if (!place) {
    place = std::move(gradient);
    return;
  }
  if (!place.unique()) place = place.clone();
  SENNIT_CHECK(place.elements() == gradient.elements(), "{} and {}", place.shape().str(), gradient.shape().str());
  float* y = place.data();
  const float* g = std::as_const(gradient).data();
  parallel_for(place.elements(), 1 << 15, [&](int64_t b, int64_t e) { kernels::elementwise().add(y + b, g + b, y + b, e - b); });
}

}  // namespace

void detail::retain_node(Node* node) {
  if (node) ++node->references;
}

// Frees a chain of nodes in a loop: a long recurrence would overflow the stack otherwise.
void detail::release_node(Node* node) {
  if (!node || --node->references > 0) return;
  std::vector<Node*> dead = {node};
  while (!dead.empty()) {
    Node* n = dead.back();
    dead.pop_back();
    for (auto& input : n->inputs) {
      Node* parent = input.node.take();
      if (parent && --parent->references == 0) dead.push_back(parent);
    }
    delete n;
  }
}

Var Var::leaf(Tensor value) {
  auto* node = new Node;
  node->grads.resize(1);
  node->id = next_id();
  return Var(std::move(value), NodePtr(node), 0);
}

const Tensor& Var::grad() const {
  SENNIT_CHECK(node_ && !node_->backward, "only a leaf keeps its gradient");
  return node_->grads[0];
}
Tensor& Var::grad() { return const_cast<Tensor&>(std::as_const(*this).grad()); }
void Var::clear_grad() { grad() = Tensor(); }

bool Gradients::wants(int input) const { return static_cast<bool>(node_.inputs[input].node); }

void Gradients::add(int input, Tensor gradient) {
  const auto& to = node_.inputs[input];
  if (!to.node) return;
  SENNIT_CHECK(gradient.shape() == to.shape, "gradient {} of an input {}", gradient.shape().str(), to.shape.str());
  accumulate(to.node->grads[to.slot], std::move(gradient));
}

Tensor& Gradients::place(int input) {
  const auto& to = node_.inputs[input];
  if (!to.node) spare_.resize(node_.inputs.size());
  Tensor& place = to.node ? to.node->grads[to.slot] : spare_[input];
  if (place && !place.unique()) place = place.clone();
  return place;
}

Tensor& Gradients::sum(int input) {
  Tensor& sum = place(input);
  if (!sum) sum = Tensor::zeros(node_.inputs[input].shape);
  return sum;
}

Tensor& Gradients::sum(int input, bool& holds) {
  Tensor& sum = place(input);
  holds = sum.defined();
  if (!holds) sum = Tensor(node_.inputs[input].shape);
  return sum;
}

void Gradients::sums(std::span<kernels::Sum> of) {
  for (size_t i = 0; i < of.size(); ++i) {
    const Node::Input& own = node_.inputs[i];
    const auto same = [&](const Node::Input& other) { return own.node.get() == other.node.get() && own.slot == other.slot; };
    if (own.node && std::count_if(node_.inputs.begin(), node_.inputs.end(), same) > 1)
      of[i] = {sum(static_cast<int>(i)).data(), true};
    else
      of[i].at = sum(static_cast<int>(i), of[i].holds).data();
  }
}

kernels::Sum Gradients::first_sum() {
  kernels::Sum sum;
  sums({&sum, 1});
  return sum;
}

bool recording() { return t_recording; }
Recording::Recording(bool on) : before_(t_recording) { t_recording = on; }
Recording::~Recording() { t_recording = before_; }

bool any_needs_grad(std::span<const Var> inputs) {
  return recording() && std::any_of(inputs.begin(), inputs.end(), [](const Var& v) { return v.needs_grad(); });
}

std::vector<Var> record_all(std::vector<Tensor> ys, std::span<const Var> inputs, Backward backward) {
  std::vector<Var> outputs;
  outputs.reserve(ys.size());
  NodePtr node;
  if (any_needs_grad(inputs)) {
    node = NodePtr(new Node);
    for (const Var& v : inputs) node->inputs.push_back({v.node(), v.slot(), v.shape()});
    node->grads.resize(ys.size());
    node->backward = std::move(backward);
    node->id = next_id();
  }
  for (size_t i = 0; i < ys.size(); ++i) outputs.emplace_back(std::move(ys[i]), node, static_cast<int>(i));
  return outputs;
}

void backward(const Var& root, Tensor seed) {
  const std::pair<Var, Tensor> roots[] = {{root, std::move(seed)}};
  backward(roots);
}

void backward(std::span<const std::pair<Var, Tensor>> roots) {
  NoGrad off;
  auto earlier = [](const NodePtr& a, const NodePtr& b) { return a->id < b->id; };
  std::priority_queue<NodePtr, std::vector<NodePtr>, decltype(earlier)> queue(earlier);
  auto enqueue = [&](const NodePtr& node) {
    if (!node || node->queued || !node->backward) return;
    node->queued = true;
    queue.push(node);
  };
  for (const auto& [root, seed] : roots) {
    SENNIT_CHECK(root.needs_grad(), "backward from a value that no leaf reaches");
    SENNIT_CHECK(seed || root.value().elements() == 1, "a root {} needs a seed", root.shape().str());
    accumulate(root.node()->grads[root.slot()], seed ? seed.clone() : Tensor::full(root.shape(), 1));
    enqueue(root.node());
  }
  while (!queue.empty()) {
    const NodePtr node = queue.top();
    queue.pop();
    // The node may be shared with a graph that lives on; its own record is used up here.
    const Backward step = std::move(node->backward);
    node->backward = [](std::span<const Tensor>, Gradients&) {
      SENNIT_CHECK(false, "backward through a tape that is already used up");
    };
    Gradients into(*node.get());
    step(node->grads, into);
    node->grads.assign(node->grads.size(), Tensor());
    for (const auto& input : node->inputs) enqueue(input.node);
    node->inputs.clear();
    node->queued = false;
  }
}

std::vector<Var> checkpoint(const Function& f, std::span<const Var> inputs) {
  if (!recording()) return f(inputs);
  std::vector<Tensor> ys;
  {
    NoGrad off;
    for (Var& y : f(inputs)) ys.push_back(y.value());
  }
  std::vector<Tensor> values;
  for (const Var& v : inputs) values.push_back(v.value());
  // Parameters inside f get their gradients by the inner backward, so the node is recorded even if no input needs one.
  std::vector<Var> linked(inputs.begin(), inputs.end());
  linked.push_back(Var::leaf(Tensor::zeros({1})));
  return record_all(std::move(ys), linked, [f, values = std::move(values)](std::span<const Tensor> dys, Gradients& into) {
    std::vector<Var> again;
    for (const Tensor& v : values) again.push_back(Var::leaf(v));
    std::vector<std::pair<Var, Tensor>> roots;
    {
      Recording on(true);
      const auto outputs = f(again);
      for (size_t i = 0; i < outputs.size(); ++i)
        if (dys[i] && outputs[i].needs_grad()) roots.emplace_back(outputs[i], dys[i]);
    }
    backward(roots);
    for (size_t i = 0; i < again.size(); ++i)
      if (into.wants(static_cast<int>(i)) && again[i].grad()) into.add(static_cast<int>(i), again[i].grad());
  });
}

}  // namespace sennit

#include "laws/row_laws.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "base/parallel.h"
#include "channels/channel.h"
#include "laws/differences.h"
#include "laws/harness.h"
#include "norms/norm.h"
#include "ops/count.h"

namespace sennit::laws {
namespace {

constexpr double kRowAllowed = 2e-5;
const std::vector<int64_t> kCounts = {0, 1, 2, 7, 16, 33, 64, 129};

std::unique_ptr<RowMap> shaken(const RowCase& c, Rng rng, double violence) {
  auto map = c.make(rng.fork("init"));
  shake(*map, rng.fork("shake"), violence);
  return map;
}

Tensor run(RowMap& map, const Tensor& x, const Context& context = {}) {
  NoGrad off;
  return map.forward(Var(x), context).value();
}

std::string forward_is_naive(const RowCase& c) {
  HostileMemory hostile;
  const IsaLevel before = isa_level();
  std::string broken;
  for (int level = 0; level < kIsaLevels && broken.empty(); ++level) {
    if (!isa_level_refusal(static_cast<IsaLevel>(level)).empty()) continue;
    set_isa_level(static_cast<IsaLevel>(level));
    for (const double violence : {1.0, 4.0})
      for (const int64_t n : kCounts) {
        const Rng rng = Rng(61).fork(c.name).fork(static_cast<uint64_t>(n));
        auto map = shaken(c, rng, violence);
        const Tensor x = random_rows(n, c.width, rng.fork("x"), violence);
        const Distance d = distance(run(*map, x), map->naive(weights_of(*map), to_matrix(x)));
        if (d.relative > kRowAllowed && broken.empty())
          broken =
              fmt::format("{} rows at {}: {:.3g} off at number {}", n, to_string(isa_level()), d.relative, d.worst);
      }
  }
  set_isa_level(before);
  return broken;
}

// The same bits alone, among others, in another place, and with the tape on.
std::string rows_are_alone(const RowCase& c) {
  HostileMemory hostile;
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Rng rng = Rng(67).fork(c.name);
    auto map = shaken(c, rng, 2);
    const Context context{.precision = precision};
    const Tensor x = random_rows(67, c.width, rng.fork("x"));
    const Tensor all = run(*map, x, context);
    for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 1}, {66, 1}, {13, 1}, {5, 20}, {1, 66}}) {
      const std::string differ =
          bits_differ(all.slice(begin, count), run(*map, x.slice(begin, count).clone(), context));
      if (!differ.empty())
        return fmt::format("rows {}+{} of 67 alone in {}: {}", begin, count, to_string(precision), differ);
    }
    const std::string recorded = bits_differ(all, map->forward(Var::leaf(x), context).value());
    if (!recorded.empty()) return "recorded: " + recorded;
  }
  return "";
}

std::string gradients(const RowCase& c) {
  HostileMemory hostile;
  for (const int64_t n : {1, 5, 70}) {
    const Rng rng = Rng(71).fork(c.name).fork(static_cast<uint64_t>(n));
    auto map = shaken(c, rng, 2);
    const Var x = Var::leaf(random_rows(n, c.width, rng.fork("x")));
    const Tensor a = random_rows(n, c.width, rng.fork("a"));
    const Context context;
    backward(map->forward(x, context), a);
    naive::Weights w = weights_of(*map);
    naive::Matrix rows = to_matrix(x.value());
    const auto loss = [&] {
      const naive::Matrix y = map->naive(w, rows);
      double total = 0;
      for (int64_t i = 0; i < a.elements(); ++i) total += y.a[static_cast<size_t>(i)] * a.data()[i];
      return total;
    };
    std::string broken = compare_gradient("the input", x.grad(), rows, loss, rng.fork("probe"));
    map->parameters([&](const std::string& name, Parameter& p) {
      if (broken.empty())
        broken = p.var.grad() ? compare_gradient(name, p.var.grad(), w[name], loss, rng.fork(name))
                              : "no gradient reached " + name;
    });
    if (!broken.empty()) return fmt::format("{} rows: {}", n, broken);
  }
  return "";
}

std::string threads_change_nothing(const RowCase& c) {
  const int before = thread_count();
  std::vector<Tensor> reference;
  std::string broken;
  for (const int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    const Rng rng = Rng(73).fork(c.name);
    auto map = shaken(c, rng, 2);
    const Context context;
    const Var x = Var::leaf(random_rows(1000, c.width, rng.fork("x")));
    const Var y = map->forward(x, context);
    backward(y, random_rows(1000, c.width, rng.fork("a")));
    std::vector<Tensor> got = {y.value(), x.grad()};
    map->parameters([&](const std::string&, Parameter& p) { got.push_back(p.var.grad()); });
    if (reference.empty()) reference = got;
    for (size_t i = 0; i < got.size() && broken.empty(); ++i)
      if (!same_bits(got[i], reference[i]))
        broken = fmt::format("{} threads, tensor {}: {}", threads, i, bits_differ(got[i], reference[i]));
  }
  set_thread_count(before);
  return broken;
}

std::string costs_as_declared(const RowCase& c) {
  auto map = c.make(Rng(79));
  for (const int64_t n : {1, 64, 500}) {
    operation_count() = {};
    run(*map, random_rows(n, c.width, Rng(83)));
    const double counted = static_cast<double>(operation_count().flops), declared = static_cast<double>(map->flops(n));
    if (declared > 0 && std::fabs(counted - declared) > 0.1 * declared)
      return fmt::format("{} operations over {} rows, {} declared", counted, n, declared);
  }
  return "";
}

struct ChannelRows : RowMap {
  explicit ChannelRows(std::unique_ptr<Channel> c) : channel(std::move(c)) {}
  Var forward(const Var& x, const Context& context) override { return channel->forward(x, context); }
  naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const override { return channel->naive(w, x); }
  int64_t flops(int64_t rows) const override { return channel->flops(rows); }
  void visit(const ParameterVisitor& v) override { channel->visit(v); }
  std::unique_ptr<Channel> channel;
};

struct NormRows : RowMap {
  explicit NormRows(std::unique_ptr<Norm> n) : norm(std::move(n)) {}
  Var forward(const Var& x, const Context&) override { return norm->forward(x); }
  naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const override { return norm->naive(w, x); }
  void visit(const ParameterVisitor& v) override { norm->visit(v); }
  std::unique_ptr<Norm> norm;
};

// A part for the defaults, for every choice of every setting that has choices, and for every flag turned over.
std::vector<Json> variants(const std::string& name, Fields fields) {
  std::vector<Json> all = {Json{{"name", name}}};
  for (const Field& f : fields) {
    for (const std::string& choice : f.limits.choices) all.push_back(Json{{"name", name}, {f.name, choice}});
    if (const auto* flag = std::get_if<bool*>(&f.value)) all.push_back(Json{{"name", name}, {f.name, !**flag}});
  }
  return all;
}

template <class Adapter, class Socket, class Make>
std::vector<RowCase> registered(const Registry<Socket>& registry, Make&& dims) {
  std::vector<RowCase> cases;
  for (const auto& entry : registry.entries()) {
    const auto options = entry.options();
    for (const Json& part : variants(entry.name, options->fields()))
      for (const int64_t width : {32, 37})
        cases.push_back({fmt::format("{} at {}", json_text(part), width),
                         [&registry, part, width, dims](Rng rng) {
                           return std::make_unique<Adapter>(registry.make(part, dims(width), rng, "laws"));
                         },
                         width});
  }
  return cases;
}

}  // namespace

const std::vector<RowLaw>& row_laws() {
  static const std::vector<RowLaw> laws = {{"ForwardIsNaive", forward_is_naive},
                                           {"RowsAreAlone", rows_are_alone},
                                           {"Gradients", gradients},
                                           {"ThreadsChangeNothing", threads_change_nothing},
                                           {"CostsAsDeclared", costs_as_declared}};
  return laws;
}

std::vector<RowCase> registered_channels() {
  return registered<ChannelRows>(channels::registry(), [](int64_t d) { return Channel::Dims{.d_model = d}; });
}

std::vector<RowCase> registered_norms() {
  return registered<NormRows>(norms::registry(), [](int64_t d) { return Norm::Dims{d}; });
}

}  // namespace sennit::laws

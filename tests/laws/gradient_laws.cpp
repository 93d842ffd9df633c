#include "laws/cases.h"
#include "laws/differences.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"

namespace sennit::laws {
namespace {

// Gradients are checked on L = <y, a> + <last state, b> over one sequence. Where a state is kept, it starts from a
// given one and is run in two pieces, so that they also flow through the state between.
struct Objective {
  Sample sample;
  Tensor a;
  std::vector<Tensor> first_state, b;  // by field
  int64_t position = 0;
};

struct Operands {
  naive::Weights w;
  naive::Matrix x, memory;
  std::map<std::string, naive::Matrix> state;
};

double definition_of(Mixer& m, const Operands& in, const Objective& o) {
  NaiveRun run{.w = in.w,
               .x = in.x,
               .pattern = o.sample.pattern,
               .position = o.position,
               .memory = o.sample.memory ? &in.memory : nullptr,
               .state = in.state};
  const naive::Matrix y = m.naive(run);
  double loss = 0;
  for (int64_t i = 0; i < o.a.elements(); ++i) loss += y.a[static_cast<size_t>(i)] * o.a.data()[i];
  const StateSpec spec = m.state_spec();
  for (size_t f = 0; f < o.b.size(); ++f)
    for (int64_t i = 0; i < o.b[f].elements(); ++i)
      loss += run.state.at(spec[f].name).a[static_cast<size_t>(i)] * o.b[f].data()[i];
  return loss;
}

Var whole_objective(Mixer& m, const Var& x, const Var& memory, const Objective& o) {
  const Context context;
  const Segment whole[] = {{0, x.rows(), 0, nullptr}}, all[] = {{0, memory ? memory.rows() : 0, 0, nullptr}};
  Batch batch{whole, &context, o.sample.pattern};
  if (memory) batch.memory = &memory, batch.memory_segments = all;
  return sum(multiply(m.forward(x, batch), Var(o.a)));
}

Var cut_objective(Mixer& m, const Var& x, const std::vector<Var>& first_state, int64_t cut, const Objective& o) {
  const Context context;
  SequenceState state;
  state.position = o.position;
  for (size_t f = 0; f < first_state.size(); ++f) state.layer(0).set(f, first_state[f]);
  const Segment head[] = {{0, cut, o.position, &state}}, tail[] = {{0, x.rows() - cut, o.position + cut, &state}};
  const Var y1 = m.forward(rows(x, 0, cut), {head, &context});
  const Var y2 = m.forward(rows(x, cut, x.rows() - cut), {tail, &context});
  Var loss = add(sum(multiply(y1, Var(o.a.slice(0, cut)))), sum(multiply(y2, Var(o.a.slice(cut, x.rows() - cut)))));
  for (size_t f = 0; f < o.b.size(); ++f) loss = add(loss, sum(multiply(state.layer(0).get(f), Var(o.b[f]))));
  return loss;
}

// A state to start from, and a direction in the last one.
void start_from_state(Mixer& mixer, const MixerCase& c, Rng rng, Objective& o) {
  o.position = 6;
  SequenceState past;
  run_pieces(mixer, random_sample(c, Pattern::causal, o.position, 0, rng.fork("past")), {o.position}, {}, past);
  SequenceState last = past.clone();
  run_pieces(mixer, o.sample, {o.sample.x.rows()}, {}, last);
  for (size_t f = 0; f < mixer.state_spec().size(); ++f) {
    o.first_state.push_back(past.layer(0).get(f).value().clone());
    Tensor b(last.layer(0).get(f).shape());
    Rng draw = rng.fork("b").fork(f);
    for (float& v : b.span()) v = static_cast<float>(0.3 * draw.normal());
    o.b.push_back(b);
  }
}

std::string gradients_over(const MixerCase& c, Pattern pattern, int64_t n, double violence, bool cut) {
  Rng rng = Rng(31).fork(c.name).fork(static_cast<uint64_t>(n)).fork(static_cast<uint64_t>(violence));
  auto mixer = c.make(rng.fork("init"));
  shake(*mixer, rng.fork("shake"), violence);
  Choices choices;
  mixer->choices = &choices;
  Objective o{random_sample(c, pattern, n, 2 + rng.fork("memory").below(40), rng),
              random_rows(c.whole(pattern, n), c.d_model, rng.fork("a")),
              {},
              {}};
  if (cut) start_from_state(*mixer, c, rng, o);
  std::vector<Var> first;
  for (const Tensor& s : o.first_state) first.push_back(Var::leaf(s.clone()));
  const Var x = Var::leaf(o.sample.x), memory = o.sample.memory ? Var::leaf(o.sample.memory) : Var();
  mixer->parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
  backward(cut ? cut_objective(*mixer, x, first, 1 + rng.below(n - 1), o) : whole_objective(*mixer, x, memory, o));

  Operands in{weights_of(*mixer), to_matrix(o.sample.x), memory ? to_matrix(o.sample.memory) : naive::Matrix(), {}};
  const StateSpec spec = mixer->state_spec();
  for (size_t f = 0; f < first.size(); ++f) in.state[spec[f].name] = to_matrix(o.first_state[f]);
  const auto loss = [&] { return definition_of(*mixer, in, o); };
  std::string broken;
  auto check = [&](const std::string& name, const Tensor& gradient, naive::Matrix& place) {
    if (!broken.empty() || place.a.empty()) return;
    if (!gradient)
      broken = "no gradient reached " + name;
    else
      broken = compare_gradient(name, gradient, place, loss, rng.fork(name));
  };
  check("the input", x.grad(), in.x);
  if (memory) check("the memory", memory.grad(), in.memory);
  for (size_t f = 0; f < first.size(); ++f)
    check("first state " + spec[f].name, first[f].grad(), in.state[spec[f].name]);
  mixer->parameters([&](const std::string& name, Parameter& p) {
    if (!p.learned && p.var.grad()) broken = "a gradient reached " + name + ", which does not learn by any";
    if (p.learned && !mixer->taught(name)) check(name, p.var.grad(), in.w[name]);
  });
  return broken;
}

std::string gradients(const MixerCase& c, Pattern pattern) {
  HostileMemory hostile;
  const bool states = pattern == Pattern::causal && c.stateful;
  for (const int64_t n : {2, 9, 24, 75})
    for (const double violence : {1.0, 2.0})
      for (const bool cut : {false, true}) {
        if (cut && !states) continue;
        const std::string broken = gradients_over(c, pattern, n, violence, cut);
        if (!broken.empty())
          return fmt::format("{} tokens{}, parameters x{}: {}", n, cut ? " from a state" : "", violence, broken);
      }
  return "";
}

}  // namespace

std::vector<MixerLaw> gradient_laws() {
  return {{"Gradients", LawFor::every_pattern, gradients}};
}

}  // namespace sennit::laws

#pragma once
#include <functional>
#include <string>
#include <vector>

#include "model/stored_model.h"
#include "sequence/batch.h"

// Things to time, each against the floor that the machine sets and, where there is one, against a peer in the same run.
namespace sennit::bench {

struct Work {
  std::function<void()> run;
  // The largest difference from the definition, computed in double, relative to the largest value: of the whole result or
  // of a sample of its rows. Nothing is timed whose error is above Case::allowed.
  std::function<double()> error;
};

struct Case {
  std::string name = {};        // "attention forward n=16384"
  double flops = 0, bytes = 0;  // the least work: operations, and bytes that must come from memory
  double updated = 0;           // bytes read there and written back: what is read plus what is written
  Precision precision = Precision::f32;
  bool int8 = false;            // its products are of 8-bit numbers
  double tokens = 0;            // that one run handles; 0: not a matter of tokens
  std::string peer = {};        // what to ask the peer for; "": it has none
  double allowed = 1e-4;
  std::function<Work()> prepare = {};  // makes the data; called once
};

std::vector<Case> all_cases();

inline double at(const Var& x, int64_t row, int64_t column) { return x.value().data()[row * x.columns() + column]; }

struct ModelBench {
  std::string path;  // anything read_stored_model() reads
  LoadingOptions loading = {};
  Context context = {};
  int64_t prompt = 512, generate = 64;
};
// A model that reads a prompt and then chooses tokens one by one.
std::vector<Case> model_cases(const ModelBench& bench);

struct Result {
  std::string name;
  double floor, warm, cold, fastest;  // medians (cold: small things have left the caches; 0: not taken), and the best run
  double flops, bytes, tokens;
  double error;
  double peer;  // the peer's median; 0: none
};

struct Ceiling {
  std::string name;
  bool bytes;                // a second; else operations
  double one, all;           // median on one thread and on all
  double one_least, all_least;  // the lowest seen: these machines change their pace
};

struct Report {
  std::vector<Ceiling> ceilings;
  std::vector<Result> results;
  std::vector<double> distances;  // core_distances(), of every run: a virtual machine's cores move
};

struct Options {
  int repeats = 9;
  std::vector<std::string> filters;  // parts of cases' names; empty: all
  std::vector<std::string> peer;  // a command that answers names with seconds (peer.h); empty: none
  bool peer_is_sennit = false;    // it is asked for the case's own name
};

using Progress = std::function<void(int done, int total, const std::string& name)>;  // may be empty

// Runs those of the cases that are chosen in turn, `repeats` times: each time the ceiling, the case and its peer, so that a machine that
// changes its pace changes it for all. Throws Error for a filter that names nothing and for a result that is wrong.
Report run(std::vector<Case> cases, const Options& options, const Progress& progress);
// The ceilings alone.
std::vector<Ceiling> measure_ceilings(int repeats);
// Answers names of cases, a line each, with the seconds of one run: makes this program a peer of another build.
void answer(std::istream& names, std::ostream& seconds);

}  // namespace sennit::bench

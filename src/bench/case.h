#pragma once
#include <functional>
#include <string>
#include <vector>

#include "products/precision.h"

// Things to time, each against the floor that the machine sets and, where there is one, against a peer in the same run.
namespace sennit::bench {

struct Case {
  std::string name;             // "attention forward n=16384"
  double flops = 0, bytes = 0;  // the least work: operations, and bytes that must come from memory
  Precision precision = Precision::f32;
  double tokens = 0;            // that one run handles; 0: not a matter of tokens
  std::string peer;             // what to ask the peer for; "": it has none
  std::function<std::function<void()>()> prepare;  // makes the data and returns the run; called once
};

std::vector<Case> all_cases();

struct Result {
  std::string name;
  double floor, seconds, fastest;  // medians, and the best run
  double flops, bytes, tokens;
  double peer = 0;                 // the peer's median; 0: none
};

struct Options {
  int repeats = 9;
  std::string filter;      // part of a case's name
  std::string peer_script;  // "": no peer
};

// Runs the chosen cases in turn, `repeats` times: each time the peak, the case and its peer, so that a machine that
// changes its pace changes it for all. `progress(done, total, name)` may be empty.
std::vector<Result> run(const std::vector<Case>& cases, const Options& options,
                        const std::function<void(int, int, const std::string&)>& progress);

}  // namespace sennit::bench

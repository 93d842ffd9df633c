#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace sennit::bench {

// The most that all threads of parallel_for reach together, measured by loops that do nothing else.
double peak_f32_flops();   // fused multiply-adds in registers at the level in use; 2 flops each
double peak_bf16_flops();  // of bf16 pair products in registers; that of f32 where the level has none
double peak_read_bytes(const void* memory, int64_t bytes);  // bytes a second of one pass over memory

double seconds_of(const std::function<void()>& body);

// A thing to time against its floor.
struct Case {
  std::string name;
  double work;                    // flops or bytes, for the rate
  std::function<double()> floor;  // seconds that the machine needs at least, measured when called
  std::function<void()> run;
};

// The arguments of every bench: [repeats] [part of a case's name]. Runs the cases in turn, each with its peak beside
// it, `repeats` times; prints medians of floor, time and their ratio.
void run_cases(std::vector<Case> cases, int argc, char** argv);

}  // namespace sennit::bench

#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "products/precision.h"

// How the cost of each mixer grows with the length of a sequence.
namespace sennit::bench {

struct GrowthPoint {
  int64_t length;
  double seconds;      // of a whole forward pass over one sequence, the median
  int64_t peak_bytes;  // of tensors, above the weights and the input
};

struct Growth {
  std::string mixer;
  std::vector<GrowthPoint> points;  // ends early, perhaps at once, where the next would take longer than `longest`
  // The exponents p of time ~ n^p over the longer half of the lengths: measured, and of the declared operations.
  double measured = 0, declared = 0;
  double crossover = 0;  // the length from which it is faster than exact attention; 0: always; infinity: nowhere here
};

struct GrowthOptions {
  std::vector<int64_t> lengths = {1024, 2048, 4096, 8192, 16384, 32768, 65536};
  int64_t d_model = 256;
  int repeats = 3;
  double longest = 20;  // seconds of one pass
  std::string filter;   // part of a mixer's name; exact attention (`softmax`) is always measured
};

// Every registered mixer that matches, with its default options, softmax first. The passes of all mixers at one length
// are interleaved. Throws Error when nothing matches.
std::vector<Growth> measure_growth(const GrowthOptions& options,
                                   const std::function<void(int done, int total, const std::string& what)>& progress);

}  // namespace sennit::bench

#pragma once
#include <cstdint>
#include <vector>

#include "base/rng.h"

// Sparse distributed memory (Kanerva, 1988), and how near its reads come to attention (Bricken & Pehlevan,
// arXiv:2111.05498).
namespace sennit::mixers {

// ln of the number of addresses of `bits` bits that lie within Hamming distance `radius` of both of two that are
// `apart` bits apart (their appendix B.1); -inf when there are none.
double log_intersection(int64_t bits, int64_t radius, int64_t apart);

// ln of the part of the unit sphere in `dims` >= 4 dimensions that lies within `cap` of both of two directions that
// are `apart` from each other, angles in radians: the continuous form (their appendix B.3).
double log_cap_intersection(int64_t dims, double cap, double apart);

// ln of the intersection over the distances 0 to radius as a straight line: the weights of a read fall by e^-rate a
// bit, which is e^(beta cos) with beta = rate bits / 2 for the cosine of two patterns of +1 and -1 (their equation 8).
struct IntersectionFit {
  double rate, beta;
  double r2;  // the part of the variance that the line explains
};
IntersectionFit fit_intersection(int64_t bits, int64_t radius);

// The memory itself. Patterns are `bits` numbers of +1 and -1.
class DistributedMemory {
 public:
  using Pattern = std::vector<int8_t>;

  DistributedMemory(int64_t bits, int64_t radius, int64_t addresses, Rng rng);  // addresses drawn at random
  void write(const Pattern& at, const Pattern& value);                          // into every address within the radius
  std::vector<int64_t> read(const Pattern& at) const;        // the sum of what those within the radius hold
  int64_t within(const Pattern& a, const Pattern& b) const;  // addresses within the radius of both

 private:
  using Words = std::vector<uint64_t>;  // a pattern, 64 bits a word

  static Words packed(const Pattern& pattern);
  bool near(const Words& address, const Words& at) const;
  int64_t bits_, radius_;
  std::vector<Words> addresses_;
  std::vector<std::vector<int64_t>> sums_;
};

}  // namespace sennit::mixers

#pragma once
#include <functional>
#include <string>
#include <vector>

#include "products/precision.h"
#include "tensor/tensor.h"

namespace sennit::bench {

double seconds_of(const std::function<void()>& body);
double median(std::vector<double> x);  // 0 of nothing

// What the machine's units reach at this moment. A measurement takes some tens of milliseconds; the memory that it
// reads is made once.
class Ceilings {
 public:
  struct Named {
    std::string name;  // "f32 multiply-add", "read from L2"
    bool bytes;        // a second; else operations
    std::function<double(int threads)> measure;  // 0: the level in use has no such unit
  };

  Ceilings();
  const std::vector<Named>& all() const { return all_; }
  // Operations a second of the fastest unit for products of this precision, on all threads.
  double products(Precision precision) const;
  double whole_products() const;  // of 8-bit numbers
  double read(int threads) const;  // bytes a second from memory; everything small has left the caches afterwards
  double copy(int threads);        // bytes read plus bytes written
  double update(int threads);      // the same, of bytes that are written where they were read

 private:
  double cached(int64_t window, int threads) const;
  Tensor memory_;
  std::vector<Named> all_;
};

}  // namespace sennit::bench

#pragma once
#include <sys/types.h>

#include <cstdio>
#include <string>
#include <vector>

namespace sennit::bench {

// A program that does the same work with another library. It prints "ready", or why it cannot be one, then answers each
// line of its input, a case's name, with the seconds that one run took, or with "none" when it does not know the case.
class Peer {
 public:
  explicit Peer(const std::vector<std::string>& command);  // throws Error when it does not start
  ~Peer();
  Peer(const Peer&) = delete;
  double seconds(const std::string& request);  // negative: it does not know

 private:
  std::string line();
  std::string name_;
  pid_t child_ = -1;
  FILE *in_ = nullptr, *out_ = nullptr;
};

}  // namespace sennit::bench

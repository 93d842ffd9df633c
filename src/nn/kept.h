#pragma once
#include <cstdint>
#include <optional>

#include "autograd/var.h"

namespace sennit {

// Something made of parameters: anew at every call while gradients are recorded, else once for a version of them.
template <class Made>
class Kept {
 public:
  template <class Make>
  const Made& get(uint64_t version, const Make& make) {
    if (recording() || version_ != version) {
      made_ = make();
      version_ = recording() ? std::nullopt : std::optional(version);
    }
    return made_;
  }

 private:
  Made made_{};
  std::optional<uint64_t> version_;
};

}  // namespace sennit

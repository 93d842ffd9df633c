#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>

#include "base/error.h"
#include "state/state_file.h"

// Any bytes are the states of a model or one Error, and what is one fits the model's specification.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  static const std::vector<StateSpec> specs = {{{"S", {2, 3}}, {"conv", {1, 2}}},
                                               {{"k", {1, 2}, Growth::per_token}, {"v", {1, 2}, Growth::window, 3}}};
  static const std::string path = "/tmp/sennit-state-fuzz-" + std::to_string(getpid());
  std::FILE* file = std::fopen(path.c_str(), "wb");
  SENNIT_CHECK(file && std::fwrite(data, 1, size, file) == size && std::fclose(file) == 0);
  try {
    for (const SequenceState& s : load_states(path, specs, "m")) {
      int64_t bytes = 0;
      for (const StateSpec& spec : specs)
        for (const StateField& f : spec) bytes += f.bytes(s.position);
      SENNIT_CHECK(s.position == 0 || s.bytes() == bytes);
    }
  } catch (const Error&) {
  }
  std::remove(path.c_str());
  return 0;
}

#include "fuzz/input_folder.h"
#include "state/state_file.h"

// Any bytes are the states of a model or one Error, and what is one fits the model's specification.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  static const std::vector<StateSpec> specs = {{{"S", {2, 3}}, {"conv", {1, 2}}},
                                               {{"k", {1, 2}, Growth::per_token}, {"v", {1, 2}, Growth::window, 3}}};
  static const InputFolder folder;
  std::string note;
  try {
    for (const SequenceState& s :
         load_states(folder.write("states", {data, size}), specs, "m", nullptr, CacheFormat::f32, &note)) {
      int64_t bytes = 0;
      for (const StateSpec& spec : specs)
        for (const StateField& f : spec) bytes += f.bytes(s.position);
      SENNIT_CHECK(s.position == 0 || s.bytes() == bytes);
    }
  } catch (const Error&) {
  }
  return 0;
}

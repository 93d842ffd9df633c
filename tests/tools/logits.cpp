// Prints, as JSON, what a model makes of some tokens: the logits after each, and the likeliest continuation.
//   logits MODEL TOKEN,TOKEN,... CONTINUATION_LENGTH
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "decoding/generate.h"
#include "model/checkpoint.h"

int main(int argc, char** argv) {
  using namespace sennit;
  if (argc != 4) return 2;
  try {
    const NoGrad off;
    std::vector<int32_t> tokens;
    std::stringstream list(argv[2]);
    for (std::string item; std::getline(list, item, ',');) tokens.push_back(std::atoi(item.c_str()));
    const LoadedModel loaded = load_checkpoint(argv[1]);
    Session session(*loaded.model, Context());
    Json out{{"logits", Json::array()}, {"continuation", Json::array()}};
    for (const int32_t t : tokens) {
      const auto logits = session.feed({&t, 1});
      out["logits"].push_back(std::vector<float>(logits.begin(), logits.end()));
    }
    for (int i = 0; i < std::atoi(argv[3]); ++i) {
      const auto logits = session.logits();
      const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      out["continuation"].push_back(best);
      session.feed({&best, 1});
    }
    std::puts(json_text(out).c_str());
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}

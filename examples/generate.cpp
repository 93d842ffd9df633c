// Continues a text, piece by piece: generate CHECKPOINT PROMPT
#include <sennit/sennit.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: generate CHECKPOINT PROMPT\n";
    return 2;
  }
  try {
    const auto model = sennit::TextModel::load(argv[1]);
    model.generate(argv[2], {.max_tokens = 60, .temperature = 0.7},
                   [](std::string_view piece) { return bool(std::cout << piece << std::flush); });
    std::cout << "\n";
  } catch (const sennit::Error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}

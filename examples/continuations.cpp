// Reads a prompt once, keeps it in a file, and writes several answers from there: continuations CHECKPOINT PROMPT FILE
#include <sennit/sennit.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: continuations CHECKPOINT PROMPT FILE\n";
    return 2;
  }
  try {
    const auto model = sennit::TextModel::load(argv[1]);
    auto session = model.begin();
    session.read(argv[2]);
    session.logits();  // reads what is waiting, so that the answers need not
    session.save(argv[3]);
    const auto kept = model.load_session(argv[3]);
    std::cout << kept.tokens().size() << " tokens kept in " << kept.state_bytes() << " bytes\n";
    for (int64_t seed = 1; seed <= 3; ++seed)
      std::cout << seed << ": " << kept.snapshot().write({.max_tokens = 30, .seed = seed}).text << "\n";
  } catch (const sennit::Error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}

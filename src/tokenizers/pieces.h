#pragma once
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/regex.h"

namespace sennit::tokenizers {

struct Piece {
  std::string_view text;
  bool first;  // starts where the whole text starts
};

// A text on its way into words: pieces of it, and the changed texts that some of them stand in.
class Pieces {
 public:
  Pieces(std::string_view text, bool first) : list{{text, first}}, budget(text.size()) {}
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;

  // Replaces each piece by what `part(piece, out)` puts out; empty pieces are dropped.
  template <class F>
  void replace(F&& part) {
    next_.clear();
    for (const Piece& piece : list) part(piece, next_);
    std::erase_if(next_, [](const Piece& p) { return p.text.empty(); });
    list.swap(next_);
  }
  std::string_view keep(std::string text) { return kept_.emplace_back(std::move(text)); }

  std::vector<Piece> list;
  RegexBudget budget;

 private:
  std::vector<Piece> next_;
  std::deque<std::string> kept_;
};

}  // namespace sennit::tokenizers

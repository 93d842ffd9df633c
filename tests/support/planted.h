#pragma once
#include "support/trained.h"

// Text with notes planted in it, a key and its value, and at its end every key again: what a model of text that must
// also look far back is trained on.
namespace sennit::trained {

struct Planting {
  int64_t length;
  int64_t notes = 4;
  int64_t distance = 0;  // tokens between the last note and the first question, at least
  bool all = true;       // targets: the text's too, or the values that are asked for alone
};

constexpr int32_t kKeys = 256, kValues = kKeys + 16, kPlantedVocab = kValues + 16;

inline void plant(Rows& rows, const Planting& p, Rng rng) {
  const Segment& s = rows.segments.back();
  const auto tokens = std::span(rows.tokens).subspan(static_cast<size_t>(s.begin), static_cast<size_t>(s.length));
  const auto targets = std::span(rows.targets).subspan(static_cast<size_t>(s.begin), static_cast<size_t>(s.length));
  if (!p.all) std::fill(targets.begin(), targets.end(), data::kIgnored);
  const int64_t questions = p.length - 2 * p.notes, slots = (questions - p.distance) / 2;
  std::set<int64_t> places;
  std::vector<int32_t> keys, values;
  while (std::ssize(places) < p.notes) places.insert(2 * rng.below(slots));
  while (std::ssize(keys) < p.notes) {
    const auto key = static_cast<int32_t>(kKeys + rng.below(16));
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    keys.push_back(key);
    values.push_back(static_cast<int32_t>(kValues + rng.below(16)));
  }
  const auto put = [&](int64_t at, int32_t token, int32_t target) {
    if (at > 0) targets[static_cast<size_t>(at - 1)] = target;  // what stands here is asked for one token before
    tokens[static_cast<size_t>(at)] = token;
  };
  size_t note = 0;
  for (const int64_t at : places) {
    put(at, keys[note], data::kIgnored);
    put(at + 1, values[note++], data::kIgnored);
  }
  for (int64_t i = 0; i < p.notes; ++i) {  // asked for in another order
    const auto which = static_cast<size_t>((i * 3 + 1) % p.notes);
    put(questions + 2 * i, keys[which], data::kIgnored);
    put(questions + 2 * i + 1, values[which], values[which]);
  }
  targets.back() = data::kIgnored;
}

// `count` sequences, of the training part of the text or of the part that was kept apart.
inline Rows planted(const Text& text, int64_t count, const Planting& p, Rng rng, bool kept = false) {
  Rows all;
  const Rows from = kept ? text.kept(p.length, count) : text.drawn(count, p.length, rng.fork("text"));
  for (const Segment& s : from.segments) {
    const auto begin = static_cast<std::ptrdiff_t>(s.begin), end = begin + static_cast<std::ptrdiff_t>(s.length);
    all.add({from.tokens.begin() + begin, from.tokens.begin() + end},
            {from.targets.begin() + begin, from.targets.begin() + end});
    plant(all, p, rng.fork(static_cast<uint64_t>(s.begin)));
  }
  return all;
}

// The weights of one model for another of the same names and shapes.
inline void copy_weights(Model& from, Model& to) {
  std::map<std::string, Tensor> all;
  from.parameters([&](const std::string& name, Parameter& p) { all[name] = p.value(); });
  to.parameters([&](const std::string& name, Parameter& p) {
    p.var.value().copy_from(all.at(name));
    ++p.version;
  });
}

}  // namespace sennit::trained

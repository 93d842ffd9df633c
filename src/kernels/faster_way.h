#pragma once
#include <cstdint>

namespace sennit::kernels {

// Which of two ways to do the same work is faster for now, found out by the work itself: every so often the two take
// turns at pieces of one size, twice each, and the one that had the fastest turn does what comes until the next time.
// Times are in ticks of any steady clock.
class FasterWay {
 public:
  explicit constexpr FasterWay(uint64_t trusted) : trusted_(trusted) {}

  // Whether a piece of work of this size, begun now, is to go the first way.
  bool first(uint64_t now, int64_t size) {
    on_trial_ = false;
    if (now < until_) return first_;
    if (turn_ == 0 || now >= give_up_) turn_ = 0, size_ = size, give_up_ = now + trusted_;
    if (size != size_) return first_;
    on_trial_ = true, begun_ = now;
    return turn_ % 2 == 0;
  }
  // Whether done() wants to know when that piece was done.
  bool on_trial() const { return on_trial_; }
  void done(uint64_t now) {
    uint64_t& best = best_[turn_ % 2];
    if (const uint64_t took = now - begun_; turn_ < 2 || took < best) best = took;
    give_up_ = now + trusted_;
    if (++turn_ < 4) return;
    first_ = best_[0] <= best_[1];
    turn_ = 0, until_ = now + trusted_;
  }

 private:
  uint64_t trusted_;  // for how long a choice holds, and a trial waits for the next piece of its size
  uint64_t until_ = 0, give_up_ = 0, begun_ = 0, best_[2] = {};
  int64_t size_ = 0;
  int turn_ = 0;
  bool first_ = true, on_trial_ = false;
};

}  // namespace sennit::kernels

// Training runs end with the same weights to the bit however they were stopped.
#include "train/trainer.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/parallel.h"
#include "data/tokenize.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace sennit::train::trainer_test {

constexpr int64_t kSteps = 6;

class Trainer : public testing::Test {
 protected:
  Trainer() {
    Rng rng(3);
    std::string text;
    for (int d = 0; d < 40; ++d) {
      for (int64_t n = 10 + rng.below(120); n > 0; --n) text += static_cast<char>('a' + rng.below(8));
      text += "\n\f\n";
    }
    std::filesystem::create_directories(folder_ / "text");
    spill(folder_ / "text/train.txt", text);
    spill(folder_ / "text/valid.txt", text.substr(0, 500));
    const auto bytes = tokenizers::bytes_tokenizer();
    data::tokenize_folder(folder_ / "text", folder_ / "tokens", *bytes);
  }

  RunSettings settings(const std::string& out, Options options) const {
    options.steps = kSteps;
    options.rows = 2, options.length = 48;
    options.warmup = 2;
    options.eval_every = 4;
    return {hybrid_file(257), "hybrid.json", folder_ / "tokens", folder_ / out, options};
  }

  RunResult to_the_end(const RunSettings& s) const {
    const std::atomic<bool> stop{false};
    return run(s, {}, stop);
  }
  static std::vector<float> weights(const std::string& run_folder) {
    LoadedModel loaded = load_checkpoint(run_folder);
    return all_of(*loaded.model, false);
  }

  TempFolder folder_;
};

std::vector<std::pair<std::string, Options>> kinds() {
  Options plain, carried, checkpointed;
  plain.accumulate = 2, plain.precision = "f32";
  carried.carry = true;
  checkpointed.checkpointed = true;
  return {{"plain", plain}, {"carried", carried}, {"checkpointed", checkpointed}};
}

struct Killed {};

TEST_F(Trainer, StoppedAndResumedIsTheSameToTheBit) {
  for (auto [kind, options] : kinds()) {
    SCOPED_TRACE(kind);
    options.save_every = 2;
    const RunResult whole = to_the_end(settings(kind + "-whole", options));
    ASSERT_TRUE(whole.finished);
    const auto expected = weights(folder_ / (kind + "-whole"));

    // Asked to stop after step 3, which is saved; and once more right after going on.
    const RunSettings asked = settings(kind + "-asked", options);
    for (const int64_t last : {3, 4}) {
      std::atomic<bool> stop{false};
      Watcher watcher;
      watcher.step = [&](const StepReport& r) { stop = r.step == last; };
      const RunResult part = run(asked, watcher, stop);
      EXPECT_FALSE(part.finished);
      EXPECT_EQ(part.step, last);
    }
    EXPECT_EQ(to_the_end(asked).loss, whole.loss);
    EXPECT_TRUE(same_bits(weights(asked.out), expected)) << "asked to stop";

    // Torn away in the middle of step 5, whose last checkpoint is of step 4, and while step 2 is reported as saved.
    const RunSettings torn = settings(kind + "-torn", options);
    Watcher watcher;
    watcher.step = [](const StepReport& r) {
      if (r.step == 5) throw Killed();
    };
    const std::atomic<bool> never{false};
    EXPECT_THROW(run(torn, watcher, never), Killed);
    EXPECT_EQ(to_the_end(torn).loss, whole.loss);
    EXPECT_TRUE(same_bits(weights(torn.out), expected)) << "torn away";

    // A run that has ended stays as it is.
    EXPECT_TRUE(to_the_end(torn).finished);
    EXPECT_TRUE(same_bits(weights(torn.out), expected));
  }
}

TEST_F(Trainer, KilledProcessesResume) {
  Options options;
  options.save_every = 2, options.carry = true;
  to_the_end(settings("whole", options));
  const RunSettings killed = settings("killed", options);
  for (const int64_t last : {1, 5}) {
    const pid_t child = fork();
    if (child == 0) {
      Watcher watcher;
      watcher.step = [&](const StepReport& r) {
        if (r.step == last) kill(getpid(), SIGKILL);
      };
      const std::atomic<bool> stop{false};
      run(killed, watcher, stop);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  }
  to_the_end(killed);
  EXPECT_TRUE(same_bits(weights(killed.out), weights(folder_ / "whole")));
}

TEST_F(Trainer, ThreadsChangeNoBit) {
  const int before = thread_count();
  std::vector<float> reference;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    Options options;
    options.save_every = 0;
    const RunSettings s = settings(std::to_string(threads), options);
    to_the_end(s);
    const auto got = weights(s.out);
    if (threads == 1) reference = got;
    EXPECT_TRUE(same_bits(got, reference)) << threads;
  }
  set_thread_count(before);
}

TEST_F(Trainer, AnotherRunInTheFolderIsRefused) {
  Options options;
  options.save_every = 0;
  RunSettings s = settings("run", options);
  to_the_end(s);
  s.options.rate *= 2;
  EXPECT_NE(error_of([&] { to_the_end(s); }).find("rate"), std::string::npos);
  s = settings("run", options);
  s.model["d_model"] = 64;
  EXPECT_NE(error_of([&] { to_the_end(s); }).find("model"), std::string::npos);
  s = settings("run", options);
  s.options.save_every = 3;  // may change
  EXPECT_TRUE(to_the_end(s).finished);
}

TEST_F(Trainer, ALossThatIsNotFiniteStopsAndLeavesTheLastCheckpoint) {
  Options options;
  options.save_every = 1, options.keep = 100, options.warmup = 0;
  options.clip = 0;
  RunSettings s = settings("wild", options);
  s.options.steps = 60;
  s.options.rate = 100, s.options.weight_decay = 10;
  const std::string text = error_of([&] { to_the_end(s); });
  EXPECT_NE(text.find("finite"), std::string::npos) << text;
  EXPECT_NE(text.find(s.out), std::string::npos) << text;
  const int64_t last = RunFolder(s.out).last_step();
  EXPECT_GT(last, 0);
  EXPECT_NE(text.find(fmt::format("the last checkpoint is of step {}", last)), std::string::npos) << text;
  EXPECT_FALSE(weights(s.out).empty());
}

TEST_F(Trainer, BadSettingsAreErrors) {
  Options both;
  both.carry = both.checkpointed = true;
  EXPECT_NE(error_of([&] { to_the_end(settings("a", both)); }).find("carry"), std::string::npos);
  RunSettings small = settings("b", {});
  small.model["vocab"] = 100;
  EXPECT_NE(error_of([&] { to_the_end(small); }).find("vocabulary"), std::string::npos);
  RunSettings nowhere = settings("c", {});
  nowhere.data = folder_ / "nothing";
  EXPECT_NE(error_of([&] { to_the_end(nowhere); }).find("nothing"), std::string::npos);
}

}  // namespace sennit::train::trainer_test

// Generators against solvers that share no code with them, and a short trial.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/packer.h"
#include "measure/trial.h"
#include "support/temp_folder.h"
#include "tasks/task.h"

namespace sennit::tasks_test {

std::unique_ptr<Task> task(const Json& part) { return tasks::registry().make(part, {}, Rng(), "test"); }

TEST(Tasks, EverySequenceFitsItsTaskAndIsAFunctionOfItsNumber) {
  for (const auto& entry : tasks::registry().entries()) {
    const auto t = task(entry.name);
    std::set<std::vector<int32_t>> seen;
    for (uint64_t i = 0; i < 50; ++i) {
      const TaskSequence s = t->sequence(Rng(3).fork(i)), again = t->sequence(Rng(3).fork(i));
      EXPECT_EQ(s.tokens, again.tokens);
      EXPECT_EQ(s.targets, again.targets);
      EXPECT_EQ(std::ssize(s.tokens), t->length());
      EXPECT_EQ(s.tokens.size(), s.targets.size());
      int64_t asked = 0;
      for (size_t j = 0; j < s.tokens.size(); ++j) {
        EXPECT_TRUE(s.tokens[j] >= 0 && s.tokens[j] < t->vocab());
        EXPECT_TRUE(s.targets[j] == data::kIgnored || (s.targets[j] >= 0 && s.targets[j] < t->vocab()));
        asked += s.targets[j] != data::kIgnored;
      }
      EXPECT_GT(asked, 0);
      EXPECT_TRUE(seen.insert(s.tokens).second) << "sequence " << i << " came before";
    }
  }
}

TEST(Recall, AReaderOfTheFirstPairsAnswersEverything) {
  for (const int64_t pairs : {1, 4, 16}) {
    const auto t = task({{"name", "recall"}, {"pairs", pairs}, {"length", 80}, {"vocab", 64}});
    for (uint64_t i = 0; i < 200; ++i) {
      const TaskSequence s = t->sequence(Rng(5).fork(i));
      std::map<int32_t, int32_t> said;
      for (int64_t p = 0; p < pairs; ++p) EXPECT_TRUE(said.insert({s.tokens[2 * p], s.tokens[2 * p + 1]}).second) << "a key twice";
      std::set<int32_t> asked;
      for (size_t j = 0; j < s.targets.size(); ++j) {
        if (s.targets[j] == data::kIgnored) continue;
        EXPECT_GE(std::ssize(s.tokens) - 1, static_cast<int64_t>(j) + 1);
        EXPECT_GE(static_cast<int64_t>(j), 2 * pairs);
        EXPECT_EQ(said.at(s.tokens[j]), s.targets[j]);
        EXPECT_EQ(s.tokens[j + 1], s.targets[j]);
        asked.insert(s.tokens[j]);
      }
      EXPECT_EQ(std::ssize(asked), pairs);
    }
  }
}

TEST(SelectiveCopying, AListOfWhatIsNoBlankAnswersEverything) {
  for (const int64_t count : {1, 16, 64}) {
    const auto t = task({{"name", "selective_copying"}, {"count", count}, {"length", 128}, {"symbols", 8}});
    std::vector<int64_t> at(64);
    for (uint64_t i = 0; i < 400; ++i) {
      const TaskSequence s = t->sequence(Rng(5).fork(i));
      std::vector<int32_t> noted, said;
      for (size_t j = 0; j < s.tokens.size(); ++j) {
        if (s.tokens[j] < 8) noted.push_back(s.tokens[j]);
        if (s.tokens[j] < 8 && j < 64) ++at[j];
        EXPECT_EQ(s.tokens[j] == 9, s.targets[j] != data::kIgnored);
        if (s.tokens[j] == 9) said.push_back(s.targets[j]);
      }
      EXPECT_EQ(noted, said);
      EXPECT_EQ(std::ssize(said), count);
    }
    if (count == 64) {
      EXPECT_EQ(std::count(at.begin(), at.end(), 400), 64);  // no room for blanks
    }
    if (count == 16) {  // 16 of 112 places, each as often: 57 of 400, give or take 5 deviations
      for (const int64_t times : at) EXPECT_NEAR(static_cast<double>(times), 400 * 16 / 112.0, 35);
    }
  }
}

TEST(Recall, DistancesFollowThePowerLaw) {
  const auto mean_place = [](double power) {
    const auto t = task({{"name", "recall"}, {"pairs", 1}, {"length", 402}, {"power", power}});
    double sum = 0;
    for (uint64_t i = 0; i < 2000; ++i) {
      const TaskSequence s = t->sequence(Rng(7).fork(i));
      for (size_t j = 0; j < s.targets.size(); ++j)
        if (s.targets[j] != data::kIgnored) sum += static_cast<double>(j) / 2 - 1;
    }
    return sum / 2000;
  };
  const auto expected = [](double power) {
    double total = 0, first = 0;
    for (int slot = 0; slot < 200; ++slot) total += std::pow(slot + 1, power - 1), first += slot * std::pow(slot + 1, power - 1);
    return first / total;
  };
  for (const double power : {0.01, 0.5, 1.0}) EXPECT_NEAR(mean_place(power), expected(power), 5) << power;
}

TEST(Recall, ImpossibleSizesAreRefused) {
  EXPECT_NE(error_of([] { task({{"name", "recall"}, {"pairs", 200}, {"length", 9999}, {"vocab", 256}}); }).find("half the vocabulary"), std::string::npos);
  EXPECT_NE(error_of([] { task({{"name", "recall"}, {"pairs", 20}, {"length", 64}}); }).find("four times"), std::string::npos);
}

TEST(Trial, TheSameSeedGivesTheSameAccuracyAndEnoughStepsGiveMore) {
  const measure::TrialOptions options{.task = {{"name", "recall"}, {"pairs", 2}, {"length", 16}, {"vocab", 16}},
                                      .d_model = 32, .steps = 150, .rows = 32, .rate = 1e-2, .asked = 64};
  const auto a = measure::trial("softmax", "softmax", options), b = measure::trial("softmax", "softmax", options);
  EXPECT_EQ(a->accuracy, b->accuracy);
  EXPECT_EQ(a->loss, b->loss);
  EXPECT_EQ(std::ssize(a->accuracy_by_steps), 10);
  EXPECT_GT(a->accuracy, 0.5) << "chance is 1 in 8";
  EXPECT_GT(a->state_bytes_64k, a->state_bytes);
}

TEST(Trial, EndsWhenItIsTold) {
  EXPECT_FALSE(measure::trial("gla", "gla", {.steps = 5}, [](const std::string& what) { return what.find("step 2") == std::string::npos; }));
}

}  // namespace sennit::tasks_test

#pragma once
#include "support/trained.h"
#include "tasks/task.h"

// Multi-query associative recall (the task `recall`) for models that tests train.
namespace sennit::trained {

inline std::unique_ptr<Task> recall_task(int64_t pairs, int64_t length, int64_t vocab) {
  return tasks::registry().make(
      Json{{"name", "recall"}, {"pairs", pairs}, {"length", length}, {"vocab", vocab}}, {}, Rng(), "test");
}
inline Rows drawn_from(const Task& task, int64_t count, Rng rng) {
  Rows rows;
  for (int64_t i = 0; i < count; ++i) {
    const TaskSequence s = task.sequence(rng.fork(static_cast<uint64_t>(i)));
    rows.add(s.tokens, s.targets);
  }
  return rows;
}

// Trains on `rows` sequences a step.
inline void learn_task(Trainee& trainee, const Task& task, int64_t rows) {
  trainee.train([&](int64_t, Rng rng) { return drawn_from(task, rows, rng); });
}
inline double task_accuracy(Trainee& trainee, const Task& task) {
  return trainee.accuracy(drawn_from(task, 200, Rng(94)));
}

}  // namespace sennit::trained

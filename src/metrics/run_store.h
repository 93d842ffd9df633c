#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sennit::metrics {

struct Scalar {
  int64_t step;
  double value;  // NaN stays NaN
  double time;   // seconds since 1970
};

// The metrics of one run: <folder>/metrics.sqlite with the tables run(key, value) and scalars(step, name, value, time).
// Values gather in memory and are written in one transaction by flush(); a killed run loses what was not flushed. Other
// processes may read meanwhile (write-ahead log). A second value for the same step and name replaces the first. One
// thread at a time. Throws Error when the file cannot be opened, is no such store, or cannot be written.
class RunStore {
 public:
  explicit RunStore(const std::string& folder);
  ~RunStore();  // what is unflushed is flushed, if it can be
  RunStore(const RunStore&) = delete;
  RunStore& operator=(const RunStore&) = delete;

  void set(std::string_view key, std::string_view value);  // at once
  std::optional<std::string> get(std::string_view key) const;

  void add(int64_t step, std::string_view name, double value);
  void flush();

  // Forgets every scalar of a step after `last`, flushed or not: for going on from a checkpoint at `last`.
  void truncate_after(int64_t last);

  std::vector<std::string> names() const;                   // flushed ones, sorted
  std::vector<Scalar> series(std::string_view name) const;  // flushed ones, by step

 private:
  struct Database;
  struct Pending {
    Scalar scalar;
    std::string name;
  };
  std::unique_ptr<Database> db_;
  std::vector<Pending> pending_;
};

}  // namespace sennit::metrics

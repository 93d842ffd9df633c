#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "io/posix.h"

namespace sennit::metrics {

// A TensorBoard event file in a run's folder: events.out.tfevents.<time>.<host>.<pid>.<n>, a sequence of records
// (u64 length, masked CRC-32C of it, data, masked CRC-32C of the data) that hold tensorflow.Event messages. Records
// gather in memory; flush() writes whole ones only. Throws Error naming the file.
class EventFile {
 public:
  // With `resume_after`, readers are told to forget what earlier files say of later steps.
  explicit EventFile(const std::string& folder, std::optional<int64_t> resume_after = {});
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void add(int64_t step, std::string_view tag, double value);  // stored as float
  void flush();
  const std::string& path() const { return path_; }

 private:
  void record(std::string_view event);
  std::string path_, pending_;
  io::Descriptor fd_;
};

}  // namespace sennit::metrics

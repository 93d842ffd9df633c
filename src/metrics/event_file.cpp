#include "metrics/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/clock.h"
#include "base/error.h"
#include "io/checksum.h"

namespace sennit::metrics {
namespace {

std::string file_name() {
  static std::atomic<int> number{0};
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0) std::strcpy(host, "host");
  return fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<int64_t>(seconds_since_epoch()), host, ::getpid(), number++);
}

// A protocol-buffer message under construction; fields as in tensorflow's event.proto and summary.proto.
class Message {
 public:
  Message& integer(int field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& fixed64(int field, double value) { return fixed(field, 1, value); }
  Message& fixed32(int field, float value) { return fixed(field, 5, value); }
  Message& text(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(int field, int wire) { varint(static_cast<uint64_t>(field << 3 | wire)); }
  void varint(uint64_t x) {
    for (; x >= 0x80; x >>= 7) bytes_ += static_cast<char>(x | 0x80);
    bytes_ += static_cast<char>(x);
  }
  template <class Number>
  Message& fixed(int field, int wire, Number value) {
    key(field, wire);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  std::string bytes_;
};

template <class Word>
void append_word(std::string& out, Word word) {
  out.append(reinterpret_cast<const char*>(&word), sizeof word);
}

uint32_t masked_crc(std::string_view data) {
  const uint32_t crc = io::crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8;
}

}  // namespace

EventFile::EventFile(const std::string& folder, std::optional<int64_t> resume_after)
    : path_((std::filesystem::path(folder) / file_name()).string()) {
  fd_ = io::Descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666));
  if (!fd_) io::fail_system("event file", "to create it", errno, path_);
  record(Message().fixed64(1, seconds_since_epoch()).text(3, "brain.Event:2").bytes());
  if (resume_after) {
    constexpr int kStart = 1;
    const Message session = Message().integer(1, kStart);
    record(Message().fixed64(1, seconds_since_epoch()).integer(2, *resume_after + 1).text(7, session.bytes()).bytes());
  }
  flush();
}

EventFile::~EventFile() {
  try {
    flush();
  } catch (const Error&) {  // a destructor has nobody to tell; flush() told whoever asked
  }
}

void EventFile::add(int64_t step, std::string_view tag, double value) {
  const Message scalar = Message().text(1, tag).fixed32(2, static_cast<float>(value));
  const Message summary = Message().text(1, scalar.bytes());
  record(Message().fixed64(1, seconds_since_epoch()).integer(2, step).text(5, summary.bytes()).bytes());
}

void EventFile::record(std::string_view event) {
  std::string length;
  append_word(length, static_cast<uint64_t>(event.size()));
  pending_ += length;
  append_word(pending_, masked_crc(length));
  pending_ += event;
  append_word(pending_, masked_crc(event));
}

void EventFile::flush() {
  const std::string bytes = std::move(pending_);
  pending_.clear();
  const off_t begin = ::lseek(fd_.get(), 0, SEEK_END);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(fd_.get(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = n < 0 ? errno : ENOSPC;
      // Half a record would hide all that follow.
      const bool cut = ::ftruncate(fd_.get(), begin) == 0;
      io::fail_system("event file", fmt::format("to write {} bytes{}", bytes.size(), cut ? "" : " (a part remains)"),
                      error, path_);
    }
    done += static_cast<size_t>(n);
  }
}

}  // namespace sennit::metrics

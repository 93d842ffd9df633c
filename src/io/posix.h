#pragma once
#include <cstdint>
#include <string>
#include <utility>

namespace sennit::io {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { close(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  bool close();  // false, with errno set, when the system reports an error

 private:
  int fd_;
};

// Throws Error with the system's reason for `error` (an errno value), naming the path.
[[noreturn]] void fail_system(const std::string& who, const std::string& expected, int error, const std::string& path);

// Opens for reading; a missing file, a folder or anything else but a regular file is an Error. `bytes` is its size.
Descriptor open_regular(const std::string& path, int64_t& bytes);

// Makes the entries of a folder durable (fsync); file systems that cannot are let off.
void sync_folder(const std::string& path);

std::string parent_folder(const std::string& path);  // "." for a bare name

}  // namespace sennit::io

#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "io/posix.h"

namespace sennit::io {

// A file that appears whole or not at all: written under a temporary name in the same folder, made durable, then
// renamed over `path`. Every failed or short write is an Error that names the path and the bytes; without commit() the
// temporary is removed and `path` stays as it was. A temporary that a killed process left is removed by the next
// writer of the same path on the same host.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void overwrite(int64_t offset, const void* data, size_t bytes);  // bytes written before, e.g. a header
  int64_t size() const { return size_; }
  void commit();

 private:
  std::string path_, temporary_;
  Descriptor fd_;
  int64_t size_ = 0;
};

void write_file(const std::string& path, std::string_view content);

// A folder that appears whole or not at all. Files go into path(), a sibling of the target; commit() makes them
// durable and puts the folder in the target's place, whose old content (if any) is exchanged in one step and removed.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::string target);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::string& path() const { return staging_; }
  void commit();

 private:
  std::string target_, staging_;
  bool committed_ = false;
};

}  // namespace sennit::io

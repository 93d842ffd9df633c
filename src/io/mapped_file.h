#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace sennit::io {

// A whole file in memory, read-only, paged in by the system as it is touched. The file must not be cut short while it
// is mapped: touching pages that are gone ends the process (SIGBUS). Files that this engine writes are replaced, never
// rewritten, so that a mapping keeps showing the old content.
class MappedFile {
 public:
  // Throws Error when the path is missing, a folder, not a regular file, or empty.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::span<const std::byte> bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {}
  std::span<const std::byte> bytes_;
  std::string path_;
};

}  // namespace sennit::io

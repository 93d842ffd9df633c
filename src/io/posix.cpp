#include "io/posix.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace sennit::io {

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) close(), fd_ = std::exchange(other.fd_, -1);
  return *this;
}

bool Descriptor::close() {
  const int fd = std::exchange(fd_, -1);
  return fd < 0 || ::close(fd) == 0;
}

void fail_system(const std::string& who, const std::string& expected, int error, const std::string& path) {
  fail({who, expected, std::generic_category().message(error), path});
}

Descriptor open_regular(const std::string& path, int64_t& bytes) {
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) fail_system("file", "to open it for reading", errno, path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) fail_system("file", "to learn its size", errno, path);
  if (S_ISDIR(info.st_mode)) fail({"file", "a file", "a folder", path});
  if (!S_ISREG(info.st_mode)) fail({"file", "a regular file", "a device, pipe or socket", path});
  bytes = info.st_size;
  return fd;
}

void sync_folder(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) fail_system("folder", "to open it", errno, path);
  if (::fsync(fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP)
    fail_system("folder", "to make it durable", errno, path);
}

std::string parent_folder(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

}  // namespace sennit::io

#include "io/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "base/error.h"

namespace sennit::io {
namespace {

namespace fs = std::filesystem;

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "host";
}

// ".<name>.<host>-": what the temporaries of one target on this host begin with; "<pid>-<number>.tmp" follows.
std::string temporary_prefix(const fs::path& target) {
  return fmt::format(".{}.{}-", target.filename().string(), host_name());
}

// Removes what writers of `target` left that are no longer alive.
void sweep(const fs::path& target) {
  const std::string prefix = temporary_prefix(target);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent_folder(target.string()), ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(".tmp")) continue;
    pid_t writer = 0;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), writer);
    if (writer > 0 && ::kill(writer, 0) != 0 && errno == ESRCH) fs::remove_all(entry.path(), ignored);
  }
}

std::string temporary_name(const std::string& target) {
  static std::atomic<int> number{0};
  const fs::path path(target);
  if (path.filename().empty()) fail({"file", "a path that ends in a name", "none", target});
  sweep(path);
  return (path.parent_path() / fmt::format("{}{}-{}.tmp", temporary_prefix(path), ::getpid(), number++)).string();
}

void sync_file(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) fail_system("file", "to make it durable", errno, path);
}

void sync_tree(const std::string& folder) {
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    if (entries->is_directory(error))
      sync_folder(entries->path().string());
    else if (entries->is_regular_file(error))
      sync_file(entries->path().string());
  }
  if (error) fail_system("folder", "to list it", error.value(), folder);
  sync_folder(folder);
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  if (is_folder(path_)) fail({"file", "a place for a file", "a folder", path_});
  fd_ = Descriptor(::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!fd_) fail_system("file", "to create it", errno, path_);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  SENNIT_CHECK(fd_, "written after commit: {}", path_);
  const auto* p = static_cast<const char*>(data);
  for (size_t left = bytes; left > 0;) {
    const ssize_t n = ::write(fd_.get(), p, left);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail_system("file", fmt::format("to write {} bytes at {}", bytes, size_), n < 0 ? errno : ENOSPC, path_);
    p += n, left -= n, size_ += n;
  }
}

void AtomicFile::overwrite(int64_t offset, const void* data, size_t bytes) {
  SENNIT_CHECK(fd_ && offset >= 0 && offset + static_cast<int64_t>(bytes) <= size_, "{}+{} of {}", offset, bytes,
               size_);
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_.get(), p, bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail_system("file", fmt::format("to write {} bytes at {}", bytes, offset), n < 0 ? errno : ENOSPC, path_);
    p += n, bytes -= n, offset += n;
  }
}

void AtomicFile::commit() {
  SENNIT_CHECK(fd_, "committed twice: {}", path_);
  if (::fsync(fd_.get()) != 0) fail_system("file", fmt::format("to make {} bytes durable", size_), errno, path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_system("file", "to put it in place", errno, path_);
  temporary_.clear();
  if (!fd_.close()) fail_system("file", "to close it", errno, path_);
  sync_folder(parent_folder(path_));
}

void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

AtomicFolder::AtomicFolder(std::string target) : target_(std::move(target)) {
  while (target_.size() > 1 && target_.back() == '/') target_.pop_back();
  staging_ = temporary_name(target_);
  std::error_code error;
  if (fs::exists(target_, error) && !is_folder(target_)) fail({"folder", "a place for a folder", "a file", target_});
  if (!fs::create_directory(staging_, error)) fail_system("folder", "to create it", error.value(), target_);
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(staging_, ignored);
}

void AtomicFolder::commit() {
  SENNIT_CHECK(!committed_, "committed twice: {}", target_);
  sync_tree(staging_);
  const char* from = staging_.c_str();
  const char* to = target_.c_str();
  // A rename takes the place of nothing and of an empty folder; a full one is exchanged and what it held removed.
  const int refusal = ::rename(from, to) == 0 ? 0 : errno;
  const bool full = refusal == ENOTEMPTY || refusal == EEXIST;
  if (refusal != 0 && !full) fail_system("folder", "to put it in place", refusal, target_);
  if (full && ::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) != 0)
    fail_system("folder", "to put it in the place of the old one", errno, target_);
  committed_ = true;
  sync_folder(parent_folder(target_));
  std::error_code ignored;
  if (full) fs::remove_all(staging_, ignored);
}

}  // namespace sennit::io

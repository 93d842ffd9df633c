#include "io/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/error.h"
#include "io/posix.h"

namespace sennit::io {

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  int64_t size = 0;
  const Descriptor fd = open_regular(path, size);
  if (size == 0) fail({"file", "some content", "an empty file", path});
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (start == MAP_FAILED) fail_system("file", fmt::format("to map {} bytes", size), errno, path);
  return std::shared_ptr<const MappedFile>(
      new MappedFile({static_cast<const std::byte*>(start), static_cast<size_t>(size)}, path));
}

MappedFile::~MappedFile() {
  ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace sennit::io

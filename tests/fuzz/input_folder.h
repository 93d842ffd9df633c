#pragma once
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>

#include "base/error.h"

namespace sennit {

// A folder of this process for readers that want files; each input writes them anew.
class InputFolder {
 public:
  InputFolder() : path_(std::filesystem::temp_directory_path() / ("sennit-fuzz-" + std::to_string(getpid()))) {
    std::filesystem::create_directory(path_);
  }
  ~InputFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  InputFolder(const InputFolder&) = delete;

  std::string path() const { return path_; }
  // The path of the file.
  std::string write(const char* name, std::span<const uint8_t> content) const {
    const std::string path = path_ / name;
    std::FILE* file = std::fopen(path.c_str(), "wb");
    SENNIT_CHECK(file && std::fwrite(content.data(), 1, content.size(), file) == content.size());
    SENNIT_CHECK(std::fclose(file) == 0);
    return path;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace sennit

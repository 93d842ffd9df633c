#include "data/tokenize.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "data/token_file.h"
#include "io/json_file.h"
#include "io/mapped_file.h"

namespace sennit::data {
namespace {

namespace fs = std::filesystem;

struct Line {
  std::string_view text;  // without its end
  size_t used;            // with it
};

Line first_line(std::string_view text) {
  const size_t end = text.find('\n');
  if (end == text.npos) return {text, text.size()};
  const bool carriage = end > 0 && text[end - 1] == '\r';
  return {text.substr(0, end - carriage), end + 1};
}

// Cuts the first document off `rest`.
std::string_view take_document(std::string_view& rest) {
  const std::string_view whole = rest;
  size_t length = 0;
  while (!rest.empty()) {
    const Line line = first_line(rest);
    rest.remove_prefix(line.used);
    if (line.text == "\f") break;
    length += line.used;
  }
  return whole.substr(0, length);
}

std::string text_of(std::string_view line, const std::string& where) {
  const Json record = io::parse_json(line, where);
  const auto text = record.is_object() ? record.find("text") : record.end();
  if (text == record.end() || !text->is_string()) fail({"jsonl", "a member \"text\" that is text", "none", where});
  return text->get<std::string>();
}

// Documents wait here until there are enough of them to share among the threads.
class Batch {
 public:
  Batch(TokenFileWriter& writer, const tokenizers::Tokenizer& tokenizer) : writer_(writer), tokenizer_(tokenizer) {}

  struct Item {
    std::string_view text;
    std::string where;  // of a line of JSON; empty for plain text
  };

  void add(Item item) {
    bytes_ += static_cast<int64_t>(item.text.size());
    items_.push_back(std::move(item));
  }
  bool full() const { return bytes_ > (int64_t{8} << 20) || items_.size() >= 65536; }

  void run() {
    std::vector<std::vector<int32_t>> ids(items_.size());
    parallel_for(static_cast<int64_t>(items_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Item& item = items_[i];
        ids[i] = item.where.empty() ? tokenizer_.encode(item.text) : tokenizer_.encode(text_of(item.text, item.where));
      }
    });
    for (const auto& document : ids) writer_.add(document);
    items_.clear();
    bytes_ = 0;
  }

 private:
  TokenFileWriter& writer_;
  const tokenizers::Tokenizer& tokenizer_;
  std::vector<Item> items_;
  int64_t bytes_ = 0;
};

}  // namespace

TokenizeReport tokenize_files(std::span<const std::string> inputs, const std::string& output,
                              const tokenizers::Tokenizer& tokenizer, const Progress& progress) {
  std::vector<std::shared_ptr<const io::MappedFile>> files;
  int64_t total = 0, before = 0;
  for (const std::string& path : inputs) {
    files.push_back(io::MappedFile::open(path));
    total += static_cast<int64_t>(files.back()->bytes().size());
  }
  TokenFileWriter writer(output, tokenizer);
  Batch batch(writer, tokenizer);
  for (const auto& file : files) {
    const bool json_lines = fs::path(file->path()).extension() == ".jsonl";
    std::string_view rest = file->text();
    for (int64_t number = 1; !rest.empty(); ++number) {
      if (!json_lines) {
        batch.add({take_document(rest), ""});
      } else {
        const Line line = first_line(rest);
        rest.remove_prefix(line.used);
        if (!line.text.empty()) batch.add({line.text, fmt::format("{}, record {}", file->path(), number)});
      }
      if (!batch.full() && !rest.empty()) continue;
      batch.run();
      if (progress) progress("tokenizing", before + static_cast<int64_t>(file->text().size() - rest.size()), total);
    }
    before += static_cast<int64_t>(file->text().size());
  }
  if (writer.tokens() == 0) fail({"tokenize", "at least one document", "none", inputs.empty() ? "no file" : inputs[0]});
  writer.commit();
  return {total, writer.documents(), writer.tokens()};
}

TokenizeReport tokenize_folder(const std::string& input, const std::string& output,
                               const tokenizers::Tokenizer& tokenizer, const Progress& progress) {
  std::error_code error;
  fs::create_directories(output, error);
  if (error) fail({"tokenize", "to create the folder", error.message(), output});
  TokenizeReport all;
  for (const std::string split : {"train", "valid", "test"}) {
    std::vector<std::string> found;
    for (const char* ending : {".txt", ".jsonl"})
      if (const fs::path path = fs::path(input) / (split + ending); fs::exists(path, error))
        found.push_back(path.string());
    if (found.empty() && split == "train") fail({"tokenize", "train.txt or train.jsonl", "neither", input});
    if (found.empty()) continue;
    const auto named = [&](std::string_view, int64_t done, int64_t total) { progress(split, done, total); };
    const TokenizeReport one = tokenize_files(found, (fs::path(output) / (split + ".tokens")).string(), tokenizer,
                                              progress ? Progress(named) : Progress());
    all.bytes += one.bytes, all.documents += one.documents, all.tokens += one.tokens;
  }
  tokenizer.save(output);
  return all;
}

}  // namespace sennit::data

#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "base/error.h"
#include "base/rng.h"
#include "io/mapped_file.h"
#include "tokenizers/sentencepiece.h"
#include "tokenizers/sentencepiece_library.h"

// Exported by the library, declared in none of its installed headers.
namespace sentencepiece::logging {
void SetMinLogLevel(int level);
}

namespace sennit::tokenizers {

void quiet_sentencepiece() {
  constexpr int kFatal = 3;
  static const bool once = (sentencepiece::logging::SetMinLogLevel(kFatal), true);
  static_cast<void>(once);
}

namespace {

// The lines of the files, long ones cut at spaces, as many as fit the budget, picked by their number.
class Lines final : public sentencepiece::SentenceIterator {
 public:
  static constexpr size_t kLongest = 4000;  // the library drops longer ones

  Lines(std::span<const std::string> files, const SentencePieceOptions& options, const Progress& progress)
      : rng_(static_cast<uint64_t>(options.seed)), progress_(progress) {
    for (const std::string& path : files) {
      files_.push_back(io::MappedFile::open(path));
      total_ += static_cast<int64_t>(files_.back()->bytes().size());
    }
    share_ = std::min(1.0, static_cast<double>(options.max_bytes) / static_cast<double>(std::max<int64_t>(total_, 1)));
    Next();
  }

  bool done() const override { return done_; }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    while (take_line())
      if (rng_.uniform_at(number_++) < share_ && !line_.empty()) return;
    done_ = true;
  }

 private:
  bool take_line() {
    while (file_ < files_.size() && at_ >= files_[file_]->text().size()) ++file_, at_ = 0;
    if (file_ >= files_.size()) return false;
    const std::string_view rest = files_[file_]->text().substr(at_);
    std::string_view line = rest.substr(0, std::min(rest.find('\n'), rest.size()));
    size_t used = line.size() + 1;
    if (line.size() > kLongest) {
      line = line.substr(0, kLongest);
      const size_t space = line.rfind(' ');
      if (space != line.npos && space > 0)
        line = line.substr(0, space);
      else
        while (line.size() > 1 && (rest[line.size()] & 0xc0) == 0x80) line.remove_suffix(1);
      used = line.size();
    }
    line_ = line;
    at_ += used, read_ += static_cast<int64_t>(used);
    if (progress_ && read_ - reported_ > (1 << 20)) progress_("reading", std::min(reported_ = read_, total_), total_);
    return true;
  }

  std::vector<std::shared_ptr<const io::MappedFile>> files_;
  Rng rng_;
  const Progress& progress_;
  double share_ = 1;
  uint64_t number_ = 0;
  size_t file_ = 0, at_ = 0;
  int64_t read_ = 0, reported_ = 0, total_ = 0;
  std::string line_;
  bool done_ = false;
};

}  // namespace

Fields SentencePieceOptions::fields() {
  return {
      {"vocab_size", &vocab_size, "number of tokens, special ones and bytes among them", {.min = 261, .max = 1 << 20}},
      {"max_bytes", &max_bytes, "bytes of text to learn from at most", {.min = 1 << 10, .max = 1e12}},
      {"seed", &seed, "which lines are picked when there are more", {.min = 0}}};
}

std::unique_ptr<Tokenizer> train_sentencepiece(std::span<const std::string> files, const std::string& folder,
                                               SentencePieceOptions options, const Progress& progress) {
  if (options.vocab_size < 261)
    fail({"sentencepiece", "a vocabulary of at least 261", fmt::format("{}", options.vocab_size)});
  quiet_sentencepiece();
  const std::unordered_map<std::string, std::string> settings = {
      {"accept_language", kLosslessMark},
      {"model_type", "bpe"},
      {"vocab_size", fmt::format("{}", options.vocab_size)},
      {"byte_fallback", "true"},
      {"user_defined_symbols", "\n"},
      {"split_digits", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"character_coverage", "0.9995"},
      {"max_sentence_length", fmt::format("{}", Lines::kLongest + 8)},
      {"num_threads", "1"},
      {"minloglevel", "3"},
  };
  Lines lines(files, options, progress);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
  if (!status.ok())
    fail({"sentencepiece", fmt::format("text enough for {} tokens", options.vocab_size), status.ToString()});
  if (progress) progress("learning", options.vocab_size, options.vocab_size);
  return save_model(std::move(model), folder);
}

}  // namespace sennit::tokenizers

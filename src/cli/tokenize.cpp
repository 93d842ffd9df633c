#include <fmt/format.h>

#include <filesystem>

#include "cli/command.h"
#include "cli/progress_bar.h"
#include "data/tokenize.h"
#include "tokenizers/sentencepiece.h"

namespace sennit::cli {
namespace {

struct Encode {
  std::string input, output, tokenizer = "bytes";
  bool json = false;

  int run() {
    const auto t = tokenizers::load_tokenizer(tokenizer);
    std::filesystem::create_directories(output);
    ProgressBar bar(json);
    const auto r = data::tokenize_folder(input, output, *t, [&](std::string_view stage, int64_t done, int64_t total) {
      bar.update(static_cast<double>(done), static_cast<double>(total), fmt::format("{} {}", stage, bytes_text(static_cast<double>(done))));
    });
    bar.finish();
    if (json) fmt::print("{}\n", json_text(Json{{"bytes", r.bytes}, {"documents", r.documents}, {"tokens", r.tokens}, {"out", output}}));
    else fmt::print("{} documents, {} -> {} tokens ({:.2f} bytes a token) in {}\n", r.documents, bytes_text(static_cast<double>(r.bytes)), count_text(static_cast<double>(r.tokens)),
                    static_cast<double>(r.bytes) / static_cast<double>(std::max<int64_t>(r.tokens, 1)), output);
    return 0;
  }
};

struct Learn {
  std::vector<std::string> inputs;
  std::string output;
  tokenizers::SentencePieceOptions options;
  bool json = false;

  int run() {
    std::vector<std::string> files;
    for (const std::string& input : inputs) files.push_back(std::filesystem::is_directory(input) ? input + "/train.txt" : input);
    std::filesystem::create_directories(output);
    ProgressBar bar(json);
    const auto t = tokenizers::train_sentencepiece(files, output, options, [&](std::string_view stage, int64_t done, int64_t total) {
      bar.update(static_cast<double>(done), static_cast<double>(total), std::string(stage));
    });
    bar.finish();
    if (json) fmt::print("{}\n", json_text(Json{{"out", output}, {"vocab", t->vocab_size()}}));
    else fmt::print("{} tokens learnt: {}\n", t->vocab_size(), output);
    return 0;
  }
};

}  // namespace

void add_tokenize(Commands& commands) {
  CLI::App& app = commands.add("tokenize", "Learn a tokenizer, or turn a folder of text into token files", [] { return 0; });
  app.require_subcommand(1);
  app.footer("Example: sennit tokenize train data/text --out data/tokens");
  Commands own(app);

  auto l = std::make_shared<Learn>();
  CLI::App& train = own.add("train", "Learn a byte-pair encoding with byte fallback from text", [l] { return l->run(); });
  train.add_option("input", l->inputs, "text files, or folders with train.txt")->required();
  train.add_option("--out", l->output, "folder for tokenizer.model")->required();
  add_fields(train, l->options.fields(), "Learning");
  add_json_flag(train, l->json);
  train.footer("Example: sennit tokenize train data/text --out data/tokens --vocab-size 4096");

  auto e = std::make_shared<Encode>();
  CLI::App& encode = own.add("encode", "Turn train, valid and test (.txt or .jsonl) into token files", [e] { return e->run(); });
  encode.add_option("input", e->input, "folder with train.txt, valid.txt and test.txt (or .jsonl)")->required();
  encode.add_option("--out", e->output, "folder for the token files")->required();
  encode.add_option("--tokenizer", e->tokenizer, "\"bytes\", a folder, or the file of a tokenizer")->capture_default_str();
  add_json_flag(encode, e->json);
  encode.footer("Example: sennit tokenize encode data/text --tokenizer data/tokens --out data/tokens");
}

}  // namespace sennit::cli

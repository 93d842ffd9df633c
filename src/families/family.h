#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/registry.h"
#include "io/gguf.h"

namespace sennit {

struct FamilyInfo {
  std::string title, paper;
  std::vector<std::string> model_types;    // of Hugging Face's config.json
  std::vector<std::string> architectures;  // general.architecture of GGUF
};

// Whose names and shapes a file of tensors has.
enum class Layout { huggingface, gguf };

// One tensor of theirs, and how it is made of ours: ours, stacked along the first dimension, then changed.
struct TensorRule {
  enum class Change {
    none,
    transposed,   // [in, out]
    interleaved,  // the rows (i, i + half) of each head become neighbours (2i, 2i + 1)
    separated,    // the other way about
    decay         // -exp(ours)
  };
  std::string theirs;
  std::vector<std::string> ours;
  Change change = Change::none;
  int64_t heads = 0;       // of interleaved and separated
  Shape shape = {};        // theirs, where it is not that of ours stacked
  std::string alias = {};  // another name that some files have for it
  int64_t rotated = 0;     // of interleaved and separated: how many rows of each head, from its first; 0: all
};
const char* to_string(TensorRule::Change change);

// A config.json, read key by key. A key that is null counts as absent; one of a wrong type is an Error.
class Config {
 public:
  Config(const Json& object, std::string where);
  bool has(const std::string& key) const;
  int64_t integer(const std::string& key);
  int64_t integer(const std::string& key, int64_t fallback);
  double number(const std::string& key, double fallback);
  bool flag(const std::string& key, bool fallback);
  std::string text(const std::string& key, const std::string& fallback);
  const Json* part(const std::string& key);  // as it is; nullptr when absent
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const;

  std::vector<std::string> unread() const;  // keys that nobody asked for, less those that change nothing
  const std::string& where() const { return where_; }

 private:
  const Json* find(const std::string& key);
  const Json& object_;
  std::string where_;
  std::set<std::string> read_;
};

// A model of ours as families look at it.
struct Described {
  struct Block {
    Json block, mixer, channel, norm;  // objects with "name" and all options, defaults too
    bool attends() const;  // its mixer is softmax attention
  };
  int64_t vocab = 0, d_model = 0, learned_positions = 0, token_types = 0;
  int64_t context_length = 0;  // that it was trained for, where known
  bool tied = true, causal = true;
  Json norm, embedding_norm;
  std::vector<Block> blocks;
  std::map<std::string, Shape> shapes;  // of its parameters

  int64_t rows(const std::string& parameter) const;  // throws Error when there is none
};

// One family of pretrained models: how other programs name and lay out what our model file and parameters say.
class Family {
 public:
  using Info = FamilyInfo;
  struct Dims {};
  virtual ~Family() = default;

  // Their settings as a model file of ours. Throws Error for what the family cannot say in it.
  virtual Json from_config(Config& config) const = 0;
  virtual Json from_gguf(const io::GgufFile& file) const = 0;
  // Our model as their settings (config.json with its model_type; metadata with general.architecture, without a
  // vocabulary). Throws Error that names what the family has no place for.
  virtual Json to_config(const Described& model) const = 0;
  virtual io::GgufMetadata to_gguf(const Described& model) const = 0;
  // Every tensor of the model in files of `target`, a model_type or architecture of the family.
  virtual std::vector<TensorRule> rules(const Described& model, Layout layout, const std::string& target) const = 0;
  // Tensors of a GGUF that hold settings rather than weights.
  virtual std::vector<io::NamedStored> gguf_extras(const Described& /*model*/) const { return {}; }
  // Whether a tensor of theirs holds nothing that was learned.
  virtual bool ignores(const std::string& /*theirs*/) const { return false; }
};

namespace families {

Registry<Family>& registry();
// The family of a model_type or architecture; nullptr when there is none.
const Registry<Family>::Entry* find(Layout layout, const std::string& target);

Described describe(const Json& model_file, std::map<std::string, Shape> shapes);
// Throws Error unless the model reads from left to right, adds no vectors to its embedding and does not normalise it.
void require_plain(const char* family, const Described& model);
// Throws Error unless `found` is `expected`; `what` names it.
void require(const char* family, const std::string& what, const Json& expected, const Json& found);

}  // namespace families

}  // namespace sennit

#include <unicode/brkiter.h>
#include <unicode/utext.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenizers/base64.h"
#include "tokenizers/normalizer.h"
#include "tokenizers/unicode.h"

namespace sennit::tokenizers {
namespace {

// Units of a Darts double array (Aoe, "An efficient digital search algorithm by using a double-array structure", 1989).
struct Unit {
  uint32_t bits;
  bool has_leaf() const { return bits >> 8 & 1; }
  uint32_t value() const { return bits & 0x7fffffff; }
  uint32_t label() const { return bits & 0x800000ff; }
  uint32_t offset() const { return (bits >> 10) << ((bits >> 9 & 1) * 8); }
};

class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(const JsonPart& part) {
    const auto bytes = from_base64(part.text("precompiled_charsmap"));
    uint32_t size = 0;
    if (!bytes || bytes->size() < sizeof(size))
      part.refuse("precompiled_charsmap", "a table in base64", "something else");
    std::memcpy(&size, bytes->data(), sizeof(size));
    if (size > bytes->size() - sizeof(size) || size % sizeof(Unit) != 0 || size == 0)
      part.refuse("precompiled_charsmap", "an array that fits the table", fmt::format("one of {} bytes", size));
    units_.resize(size / sizeof(Unit));
    std::memcpy(units_.data(), bytes->data() + sizeof(size), size);
    texts_ = bytes->substr(sizeof(size) + size);
    if (!is_utf8(texts_)) part.refuse("precompiled_charsmap", "texts in UTF-8", "something else");
  }

  // Short grapheme clusters are looked up whole, others character by character.
  std::string apply(std::string text, size_t) const override {
    std::string out;
    for_each_cluster(text, [&](std::string_view cluster) {
      constexpr size_t kShort = 6;
      const char* whole = cluster.size() < kShort ? find(cluster) : nullptr;
      if (whole != nullptr) {
        out += whole;
        return;
      }
      unicode::for_each_char(cluster, [&](char32_t, std::string_view c) {
        const char* one = find(c);
        one != nullptr ? out += one : out += c;
      });
    });
    return out;
  }

 private:
  // What the shortest beginning of `key` that the table knows is replaced by; nullptr when it knows none.
  const char* find(std::string_view key) const {
    size_t at = units_[0].offset();
    for (const char c : key) {
      const auto byte = static_cast<unsigned char>(c);
      at ^= byte;
      if (byte == 0 || at >= units_.size() || units_[at].label() != byte) return nullptr;
      const Unit unit = units_[at];
      at ^= unit.offset();
      if (!unit.has_leaf()) continue;
      const size_t text = at < units_.size() ? units_[at].value() : texts_.size();
      return text < texts_.size() ? texts_.c_str() + text : nullptr;
    }
    return nullptr;
  }

  template <class F>
  static void for_each_cluster(const std::string& text, F&& f) {
    UErrorCode status = U_ZERO_ERROR;
    const std::unique_ptr<icu::BreakIterator> breaks(
        icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), status));
    UText* utext = utext_openUTF8(nullptr, text.data(), static_cast<int64_t>(text.size()), &status);
    SENNIT_CHECK(U_SUCCESS(status), "ICU: {}", u_errorName(status));
    breaks->setText(utext, status);
    int32_t begin = 0;
    for (int32_t end = breaks->first(); end != icu::BreakIterator::DONE; begin = end, end = breaks->next())
      if (end > begin) f(std::string_view(text).substr(begin, end - begin));
    utext_close(utext);
  }

  std::vector<Unit> units_;
  std::string texts_;  // each ends with a zero byte
};

}  // namespace

std::unique_ptr<Normalizer> make_precompiled(const JsonPart& part) {
  return std::make_unique<Precompiled>(part);
}

}  // namespace sennit::tokenizers

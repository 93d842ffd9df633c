#include "tokenizers/post_processor.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sennit::tokenizers {
namespace {

constexpr size_t kMostOfFrame = 1000;  // tokens of a frame

int32_t read_id(const Json& id, int32_t size, const std::string& where) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(size))
    fail({"tokenizer", fmt::format("an id below {}", size), json_text(id).substr(0, 40), where});
  return id.get<int32_t>();
}

// ["[SEP]", 102]
int32_t read_pair(const JsonPart& part, const char* key, int32_t size) {
  const Json& pair = part.member(key);
  if (!pair.is_array() || pair.size() != 2) part.refuse(key, "a token and its id", pair.type_name());
  return read_id(pair[1], size, part.where(key));
}

Frame read_template(const JsonPart& part, int32_t size) {
  Frame frame;
  bool seen = false;
  for (const JsonPart& item : part.list("single")) {
    if (item.has("Sequence")) {
      if (seen) item.refuse("Sequence", "the text once", "it again");
      seen = true;
      continue;
    }
    const std::string name = item.part("SpecialToken").text("id");
    const JsonPart tokens = part.part("special_tokens").part(name.c_str());
    const Json& ids = tokens.member("ids");
    if (!ids.is_array()) tokens.refuse("ids", "a list", ids.type_name());
    std::vector<int32_t>& side = seen ? frame.after : frame.before;
    for (const Json& id : ids) side.push_back(read_id(id, size, tokens.where("ids")));
    if (side.size() > kMostOfFrame) part.refuse("single", fmt::format("at most {} tokens", kMostOfFrame), "more");
  }
  if (!seen) part.refuse("single", "the text among its items", "none");
  return frame;
}

void read_into(Frame& frame, const JsonPart& part, int32_t size, int depth) {
  const std::string type = part.text("type");
  if (depth > 8) part.refuse("type", "at most 8 sequences inside each other", "more");
  Frame outer;
  if (type == "Sequence")
    for (const JsonPart& p : part.list("processors")) read_into(frame, p, size, depth + 1);
  else if (type == "TemplateProcessing")
    outer = read_template(part, size);
  else if (type == "BertProcessing" || type == "RobertaProcessing")
    outer = {{read_pair(part, "cls", size)}, {read_pair(part, "sep", size)}};
  else if (type != "ByteLevel")  // which moves offsets only
    part.refuse_type({"Sequence", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel"});
  frame.before.insert(frame.before.begin(), outer.before.begin(), outer.before.end());
  frame.after.insert(frame.after.end(), outer.after.begin(), outer.after.end());
  if (frame.before.size() + frame.after.size() > kMostOfFrame)
    part.refuse("type", fmt::format("at most {} tokens", kMostOfFrame), "more");
}

}  // namespace

Frame read_frame(const JsonPart& part, int32_t size) {
  Frame frame;
  read_into(frame, part, size, 0);
  return frame;
}

}  // namespace sennit::tokenizers

#include <gtest/gtest.h>

#include <cmath>

#include "io/json_file.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace sennit::model_file_test {

Model built(const std::string& text) {
  const Json file = io::parse_json(text, "m.json", {});
  return Model(read_model_spec(file, "m.json"), Rng(1), "m.json");
}

struct Bad {
  std::string text;
  std::vector<std::string> says;
};

std::string with(const std::string& block) {
  return R"({"vocab": 9, "d_model": 12, "blocks": [)" + block + "]}";
}

TEST(ModelFile, BadInputGivesOneErrorThatNamesThePlace) {
  std::string deep = "1";
  for (int i = 0; i < 5000; ++i) deep = "[" + deep + "]";
  const std::vector<Bad> all = {
      {"", {"m.json"}},
      {"[]", {"m.json", "object"}},
      {"{}", {"m.json", "blocks"}},
      {deep, {"m.json"}},
      {with(R"({"mixer": )" + deep + "}"), {"m.json"}},
      {R"({"vocab": 9, "d_model": 12, "block": []})", {"m.json", "`blocks`?", "`block`"}},
      {R"({"vocab": 9, "d_model": 12, "blocks": []})", {"m.json", "at least one block"}},
      {R"({"vocab": 9, "d_model": 12, "blocks": {}})", {"m.json: blocks", "list"}},
      {R"({"vocab": 0, "d_model": 12, "blocks": [{"mixer": "gla"}]})", {"m.json", "`vocab`", "0"}},
      {R"({"vocab": 9, "d_model": 1000000000000, "blocks": [{"mixer": "gla"}]})",
       {"m.json", "`d_model`", "1000000000000"}},
      {R"({"vocab": 9, "d_model": 12.5, "blocks": [{"mixer": "gla"}]})", {"m.json", "`d_model`", "integer"}},
      {R"({"vocab": "9", "d_model": 12, "blocks": [{"mixer": "gla"}]})", {"m.json", "`vocab`", "integer"}},
      {R"({"vocab": 18446744073709551615, "d_model": 12, "blocks": [{"mixer": "gla"}]})", {"m.json", "`vocab`"}},
      {R"({"d_model": 12, "blocks": [{"mixer": "gla"}]})", {"m.json", "\"vocab\""}},
      {R"({"vocab": 9, "d_model": 12, "norm": "rmsnrm", "blocks": [{"mixer": "gla"}]})",
       {"m.json: norm", "`rmsnorm`?"}},
      {R"({"vocab": 9, "d_model": 12, "norm": {"name": "rmsnorm", "epsilon": -1}, "blocks": [{"mixer": "gla"}]})",
       {"m.json", "epsilon", "-1"}},
      {R"({"vocab": 9, "d_model": 12, "norm": 3, "blocks": [{"mixer": "gla"}]})", {"m.json: norm", "3"}},
      {R"({"vocab": 9, "d_modle": 12, "blocks": [{"mixer": "gla"}]})", {"m.json", "`d_model`?", "`d_modle`"}},
      {with("3"), {"m.json: blocks[0]", "object"}},
      {with("{}"), {"m.json: blocks[0]", "mixer"}},
      {with(R"({"mixer": "gla"}, {"mixer": "glah"})"), {"m.json: blocks[1]", "`gla`?", "`glah`"}},
      {with(R"({"mixer": "gla", "haeds": 2})"), {"m.json: blocks[0]", "`heads`?", "`haeds`"}},
      {with(R"({"mixer": "gla", "heads": 0})"), {"m.json: blocks[0]", "`heads`", "0"}},
      {with(R"({"mixer": "gla", "heads": "two"})"), {"m.json: blocks[0]", "`heads`", "two"}},
      {with(R"({"mixer": "gla", "heads": 64})"), {"m.json: block 0", "heads = 64", "d_model = 12"}},
      {with(R"({"mixer": "softmax", "heads": 5})"), {"m.json: block 0", "heads = 5", "d_model = 12"}},
      {with(R"({"mixer": "softmax", "heads": 4, "kv_heads": 3})"), {"m.json: block 0", "kv_heads = 3", "heads = 4"}},
      {with(R"({"mixer": "softmax", "position": "rpoe"})"), {"m.json: block 0", "`rope`?"}},
      {with(R"({"mixer": "softmax", "position": {"name": "rope", "bsae": 3}})"), {"m.json: block 0", "`base`?"}},
      {with(R"({"mixer": "gla", "conv": 1})"), {"m.json: block 0", "conv"}},
      {with(R"({"mixer": {"heads": 2}})"), {"m.json: blocks[0]: mixer", "name"}},
      {with(R"({"mixer": {"name": "gla", "heads": 2}, "heads": 2})"), {"m.json: blocks[0]", "`heads` once"}},
      {with(R"({"mixer": "gla", "channel": "swiglo"})"), {"m.json: blocks[0]", "`swiglu`?"}},
      {with(R"({"mixer": "gla", "channel": "mlp", "activation": "gule"})"),
       {"m.json: blocks[0]", "activation", "gule"}},
      {with(R"({"mixer": "none"})"), {"m.json: blocks[0]", "none"}},
      {with(R"({"mixer": "gla", "repeat": 0})"), {"m.json: blocks[0]", "`repeat`", "0"}},
      {with(R"({"mixer": "gla", "repeat": 1000000000})"), {"m.json: blocks[0]", "`repeat`", "1000000000"}},
      {with(R"({"mixer": "gla", "repeat": 4000}, {"mixer": "gla", "repeat": 4000})"), {"m.json: blocks[1]", "4096"}},
      {with(R"({"mixer": "mamba", "state": 1e400})"), {"m.json"}},
  };
  for (const Bad& bad : all) {
    const std::string text = error_of([&] { built(bad.text); });
    for (const std::string& part : bad.says)
      EXPECT_NE(text.find(part), std::string::npos)
          << bad.text.substr(0, 90) << "\n  says: " << text << "\n  lacks: " << part;
  }
}

TEST(ModelFile, IsWrittenAsItIsRead) {
  const ModelSpec spec = read_model_spec(hybrid_file(), "test");
  const Json once = write_model_spec(spec), twice = write_model_spec(read_model_spec(once, "test"));
  EXPECT_EQ(once, twice);
  EXPECT_EQ(Model(spec, Rng(1)).parameter_count(), Model(read_model_spec(once, "test"), Rng(1)).parameter_count());
}

TEST(ModelFile, ANumberThatIsNoneEndsNoLoop) {
  ModelSpec spec = read_model_spec(hybrid_file(), "test");
  (*spec.blocks[0].mixer)["position"] = std::nan("");
  const Json file = write_model_spec(spec);
  int64_t blocks = 0;
  for (const Json& entry : file.at("blocks")) blocks += entry.at("repeat").get<int64_t>();
  EXPECT_EQ(blocks, std::ssize(spec.blocks));
}

TEST(ModelFile, RepeatAndFlatKeysAreShortForms) {
  Model a = built(with(R"({"repeat": 2, "mixer": "gla", "heads": 3, "hidden": 7})"));
  const std::string block = R"({"mixer": {"name": "gla", "heads": 3}, "channel": {"name": "swiglu", "hidden": 7}})";
  Model b = built(with(block + "," + block));
  EXPECT_TRUE(same_bits(all_of(a, false), all_of(b, false)));
}

TEST(ModelFile, SettingsChangeOneKey) {
  Json file = hybrid_file();
  set_model_key(file, "d_model=64");
  set_model_key(file, "blocks.1.heads=8");
  set_model_key(file, "blocks.0.mixer=mamba");
  EXPECT_EQ(file["d_model"], 64);
  EXPECT_EQ(file["blocks"][1]["heads"], 8);
  EXPECT_EQ(file["blocks"][0]["mixer"], "mamba");
  std::string nested = "blocks=";
  for (int i = 0; i < 60000; ++i) nested += '[';
  for (const std::string& bad :
       {std::string("d_model"), std::string("=3"), std::string("blocks.9.heads=1"), std::string("blocks.x.heads=1"),
        std::string("vocab.a=1"), std::string("blocks=\xff\xfe"), nested, nested + std::string(60000, ']')})
    EXPECT_NE(error_of([&] {
                Json copy = file;
                set_model_key(copy, bad);
                read_model_spec(copy, "m.json");
              }),
              "");
}

}  // namespace sennit::model_file_test

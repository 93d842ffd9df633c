#include "families/rope_settings.h"

#include <algorithm>
#include <cmath>

namespace sennit::families {
namespace {

Json numbers_of(Config& scaling, const char* key) {
  const Json* list = scaling.part(key);
  if (!list || !list->is_array()) scaling.refuse(key, "a list of numbers");
  return *list;
}

double yarn_magnitude(double factor, double by) {
  return factor > 1 ? 0.1 * by * std::log(factor) + 1 : 1;
}

// `context` is max_position_embeddings.
void read_scaling(Config& s, const std::string& kind, int64_t context, Json& rope) {
  rope["scaling"] = kind;
  rope["factor"] = s.number("factor", 1);
  if (kind == "linear") return;
  const int64_t original = s.integer("original_max_position_embeddings", context);
  rope["original"] = original;
  rope["attention"] = s.number("attention_factor", 0);
  if (kind == "yarn") {
    rope["low"] = s.number("beta_slow", 1), rope["high"] = s.number("beta_fast", 32);
    if (!s.flag("truncate", true)) s.refuse("truncate", "true");
    const double up = s.number("mscale", 0), down = s.number("mscale_all_dim", 0), factor = rope["factor"];
    if (up > 0 && down > 0 && !s.has("attention_factor"))
      rope["attention"] = yarn_magnitude(factor, up) / yarn_magnitude(factor, down);
  } else if (kind == "llama3") {
    rope["low"] = s.number("low_freq_factor", 1), rope["high"] = s.number("high_freq_factor", 4);
  } else if (kind == "longrope") {
    if (!s.has("factor"))
      rope["factor"] = original > 0 ? static_cast<double>(context) / static_cast<double>(original) : 1;
    rope["factors"] = {{"short", numbers_of(s, "short_factor")}, {"long", numbers_of(s, "long_factor")}};
  }
}

io::NamedStored factors_tensor(const char* name, const Json& factors) {
  Tensor t({std::ssize(factors)});
  for (size_t i = 0; i < factors.size(); ++i) t.data()[i] = factors[i].get<float>();
  return {name, io::stored(t)};
}

Json factors_of(const io::GgufFile& file, const char* name) {
  const Tensor t = io::decoded(file.tensor(name));
  Json all = Json::array();
  for (const float f : t.span()) {
    if (!std::isfinite(f))
      fail({"GGUF", fmt::format("finite numbers in `{}`", name), fmt::format("{}", f), file.path()});
    all.push_back(double{f});
  }
  return all;
}

// The factors by which llama3 divides frequencies; GGUF keeps only these.
Json llama3_factors(const Json& position, int64_t dims) {
  Json all = Json::array();
  const double base = position.at("base"), factor = position.at("factor"), original = position.at("original"),
               low = position.at("low"), high = position.at("high");
  for (int64_t i = 0; i < dims / 2; ++i) {
    const double turns =
        original * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dims)) / (2 * M_PI);
    const double share = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    all.push_back(1 / (share + (1 - share) / factor));
  }
  return all;
}

}  // namespace

Json rope_from_config(Config& config) {
  Json rope{{"name", "rope"}};
  const int64_t context = config.integer("max_position_embeddings", 0);
  rope["base"] = config.number("rope_theta", 10000);
  double fraction = config.number("partial_rotary_factor", 1);
  const Json *v4 = config.part("rope_scaling"), *v5 = config.part("rope_parameters");
  if (const Json* object = v5 ? v5 : v4) {
    Config s(*object, config.where() + (v5 ? ": rope_parameters" : ": rope_scaling"));
    std::string kind = s.text("rope_type", s.text("type", "default"));
    if (kind == "su") kind = "longrope";
    rope["base"] = s.number("rope_theta", rope["base"]);
    fraction = s.number("partial_rotary_factor", fraction);
    static const std::set<std::string> kKinds = {"linear", "dynamic", "yarn", "llama3", "longrope"};
    if (kKinds.count(kind))
      read_scaling(s, kind, context, rope);
    else if (kind != "default")
      s.refuse("rope_type", "default, linear, dynamic, yarn, llama3 or longrope");
    if (const auto rest = s.unread(); !rest.empty()) s.refuse(rest[0], "absent, as nothing is known of it");
  }
  if (fraction != 1) rope["fraction"] = fraction;
  return rope;
}

void rope_to_config(const Json& p, int64_t context_length, Json& config) {
  config["rope_theta"] = p.at("base");
  config["max_position_embeddings"] = context_length;
  const std::string kind = p.at("scaling");
  if (p.at("fraction") != 1.0) config["partial_rotary_factor"] = p.at("fraction");
  if (kind == "none") return;
  Json s{{"rope_type", kind}, {"factor", p.at("factor")}};
  if (kind != "linear") s["original_max_position_embeddings"] = p.at("original");
  if (p.at("attention").get<double>() > 0) s["attention_factor"] = p.at("attention");
  if (kind == "yarn") s["beta_slow"] = p.at("low"), s["beta_fast"] = p.at("high");
  if (kind == "llama3") s["low_freq_factor"] = p.at("low"), s["high_freq_factor"] = p.at("high");
  if (kind == "longrope")
    s["short_factor"] = p.at("factors").at("short"), s["long_factor"] = p.at("factors").at("long");
  config["rope_scaling"] = s;
}

Json rope_from_gguf(const io::GgufFile& file, const std::string& architecture) {
  const io::GgufMetadata& m = file.metadata();
  const auto key = [&](const char* name) { return architecture + ".rope." + name; };
  Json rope{{"name", "rope"}, {"base", m.number(key("freq_base"), 10000)}};
  const std::string kind = m.text(key("scaling.type"), "none");
  const int64_t original =
      m.integer(key("scaling.original_context_length"), m.integer(architecture + ".context_length"));
  if (file.find("rope_freqs.weight")) {
    const Json factors = factors_of(file, "rope_freqs.weight");
    rope.update(
        Json{{"scaling", "longrope"}, {"original", original}, {"factors", {{"short", factors}, {"long", factors}}}});
  } else if (file.find("rope_factors_short.weight")) {
    const double factor = static_cast<double>(m.integer(architecture + ".context_length")) /
                          static_cast<double>(std::max<int64_t>(1, original));
    rope.update(Json{{"scaling", "longrope"},
                     {"original", original},
                     {"factor", factor},
                     {"attention", m.number(key("scaling.attn_factor"), 0)},
                     {"factors",
                      {{"short", factors_of(file, "rope_factors_short.weight")},
                       {"long", factors_of(file, "rope_factors_long.weight")}}}});
  } else if (kind == "linear") {
    rope.update(Json{{"scaling", kind}, {"factor", m.number(key("scaling.factor"))}});
  } else if (kind == "yarn") {
    rope.update(Json{{"scaling", kind},
                     {"factor", m.number(key("scaling.factor"))},
                     {"original", original},
                     {"low", m.number(key("scaling.yarn_beta_slow"), 1)},
                     {"high", m.number(key("scaling.yarn_beta_fast"), 32)}});
  } else if (kind != "none") {
    fail({"GGUF", fmt::format("`{}` to be none, linear, yarn or longrope", key("scaling.type")), kind, file.path()});
  }
  return rope;
}

void rope_to_gguf(const Json& p, const std::string& architecture, io::GgufMetadata& into) {
  const auto set = [&](const char* name, io::GgufValue value) {
    into.set(architecture + ".rope." + name, std::move(value));
  };
  set("freq_base", io::GgufValue::of(p.at("base").get<float>()));
  const std::string kind = p.at("scaling");
  if (kind == "none" || kind == "llama3" ||
      (kind == "longrope" && p.at("factors").at("short") == p.at("factors").at("long")))
    return;
  if (kind == "dynamic") fail({"GGUF", "a scaling of positions that the format can say", "dynamic"});
  set("scaling.type", io::GgufValue::of(kind));
  set("scaling.factor", io::GgufValue::of(p.at("factor").get<float>()));
  if (kind != "linear") set("scaling.original_context_length", io::GgufValue::of(p.at("original").get<uint32_t>()));
  if (p.at("attention").get<double>() > 0) set("scaling.attn_factor", io::GgufValue::of(p.at("attention").get<float>()));
  if (kind == "yarn") {
    set("scaling.yarn_beta_fast", io::GgufValue::of(p.at("high").get<float>()));
    set("scaling.yarn_beta_slow", io::GgufValue::of(p.at("low").get<float>()));
  }
}

std::vector<io::NamedStored> rope_extras(const Json& p, int64_t head_dim) {
  const std::string kind = p.at("scaling");
  if (kind == "llama3") return {factors_tensor("rope_freqs.weight", llama3_factors(p, head_dim))};
  if (kind != "longrope") return {};
  const Json& factors = p.at("factors");
  if (factors.at("short") == factors.at("long")) return {factors_tensor("rope_freqs.weight", factors.at("short"))};
  return {factors_tensor("rope_factors_long.weight", factors.at("long")),
          factors_tensor("rope_factors_short.weight", factors.at("short"))};
}

}  // namespace sennit::families

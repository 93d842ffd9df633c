#include "cli/help.h"

#include <fmt/format.h>

namespace sennit::cli {
namespace {

// CLI11 keeps choices and ranges only as text: "TEXT:{a,b}", "INT:INT in [0 - 9]".
std::vector<std::string> choices_in(const std::string& type) {
  const size_t open = type.find('{'), close = type.rfind('}');
  std::vector<std::string> all;
  if (open == std::string::npos || close == std::string::npos) return all;
  for (size_t at = open + 1; at < close;) {
    const size_t end = std::min(type.find(',', at), close);
    all.push_back(type.substr(at, end - at));
    at = end + 1;
  }
  return all;
}

OptionHelp describe_option(const CLI::Option& o) {
  OptionHelp h;
  h.positional = o.get_positional();
  h.required = o.get_required();
  if (h.positional) h.names = {o.get_single_name()};
  for (const std::string& s : o.get_snames()) h.names.push_back("-" + s);
  for (const std::string& l : o.get_lnames()) h.names.push_back("--" + l);
  const std::string type = o.get_type_name();
  if (o.get_expected_max() > 0) {
    h.choices = choices_in(type);
    if (!h.choices.empty())
      h.value = type.substr(type.find('{'), type.rfind('}') + 1 - type.find('{'));
    else if (type.rfind("INT", 0) == 0 || type.rfind("UINT", 0) == 0)
      h.value = "N";
    else if (type.rfind("FLOAT", 0) == 0)
      h.value = "X";
    else
      h.value = "TEXT";
    h.fallback = o.get_default_str();
  }
  h.help = o.get_description(), h.group = o.get_group();
  return h;
}

void describe_below(const CLI::App& app, const std::string& name, std::vector<CommandHelp>& all) {
  CommandHelp c{name, app.get_description(), app.get_footer(), {}, {}};
  for (const CLI::Option* o : app.get_options({})) c.options.push_back(describe_option(*o));
  for (const CLI::App* s : app.get_subcommands({})) c.below.push_back(s->get_name());
  all.push_back(std::move(c));
  for (const CLI::App* s : app.get_subcommands({}))
    describe_below(*s, name.empty() ? s->get_name() : name + " " + s->get_name(), all);
}

}  // namespace

std::vector<CommandHelp> describe(const CLI::App& app) {
  std::vector<CommandHelp> all;
  describe_below(app, "", all);
  return all;
}

HelpFormatter::HelpFormatter() {
  column_width(32);
}

std::string HelpFormatter::make_option_opts(const CLI::Option* option) const {
  const OptionHelp h = describe_option(*option);
  return h.value.empty() || h.positional ? "" : " " + h.value;
}

std::string HelpFormatter::make_option_desc(const CLI::Option* option) const {
  const OptionHelp h = describe_option(*option);
  return h.fallback.empty() || h.fallback == "\"\"" || h.fallback == "[]"
             ? h.help
             : fmt::format("{} (default {})", h.help, h.fallback);
}

}  // namespace sennit::cli

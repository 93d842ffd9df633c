#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "blocks/block.h"
#include "cli/command.h"
#include "optimizers/optimizer.h"
#include "positions/position.h"
#include "report/table.h"
#include "tasks/task.h"

namespace sennit::cli {
namespace {

Json option_json(const Field& f) {
  Json o{{"name", f.name}, {"type", field_type(f)}, {"default", field_default(f)}, {"help", f.help}};
  if (!f.limits.choices.empty()) o["choices"] = f.limits.choices;
  if (std::isfinite(f.limits.min)) o["min"] = f.limits.min;
  if (std::isfinite(f.limits.max)) o["max"] = f.limits.max;
  return o;
}

template <class Socket>
Json entries_json(const Registry<Socket>& registry) {
  Json all = Json::array();
  for (const auto& e : registry.entries()) {
    Json entry{{"name", e.name}, {"title", e.info.title}, {"paper", e.info.paper}};
    if constexpr (requires { e.info.equation; }) entry["equation"] = e.info.equation;
    if constexpr (requires { e.info.cost; }) entry["cost"] = e.info.cost;
    if constexpr (requires { e.info.state; }) entry["state"] = e.info.state;
    if constexpr (requires { e.info.asks; }) entry["asks"] = e.info.asks;
    if constexpr (requires { e.info.patterns; }) {
      entry["patterns"] = Json::array();
      for (const Pattern p : e.info.patterns) entry["patterns"].push_back(to_string(p));
      if (!e.info.no_state.empty()) entry["no state"] = e.info.no_state;
    }
    auto options = e.options();
    entry["options"] = Json::array();
    for (const Field& f : options->fields()) entry["options"].push_back(option_json(f));
    if constexpr (requires { e.info.settings; })
      for (const auto& [name, settings] : e.info.settings)
        entry["settings"].push_back({{"name", name}, {"options", json_of(settings)}});
    all.push_back(entry);
  }
  return all;
}

void add_commands_below(const CLI::App& app, const std::string& prefix, Json& all) {
  for (const CLI::App* command : app.get_subcommands({})) {
    const std::string name = prefix + command->get_name();
    all.push_back({{"name", name}, {"title", command->get_description()}});
    add_commands_below(*command, name + " ", all);
  }
}

struct List {
  const CLI::App* app;
  std::string kind, name;
  bool json = false, markdown = false;

  Json everything() const {
    Json all{{"mixers", entries_json(mixers::registry())}, {"channels", entries_json(channels::registry())},
             {"norms", entries_json(norms::registry())},   {"positions", entries_json(positions::registry())},
             {"blocks", entries_json(blocks::registry())}, {"optimizers", entries_json(optimizers::registry())},
             {"tasks", entries_json(tasks::registry())}};
    all["commands"] = Json::array();
    add_commands_below(*app, "", all["commands"]);
    return all;
  }

  int run() const {
    Json all = everything();
    if (!kind.empty()) all = Json{{kind, all.at(kind)}};
    if (!name.empty()) all.front() = Json::array({find(all.front())});
    if (json)
      fmt::print("{}\n", json_text(all, 1));
    else if (markdown)
      fmt::print("{}", markdown_of(all));
    else
      fmt::print("{}", kind.empty() ? overview(all) : details(all.front()));
    return 0;
  }

  Json find(const Json& entries) const {
    std::vector<std::string> names;
    for (const Json& e : entries) {
      if (e.at("name") == name) return e;
      names.push_back(e.at("name"));
    }
    const std::string near = closest(name, names);
    fail({"list", near.empty() ? fmt::format("one of {}", fmt::join(names, ", ")) : "`" + near + "`?",
          "`" + name + "`"});
  }

  static std::string text_of(const Json& e, const char* key) {
    return e.contains(key) ? e.at(key).get<std::string>() : "";
  }

  static std::string overview(const Json& all) {
    std::string out;
    for (const auto& [socket, entries] : all.items()) {
      report::Table t{{{socket}, {""}, {""}}, {}};
      for (const Json& e : entries) t.add({"  " + text_of(e, "name"), text_of(e, "title"), text_of(e, "paper")});
      out += t.text() + "\n";
    }
    return out + "`sennit list mixers` shows equations, costs and options; `sennit list mixers gla` shows one.\n";
  }

  static std::string details(const Json& entries) {
    std::string out;
    for (const Json& e : entries) {
      out += fmt::format("{}  {}{}\n", text_of(e, "name"), text_of(e, "title"),
                         e.contains("paper") ? "  (" + text_of(e, "paper") + ")" : "");
      for (const char* key : {"equation", "cost", "state", "no state", "asks"})
        if (!text_of(e, key).empty()) out += fmt::format("  {:9} {}\n", key, text_of(e, key));
      if (e.contains("patterns"))
        out +=
            fmt::format("  {:9} {}\n", "patterns", fmt::join(e.at("patterns").get<std::vector<std::string>>(), ", "));
      if (e.contains("options") && !e.at("options").empty()) {
        report::Table t{{{"  option"}, {"default"}, {"type"}, {""}}, {}};
        for (const Json& o : e.at("options"))
          t.add({"    " + text_of(o, "name"), text_of(o, "default"), text_of(o, "type"), meaning(o)});
        out += t.text();
      }
      for (const Json& s : e.value("settings", Json::array()))
        out += fmt::format("  as {}: {}\n", text_of(s, "name"), json_text(s.at("options")));
      if (e.contains("options")) out += "\n";
    }
    return out;
  }

  static std::string meaning(const Json& option) {
    return text_of(option, "help") +
           (option.contains("choices")
                ? fmt::format(": {}", fmt::join(option.at("choices").get<std::vector<std::string>>(), ", "))
                : "");
  }

  static std::string markdown_of(const Json& all) {
    std::string out;
    for (const auto& [socket, entries] : all.items()) {
      out += fmt::format("## {}\n\n", socket);
      report::Table t{{{"name"}, {"what"}}, {}};
      std::vector<const char*> keys;
      for (const char* key : {"paper", "equation", "cost", "state", "asks"})
        if (!entries.empty() && entries[0].contains(key)) keys.push_back(key), t.columns.push_back({key});
      for (const Json& e : entries) {
        std::vector<std::string> row = {"`" + text_of(e, "name") + "`", text_of(e, "title")};
        for (const char* key : keys)
          row.push_back(std::string(key) == "equation" ? "`" + text_of(e, key) + "`" : text_of(e, key));
        t.add(row);
      }
      out += t.markdown() + "\n";
      for (const Json& e : entries) out += options_markdown(e);
    }
    return out;
  }

  static std::string options_markdown(const Json& e) {
    std::string out;
    if (e.contains("options") && !e.at("options").empty()) {
      report::Table t{{{"option"}, {"type"}, {"default", true}, {"meaning"}}, {}};
      for (const Json& o : e.at("options"))
        t.add({"`" + text_of(o, "name") + "`", text_of(o, "type"), text_of(o, "default"), meaning(o)});
      out += fmt::format("### {}\n\n{}\n", text_of(e, "name"), t.markdown());
    }
    if (e.contains("settings")) {
      report::Table t{{{"as"}, {"options"}}, {}};
      for (const Json& s : e.at("settings")) t.add({text_of(s, "name"), "`" + json_text(s.at("options")) + "`"});
      out += t.markdown() + "\n";
    }
    return out;
  }
};

}  // namespace

void add_list(Commands& commands) {
  auto l = std::make_shared<List>();
  l->app = &commands.app();
  CLI::App& app =
      commands.add("list", "Show what models can be made of, with options and sources", [l] { return l->run(); });
  app.add_option("kind", l->kind, "mixers, channels, norms, positions, blocks, optimizers, tasks or commands; all without")
      ->check(CLI::IsMember({"mixers", "channels", "norms", "positions", "blocks", "optimizers", "tasks", "commands"}));
  app.add_option("name", l->name, "one of them");
  auto* markdown = app.add_flag("--markdown", l->markdown, "print Markdown tables");
  add_json_flag(app, l->json)->excludes(markdown);
  app.footer("Example: sennit list mixers gla");
}

}  // namespace sennit::cli

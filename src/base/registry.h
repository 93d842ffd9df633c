#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/fields.h"
#include "base/rng.h"

namespace sennit {

// The options of some registered thing, without its type.
struct OptionSet {
  virtual ~OptionSet() = default;
  virtual Fields fields() = 0;
};

// The things that plug into one socket, by name, in alphabetical order. A thing T of the socket offers
//   static Socket::Info info();   struct Options { Fields fields(); };   T(const Socket::Dims&, const Options&, Rng)
template <class Socket>
class Registry {
 public:
  struct Entry {
    std::string name;
    typename Socket::Info info;
    std::function<std::unique_ptr<OptionSet>()> options;
    std::function<std::unique_ptr<Socket>(const typename Socket::Dims&, const OptionSet&, Rng)> make;
  };

  explicit Registry(std::string socket) : socket_(std::move(socket)) {}

  template <class T>
  void add(std::string name) {
    struct Box : OptionSet {
      typename T::Options value;
      Fields fields() override { return value.fields(); }
    };
    entries_.push_back({std::move(name), T::info(), [] { return std::make_unique<Box>(); },
                        [](const typename Socket::Dims& dims, const OptionSet& o, Rng rng) -> std::unique_ptr<Socket> {
                          return std::make_unique<T>(dims, static_cast<const Box&>(o).value, rng);
                        }});
  }

  const std::vector<Entry>& entries() const { return entries_; }
  const std::string& socket() const { return socket_; }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const Entry& e : entries_) all.push_back(e.name);
    return all;
  }
  // Throws Error with a suggestion when there is no such name.
  const Entry& find(const std::string& name, const std::string& where) const {
    for (const Entry& e : entries_)
      if (e.name == name) return e;
    const std::string near = closest(name, names());
    fail({socket_, near.empty() ? "a registered name" : "`" + near + "`?", "`" + name + "`", where});
  }
  // From a name, or an object with "name" and options.
  std::unique_ptr<Socket> make(const Json& part, const typename Socket::Dims& dims, Rng rng, const std::string& where) const;

 private:
  std::string socket_;
  std::vector<Entry> entries_;
};

namespace detail {
// Splits a part into its name and options; throws Error when it is neither a name nor an object with one.
std::string part_name(const Json& part, const std::string& socket, const std::string& where);
void read_part(const Json& part, const Fields& fields, const std::string& who, const std::string& where);
[[noreturn]] void fail_at(Problem problem, const std::string& where);  // in `where`, unless it says so already
}  // namespace detail

template <class Socket>
std::unique_ptr<Socket> Registry<Socket>::make(const Json& part, const typename Socket::Dims& dims, Rng rng,
                                               const std::string& where) const {
  const Entry& entry = find(detail::part_name(part, socket_, where), where);
  auto options = entry.options();
  detail::read_part(part, options->fields(), entry.name, where);
  try {
    return entry.make(dims, *options, rng);
  } catch (const Error& e) {
    detail::fail_at(e.problem(), where);
  }
}

}  // namespace sennit

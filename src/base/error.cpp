#include "base/error.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace sennit {
namespace {

std::string sentence(const Problem& p) {
  std::string s = p.who;
  if (!p.expected.empty()) s += ": expected " + p.expected;
  if (!p.found.empty()) s += (p.expected.empty() ? ": " : ", got ") + p.found;
  if (!p.where.empty()) s += " (" + p.where + ")";
  return s;
}

}  // namespace

Error::Error(Problem p) : std::runtime_error(sentence(p)), problem_(std::move(p)) {}

void fail(Problem p) { throw Error(std::move(p)); }

void detail::check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw InternalError(fmt::format("{}:{}: broken invariant `{}`{}{}", file, line, condition, message.empty() ? "" : ": ", message));
}

int edit_distance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row.back();
}

}  // namespace sennit

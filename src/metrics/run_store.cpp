#include "metrics/run_store.h"

#include <sqlite3.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "base/clock.h"
#include "base/error.h"

namespace sennit::metrics {
namespace {

constexpr int kApplication = 0x534e5431;  // marks our files: "SNT1"

constexpr const char* kSchema =
    "CREATE TABLE IF NOT EXISTS run(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS scalars(name TEXT NOT NULL, step INTEGER NOT NULL, value REAL, time REAL NOT NULL,"
    " PRIMARY KEY(name, step)) WITHOUT ROWID;";

}  // namespace

// The connection and the statements prepared on it.
struct RunStore::Database {
  // One use of a prepared statement: binds by position, steps, and is reset when it goes.
  class Query {
   public:
    Query(const Database& db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
    ~Query() { sqlite3_reset(statement_); }
    Query(const Query&) = delete;

    Query& bind(std::string_view text) {
      db_.check(sqlite3_bind_text(statement_, ++bound_, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT));
      return *this;
    }
    Query& bind(int64_t x) {
      db_.check(sqlite3_bind_int64(statement_, ++bound_, x));
      return *this;
    }
    Query& bind(double x) {  // SQLite stores NaN as null
      db_.check(sqlite3_bind_double(statement_, ++bound_, x));
      return *this;
    }
    bool next() {
      const int code = sqlite3_step(statement_);
      if (code != SQLITE_ROW && code != SQLITE_DONE) db_.check(code);
      return code == SQLITE_ROW;
    }
    std::string text(int column) const {
      const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
      return {bytes ? bytes : "", static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
    }
    int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
    double number(int column) const {
      const bool null = sqlite3_column_type(statement_, column) == SQLITE_NULL;
      return null ? std::numeric_limits<double>::quiet_NaN() : sqlite3_column_double(statement_, column);
    }

   private:
    const Database& db_;
    sqlite3_stmt* statement_;
    int bound_ = 0;
  };

  explicit Database(const std::string& file) : path(file) {
    try {
      check(sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                            nullptr));
      sqlite3_busy_timeout(db, 5000);
      check_ours();
      run("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;");
      run(fmt::format("PRAGMA application_id={};", kApplication).c_str());
      run(kSchema);
      set = prepare("INSERT INTO run VALUES(?,?) ON CONFLICT DO UPDATE SET value=excluded.value");
      get = prepare("SELECT value FROM run WHERE key=?");
      add = prepare("INSERT OR REPLACE INTO scalars(step, name, value, time) VALUES(?,?,?,?)");
      truncate = prepare("DELETE FROM scalars WHERE step>?");
      names = prepare("SELECT DISTINCT name FROM scalars ORDER BY name");
      series = prepare("SELECT step, value, time FROM scalars WHERE name=? ORDER BY step");
    } catch (...) {
      close();
      throw;
    }
  }
  ~Database() { close(); }

  void check(int code) const {
    if (code != SQLITE_OK) fail({"metrics store", "", sqlite3_errmsg(db), path});
  }

  void run(const char* sql) const { check(sqlite3_exec(db, sql, nullptr, nullptr, nullptr)); }

  sqlite3_stmt* prepare(const char* sql) const {
    sqlite3_stmt* statement = nullptr;
    check(sqlite3_prepare_v2(db, sql, -1, &statement, nullptr));
    return statement;
  }

  int64_t ask(const char* sql) const {
    sqlite3_stmt* statement = prepare(sql);
    const int64_t answer = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    check(sqlite3_finalize(statement));
    return answer;
  }

  // A file with tables that does not carry our mark belongs to someone else.
  void check_ours() const {
    const bool fresh = ask("SELECT count(*) FROM sqlite_master") == 0;
    if (!fresh && ask("PRAGMA application_id") != kApplication)
      fail({"metrics store", "a file that this program made", "another SQLite file", path});
  }

  void close() {
    for (sqlite3_stmt* statement : {set, get, add, truncate, names, series}) sqlite3_finalize(statement);
    sqlite3_close(db);
  }

  std::string path;
  sqlite3* db = nullptr;
  sqlite3_stmt *set = nullptr, *get = nullptr, *add = nullptr, *truncate = nullptr, *names = nullptr, *series = nullptr;
};

RunStore::RunStore(const std::string& folder)
    : db_(std::make_unique<Database>((std::filesystem::path(folder) / "metrics.sqlite").string())) {}

RunStore::~RunStore() {
  try {
    flush();
  } catch (const Error&) {  // a destructor has nobody to tell; flush() told whoever asked
  }
}

void RunStore::set(std::string_view key, std::string_view value) {
  Database::Query(*db_, db_->set).bind(key).bind(value).next();
}

std::optional<std::string> RunStore::get(std::string_view key) const {
  Database::Query query(*db_, db_->get);
  if (!query.bind(key).next()) return std::nullopt;
  return query.text(0);
}

void RunStore::add(int64_t step, std::string_view name, double value) {
  pending_.push_back({{step, value, seconds_since_epoch()}, std::string(name)});
}

void RunStore::flush() {
  if (pending_.empty()) return;
  db_->run("BEGIN IMMEDIATE");
  try {
    for (const auto& [scalar, name] : pending_)
      Database::Query(*db_, db_->add).bind(scalar.step).bind(name).bind(scalar.value).bind(scalar.time).next();
    db_->run("COMMIT");
  } catch (...) {
    sqlite3_exec(db_->db, "ROLLBACK", nullptr, nullptr, nullptr);
    throw;
  }
  pending_.clear();
}

void RunStore::truncate_after(int64_t last) {
  std::erase_if(pending_, [&](const Pending& p) { return p.scalar.step > last; });
  Database::Query(*db_, db_->truncate).bind(last).next();
}

std::vector<std::string> RunStore::names() const {
  std::vector<std::string> out;
  for (Database::Query query(*db_, db_->names); query.next();) out.push_back(query.text(0));
  return out;
}

std::vector<Scalar> RunStore::series(std::string_view name) const {
  std::vector<Scalar> out;
  Database::Query query(*db_, db_->series);
  for (query.bind(name); query.next();) out.push_back({query.integer(0), query.number(1), query.number(2)});
  return out;
}

}  // namespace sennit::metrics

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "metrics/event_file.h"
#include "metrics/run_store.h"
#include "support/temp_folder.h"

namespace sennit::metrics::metrics_test {

std::vector<int64_t> steps(const std::vector<Scalar>& series) {
  std::vector<int64_t> out;
  for (const Scalar& s : series) out.push_back(s.step);
  return out;
}

TEST(RunStore, GoesRoundAcrossOpenings) {
  TempFolder dir;
  {
    RunStore store(dir.path());
    store.set("model", "gla");
    store.set("model", "delta");
    store.add(2, "loss", 1.5);
    store.add(1, "loss", 2.5);
    store.add(1, "rate", NAN);
    store.add(2, "rate", INFINITY);
    EXPECT_TRUE(store.series("loss").empty()) << "before the flush";
    store.flush();
    store.add(3, "it's; DROP", 1e-300);
  }
  RunStore store(dir.path());
  EXPECT_EQ(store.get("model"), "delta");
  EXPECT_EQ(store.get("none"), std::nullopt);
  EXPECT_EQ(store.names(), (std::vector<std::string>{"it's; DROP", "loss", "rate"}));
  const auto loss = store.series("loss");
  EXPECT_EQ(steps(loss), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(loss[1].value, 1.5);
  EXPECT_GT(loss[0].time, 1.6e9);
  EXPECT_TRUE(std::isnan(store.series("rate")[0].value));
  EXPECT_EQ(store.series("rate")[1].value, INFINITY);
  EXPECT_EQ(store.series("it's; DROP")[0].value, 1e-300);
}

TEST(RunStore, TruncationForgetsWhatCameAfter) {
  TempFolder dir;
  RunStore store(dir.path());
  for (int64_t step = 0; step < 10; ++step) store.add(step, "loss", static_cast<double>(step));
  store.flush();
  store.add(10, "loss", 10);
  store.add(4, "late", 4);
  store.truncate_after(5);
  store.flush();
  EXPECT_EQ(steps(store.series("loss")), (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(steps(store.series("late")), (std::vector<int64_t>{4}));
  store.add(5, "loss", 55);
  store.flush();
  EXPECT_EQ(store.series("loss").back().value, 55);
}

TEST(RunStore, AKilledRunKeepsWhatWasFlushed) {
  TempFolder dir;
  const pid_t pid = ::fork();
  if (pid == 0) {
    RunStore store(dir.path());
    store.add(1, "loss", 1);
    store.flush();
    store.add(2, "loss", 2);
    ::_exit(0);
  }
  ::waitpid(pid, nullptr, 0);
  RunStore store(dir.path());
  EXPECT_EQ(steps(store.series("loss")), (std::vector<int64_t>{1}));
}

TEST(RunStore, ReadersMayLookMeanwhile) {
  TempFolder dir;
  RunStore writer(dir.path()), reader(dir.path());
  writer.add(1, "loss", 1);
  writer.flush();
  EXPECT_EQ(reader.series("loss").size(), 1u);
}

TEST(RunStore, BadPlacesAreErrors) {
  TempFolder dir;
  EXPECT_NE(error_of([&] { RunStore(dir / "none"); }).find(dir / "none/metrics.sqlite"), std::string::npos);
  spill(dir / "metrics.sqlite", std::string(5000, 'x'));
  EXPECT_NE(error_of([&] { RunStore{dir.path()}; }).find("not a database"), std::string::npos);
  std::filesystem::remove(dir / "metrics.sqlite");
  sqlite3* db = nullptr;
  sqlite3_open((dir / "metrics.sqlite").c_str(), &db);
  sqlite3_exec(db, "CREATE TABLE theirs(x)", nullptr, nullptr, nullptr);
  sqlite3_close(db);
  EXPECT_NE(error_of([&] { RunStore{dir.path()}; }).find("another SQLite file"), std::string::npos);
}

// CRC-32C bit by bit.
uint32_t slow_crc(const std::string& data) {
  uint32_t c = ~0u;
  for (const unsigned char byte : data) {
    c ^= byte;
    for (int i = 0; i < 8; ++i) c = c & 1 ? (c >> 1) ^ 0x82f63b78 : c >> 1;
  }
  return ~c;
}

uint32_t slow_mask(const std::string& data) {
  const uint32_t c = slow_crc(data);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

// The events of a file; a test failure where its framing is wrong.
std::vector<std::string> events(const std::string& file) {
  std::vector<std::string> out;
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    uint32_t crc = 0;
    std::memcpy(&length, file.data() + at, 8);
    std::memcpy(&crc, file.data() + at + 8, 4);
    EXPECT_EQ(crc, slow_mask(file.substr(at, 8)));
    if (at + 16 + length > file.size()) {
      ADD_FAILURE() << "a record is cut";
      break;
    }
    out.push_back(file.substr(at + 12, length));
    std::memcpy(&crc, file.data() + at + 12 + length, 4);
    EXPECT_EQ(crc, slow_mask(out.back()));
    at += 16 + length;
  }
  return out;
}

TEST(EventFile, RecordsAreFramedAndEncoded) {
  TempFolder dir;
  EventFile file(dir.path());
  file.add(300, "loss", 1.5);
  file.flush();
  const auto found = events(slurp(file.path()));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].substr(9),
            "\x1a\x0d"
            "brain.Event:2");
  // wall_time; step = 300; summary { value { tag: "loss" simple_value: 1.5 } }
  EXPECT_EQ(found[1].substr(9), std::string("\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\xc0\x3f", 18));
  EXPECT_EQ(found[1][0], '\x09');
  const std::string name = std::filesystem::path(file.path()).filename().string();
  EXPECT_TRUE(name.starts_with("events.out.tfevents.1") || name.starts_with("events.out.tfevents.2")) << name;
}

TEST(EventFile, ResumingStartsASession) {
  TempFolder dir;
  EventFile file(dir.path(), 99), other(dir.path());
  EXPECT_NE(file.path(), other.path());
  const auto found = events(slurp(file.path()));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[1].substr(9), "\x10\x64\x3a\x02\x08\x01");  // step = 100; session_log { status: START }
}

TEST(EventFile, AFullDiskLeavesWholeRecords) {
  TempFolder dir;
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    EventFile file(dir.path());
    try {
      for (int step = 0;; ++step) {
        file.add(step, "loss", 1);
        file.add(step, "rate", 1);
        file.flush();
      }
    } catch (const Error& e) {
      ::_exit(std::string(e.what()).find(file.path()) != std::string::npos ? 42 : 1);
    }
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_GT(events(slurp(dir / listing(dir.path()).at(0))).size(), 5u);
  EXPECT_NE(error_of([&] { EventFile(dir / "none"); }).find("none/events"), std::string::npos);
}

}  // namespace sennit::metrics::metrics_test

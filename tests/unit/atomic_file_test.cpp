#include "io/atomic_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/mapped_file.h"
#include "support/temp_folder.h"

namespace sennit::io::atomic_file_test {

using Names = std::vector<std::string>;

// Runs `body` in a child process; its exit status.
template <class Body>
int in_child(Body&& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(AtomicFile, AppearsAtCommitAndReplaces) {
  TempFolder dir;
  const std::string path = dir / "x.bin";
  {
    AtomicFile file(path);
    file.write("hello");
    EXPECT_FALSE(std::filesystem::exists(path));
    file.overwrite(0, "J", 1);
    EXPECT_EQ(file.size(), 5);
    file.commit();
  }
  EXPECT_EQ(slurp(path), "Jello");
  write_file(path, "second");
  EXPECT_EQ(slurp(path), "second");
  EXPECT_EQ(listing(dir.path()), Names{"x.bin"});
}

TEST(AtomicFile, WithoutCommitNothingChanges) {
  TempFolder dir;
  spill(dir / "x", "old");
  { AtomicFile(dir / "x").write("new"); }
  EXPECT_EQ(slurp(dir / "x"), "old");
  EXPECT_EQ(listing(dir.path()), Names{"x"});
}

TEST(AtomicFile, ErrorsNameThePath) {
  TempFolder dir;
  std::filesystem::create_directory(dir / "folder");
  EXPECT_NE(error_of([&] { AtomicFile(dir / "folder"); }).find("a folder"), std::string::npos);
  EXPECT_NE(error_of([&] { AtomicFile(dir / "none/x"); }).find("No such file"), std::string::npos);
  EXPECT_NE(error_of([&] { AtomicFile(dir / "none/x"); }).find("none/x"), std::string::npos);
  EXPECT_NE(error_of([&] { AtomicFile("/"); }).find("ends in a name"), std::string::npos);
}

TEST(AtomicFile, AFileThatOutgrowsItsLimitIsAnErrorAndLeavesNothing) {
  TempFolder dir;
  spill(dir / "x", "old");
  const int status = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100000, 100000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file(dir / "x", std::string(300000, 'n'));
    } catch (const Error& e) {
      const std::string text = e.what();
      ::_exit(text.find(dir / "x") != text.npos && text.find("300000 bytes") != text.npos ? 42 : 1);
    }
  });
  EXPECT_EQ(status, 42);
  EXPECT_EQ(slurp(dir / "x"), "old");
  EXPECT_EQ(listing(dir.path()), Names{"x"});
}

TEST(AtomicFile, AFullDiskIsAnErrorAndLeavesNothing) {
  TempFolder dir;
  if (::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_SKIP() << "may not mount a tmpfs";
  write_file(dir / "x", "old");
  const std::string text = error_of([&] { write_file(dir / "x", std::string(1 << 20, 'n')); });
  EXPECT_NE(text.find("No space left"), std::string::npos) << text;
  EXPECT_NE(text.find("1048576 bytes"), std::string::npos) << text;
  EXPECT_EQ(slurp(dir / "x"), "old");
  EXPECT_EQ(listing(dir.path()), Names{"x"});
  ::umount(dir.path().c_str());
}

TEST(AtomicFile, AKilledWriterLeavesTheOldFileAndTheNextOneCleansUp) {
  TempFolder dir;
  spill(dir / "x", "old");
  EXPECT_EQ(in_child([&] {
              AtomicFile file(dir / "x");
              file.write("half of the n");
              ::_exit(9);
            }),
            9);
  EXPECT_EQ(slurp(dir / "x"), "old");
  EXPECT_EQ(listing(dir.path()).size(), 2u);
  {
    AtomicFile mine(dir / "x");  // a living writer's temporary stays
    EXPECT_EQ(listing(dir.path()).size(), 2u);
    write_file(dir / "x", "new");
    mine.write("third");
    mine.commit();
  }
  EXPECT_EQ(slurp(dir / "x"), "third");
  EXPECT_EQ(listing(dir.path()), Names{"x"});
}

TEST(AtomicFolder, AppearsWholeAndReplacesAFullOne) {
  TempFolder dir;
  const auto publish = [&](const std::string& content) {
    AtomicFolder folder(dir / "model/");
    std::filesystem::create_directory(folder.path() + "/deep");
    spill(folder.path() + "/deep/a", content);
    folder.commit();
  };
  publish("one");
  EXPECT_EQ(slurp(dir / "model/deep/a"), "one");
  spill(dir / "model/stale", "");
  publish("two");
  EXPECT_EQ(slurp(dir / "model/deep/a"), "two");
  EXPECT_EQ(listing(dir / "model"), Names{"deep"});
  EXPECT_EQ(listing(dir.path()), Names{"model"});
}

TEST(AtomicFolder, WithoutCommitNothingChanges) {
  TempFolder dir;
  { spill(AtomicFolder(dir / "model").path() + "/a", "x"); }
  EXPECT_TRUE(listing(dir.path()).empty());
  spill(dir / "file", "");
  EXPECT_NE(error_of([&] { AtomicFolder(dir / "file"); }).find("a file"), std::string::npos);
  EXPECT_EQ(in_child([&] {
              AtomicFolder folder(dir / "model");
              spill(folder.path() + "/a", "half");
              ::_exit(9);
            }),
            9);
  EXPECT_FALSE(std::filesystem::exists(dir / "model"));
  AtomicFolder(dir / "model").commit();
  EXPECT_EQ(listing(dir.path()), (Names{"file", "model"}));
}

TEST(MappedFile, ShowsTheBytesAndRefusesTheRest) {
  TempFolder dir;
  spill(dir / "x", std::string("a\0b", 3));
  const auto file = MappedFile::open(dir / "x");
  EXPECT_EQ(file->text(), std::string_view("a\0b", 3));
  write_file(dir / "x", "replaced");
  EXPECT_EQ(file->text(), std::string_view("a\0b", 3)) << "a mapping keeps the old content";
  spill(dir / "empty", "");
  EXPECT_NE(error_of([&] { MappedFile::open(dir / "empty"); }).find("empty file"), std::string::npos);
  EXPECT_NE(error_of([&] { MappedFile::open(dir / "none"); }).find("No such file"), std::string::npos);
  EXPECT_NE(error_of([&] { MappedFile::open(dir.path()); }).find("a folder"), std::string::npos);
  EXPECT_NE(error_of([&] { MappedFile::open("/dev/zero"); }).find("a regular file"), std::string::npos);
}

}  // namespace sennit::io::atomic_file_test

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "base/parallel.h"
#include "base/rng.h"
#include "data/packer.h"
#include "data/permutation.h"
#include "data/token_file.h"
#include "data/tokenize.h"
#include "support/temp_folder.h"

namespace sennit::data::data_test {

using Documents = std::vector<std::string>;
using Ids = std::vector<int32_t>;

const tokenizers::Tokenizer& bytes() {
  static const auto t = tokenizers::bytes_tokenizer();
  return *t;
}

// Random documents; every token of the file is known from them.
Documents some_documents(int count, uint64_t seed) {
  Documents documents(count);
  Rng rng(seed);
  for (auto& d : documents)
    for (int64_t n = 1 + rng.below(30); n > 0; --n) d += static_cast<char>('a' + rng.below(26));
  return documents;
}

std::shared_ptr<const TokenFile> file_of(const Documents& documents, const std::string& path) {
  TokenFileWriter writer(path, bytes());
  for (const auto& d : documents) writer.add(bytes().encode(d));
  writer.commit();
  return std::make_shared<TokenFile>(path);
}

// All tokens, and of each its document and offset there.
struct Flat {
  Ids tokens, targets;
  std::vector<int64_t> document, offset;
  explicit Flat(const Documents& documents) {
    for (size_t d = 0; d < documents.size(); ++d) {
      Ids ids = bytes().encode(documents[d]);
      ids.push_back(256);
      for (size_t i = 0; i < ids.size(); ++i) {
        tokens.push_back(ids[i]);
        targets.push_back(i + 1 < ids.size() ? ids[i + 1] : kIgnored);
        document.push_back(static_cast<int64_t>(d));
        offset.push_back(static_cast<int64_t>(i));
      }
    }
  }
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

// Checks a batch against the documents; the positions in the file of its rows, in order.
std::vector<int64_t> check_batch(const PackedBatch& batch, const Flat& flat) {
  std::vector<int64_t> positions;
  int64_t row = 0;
  for (const PackedSegment& s : batch.segments) {
    EXPECT_EQ(s.begin, row);
    EXPECT_GE(s.length, 1);
    const auto first = std::find(flat.document.begin(), flat.document.end(), s.document) - flat.document.begin();
    for (int64_t i = 0; i < s.length; ++i, ++row) {
      const int64_t p = first + s.offset + i;
      EXPECT_EQ(flat.document[p], s.document);
      EXPECT_EQ(batch.tokens[row], flat.tokens[p]);
      positions.push_back(p);
    }
  }
  EXPECT_EQ(row, static_cast<int64_t>(batch.tokens.size()));
  EXPECT_EQ(batch.targets.size(), batch.tokens.size());
  return positions;
}

void expect_targets(const PackedBatch& batch, const Flat& flat, const std::vector<int64_t>& positions) {
  for (size_t i = 0; i < positions.size(); ++i) EXPECT_EQ(batch.targets[i], flat.targets[positions[i]]) << i;
}

TEST(TokenFile, GoesRound) {
  TempFolder dir;
  const Documents documents = some_documents(20, 1);
  const auto file = file_of(documents, dir / "t.tokens");
  const Flat flat(documents);
  ASSERT_EQ(file->tokens(), flat.size());
  EXPECT_EQ(file->documents(), 20);
  EXPECT_EQ(file->vocab_size(), 257);
  EXPECT_EQ(file->end_token(), 256);
  Ids all(flat.size());
  file->read(0, all);
  EXPECT_EQ(all, flat.tokens);
  for (int64_t i = 0; i < flat.size(); ++i) ASSERT_EQ(file->document_at(i), flat.document[i]);
  EXPECT_NO_THROW(file->verify());
  EXPECT_NO_THROW(file->check_tokenizer(bytes()));
}

TEST(TokenFile, EveryTruncationAndBitFlipIsSeen) {
  TempFolder dir;
  file_of({"ab", "cde"}, dir / "t");
  const std::string good = slurp(dir / "t");
  std::vector<uint64_t> aligned(good.size() / 8 + 1);
  const auto open = [&](const std::string& content) {
    std::memcpy(aligned.data(), content.data(), content.size());
    TokenFile({reinterpret_cast<const std::byte*>(aligned.data()), content.size()}, "t").verify();
  };
  EXPECT_NO_THROW(open(good));
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THROW(open(good.substr(0, n)), Error) << n;
  for (size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      EXPECT_THROW(open(bad), Error) << "byte " << i;
    }
}

TEST(TokenFile, IdsOutsideTheVocabularyAreRefused) {
  TempFolder dir;
  file_of({"ab"}, dir / "t");
  std::string bad = slurp(dir / "t");
  bad[sizeof(TokenFileHeader) + 1] = 2;  // 'a' becomes 97 + 512
  spill(dir / "bad", bad);
  const TokenFile file(dir / "bad");
  Ids out(3);
  EXPECT_NE(error_of([&] { file.read(0, out); }).find("ids below 257, got 609"), std::string::npos);
}

TEST(Tokenize, TextIsCutAtFormFeedLines) {
  TempFolder dir;
  spill(dir / "train.txt", "one\ntwo\n\f\nthree \f four\r\n\f\r\n\f\n\f\nfive");
  const auto report = tokenize_folder(dir.path(), dir / "out", bytes());
  const TokenFile file(dir / "out/train.tokens");
  EXPECT_EQ(report.documents, 3);
  EXPECT_EQ(report.tokens, file.tokens());
  EXPECT_EQ(report.bytes, static_cast<int64_t>(slurp(dir / "train.txt").size()));
  Documents found;
  for (int64_t d = 0; d < file.documents(); ++d) {
    Ids ids(file.document_end(d) - file.document_begin(d));
    file.read(file.document_begin(d), ids);
    EXPECT_EQ(ids.back(), 256);
    found.push_back(bytes().decode(ids));
  }
  EXPECT_EQ(found, (Documents{"one\ntwo\n", "three \f four\r\n", "five"}));
  EXPECT_EQ(tokenizers::load_tokenizer(dir / "out")->name(), "bytes");
}

TEST(Tokenize, JsonLines) {
  TempFolder dir;
  spill(dir / "train.jsonl", "{\"text\": \"a\\nb\", \"id\": 3}\n\n{\"text\": \"\"}\n{\"text\": \"c\"}");
  EXPECT_EQ(tokenize_folder(dir.path(), dir / "out", bytes()).documents, 2);
  spill(dir / "train.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
  EXPECT_NE(error_of([&] { tokenize_folder(dir.path(), dir / "out2", bytes()); }).find("train.jsonl, record 2"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "out2/train.tokens"));
  TempFolder empty;
  EXPECT_NE(error_of([&] { tokenize_folder(empty.path(), dir / "out3", bytes()); }).find("neither"), std::string::npos);
}

TEST(Tokenize, TheResultDoesNotDependOnTheThreads) {
  TempFolder dir;
  std::string text;
  for (const auto& d : some_documents(5000, 4)) text += d + "\n\f\n";
  spill(dir / "a.txt", text);
  const std::string inputs[] = {dir / "a.txt", dir / "a.txt"};
  const int before = thread_count();
  std::string first;
  for (int threads : {1, 2, 3, 8}) {
    set_thread_count(threads);
    int64_t last = 0;
    tokenize_files(inputs, dir / "o", bytes(), [&](std::string_view, int64_t done, int64_t total) {
      EXPECT_GE(done, last);
      EXPECT_LE(last = done, total);
    });
    EXPECT_EQ(last, 2 * static_cast<int64_t>(text.size()));
    const std::string content = slurp(dir / "o");
    if (first.empty()) first = content;
    EXPECT_EQ(content, first) << threads;
  }
  set_thread_count(before);
}

TEST(Permutation, IsOneForEverySize) {
  for (int64_t n = 1; n <= 300; ++n) {
    std::vector<int> seen(n);
    const Permutation p(n, 5, static_cast<uint64_t>(n));
    for (int64_t i = 0; i < n; ++i) ++seen[p(i)];
    ASSERT_EQ(seen, std::vector<int>(n, 1)) << n;
  }
}

TEST(Permutation, MovesEverythingFarAndDependsOnTheSeed) {
  constexpr int64_t n = 10000;
  const Permutation p(n, 1, 0), q(n, 2, 0), r(n, 1, 1);
  double distance = 0;
  int64_t same = 0, rising = 0;
  for (int64_t i = 0; i < n; ++i) {
    distance += static_cast<double>(std::abs(p(i) - i)) / n;
    same += (p(i) == q(i)) + (p(i) == r(i));
    rising += i > 0 && p(i) > p(i - 1);
  }
  EXPECT_NEAR(distance / n, 1.0 / 3, 0.01);  // the mean of |x - y| for uniform x and y
  EXPECT_NEAR(static_cast<double>(rising) / n, 0.5, 0.02);
  EXPECT_LT(same, 12);
}

TEST(ShuffledBatches, EachEpochVisitsEveryBlockOnce) {
  TempFolder dir;
  const Documents documents = some_documents(40, 2);
  const auto file = file_of(documents, dir / "t");
  const Flat flat(documents);
  for (int64_t row_tokens : {1, 3, 16, 37}) {
    constexpr int64_t kRows = 2;
    const ShuffledBatches data(file, kRows, row_tokens, 11);
    const int64_t blocks = data.rows_per_epoch();
    ASSERT_EQ(blocks, flat.size() / row_tokens);
    std::vector<std::vector<int64_t>> orders;
    std::vector<int64_t> order;
    std::map<int64_t, int> seen;
    for (int64_t number = 0; number < 2 * blocks; ++number) {
      const PackedBatch batch = data.at(number / kRows, {number % kRows, 1});
      const auto positions = check_batch(batch, flat);
      expect_targets(batch, flat, positions);
      ASSERT_EQ(static_cast<int64_t>(positions.size()), row_tokens);
      for (const int64_t p : positions) ASSERT_EQ(++seen[p], 1) << "token " << p << " twice in an epoch";
      order.push_back(positions[0]);
      if ((number + 1) % blocks == 0) {
        EXPECT_GT(static_cast<int64_t>(seen.size()), flat.size() - row_tokens);
        orders.push_back(std::exchange(order, {}));
        seen.clear();
      }
    }
    EXPECT_NE(orders[0], orders[1]);
  }
}

TEST(ShuffledBatches, RowsDoNotDependOnWhoTakesThemAndSeedsDiffer) {
  TempFolder dir;
  const Documents documents = some_documents(40, 3);
  const auto file = file_of(documents, dir / "t");
  const ShuffledBatches data(file, 6, 20, 1), other(file, 6, 20, 2);
  for (int64_t step : {0, 1, 5, 100000}) {
    const PackedBatch whole = data.at(step);
    check_batch(whole, Flat(documents));
    Ids joined;
    for (const RowRange range : {RowRange{0, 1}, RowRange{1, 3}, RowRange{4}}) {
      const auto part = data.at(step, range).tokens;
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_EQ(joined, whole.tokens);
    EXPECT_NE(other.at(step).tokens, whole.tokens);
  }
}

TEST(ShuffledBatches, AFileShorterThanARowRepeats) {
  TempFolder dir;
  const Documents documents = {"ab", "c"};
  const auto file = file_of(documents, dir / "t");
  const ShuffledBatches data(file, 1, 13, 1);
  const PackedBatch batch = data.at(3);
  expect_targets(batch, Flat(documents), check_batch(batch, Flat(documents)));
}

TEST(StreamedBatches, EachRowGoesOnWhereItStopped) {
  TempFolder dir;
  const Documents documents = some_documents(25, 6);
  const auto file = file_of(documents, dir / "t");
  const Flat flat(documents);
  constexpr int64_t kRows = 3, kTokens = 17;
  const StreamedBatches data(file, kRows, kTokens);
  std::vector<int64_t> next(kRows, -1);
  for (int64_t step = 0; step < 60; ++step)
    for (int64_t b = 0; b < kRows; ++b) {
      const PackedBatch batch = data.at(step, {b, 1});
      const auto positions = check_batch(batch, flat);
      expect_targets(batch, flat, positions);
      EXPECT_TRUE(step == 0 || positions[0] == next[b]) << "row " << b << " at step " << step;
      for (size_t i = 0; i < batch.segments.size(); ++i) {
        const bool inside = batch.segments[i].offset > 0;
        EXPECT_EQ(batch.segments[i].continues, i == 0 && step > 0 && inside);
      }
      next[b] = (positions.back() + 1) % flat.size();
    }
}

TEST(EvaluationBatches, EveryTargetCountsOnceWithTheMostContext) {
  TempFolder dir;
  const Documents documents = some_documents(12, 8);
  const auto file = file_of(documents, dir / "t");
  const Flat flat(documents);
  for (int64_t row_tokens : {int64_t{1}, int64_t{7}, int64_t{32}, flat.size(), flat.size() + 5})
    for (int64_t stride : std::set<int64_t>{1, (row_tokens + 1) / 2, row_tokens}) {
      const EvaluationBatches data(file, 3, row_tokens, stride);
      std::vector<int> scored(flat.size());
      for (int64_t i = 0; i < data.count(); ++i) {
        const PackedBatch batch = data.at(i);
        const auto positions = check_batch(batch, flat);
        for (size_t k = 0; k < positions.size(); ++k) {
          if (batch.targets[k] == kIgnored) continue;
          EXPECT_EQ(batch.targets[k], flat.targets[positions[k]]);
          ++scored[positions[k]];
        }
      }
      for (int64_t p = 0; p < flat.size(); ++p)
        ASSERT_EQ(scored[p], flat.targets[p] == kIgnored ? 0 : 1)
            << p << " rows of " << row_tokens << " stride " << stride;
    }
  EXPECT_THROW(EvaluationBatches(file, 1, 8, 9), Error);
  EXPECT_THROW(EvaluationBatches(file, 1, 8, 0), Error);
}

}  // namespace sennit::data::data_test

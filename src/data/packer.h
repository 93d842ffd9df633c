#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "data/token_file.h"

namespace sennit::data {

inline constexpr int32_t kIgnored = -1;  // a target that counts for nothing

// A run of rows of a batch that belongs to one document.
struct PackedSegment {
  int64_t begin, length;  // rows [begin, begin + length) of the batch
  int64_t document;       // in the token file
  int64_t offset;         // of the first row in its document
  bool continues;         // streams only: goes on where the same stream stopped the step before
};

// Documents back to back without padding: rows of `row_tokens` tokens, cut at document borders into segments.
struct PackedBatch {
  std::vector<int32_t> tokens;   // [rows * row_tokens]
  std::vector<int32_t> targets;  // the next token of the same document; kIgnored at a document's last token
  std::vector<PackedSegment> segments;
};

// Which rows a process takes of each step; the rows of a step do not depend on it.
struct RowRange {
  int64_t begin = 0, count = -1;  // -1: to the last
};

// Batches for training. Both orders see the file as a circle of tokens, and a batch is a function of (file, settings,
// step) alone: the position in the data is the step, and a resumed run goes on exactly.
//
// Shuffled: each epoch cuts the circle, from a random start, into blocks of row_tokens and visits every block once in a
// random order of its own. Fewer than row_tokens tokens sit out an epoch.
class ShuffledBatches {
 public:
  ShuffledBatches(std::shared_ptr<const TokenFile> file, int64_t rows, int64_t row_tokens, uint64_t seed);
  PackedBatch at(int64_t step, RowRange range = {}) const;
  int64_t rows_per_epoch() const { return blocks_; }

 private:
  std::shared_ptr<const TokenFile> file_;
  int64_t rows_, row_tokens_, blocks_;
  uint64_t seed_;
};

// Streamed: row b of step s goes on where row b of step s - 1 stopped, so that states can be carried from step to step.
// The rows start evenly spread over the circle.
class StreamedBatches {
 public:
  StreamedBatches(std::shared_ptr<const TokenFile> file, int64_t rows, int64_t row_tokens);
  PackedBatch at(int64_t step, RowRange range = {}) const;

 private:
  std::shared_ptr<const TokenFile> file_;
  int64_t rows_, row_tokens_;
};

// Batches for evaluation: windows of `row_tokens` tokens that begin `stride` apart. Each target of the file counts
// exactly once, in the window that gives it the most context: the first row_tokens - stride targets of a window that is
// not the first are ignored. The last window and the last batch may be shorter. With stride == row_tokens the windows
// do not overlap.
class EvaluationBatches {
 public:
  EvaluationBatches(std::shared_ptr<const TokenFile> file, int64_t rows, int64_t row_tokens, int64_t stride);
  int64_t count() const;
  PackedBatch at(int64_t index) const;

 private:
  std::shared_ptr<const TokenFile> file_;
  int64_t rows_, row_tokens_, stride_, windows_;
};

}  // namespace sennit::data

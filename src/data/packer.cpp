#include "data/packer.h"

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "data/permutation.h"

namespace sennit::data {
namespace {

// Adds `length` tokens from `position` on to the batch, around the end of the file if need be. The first `ignored`
// targets count for nothing. `continues` says that the first segment, if it starts inside a document, goes on from the
// step before.
void add_row(const TokenFile& file, int64_t position, int64_t length, int64_t ignored, bool continues,
             PackedBatch& batch) {
  const auto row_begin = static_cast<int64_t>(batch.tokens.size());
  batch.tokens.resize(row_begin + length);
  batch.targets.resize(row_begin + length);
  int64_t document = file.document_at(position);
  for (int64_t done = 0; done < length;) {
    const int64_t end = file.document_end(document);
    const int64_t n = std::min(length - done, end - position);
    int32_t* tokens = batch.tokens.data() + row_begin + done;
    int32_t* targets = batch.targets.data() + row_begin + done;
    file.read(position, {tokens, static_cast<size_t>(n)});
    std::copy(tokens + 1, tokens + n, targets);
    if (position + n < end)
      file.read(position + n, {targets + n - 1, 1});
    else
      targets[n - 1] = kIgnored;
    const int64_t offset = position - file.document_begin(document);
    batch.segments.push_back({row_begin + done, n, document, offset, continues && done == 0 && offset > 0});
    done += n, position += n;
    if (position == end) document = document + 1 == file.documents() ? 0 : document + 1;
    if (position == file.tokens()) position = 0;
  }
  std::fill_n(batch.targets.begin() + row_begin, std::min(ignored, length), kIgnored);
}

void check(const TokenFile& file, int64_t rows, int64_t row_tokens) {
  if (file.tokens() == 0) fail({"data", "a token file with tokens", "none", file.path()});
  SENNIT_CHECK(rows >= 1 && row_tokens >= 1 && rows < (int64_t{1} << 30) && row_tokens < (int64_t{1} << 40), "{} x {}",
               rows, row_tokens);
}

template <class Row>
PackedBatch make_batch(int64_t rows, RowRange range, Row&& row) {
  const int64_t count = range.count < 0 ? rows - range.begin : range.count;
  SENNIT_CHECK(range.begin >= 0 && count >= 0 && range.begin + count <= rows, "rows {}+{} of {}", range.begin, count,
               rows);
  PackedBatch batch;
  for (int64_t b = range.begin; b < range.begin + count; ++b) row(b, batch);
  return batch;
}

}  // namespace

ShuffledBatches::ShuffledBatches(std::shared_ptr<const TokenFile> file, int64_t rows, int64_t row_tokens, uint64_t seed)
    : file_(std::move(file)), rows_(rows), row_tokens_(row_tokens), blocks_(0), seed_(seed) {
  check(*file_, rows, row_tokens);
  blocks_ = std::max<int64_t>(1, file_->tokens() / row_tokens);
}

PackedBatch ShuffledBatches::at(int64_t step, RowRange range) const {
  return make_batch(rows_, range, [&](int64_t b, PackedBatch& batch) {
    const int64_t number = step * rows_ + b, epoch = number / blocks_;
    const Rng epochs = Rng(seed_).fork("epochs").fork(static_cast<uint64_t>(epoch));
    const int64_t start = Rng(epochs).below(file_->tokens());
    const int64_t block = Permutation(blocks_, epochs.seed(), epochs.stream())(number % blocks_);
    add_row(*file_, (start + block * row_tokens_) % file_->tokens(), row_tokens_, 0, false, batch);
  });
}

StreamedBatches::StreamedBatches(std::shared_ptr<const TokenFile> file, int64_t rows, int64_t row_tokens)
    : file_(std::move(file)), rows_(rows), row_tokens_(row_tokens) {
  check(*file_, rows, row_tokens);
}

PackedBatch StreamedBatches::at(int64_t step, RowRange range) const {
  return make_batch(rows_, range, [&](int64_t b, PackedBatch& batch) {
    const int64_t position = (file_->tokens() * b / rows_ + step * row_tokens_) % file_->tokens();
    add_row(*file_, position, row_tokens_, 0, step > 0, batch);
  });
}

EvaluationBatches::EvaluationBatches(std::shared_ptr<const TokenFile> file, int64_t rows, int64_t row_tokens,
                                     int64_t stride)
    : file_(std::move(file)), rows_(rows), row_tokens_(row_tokens), stride_(stride), windows_(0) {
  check(*file_, rows, row_tokens);
  if (stride < 1 || stride > row_tokens)
    fail({"data", fmt::format("a stride from 1 to {}", row_tokens), fmt::format("{}", stride)});
  windows_ = 1 + (std::max<int64_t>(0, file_->tokens() - row_tokens) + stride - 1) / stride;
}

int64_t EvaluationBatches::count() const {
  return (windows_ + rows_ - 1) / rows_;
}

PackedBatch EvaluationBatches::at(int64_t index) const {
  SENNIT_CHECK(index >= 0 && index < count(), "batch {} of {}", index, count());
  PackedBatch batch;
  for (int64_t w = index * rows_; w < std::min(windows_, (index + 1) * rows_); ++w) {
    const int64_t begin = w * stride_, length = std::min(row_tokens_, file_->tokens() - begin);
    add_row(*file_, begin, length, w == 0 ? 0 : row_tokens_ - stride_, false, batch);
  }
  return batch;
}

}  // namespace sennit::data

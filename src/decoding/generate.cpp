#include "decoding/generate.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "ops/layout.h"

namespace sennit {
namespace {

constexpr int64_t kPiece = 512;      // of a text: between two pieces it can be stopped
constexpr int64_t kScoredRows = 64;  // of logits at a time

// Holds back text that may be the start of a stop text.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stops) : stops_(stops) {}

  // What may be shown; `stopped` when a stop text is complete.
  std::string push(std::string_view text, bool& stopped) {
    held_ += text;
    size_t first = std::string::npos;
    for (const std::string& s : stops_)
      if (!s.empty()) first = std::min(first, held_.find(s));
    stopped = first != std::string::npos;
    const size_t safe = stopped ? first : held_.size() - longest_start();
    std::string shown = held_.substr(0, safe);
    held_.erase(0, safe);
    return shown;
  }
  std::string rest() { return std::exchange(held_, {}); }

 private:
  size_t longest_start() const {
    size_t longest = 0;
    for (const std::string& s : stops_)
      for (size_t n = std::min(held_.size(), s.size() ? s.size() - 1 : 0); n > longest; --n)
        if (held_.compare(held_.size() - n, n, s, 0, n) == 0) longest = n;
    return longest;
  }
  const std::vector<std::string>& stops_;
  std::string held_;
};

// Reads what is waiting, piece by piece; false when `reading` ended it before the last.
bool read(Session& session, std::span<const int32_t> tokens, const GenerationOptions& o,
          std::vector<TokenScore>& scores) {
  const int64_t all = std::ssize(tokens);
  while (!tokens.empty()) {
    const auto piece = tokens.first(static_cast<size_t>(session.piece(std::ssize(tokens))));
    if (o.scores < 0)
      session.feed(piece);
    else
      session.feed(piece, o.scores, scores);
    tokens = tokens.subspan(piece.size());
    if (!tokens.empty() && o.reading && !o.reading(all - std::ssize(tokens), all)) return false;
  }
  return true;
}

}  // namespace

int64_t Session::piece(int64_t tokens) const {
  return state_.position == 0 && model_->wants_whole_prompts() ? tokens : std::min(tokens, kPiece);
}

std::span<float> Session::feed(std::span<const int32_t> tokens, int64_t piece) {
  SENNIT_CHECK(!tokens.empty());
  NoGrad off;
  if (!piece) piece = this->piece(std::ssize(tokens));
  for (int64_t at = 0; at < std::ssize(tokens); at += piece) {
    const int64_t n = std::min(piece, std::ssize(tokens) - at);
    const Segment segment[] = {{0, n, state_.position, &state_}};
    const Var h = model_->hidden(tokens.subspan(at, n), {segment, &context_});
    if (at + n == std::ssize(tokens)) logits_ = model_->logits(rows(h, n - 1, 1), context_);
  }
  return logits_.value().span();
}

std::span<float> Session::feed(std::span<const int32_t> tokens, int64_t top, std::vector<TokenScore>& scores) {
  SENNIT_CHECK(!tokens.empty());
  NoGrad off;
  scores.push_back(has_logits() ? score(logits(), tokens[0], top)
                                : TokenScore{.token = tokens[0], .log_probability = {}});
  const int64_t most = piece(std::ssize(tokens));
  for (int64_t at = 0; at < std::ssize(tokens); at += most) {
    const int64_t n = std::min(most, std::ssize(tokens) - at);
    const Segment segment[] = {{0, n, state_.position, &state_}};
    const Var h = model_->hidden(tokens.subspan(at, n), {segment, &context_});
    for (int64_t first = 0; first < n; first += kScoredRows) {
      logits_ = model_->logits(rows(h, first, std::min(kScoredRows, n - first)), context_);
      for (int64_t i = 0; i < logits_.rows() && at + first + i + 1 < std::ssize(tokens); ++i)
        scores.push_back(score(logits_.value().slice(i, 1).span(), tokens[at + first + i + 1], top));
    }
  }
  logits_ = rows(logits_, logits_.rows() - 1, 1);
  return logits_.value().span();
}

const char* to_string(StopReason r) {
  switch (r) {
    case StopReason::max_tokens:
      return "max_tokens";
    case StopReason::stop_text:
      return "stop_text";
    case StopReason::stop_token:
      return "stop_token";
    case StopReason::cancelled:
      return "cancelled";
  }
  return "";
}

GenerationReport generate(Session& session, const tokenizers::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                          const GenerationOptions& options, std::vector<int32_t>& history,
                          const std::function<bool(std::string_view)>& emit) {
  GenerationReport report{.prompt_tokens = std::ssize(prompt)};
  double start = seconds_now();
  const size_t seen = std::min(history.size(), static_cast<size_t>(session.state().position));
  history.insert(history.end(), prompt.begin(), prompt.end());
  history.reserve(history.size() + static_cast<size_t>(std::min<int64_t>(options.max_tokens, 1 << 20)));
  const auto unread = std::span<const int32_t>(history).subspan(seen);
  const bool whole = sennit::read(session, unread, options, report.prompt_scores);
  report.prompt_seconds = seconds_now() - start;
  if (!whole) {
    report.reason = StopReason::cancelled;
    return report;
  }
  start = seconds_now();
  Sampler sampler(options.sampling);
  tokenizers::StreamDecoder decoder(tokenizer);
  StopFilter filter(options.stop);
  bool stopped = false;
  std::vector<float> plain;  // logits before the sampler changes them
  while (report.tokens < options.max_tokens) {
    const std::span<float> logits = session.logits();
    if (options.scores >= 0) plain.assign(logits.begin(), logits.end());
    const auto usable = logits.first(std::min<size_t>(logits.size(), static_cast<size_t>(tokenizer.vocab_size())));
    const int32_t token = sampler.choose(usable, history, std::ssize(history));
    if (std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) != options.stop_tokens.end()) {
      report.reason = StopReason::stop_token;
      break;
    }
    if (options.scores >= 0) {
      report.scores.push_back(score(plain, token, options.scores));
      std::copy(plain.begin(), plain.end(), logits.begin());
    }
    history.push_back(token);
    ++report.tokens;
    const std::string text = filter.push(decoder.push(token), stopped);
    const bool wanted = text.empty() || emit(text);
    if (stopped || !wanted) {
      report.reason = stopped ? StopReason::stop_text : StopReason::cancelled;
      break;
    }
    if (report.tokens < options.max_tokens) session.feed({&token, 1});
  }
  if (!stopped && report.reason != StopReason::cancelled) {
    const std::string rest = filter.push(decoder.finish(), stopped) + (stopped ? "" : filter.rest());
    if (!rest.empty()) emit(rest);
  }
  report.seconds = seconds_now() - start;
  return report;
}

}  // namespace sennit

#include "sennit/model.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/parallel.h"
#include "decoding/embedding.h"
#include "decoding/generate.h"
#include "model/checkpoint.h"
#include "state/session_file.h"

namespace sennit {

struct TextModel::Impl {
  LoadedModel loaded;
  Context context;

  Model& model() { return *loaded.model; }
  const tokenizers::Tokenizer& tokenizer() const { return *loaded.tokenizer; }

  void check(std::span<const int32_t> tokens, const char* who) const {
    if (tokens.empty()) fail({who, "at least one token", "none"});
    for (const int32_t t : tokens)
      if (t < 0 || t >= loaded.model->spec().vocab)
        fail({who, fmt::format("token ids from 0 to {}", loaded.model->spec().vocab - 1), std::to_string(t)});
  }
  // The last hidden rows of a fresh text.
  Var hidden(std::span<const int32_t> tokens) {
    const Segment segment[] = {{0, std::ssize(tokens), 0, nullptr}};
    return model().hidden(tokens, {segment, &context});
  }
};

// The first state().position of the tokens are in the state, the others wait to be read.
struct TextSession::Impl {
  std::shared_ptr<TextModel::Impl> model;
  Session session;
  std::vector<int32_t> tokens;

  Impl(std::shared_ptr<TextModel::Impl> m, Session s) : model(std::move(m)), session(std::move(s)) {}
  std::span<float> last_logits() {
    if (!session.has_logits()) fail({"session", "more to read: this text was saved at its end", "nothing"});
    return session.logits();
  }
  int64_t position() { return session.state().position; }
};

TextModel TextModel::load(const std::string& path, const LoadOptions& options) {
  auto impl = std::make_shared<Impl>();
  impl->loaded = load_checkpoint(path);
  if (!impl->loaded.tokenizer) fail({"text model", "a tokenizer in the checkpoint", "none", impl->loaded.path});
  impl->context.precision = options.bf16 ? Precision::bf16 : Precision::f32;
  impl->context.exact = options.exact;
  impl->context.cache = parse_cache_format(options.cache, "load options");
  return TextModel(std::move(impl));
}

int64_t TextModel::vocab_size() const {
  return impl_->model().spec().vocab;
}
int64_t TextModel::width() const {
  return impl_->model().spec().d_model;
}
int64_t TextModel::parameter_count() const {
  return impl_->model().parameter_count();
}
int64_t TextModel::state_bytes(int64_t tokens) const {
  return impl_->model().state_bytes(tokens, impl_->context.cache);
}
std::vector<int32_t> TextModel::encode(std::string_view text) const {
  return impl_->tokenizer().encode(text);
}
std::string TextModel::decode(std::span<const int32_t> tokens) const {
  return impl_->tokenizer().decode(tokens);
}

Answer TextModel::generate(std::string_view prompt, const WriteOptions& options, const OnText& on_text) const {
  TextSession session = begin();
  session.read(prompt);
  return session.write(options, on_text);
}

std::vector<float> TextModel::logits(std::span<const int32_t> tokens) const {
  impl_->check(tokens, "logits");
  NoGrad off;
  FlushDenormals flush;
  const Var y = impl_->model().logits(impl_->hidden(tokens), impl_->context);
  return {y.value().span().begin(), y.value().span().end()};
}

std::vector<float> TextModel::embed(std::string_view text) const {
  const auto tokens = encode(text);
  impl_->check(tokens, "embed");
  FlushDenormals flush;
  return sennit::embed(impl_->model(), {tokens}, {.context = impl_->context}).front();
}

TextSession TextModel::begin() const {
  return TextSession(std::make_unique<TextSession::Impl>(impl_, Session(impl_->model(), impl_->context)));
}

TextSession TextModel::load_session(const std::string& path) const {
  KeptSession kept = sennit::load_session(path, impl_->model(), impl_->context.cache);
  TextSession s = begin();
  s.impl_->session.restore(std::move(kept.state));
  s.impl_->tokens = std::move(kept.tokens);
  return s;
}

TextSession::TextSession(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TextSession::TextSession(TextSession&&) noexcept = default;
TextSession& TextSession::operator=(TextSession&&) noexcept = default;
TextSession::~TextSession() = default;

void TextSession::read(std::string_view text) {
  const auto tokens = impl_->model->tokenizer().encode(text);
  impl_->tokens.insert(impl_->tokens.end(), tokens.begin(), tokens.end());
}

void TextSession::read(std::span<const int32_t> tokens) {
  if (tokens.empty()) return;
  impl_->model->check(tokens, "session");
  impl_->tokens.insert(impl_->tokens.end(), tokens.begin(), tokens.end());
}

Answer TextSession::write(const WriteOptions& o, const OnText& on_text) {
  if (impl_->tokens.empty()) fail({"session", "at least one token to go on from", "an empty text"});
  const tokenizers::Tokenizer& tokenizer = impl_->model->tokenizer();
  GenerationOptions options{
      .sampling = {o.temperature, o.top_k, o.top_p, o.min_p, o.repetition_penalty, o.penalty_tokens, o.seed},
      .max_tokens = o.max_tokens,
      .stop = o.stop,
      .stop_tokens = {}};
  for (const Field& f : options.sampling.fields()) read_field(f, write_fields({f}).front(), "write", "");
  if (o.stop_at_end && tokenizer.special().eos >= 0) options.stop_tokens.push_back(tokenizer.special().eos);
  FlushDenormals flush;
  const std::vector<int32_t> waiting(impl_->tokens.begin() + impl_->position(), impl_->tokens.end());
  if (waiting.empty()) impl_->last_logits();
  impl_->tokens.resize(static_cast<size_t>(impl_->position()));  // generate() puts them back as it reads them
  const size_t before = impl_->tokens.size() + waiting.size();
  Answer answer;
  const GenerationReport r =
      sennit::generate(impl_->session, tokenizer, waiting, options, impl_->tokens, [&](std::string_view piece) {
        answer.text += piece;
        return !on_text || on_text(piece);
      });
  answer.tokens.assign(impl_->tokens.begin() + static_cast<int64_t>(before), impl_->tokens.end());
  constexpr Ending kEndings[] = {Ending::max_tokens, Ending::stop_text, Ending::end_of_text, Ending::cancelled};
  answer.ending = kEndings[static_cast<int>(r.reason)];
  answer.prompt_seconds = r.prompt_seconds, answer.seconds = r.seconds;
  return answer;
}

std::vector<float> TextSession::logits() {
  if (impl_->tokens.empty()) fail({"session", "at least one token to go on from", "an empty text"});
  FlushDenormals flush;
  const auto waiting = std::span<const int32_t>(impl_->tokens).subspan(static_cast<size_t>(impl_->position()));
  if (waiting.empty()) {
    const auto y = impl_->last_logits();
    return {y.begin(), y.end()};
  }
  // The last token stays waiting, so that a session saved now has something to go on from.
  if (waiting.size() > 1) impl_->session.feed(waiting.first(waiting.size() - 1));
  Session ahead = impl_->session.snapshot();
  const std::span<float> y = ahead.feed(waiting.last(1));
  return {y.begin(), y.end()};
}

std::span<const int32_t> TextSession::tokens() const {
  return impl_->tokens;
}
int64_t TextSession::state_bytes() const {
  return impl_->session.state().bytes();
}

TextSession TextSession::snapshot() const {
  auto copy = std::make_unique<Impl>(impl_->model, impl_->session.snapshot());
  copy->tokens = impl_->tokens;
  return TextSession(std::move(copy));
}

void TextSession::save(const std::string& path) const {
  save_session(path, impl_->model->model(), impl_->session.state(), impl_->tokens);
}

}  // namespace sennit

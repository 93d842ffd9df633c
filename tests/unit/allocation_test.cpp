// A decode step asks the system for nothing once its shapes have been seen.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "decoding/generate.h"
#include "mixers/capabilities.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SENNIT_OWN_MALLOC 0
#else
#define SENNIT_OWN_MALLOC 1
#endif

namespace {
std::atomic<int64_t> g_asked{0};
}

#if SENNIT_OWN_MALLOC
// operator new comes through malloc; glibc's own stand behind these.
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) {
  return ++g_asked, __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
  return ++g_asked, __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) {
  return ++g_asked, __libc_realloc(p, n);
}
void* aligned_alloc(size_t alignment, size_t n) {
  return ++g_asked, __libc_memalign(alignment, n);
}
}
#endif

namespace sennit {
namespace {

ModelSpec spec_of(const std::string& mixer, const std::string& options, const std::string& channel) {
  Json block = json_of(options);
  block["name"] = mixer;
  return read_model_spec(
      Json{{"vocab", 40}, {"d_model", 32}, {"blocks", {{{"repeat", 2}, {"mixer", block}, {"channel", channel}}}}},
      "test");
}

std::vector<ModelSpec> all_models() {
  std::vector<ModelSpec> all;
  for (const auto& entry : mixers::registry().entries()) {
    if (!mixers::decodes(entry.info)) continue;
    all.push_back(spec_of(entry.name, "{}", "swiglu"));
    for (const auto& [name, options] : entry.info.settings) all.push_back(spec_of(entry.name, options, "mlp"));
  }
  return all;
}

// Reads a prompt and then token by token; the count of requests during the single tokens.
int64_t requests_of(Model& model, int64_t tokens, Sampler& sampler) {
  Session session(model, {});
  std::vector<int32_t> history = {1, 2, 3, 4, 5};
  history.reserve(256);
  auto logits = session.feed(history);
  auto step = [&] {
    const int32_t token = sampler.choose(logits, history, std::ssize(history));
    history.push_back(token);
    logits = session.feed({&token, 1});
  };
  step();
  const int64_t asked = g_asked, system = memory_counters().system_allocations;
  for (int64_t i = 0; i < tokens; ++i) step();
  return g_asked - asked + memory_counters().system_allocations - system;
}

TEST(Allocation, TheCounterCounts) {
  if (!SENNIT_OWN_MALLOC) GTEST_SKIP() << "the sanitizer owns malloc";
  const int64_t before = g_asked;
  auto* volatile p = new std::vector<int>(10);
  delete p;
  EXPECT_EQ(g_asked - before, 2);
}

TEST(Allocation, NoneInADecodeStep) {
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    for (const ModelSpec& spec : all_models()) {
      Model model(spec, Rng(3));
      Sampler sampler({.temperature = 1, .top_k = 9, .top_p = 0.9, .repetition_penalty = 1.1});
      // What is kept for the next time is as much as ever was in use at once, and two threads may overlap more in a later
      // pass than in the first: what a step asks for itself shows in every pass.
      int64_t least = requests_of(model, 70, sampler);
      for (int pass = 0; pass < 4 && least > 0; ++pass) least = requests_of(model, 70, sampler);
      EXPECT_EQ(least, 0) << json_text(write_model_spec(spec)) << " on " << threads << " threads";
    }
  }
  set_thread_count(2);
}

}  // namespace
}  // namespace sennit

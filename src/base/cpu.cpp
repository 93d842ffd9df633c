#include "base/cpu.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sennit {
namespace {

constexpr const char* kNames[kIsaLevels] = {"scalar", "avx2", "avx512", "amx"};

#if defined(__x86_64__)
struct Cpuid {
  unsigned a = 0, b = 0, c = 0, d = 0;
  Cpuid(unsigned leaf, unsigned sub) { __get_cpuid_count(leaf, sub, &a, &b, &c, &d); }
};

uint64_t xcr0() {
  if (!(Cpuid(1, 0).c & (1u << 27))) return 0;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

bool amx_permitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::string refusal(IsaLevel level) {
  const Cpuid one(1, 0), seven(7, 0), seven_one(7, 1);
  const uint64_t enabled = xcr0();
  auto bit = [](unsigned word, int b) { return (word >> b) & 1u; };
  if (level >= IsaLevel::avx2) {
    if (!bit(seven.b, 5) || !bit(one.c, 12) || !bit(one.c, 29)) return "the CPU lacks AVX2, FMA or F16C";
    if ((enabled & 0x6) != 0x6) return "the operating system does not save AVX registers";
  }
  if (level >= IsaLevel::avx512) {
    const bool f = bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 28) && bit(seven.b, 30) && bit(seven.b, 31);
    if (!f || !bit(seven.c, 11) || !bit(seven_one.a, 5)) return "the CPU lacks AVX-512 F, DQ, CD, BW, VL, VNNI or BF16";
    if ((enabled & 0xe6) != 0xe6) return "the operating system does not save AVX-512 registers";
  }
  if (level >= IsaLevel::amx) {
    if (!bit(seven.d, 22) || !bit(seven.d, 24) || !bit(seven.d, 25)) return "the CPU lacks AMX tiles, bf16 or int8";
    if ((enabled & 0x60000) != 0x60000) return "the operating system does not save AMX tiles";
    if (!amx_permitted()) return "the kernel refused permission for AMX tile data";
  }
  return "";
}

bool made_by_amd() {
  const Cpuid maker(0, 0);
  return maker.b == 0x68747541 && maker.d == 0x69746e65 && maker.c == 0x444d4163;  // "AuthenticAMD"
}
#else
bool made_by_amd() { return false; }
std::string refusal(IsaLevel level) { return level == IsaLevel::scalar ? "" : "not an x86-64 CPU"; }
#endif

IsaLevel initial_level() {
  const char* name = std::getenv("SENNIT_ISA");
  if (!name || !*name) return best_isa_level();
  for (int i = 0; i < kIsaLevels; ++i) {
    if (std::strcmp(name, kNames[i]) != 0) continue;
    const auto level = static_cast<IsaLevel>(i);
    const std::string why = isa_level_refusal(level);
    if (!why.empty()) fail({"SENNIT_ISA", "a level that can run here", fmt::format("{}: {}", name, why), "environment"});
    return level;
  }
  fail({"SENNIT_ISA", "scalar, avx2, avx512 or amx", name, "environment"});
}

std::atomic<int>& current() {
  static std::atomic<int> level{static_cast<int>(initial_level())};
  return level;
}

}  // namespace

const char* to_string(IsaLevel level) { return kNames[static_cast<int>(level)]; }

std::string isa_level_refusal(IsaLevel level) {
  static const std::string why[kIsaLevels] = {refusal(IsaLevel::scalar), refusal(IsaLevel::avx2),
                                              refusal(IsaLevel::avx512), refusal(IsaLevel::amx)};
  return why[static_cast<int>(level)];
}

IsaLevel best_isa_level() {
  int best = 0;
  while (best + 1 < kIsaLevels && isa_level_refusal(static_cast<IsaLevel>(best + 1)).empty()) ++best;
  return static_cast<IsaLevel>(best);
}

IsaLevel isa_level() { return static_cast<IsaLevel>(current().load(std::memory_order_relaxed)); }

bool pairs_are_fast() {
  static const bool amd = made_by_amd();
  const IsaLevel level = isa_level();
  return level == IsaLevel::amx || (level == IsaLevel::avx512 && amd);
}

void set_isa_level(IsaLevel level) {
  SENNIT_CHECK(isa_level_refusal(level).empty(), "{}: {}", to_string(level), isa_level_refusal(level));
  current().store(static_cast<int>(level));
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

}  // namespace sennit

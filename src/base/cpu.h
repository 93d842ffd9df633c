#pragma once
#include <string>

namespace sennit {

// Instruction-set levels of the kernels, lowest first. A level includes all below it.
enum class IsaLevel { scalar, avx2, avx512, amx };
inline constexpr int kIsaLevels = 4;

const char* to_string(IsaLevel level);

// The best level this CPU and operating system can run, decided once: CPUID, XGETBV and, for AMX, the kernel's
// permission (arch_prctl).
IsaLevel best_isa_level();
// Why `level` cannot be used here; "" when it can.
std::string isa_level_refusal(IsaLevel level);

// The level in use: the best one, or the one that SENNIT_ISA=scalar|avx2|avx512|amx names. Throws Error when the
// variable names an unknown level or one that cannot run here.
IsaLevel isa_level();
// Forces a level (for tests and benches); it must be one that can run here.
void set_isa_level(IsaLevel level);

// Whether products of bf16 pairs are faster than those of f32 at the level in use: by AMX tiles, and by AVX-512 on AMD's
// CPUs, which do twice as many in a cycle; Intel's do half as many.
bool pairs_are_fast();

std::string cpu_name();

}  // namespace sennit

#pragma once
#include <cstdint>

// Loops that keep one unit of the processor busy and do nothing else. Each runs on the calling thread.
namespace sennit::bench {

// `rounds` of kChains independent operations; the result only keeps the compiler from leaving them out.
using ComputeLoop = float (*)(int64_t rounds);
inline constexpr int kChains = 16;

struct Unit {
  ComputeLoop loop = nullptr;  // nullptr: the level in use has no such unit
  double operations = 0;       // of one instruction: a multiplication and an addition are two
};
Unit f32_unit();    // fused multiply-adds
Unit bf16_unit();   // pair products of AVX-512
Unit int8_unit();   // unsigned by signed products: quadruples of AVX-512 VNNI, or pairs of AVX2
// Tile products whose operands come from the L2 cache, in both shapes that kernels use: the faster is the ceiling.
Unit amx_bf16_unit(bool wide);
Unit amx_int8_unit(bool wide);

// Reads `bytes` (a multiple of 4 KiB), or replaces each where it stands, with the widest loads, in `streams` (1, 2 or 4)
// runs side by side.
float read_loop(const void* memory, int64_t bytes, int streams);
void update_loop(void* memory, int64_t bytes, int streams);
void copy_loop(const void* from, void* to, int64_t bytes);

}  // namespace sennit::bench

#pragma once
#include <cstdint>
#include <functional>

namespace sennit::bench {

// The most that all threads of parallel_for reach together, measured by loops that do nothing else.
double peak_f32_flops();   // fused multiply-adds in registers at the level in use; 2 flops each
double peak_bf16_flops();  // of bf16 pair products in registers; that of f32 where the level has none
double peak_read_bytes(const void* memory, int64_t bytes);  // bytes a second of one pass over memory

double seconds_of(const std::function<void()>& body);

}  // namespace sennit::bench

#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "autograd/var.h"
#include "kernels/cached.h"

// Keys and values in few bits: what attention keeps of a sequence, rounded once when it is written and read as it is.
//   bf16, f16  to the nearest, ties to even; beyond the range of f16 its largest number
//   q8_0       every 32 numbers of a head by a scale of their own, the least f16 by which 127 reaches their largest size;
//              8.5 bits a number
namespace sennit {

using kernels::CacheFormat;

const char* to_string(CacheFormat format);
std::vector<std::string> cache_formats();  // their names
// Throws Error for an unknown name; `where` says who gave it.
CacheFormat parse_cache_format(std::string_view name, const std::string& where);

DType cache_dtype(CacheFormat format);                      // of the tensors that hold such rows
CacheFormat cache_format(DType dtype);                      // the inverse
int64_t cached_numbers(const Tensor& rows, int64_t heads);  // of a head

// The first unit of a head in a row; and that keys and values are of these heads, in one format, floats if recorded.
const void* cached_head(const Tensor& rows, int64_t row, int64_t head, int64_t heads);
void check_cached(const Var& keys, const Var& values, int64_t heads, int64_t key_dim, int64_t value_dim);

// Rows of `heads` heads, rounded; and as floats again (itself where it is floats).
Tensor rounded(const Tensor& rows, int64_t heads, CacheFormat format);
Tensor widened(const Tensor& rows, int64_t heads);

}  // namespace sennit

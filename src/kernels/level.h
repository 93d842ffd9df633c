#pragma once
#include "base/cpu.h"

// Every src/kernels/<name>.cpp is compiled once per instruction-set level, each time in a namespace of its own, and
// fills one table of functions. SENNIT_KERNEL_TABLE(Type, name) in its header declares the tables and a function
// name() that returns the one in use. A file <name>.amx.cpp replaces the AVX-512 table where AMX is there:
// SENNIT_KERNEL_TABLE_AMX. A build with SENNIT_SCALAR_ONLY has the scalar level alone.
namespace sennit::kernels {

template <class Table>
const Table& pick(const Table& scalar, const Table& avx2, const Table& avx512, const Table& amx) {
  switch (isa_level()) {
    case IsaLevel::scalar: return scalar;
    case IsaLevel::avx2: return avx2;
    case IsaLevel::avx512: return avx512;
    case IsaLevel::amx: return amx;
  }
  return scalar;
}

}  // namespace sennit::kernels

#if defined(__x86_64__) && !defined(SENNIT_SCALAR_ONLY)
#define SENNIT_KERNEL_TABLE(Type, name)                                                                           \
  namespace scalar { extern const Type name##_table; }                                                            \
  namespace avx2 { extern const Type name##_table; }                                                              \
  namespace avx512 { extern const Type name##_table; }                                                            \
  inline const Type& name() {                                                                                     \
    return pick(scalar::name##_table, avx2::name##_table, avx512::name##_table, avx512::name##_table);            \
  }
#define SENNIT_KERNEL_TABLE_AMX(Type, name)                                                                       \
  namespace scalar { extern const Type name##_table; }                                                            \
  namespace avx2 { extern const Type name##_table; }                                                              \
  namespace avx512 { extern const Type name##_table; }                                                            \
  namespace amx { extern const Type name##_table; }                                                               \
  inline const Type& name() {                                                                                     \
    return pick(scalar::name##_table, avx2::name##_table, avx512::name##_table, amx::name##_table);               \
  }
#else
#define SENNIT_KERNEL_TABLE(Type, name)                                                                           \
  namespace scalar { extern const Type name##_table; }                                                            \
  inline const Type& name() { return scalar::name##_table; }
#define SENNIT_KERNEL_TABLE_AMX SENNIT_KERNEL_TABLE
#endif

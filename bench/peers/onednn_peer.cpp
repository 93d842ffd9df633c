// oneDNN: products with weights packed once, in f32, in bf16, and of 8-bit numbers with sums of 32 (for int8, which
// makes floats of the sums besides, and for q8_0, whose blocks have scales).
#include <dnnl.hpp>

#include <memory>
#include <optional>
#include <unordered_map>

#include "answers.h"

namespace {

using dnnl::memory;
using Type = memory::data_type;

struct Types {
  Type x, w, y;
};
std::optional<Types> types_of(const std::string& format) {
  if (format == "f32") return Types{Type::f32, Type::f32, Type::f32};
  if (format == "bf16") return Types{Type::bf16, Type::bf16, Type::f32};
  if (format == "int8") return Types{Type::s8, Type::s8, Type::s32};
  if (format == "q8_0") return Types{Type::u8, Type::s8, Type::s32};
  return std::nullopt;
}

// A matrix of ordinary numbers in another type and layout.
memory filled(const dnnl::engine& engine, dnnl::stream& stream, const memory::desc& wanted, int64_t rows, int64_t cols) {
  std::vector<float> numbers = random_numbers(rows * cols);
  if (wanted.data_type() == Type::u8 || wanted.data_type() == Type::s8)
    for (float& v : numbers) v = std::abs(v) * 20;
  memory plain({{rows, cols}, Type::f32, memory::format_tag::ab}, engine, numbers.data()), out(wanted, engine);
  dnnl::reorder(plain, out).execute(stream, plain, out);
  stream.wait();
  return out;
}

}  // namespace

int main() {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return answer([&](const Product& p) -> Run {
    const auto types = types_of(p.format);
    if (!types) return {};
    try {
      const memory::desc x({p.m, p.k}, types->x, memory::format_tag::ab), w({p.k, p.n}, types->w, memory::format_tag::any),
          y({p.m, p.n}, types->y, memory::format_tag::ab);
      const dnnl::matmul::primitive_desc plan(dnnl::matmul::desc(x, w, y), engine);
      auto stream = std::make_shared<dnnl::stream>(engine);
      const dnnl::matmul product(plan);
      const std::unordered_map<int, memory> arguments = {
          {DNNL_ARG_SRC, filled(engine, *stream, x, p.m, p.k)},
          {DNNL_ARG_WEIGHTS, filled(engine, *stream, plan.weights_desc(), p.k, p.n)},
          {DNNL_ARG_DST, memory(y, engine)}};
      return [=] {
        product.execute(*stream, arguments);
        stream->wait();
      };
    } catch (const dnnl::error&) {
      return {};  // this machine has no such product
    }
  });
}

#include "ops/layout.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {


template <bool kAdd>
void move_columns(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t n, int64_t width) {
  parallel_for(n, std::max<int64_t>(1, 8192 / std::max<int64_t>(1, width)), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const float* s = from + i * from_stride;
      float* d = to + i * to_stride;
      if constexpr (kAdd) kernels::elementwise().add(s, d, d, width);
      else std::memcpy(d, s, width * sizeof(float));
    }
  });
}

}  // namespace

Var reshape(const Var& x, Shape shape) {
  return record(x.value().reshape(shape), {x}, [old = x.shape()](std::span<const Tensor> dy, Gradients& into) {
    into.add(0, dy[0].reshape(old));
  });
}

Var rows(const Var& x, int64_t begin, int64_t count) {
  return record(x.value().slice(begin, count), {x}, [begin, count](std::span<const Tensor> dy, Gradients& into) {
    Tensor part = into.sum(0).slice(begin, count);
    kernels::elementwise().add(dy[0].data(), part.data(), part.data(), part.elements());
  });
}

Var columns(const Var& x, int64_t begin, int64_t count) {
  const int64_t n = x.rows(), d = x.columns();
  SENNIT_CHECK(begin >= 0 && count >= 0 && begin + count <= d, "columns {}+{} of {}", begin, count, x.shape().str());
  Tensor y({n, count});
  move_columns<false>(x.value().data() + begin, d, y.data(), count, n, count);
  return record(std::move(y), {x}, [=](std::span<const Tensor> dy, Gradients& into) {
    move_columns<true>(dy[0].data(), count, into.sum(0).data() + begin, d, n, count);
  });
}

Var concat_rows(std::span<const Var> parts) {
  SENNIT_CHECK(!parts.empty());
  int64_t n = 0;
  for (const Var& p : parts) {
    SENNIT_CHECK(p.columns() == parts[0].columns(), "concat_rows: {} and {}", parts[0].shape().str(), p.shape().str());
    n += p.rows();
  }
  Tensor y(parts[0].shape().with(0, n));
  Pooled<int64_t> begins;
  int64_t at = 0;
  for (const Var& p : parts) {
    begins.push_back(at);
    y.slice(at, p.rows()).copy_from(p.value());
    at += p.rows();
  }
  begins.push_back(at);
  if (!recording()) return Var(std::move(y));
  return record_all({std::move(y)}, parts, [begins](std::span<const Tensor> dy, Gradients& into) {
    for (size_t i = 0; i + 1 < begins.size(); ++i)
      if (into.wants(static_cast<int>(i))) into.add(static_cast<int>(i), dy[0].slice(begins[i], begins[i + 1] - begins[i]).clone());
  })[0];
}

Var concat_columns(std::span<const Var> parts) {
  SENNIT_CHECK(!parts.empty());
  const int64_t n = parts[0].rows();
  Pooled<int64_t> begins = {0};
  for (const Var& p : parts) {
    SENNIT_CHECK(p.rows() == n, "concat_columns: {} and {}", parts[0].shape().str(), p.shape().str());
    begins.push_back(begins.back() + p.columns());
  }
  const int64_t d = begins.back();
  Tensor y({n, d});
  for (size_t i = 0; i < parts.size(); ++i)
    move_columns<false>(parts[i].value().data(), parts[i].columns(), y.data() + begins[i], d, n, parts[i].columns());
  if (!recording()) return Var(std::move(y));
  return record_all({std::move(y)}, parts, [begins, n, d](std::span<const Tensor> dy, Gradients& into) {
    for (size_t i = 0; i + 1 < begins.size(); ++i) {
      const int input = static_cast<int>(i);
      const int64_t width = begins[i + 1] - begins[i];
      if (into.wants(input)) move_columns<true>(dy[0].data() + begins[i], d, into.sum(input).data(), width, n, width);
    }
  })[0];
}

Var gather_rows(const Var& x, std::span<const int64_t> indices) {
  const int64_t d = x.columns(), n = static_cast<int64_t>(indices.size());
  Tensor y(x.shape().with(0, n));
  for (int64_t i = 0; i < n; ++i) {
    SENNIT_CHECK(indices[i] >= 0 && indices[i] < x.rows(), "row {} of {}", indices[i], x.shape().str());
    std::memcpy(y.data() + i * d, x.value().data() + indices[i] * d, d * sizeof(float));
  }
  Pooled<int64_t> kept(indices.begin(), indices.end());
  return record(std::move(y), {x}, [kept = std::move(kept), d](std::span<const Tensor> dy, Gradients& into) {
    Tensor& dx = into.sum(0);
    for (size_t i = 0; i < kept.size(); ++i)
      kernels::elementwise().add(dy[0].data() + i * d, dx.data() + kept[i] * d, dx.data() + kept[i] * d, d);
  });
}

Var transpose(const Var& x) {
  auto turned = [](const Tensor& a) {
    const int64_t n = a.rows(), d = a.row_size();
    Tensor y({d, n});
    parallel_for(d, 16, [&](int64_t b, int64_t e) {
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = b; j < e; ++j) y.data()[j * n + i] = a.data()[i * d + j];
    });
    return y;
  };
  return record(turned(x.value()), {x}, [turned, old = x.shape()](std::span<const Tensor> dy, Gradients& into) {
    into.add(0, turned(dy[0]).reshape(old));
  });
}

Var repeat_groups(const Var& x, int64_t groups, int64_t times) {
  SENNIT_CHECK(groups > 0 && x.columns() % groups == 0);
  if (times == 1) return x;
  const int64_t n = x.rows(), d = x.columns() / groups;
  Tensor y({n, groups * times * d});
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t r = 0; r < times; ++r)
      move_columns<false>(x.value().data() + g * d, groups * d, y.data() + (g * times + r) * d, groups * times * d, n, d);
  return record(std::move(y), {x}, [=](std::span<const Tensor> dy, Gradients& into) {
    Tensor& dx = into.sum(0);
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t r = 0; r < times; ++r)
        move_columns<true>(dy[0].data() + (g * times + r) * d, groups * times * d, dx.data() + g * d, groups * d, n, d);
  });
}

Var embedding(const Var& table, std::span<const int32_t> ids) {
  const int64_t vocabulary = table.rows(), d = table.columns(), n = static_cast<int64_t>(ids.size());
  Tensor y({n, d});
  for (int64_t i = 0; i < n; ++i) {
    if (ids[i] < 0 || ids[i] >= vocabulary)
      fail({"embedding", fmt::format("token ids from 0 to {}", vocabulary - 1), std::to_string(ids[i]), fmt::format("token {}", i)});
    std::memcpy(y.data() + i * d, table.value().data() + ids[i] * d, d * sizeof(float));
  }
  Pooled<int32_t> kept(ids.begin(), ids.end());
  return record(std::move(y), {table}, [kept = std::move(kept), d](std::span<const Tensor> dy, Gradients& into) {
    Tensor& dt = into.sum(0);
    // Columns are split over threads, so that a repeated id is summed in one order.
    parallel_for(d, 32, [&](int64_t b, int64_t e) {
      for (size_t i = 0; i < kept.size(); ++i) {
        float* row = dt.data() + kept[i] * d + b;
        kernels::elementwise().add(dy[0].data() + i * d + b, row, row, e - b);
      }
    });
  });
}

}  // namespace sennit

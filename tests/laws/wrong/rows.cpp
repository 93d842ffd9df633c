#include "laws/wrong/rows.h"

#include "base/parallel.h"
#include "ops/count.h"

namespace sennit::laws {
namespace {

struct Scaling : RowMap {
  Scaling(int64_t width, RowFault f) : fault(f) { weight.init(Tensor::full({width}, 1)); }
  void visit(const ParameterVisitor& v) override { v("weight", weight); }
  int64_t flops(int64_t rows) const override {
    return rows * weight.value().elements() / (fault == RowFault::cost ? 2 : 1);
  }
  naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const override {
    naive::Matrix y = x;
    for (int64_t i = 0; i < x.rows; ++i)
      for (int64_t j = 0; j < x.cols; ++j) y(i, j) *= w.at("weight").a[j];
    return y;
  }

  Var forward(const Var& x, const Context&) override {
    const int64_t n = x.rows(), d = x.columns();
    const Tensor in = x.value(), w = weight.value();
    Tensor y({n, d});
    count_flops(n * d);
    for (int64_t i = 0; i < n * d; ++i) y.data()[i] = in.data()[i] * w.data()[i % d];
    if (fault == RowFault::batch_mean && n > 0) y.data()[0] += 1e-6f * in.data()[n * d - 1];
    if (fault == RowFault::last_row && n % 2 && n > 1) y.data()[n * d - 1] = in.data()[n * d - 1];
    if (fault == RowFault::recorded && x.needs_grad()) y.data()[0] *= 1.000001f;
    return record(y, {x, weight}, [in, w, n, d, f = fault](std::span<const Tensor> dy, Gradients& into) {
      Tensor& dw = into.sum(1);
      Tensor dx(in.shape());
      for (int64_t i = 0; i < n * d; ++i) dx.data()[i] = dy[0].data()[i] * w.data()[i % d];
      into.add(0, dx);
      const int64_t parts = f == RowFault::threads ? thread_count() : 1;
      for (int64_t p = 0; p < parts; ++p)
        for (int64_t j = 0; j < d; ++j) {
          float sum = 0;
          for (int64_t i = n * p / parts + (f == RowFault::gradient); i < n * (p + 1) / parts; ++i)
            sum += dy[0].data()[i * d + j] * in.data()[i * d + j];
          dw.data()[j] += sum;
        }
    });
  }

  RowFault fault;
  Parameter weight;
};

}  // namespace

RowCase wrong_rows(RowFault fault) {
  return {"scaling", [fault](Rng) { return std::make_unique<Scaling>(32, fault); }, 32};
}

}  // namespace sennit::laws

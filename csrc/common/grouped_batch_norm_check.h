// grouped_batch_norm: what its arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

inline void check_grouped_batch_norm(const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                                     const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd, int64_t groups) {
  check::Op op("grouped_batch_norm");
  op.tensor("x", x, {check::kAny, check::kAny, check::kAny, check::kAny});
  op.groups(x.size(0), groups);
  op.tensor("weight", weight, std::vector<int64_t>{x.size(1)});
  op.tensor("bias", bias, std::vector<int64_t>{x.size(1)});
  op.statistics(mean, rstd, groups, {x.size(1)});
}

inline void check_grouped_batch_norm_backward(const Tensor& grad, const Tensor& x, const std::optional<Tensor>& weight,
                                              const std::optional<Tensor>& bias, const Tensor& mean, const Tensor& rstd,
                                              int64_t groups) {
  check::Op op("grouped_batch_norm_backward");
  op.tensor("x", x, {check::kAny, check::kAny, check::kAny, check::kAny});
  op.groups(x.size(0), groups);
  op.tensor("grad", grad, check::Op::shape_of(x), x.scalar_type());
  op.tensor("weight", weight, std::vector<int64_t>{x.size(1)});
  op.tensor("bias", bias, std::vector<int64_t>{x.size(1)});
  op.tensor("mean", mean, {groups, x.size(1)});
  op.tensor("rstd", rstd, {groups, x.size(1)});
}

}  // namespace
}  // namespace ddarts

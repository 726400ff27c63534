// mixed_sum: what its arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

// Branches of one shape, weights [G,K] and a flag a branch.
inline void check_mixed_sum_branches(check::Op& op, const std::vector<Tensor>& branches, const Tensor& weights,
                                     const std::vector<bool>& normalize) {
  op.require(!branches.empty(), "branches must have at least one tensor");
  op.tensor("branches", branches[0], {check::kAny, check::kAny, check::kAny, check::kAny});
  op.tensors("branches", branches, check::Op::shape_of(branches[0]));
  op.tensor("weights", weights, {check::kAny, static_cast<int64_t>(branches.size())});
  op.groups(branches[0].size(0), weights.size(0));
  op.count("normalize", normalize.size(), branches.size());
}

inline void check_mixed_sum(const std::vector<Tensor>& branches, const Tensor& weights, const std::vector<bool>& normalize,
                            const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd) {
  check::Op op("mixed_sum");
  check_mixed_sum_branches(op, branches, weights, normalize);
  op.statistics(mean, rstd, weights.size(0), {static_cast<int64_t>(branches.size()), branches[0].size(1)});
}

inline void check_mixed_sum_backward(const Tensor& grad, const std::vector<Tensor>& branches, const Tensor& weights,
                                     const std::vector<bool>& normalize, const Tensor& mean, const Tensor& rstd) {
  check::Op op("mixed_sum_backward");
  check_mixed_sum_branches(op, branches, weights, normalize);
  op.tensor("grad", grad, check::Op::shape_of(branches[0]), promoted(branches));
  const std::vector<int64_t> table{weights.size(0), static_cast<int64_t>(branches.size()), branches[0].size(1)};
  op.tensor("mean", mean, table);
  op.tensor("rstd", rstd, table);
}

}  // namespace
}  // namespace ddarts

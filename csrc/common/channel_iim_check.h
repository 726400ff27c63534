// channel_iim: what its arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

inline void check_channel_iim(const std::vector<Tensor>& maps, const std::optional<Tensor>& mean,
                              const std::optional<Tensor>& rstd, const std::vector<bool>& normalize) {
  check::Op op("channel_iim");
  op.require(!maps.empty(), "maps must have at least one tensor");
  op.tensor("maps", maps[0], {check::kAny, check::kAny, check::kAny, check::kAny});
  op.require(maps[0].size(1) >= 1, "maps must have at least one channel");
  const ScalarType sums = accumulate_dtype(maps[0]);
  op.tensors("maps", maps, check::Op::shape_of(maps[0]));
  for (const Tensor& x : maps) op.require(accumulate_dtype(x) == sums, "maps must be all float64 or none, got both");
  op.count("normalize", normalize.size(), maps.size());
  op.require(mean.has_value() == rstd.has_value(), "mean and rstd must be given together");
  if (!mean.has_value()) return;
  const std::vector<int64_t> table{check::kAny, static_cast<int64_t>(maps.size()), maps[0].size(1)};
  op.tensor("mean", *mean, table, sums);
  op.groups(maps[0].size(0), mean->size(0));
  op.tensor("rstd", *rstd, check::Op::shape_of(*mean), sums);
}

}  // namespace
}  // namespace ddarts

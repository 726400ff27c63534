// spawn_group: what its arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

inline void check_copies(const check::Op& op, int64_t copies, int64_t stride) {
  op.require(copies >= 1 && copies <= check::kMostCopies, "copies must be from 1 to ", check::kMostCopies, ", got ", copies);
  op.require(stride >= 1 && stride <= check::kMostStride, "stride must be from 1 to ", check::kMostStride, ", got ", stride);
}

inline void check_spawn_group(const std::optional<Tensor>& groups, const Tensor& source, int64_t copies, int64_t stride) {
  check::Op op("spawn_group");
  op.tensor("source", source, {check::kAny, check::kAny, check::kAny, check::kAny});
  check_copies(op, copies, stride);
  op.tensor("groups", groups,
            std::vector<int64_t>{check::kAny, source.size(1) * copies, check::strided(source.size(2), stride),
                                 check::strided(source.size(3), stride)},
            source.scalar_type());
}

inline void check_spawn_group_backward(const Tensor& grad, int64_t height, int64_t width, int64_t copies, int64_t stride) {
  check::Op op("spawn_group_backward");
  check_copies(op, copies, stride);
  op.require(height >= 0 && width >= 0, "height and width must not be negative, got ", height, " and ", width);
  op.tensor("grad", grad,
            {check::kAny, check::kAny, check::strided(height, stride), check::strided(width, stride)});
  op.require(grad.size(1) % copies == 0, "grad must have a multiple of copies=", copies, " channels, got ", grad.size(1));
}

}  // namespace
}  // namespace ddarts

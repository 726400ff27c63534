// relu_pointwise_conv2d: what its arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

// Returns the channels of the output.
inline int64_t check_pointwise(check::Op& op, const Tensor& x, const std::vector<Tensor>& weights, int64_t stride) {
  op.image("x", x);
  op.stride(stride);
  op.require(!weights.empty() && static_cast<int64_t>(weights.size()) <= stride, "weights must be 1 to stride=", stride,
             " tensors, got ", weights.size());
  op.tensors("weights", weights, std::vector<int64_t>{check::kAny, x.size(1), 1, 1});
  int64_t channels = 0;
  for (const Tensor& weight : weights) {
    op.require(weight.size(0) >= 1, "weights must have at least one channel");
    channels += weight.size(0);
  }
  return channels;
}

inline void check_relu_pointwise_conv2d(const Tensor& x, const std::vector<Tensor>& weights, int64_t stride) {
  check::Op op("relu_pointwise_conv2d");
  check_pointwise(op, x, weights, stride);
}

inline void check_relu_pointwise_conv2d_backward(const Tensor& grad, const Tensor& x, const std::vector<Tensor>& weights,
                                                 int64_t stride) {
  check::Op op("relu_pointwise_conv2d_backward");
  const int64_t channels = check_pointwise(op, x, weights, stride);
  op.tensor("grad", grad, {x.size(0), channels, check::strided(x.size(2), stride), check::strided(x.size(3), stride)},
            x.scalar_type());
}

}  // namespace
}  // namespace ddarts

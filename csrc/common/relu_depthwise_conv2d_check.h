// relu_depthwise_conv2d, relu_separable_conv2d: what their arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

// Depthwise filters [C,1,k,k] of an image with C channels.
inline void check_filters(check::Op& op, const Tensor& x, const std::vector<Tensor>& weights,
                          const std::vector<int64_t>& dilations, int64_t stride) {
  op.stride(stride);
  op.require(!weights.empty(), "weights must have at least one filter");
  op.count("dilations", dilations.size(), weights.size());
  for (const int64_t dilation : dilations) op.require(dilation == 1 || dilation == 2, "dilations must be 1 or 2, got ", dilation);
  for (const Tensor& weight : weights) {
    op.require(weight.defined() && weight.dim() == 4, "weights must be [C,1,k,k]");
    const int64_t k = weight.size(3);
    op.require(k == 3 || k == 5 || k == 7, "weights must be [C,1,k,k] with k of 3, 5, 7, got k=", k);
    op.tensor("weights", weight, {x.size(1), 1, k, k});
  }
}

inline std::vector<int64_t> output_shape(const Tensor& x, int64_t channels, int64_t stride) {
  return {x.size(0), channels, check::strided(x.size(2), stride), check::strided(x.size(3), stride)};
}

// The op's own statistics, which its kernels read as they are: [G,...] of the sums' dtype where there is a norm.
inline void check_own_statistics(check::Op& op, const Tensor& x, bool normalize, const Tensor& mean, const Tensor& rstd,
                                 std::vector<int64_t> shape) {
  if (!normalize) return;
  op.tensor("mean", mean, shape, accumulate_dtype(x));
  op.tensor("rstd", rstd, shape, accumulate_dtype(x));
}

inline void check_relu_depthwise_conv2d(const Tensor& x, const std::vector<Tensor>& weights,
                                        const std::vector<int64_t>& dilations, int64_t stride,
                                        const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd, int64_t groups) {
  check::Op op("relu_depthwise_conv2d");
  op.image("x", x);
  check_filters(op, x, weights, dilations, stride);
  op.groups(x.size(0), groups);
  op.statistics(mean, rstd, groups, {x.size(1)});
}

inline void check_relu_depthwise_conv2d_backward(const std::vector<Tensor>& grads, const Tensor& x,
                                                 const std::vector<Tensor>& weights, const std::vector<int64_t>& dilations,
                                                 int64_t stride, bool normalize, const Tensor& mean, const Tensor& rstd,
                                                 int64_t groups) {
  check::Op op("relu_depthwise_conv2d_backward");
  op.image("x", x);
  check_filters(op, x, weights, dilations, stride);
  op.groups(x.size(0), groups);
  op.count("grads", grads.size(), weights.size());
  op.tensors("grads", grads, output_shape(x, x.size(1), stride), x.scalar_type());
  check_own_statistics(op, x, normalize, mean, rstd, {groups, x.size(1)});
}

// every: whether each input must have a filter.
inline void check_separable(check::Op& op, const std::vector<Tensor>& inputs, const std::vector<Tensor>& weights,
                            const std::vector<Tensor>& pointwise, const std::vector<int64_t>& sources,
                            const std::vector<int64_t>& dilations, int64_t stride, int64_t groups, bool every) {
  op.require(!inputs.empty(), "inputs must have at least one tensor");
  op.image("inputs", inputs[0]);
  op.tensors("inputs", inputs, check::Op::shape_of(inputs[0]), inputs[0].scalar_type());
  check_filters(op, inputs[0], weights, dilations, stride);
  op.groups(inputs[0].size(0), groups);
  op.count("pointwise", pointwise.size(), weights.size());
  op.tensor("pointwise", pointwise[0], {check::kAny, inputs[0].size(1), 1, 1});
  op.require(pointwise[0].size(0) >= 1, "pointwise must have at least one channel");
  op.tensors("pointwise", pointwise, std::vector<int64_t>{pointwise[0].size(0), inputs[0].size(1), 1, 1});
  op.count("sources", sources.size(), weights.size());
  std::vector<bool> named(inputs.size(), !every);
  for (const int64_t source : sources) {
    op.require(source >= 0 && source < static_cast<int64_t>(inputs.size()), "sources must be from 0 to ", inputs.size() - 1,
               ", got ", source);
    named[static_cast<size_t>(source)] = true;
  }
  for (const bool found : named) op.require(found, "sources must name every input");
}

inline void check_relu_separable_conv2d(const std::vector<Tensor>& inputs, const std::vector<Tensor>& weights,
                                        const std::vector<Tensor>& pointwise, const std::vector<int64_t>& sources,
                                        const std::vector<int64_t>& dilations, int64_t stride,
                                        const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd, int64_t groups) {
  check::Op op("relu_separable_conv2d");
  check_separable(op, inputs, weights, pointwise, sources, dilations, stride, groups, true);
  op.statistics(mean, rstd, groups, {static_cast<int64_t>(inputs.size()), inputs[0].size(1)});
}

inline void check_relu_separable_conv2d_backward(const std::vector<Tensor>& grads, const std::vector<Tensor>& inputs,
                                                 const std::vector<Tensor>& weights, const std::vector<Tensor>& pointwise,
                                                 const std::vector<int64_t>& sources, const std::vector<int64_t>& dilations,
                                                 int64_t stride, bool normalize, const Tensor& mean, const Tensor& rstd,
                                                 int64_t groups) {
  check::Op op("relu_separable_conv2d_backward");
  check_separable(op, inputs, weights, pointwise, sources, dilations, stride, groups, false);
  op.count("grads", grads.size(), weights.size());
  op.tensors("grads", grads, output_shape(inputs[0], pointwise[0].size(0), stride), inputs[0].scalar_type());
  check_own_statistics(op, inputs[0], normalize, mean, rstd,
                       {groups, static_cast<int64_t>(inputs.size()), inputs[0].size(1)});
}

}  // namespace
}  // namespace ddarts

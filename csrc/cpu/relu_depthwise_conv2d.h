// relu_separable_conv2d on the CPU as functions of tensors, for kernels that are made of it.
#pragma once

#include "../common/simd.h"

#include <array>
#include <optional>
#include <tuple>
#include <vector>

namespace ddarts {

using torch::stable::Tensor;

// The gradient of an output: a tensor or, with a branch, a g + s x + d of that tensor g and the branch x, which is what a
// node's sum hands to its branches (GradientTerms in mixed_sum_passes.h) before anybody has written it down.
struct OutputGradient {
  Tensor grad;
  std::optional<Tensor> branch = {};
  std::array<const void*, 3> terms = {};  // a, s, d: tables [G,K,C] of the accumulation type
  int64_t count = 0, index = 0;           // K and the place of the branch among them
};

}  // namespace ddarts

namespace ddarts::DDARTS_CPU_COPY {

// outputs, mean, rstd
std::tuple<std::vector<Tensor>, Tensor, Tensor> relu_separable_conv2d(
    std::vector<Tensor> inputs, std::vector<Tensor> weights, std::vector<Tensor> pointwise, std::vector<int64_t> sources,
    std::vector<int64_t> dilations, int64_t stride, bool normalize, std::optional<Tensor> mean, std::optional<Tensor> rstd,
    int64_t groups, double eps);

// Gradients of the inputs, of the depthwise and of the pointwise weights, as far as they are wanted. With `into`, which is
// for a single input without a norm, its gradient is added to that tensor. With `terms`, where every input has a filter and
// a norm and sums have the dtype of the inputs, the gradients of the inputs are left before the norm: they are a dz + s x + d
// with tables [3,G,I,C] that are put there.
std::vector<Tensor> relu_separable_conv2d_gradients(
    const std::vector<OutputGradient>& grads, const std::vector<Tensor>& inputs, const std::vector<Tensor>& weights,
    const std::vector<Tensor>& pointwise, const std::vector<int64_t>& sources, const std::vector<int64_t>& dilations,
    int64_t stride, bool normalize, const Tensor& mean, const Tensor& rstd, bool batch_statistics, int64_t groups,
    bool input_grad, bool weights_grad, const std::optional<Tensor>& into = std::nullopt, Tensor* terms = nullptr);

}  // namespace ddarts::DDARTS_CPU_COPY

#if defined(DDARTS_NARROW_COPY)
namespace ddarts::DDARTS_NARROW_COPY {

// The same of the copy with vectors half as wide, see half_idle.
std::tuple<std::vector<Tensor>, Tensor, Tensor> relu_separable_conv2d(
    std::vector<Tensor> inputs, std::vector<Tensor> weights, std::vector<Tensor> pointwise, std::vector<int64_t> sources,
    std::vector<int64_t> dilations, int64_t stride, bool normalize, std::optional<Tensor> mean, std::optional<Tensor> rstd,
    int64_t groups, double eps);
std::vector<Tensor> relu_separable_conv2d_gradients(
    const std::vector<OutputGradient>& grads, const std::vector<Tensor>& inputs, const std::vector<Tensor>& weights,
    const std::vector<Tensor>& pointwise, const std::vector<int64_t>& sources, const std::vector<int64_t>& dilations,
    int64_t stride, bool normalize, const Tensor& mean, const Tensor& rstd, bool batch_statistics, int64_t groups,
    bool input_grad, bool weights_grad, const std::optional<Tensor>& into, Tensor* terms);

}  // namespace ddarts::DDARTS_NARROW_COPY
#endif

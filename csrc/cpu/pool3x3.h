// pool3x3 on the CPU as functions of tensors, for kernels that are made of it. Each is the op of its name.
#pragma once

#include "../common/simd.h"

#include <optional>
#include <tuple>

namespace ddarts::DDARTS_CPU_COPY {

// maximum, average, argmax
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> pool3x3(const torch::stable::Tensor& x,
                                                                                        int64_t stride, bool maximum,
                                                                                        bool average);

torch::stable::Tensor pool3x3_backward(std::optional<torch::stable::Tensor> grad_maximum,
                                       std::optional<torch::stable::Tensor> grad_average,
                                       const torch::stable::Tensor& argmax, int64_t height, int64_t width, int64_t stride,
                                       bool channels_last);

}  // namespace ddarts::DDARTS_CPU_COPY

// pool3x3 on CUDA tensors: layouts, outputs, launchers.
#include "../common/cuda_op.h"
#include "../common/pool3x3_check.h"
#include "pool3x3.h"

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace layout = ddarts::layout;

std::tuple<Tensor, Tensor, Tensor> pool3x3(const Tensor& input, int64_t stride, bool maximum, bool average) {
  ddarts::check_pool3x3(input, stride, maximum, average);
  const ddarts::DeviceStream device(input);
  const bool last = layout::channels_last(input);
  const Tensor x = layout::as(input, last);
  const ddarts::PoolShape s = ddarts::pool_shape(x.size(0), x.size(1), x.size(2), x.size(3), stride, last);
  auto make = [&](bool asked, ScalarType type) {
    return asked ? layout::empty(x, {x.size(0), x.size(1), s.out_height, s.out_width}, type, last)
                 : torch::stable::new_empty(x, {0}, type);
  };
  Tensor max_out = make(maximum, x.scalar_type()), avg_out = make(average, x.scalar_type());
  Tensor argmax = make(maximum, ScalarType::Byte);
  if (x.numel() != 0)
    DDARTS_CUDA_CHECK(ddarts::pool3x3(ddarts::dtype_of(x), x.const_data_ptr(), maximum ? max_out.mutable_data_ptr() : nullptr,
                                      average ? avg_out.mutable_data_ptr() : nullptr,
                                      maximum ? argmax.mutable_data_ptr<uint8_t>() : nullptr, s, device.stream()));
  return {max_out, avg_out, argmax};
}

// The gradients of the pools in this layout, with the others as they are; what they point to must outlive the launch.
Tensor gathered(const std::vector<Tensor>& maxima, const std::vector<Tensor>& averages, const std::vector<Tensor>& others,
                const Tensor& positions, int64_t height, int64_t width, int64_t stride, bool last) {
  const Tensor& first = maxima.empty() ? averages[0] : maxima[0];
  const ddarts::DeviceStream device(first);
  Tensor dx = layout::empty(first, {first.size(0), first.size(1), height, width}, first.scalar_type(), last);
  if (dx.numel() == 0) return dx;
  ddarts::PoolGradients g{};
  std::vector<Tensor> held;
  auto take = [&](const Tensor& x) { return held.emplace_back(layout::as(x, last)).const_data_ptr(); };
  for (const Tensor& x : maxima) g.maximum[g.maxima++] = take(x);
  for (const Tensor& x : averages) g.average[g.averages++] = take(x);
  for (const Tensor& x : others) {
    held.push_back(layout::in_pieces(x, last));
    g.pitch[g.others] = static_cast<int32_t>(last ? layout::pitch_of(held.back()) : 1);
    g.other[g.others++] = held.back().const_data_ptr();
  }
  const Tensor argmax = maxima.empty() ? positions : layout::as(positions, last);
  DDARTS_CUDA_CHECK(ddarts::pool3x3_backward(ddarts::dtype_of(dx), g, maxima.empty() ? nullptr : argmax.const_data_ptr<uint8_t>(),
                                             dx.mutable_data_ptr(),
                                             ddarts::pool_shape(dx.size(0), dx.size(1), height, width, stride, last), device.stream()));
  return dx;
}

Tensor pool3x3_backward(std::optional<Tensor> grad_maximum, std::optional<Tensor> grad_average, const Tensor& positions,
                        int64_t height, int64_t width, int64_t stride, bool last) {
  ddarts::check_pool3x3_backward(grad_maximum, grad_average, positions, height, width, stride);
  std::vector<Tensor> maxima, averages;
  if (grad_maximum) maxima.push_back(*grad_maximum);
  if (grad_average) averages.push_back(*grad_average);
  return gathered(maxima, averages, {}, positions, height, width, stride, last);
}

Tensor pool3x3_readers_backward(std::vector<Tensor> maxima, std::vector<Tensor> averages, std::vector<Tensor> others,
                                const Tensor& positions, int64_t height, int64_t width, int64_t stride, bool last) {
  ddarts::check_pool3x3_readers_backward(maxima, averages, others, positions, height, width, stride);
  for (const std::vector<Tensor>* gradients : {&maxima, &averages, &others})
    if (gradients->size() > ddarts::kPoolReaders)
      throw std::runtime_error("pool3x3_readers_backward: gradients must be at most 16 of a kind, got " +
                               std::to_string(gradients->size()));
  return gathered(maxima, averages, others, positions, height, width, stride, last);
}

}  // namespace

DDARTS_CUDA_KERNELS(m) {
  m.impl("pool3x3", TORCH_BOX(&pool3x3));
  m.impl("pool3x3_backward", TORCH_BOX(&pool3x3_backward));
  m.impl("pool3x3_readers_backward", TORCH_BOX(&pool3x3_readers_backward));
}

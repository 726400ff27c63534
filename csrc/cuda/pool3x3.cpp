// pool3x3 on CUDA tensors: layouts, outputs, launchers.
#include "../common/cuda_op.h"
#include "../common/pool3x3_check.h"
#include "pool3x3.h"

#include <optional>
#include <tuple>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace layout = ddarts::layout;

ddarts::PoolShape shape_of(int64_t n, int64_t c, int64_t height, int64_t width, int64_t stride, bool last) {
  return {last ? n : n * c,          height,       width, (height - 1) / stride + 1, (width - 1) / stride + 1, last ? c : 1,
          static_cast<int>(stride)};
}

std::tuple<Tensor, Tensor, Tensor> pool3x3(const Tensor& input, int64_t stride, bool maximum, bool average) {
  ddarts::check_pool3x3(input, stride, maximum, average);
  const ddarts::DeviceStream device(input);
  const bool last = layout::channels_last(input);
  const Tensor x = layout::as(input, last);
  const ddarts::PoolShape s = shape_of(x.size(0), x.size(1), x.size(2), x.size(3), stride, last);
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

Tensor pool3x3_backward(std::optional<Tensor> grad_maximum, std::optional<Tensor> grad_average, const Tensor& positions,
                        int64_t height, int64_t width, int64_t stride, bool last) {
  ddarts::check_pool3x3_backward(grad_maximum, grad_average, positions, height, width, stride);
  const Tensor& either = grad_maximum ? *grad_maximum : *grad_average;
  const ddarts::DeviceStream device(either);
  Tensor dx = layout::empty(either, {either.size(0), either.size(1), height, width}, either.scalar_type(), last);
  if (dx.numel() == 0) return dx;
  std::optional<Tensor> gm, ga;
  if (grad_maximum) gm = layout::as(*grad_maximum, last);
  if (grad_average) ga = layout::as(*grad_average, last);
  const Tensor argmax = grad_maximum ? layout::as(positions, last) : positions;
  DDARTS_CUDA_CHECK(ddarts::pool3x3_backward(ddarts::dtype_of(dx), gm ? gm->const_data_ptr() : nullptr,
                                             ga ? ga->const_data_ptr() : nullptr,
                                             gm ? argmax.const_data_ptr<uint8_t>() : nullptr, dx.mutable_data_ptr(),
                                             shape_of(dx.size(0), dx.size(1), height, width, stride, last), device.stream()));
  return dx;
}

}  // namespace

DDARTS_CUDA_KERNELS(m) {
  m.impl("pool3x3", TORCH_BOX(&pool3x3));
  m.impl("pool3x3_backward", TORCH_BOX(&pool3x3_backward));
}

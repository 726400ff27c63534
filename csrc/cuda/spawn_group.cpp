// spawn_group and its backward on CUDA.
#include "spawn_group.h"

#include "../common/cuda_op.h"
#include "../common/spawn_group_check.h"

#include <optional>

namespace {

namespace layout = ddarts::layout;
using torch::stable::Tensor;

Tensor spawn_group(std::optional<Tensor> groups, Tensor source, int64_t copies, int64_t stride, bool zero) {
  ddarts::check_spawn_group(groups, source, copies, stride);
  const ddarts::DeviceStream device(source);
  const bool last = layout::channels_last(source);
  const ddarts::SpawnShape shape{source.size(0), source.size(1), source.size(2), source.size(3), copies, stride, last};
  const int64_t before = groups.has_value() ? groups->size(0) : 0;
  Tensor out = layout::empty(source,
                             {before + shape.batch, shape.channels * copies, (shape.height + stride - 1) / stride,
                              (shape.width + stride - 1) / stride},
                             source.scalar_type(), last);
  if (before > 0) groups = layout::as(*groups, last);
  if (!zero) source = layout::as(source, last);
  DDARTS_CUDA_CHECK(ddarts::spawn_group(ddarts::dtype_of(source), before > 0 ? groups->const_data_ptr() : nullptr, before,
                                        zero ? nullptr : source.const_data_ptr(), out.mutable_data_ptr(), shape,
                                        device.stream()));
  return out;
}

Tensor spawn_group_backward(Tensor grad, int64_t height, int64_t width, int64_t copies, int64_t stride) {
  ddarts::check_spawn_group_backward(grad, height, width, copies, stride);
  const ddarts::DeviceStream device(grad);
  const bool last = layout::channels_last(grad);
  const ddarts::SpawnShape shape{grad.size(0), grad.size(1) / copies, height, width, copies, stride, last};
  grad = layout::as(grad, last);
  Tensor out = layout::empty(grad, {shape.batch, shape.channels, height, width}, grad.scalar_type(), last);
  DDARTS_CUDA_CHECK(ddarts::spawn_group_backward(ddarts::dtype_of(grad), grad.const_data_ptr(), out.mutable_data_ptr(),
                                                 shape, device.stream()));
  return out;
}

DDARTS_CUDA_KERNELS(m) {
  m.impl("spawn_group", TORCH_BOX(&spawn_group));
  m.impl("spawn_group_backward", TORCH_BOX(&spawn_group_backward));
}

}  // namespace

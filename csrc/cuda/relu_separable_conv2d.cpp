// relu_separable_conv2d on CUDA: tensors to pointers, the statistics of its inputs by mixed_sum's.
#include "../common/relu_depthwise_conv2d_check.h"
#include "mixed_sum.h"
#include "relu_separable_conv2d_call.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

namespace {

using ddarts::SeparableProblem;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace layout = ddarts::layout;

// Mean and rstd [G,I,C] of the inputs; or, where they are few, their moments, from which the forward makes them itself.
Tensor statistics(ddarts::SeparableCall& call, int64_t groups, double eps, Tensor& mean, Tensor& rstd, cudaStream_t stream) {
  SeparableProblem& p = call.problem;
  if (p.n == 0) {
    ddarts::statistics_of_nothing(mean, rstd, eps);
    return mean;
  }
  ddarts::MixedShape shape{groups, p.batch, p.c, p.h * p.w, p.inputs, call.last, call.sums() == ScalarType::Double, false};
  shape.packets = ddarts::mixed_sum_packets(shape) && ddarts::aligned(call.inputs);
  const int64_t rows = std::min<int64_t>(p.inputs, ddarts::kMixedBranches);
  const int64_t tiles = ddarts::mixed_sum_tiles(shape);
  const Tensor partial = torch::stable::new_empty(mean, {rows, groups, tiles, 3, p.c});
  const bool joined = rows < p.inputs || tiles > ddarts::kSeparableMomentTiles;
  if (!joined) p.moments = partial.const_data_ptr(), p.moment_tiles = tiles, p.eps = eps;
  for (int64_t begin = 0; begin < p.inputs; begin += rows) {
    ddarts::MixedTable table{};
    for (int64_t i = begin; i < std::min(p.inputs, begin + rows); ++i)
      table.branch[table.count++] = {call.inputs[static_cast<size_t>(i)].const_data_ptr(), nullptr, static_cast<int32_t>(i), static_cast<int32_t>(p.c),
                                     call.dtype(), true};
    DDARTS_CUDA_CHECK(joined ? ddarts::mixed_sum_statistics(shape, table, partial.mutable_data_ptr(), eps, mean.mutable_data_ptr(),
                                                            rstd.mutable_data_ptr(), stream)
                             : ddarts::mixed_sum_moments(shape, table, partial.mutable_data_ptr(), stream));
  }
  return partial;
}

std::tuple<std::vector<Tensor>, Tensor, Tensor> relu_separable_conv2d(
    std::vector<Tensor> inputs, std::vector<Tensor> weights, std::vector<Tensor> pointwise, std::vector<int64_t> sources,
    std::vector<int64_t> dilations, int64_t stride, bool normalize, std::optional<Tensor> given_mean, std::optional<Tensor> given_rstd,
    int64_t groups, double eps, bool tf32) {
  ddarts::check_relu_separable_conv2d(inputs, weights, pointwise, sources, dilations, stride, given_mean, given_rstd, groups);
  const ddarts::DeviceStream device(inputs[0]);
  ddarts::SeparableCall call(inputs, weights, pointwise, sources, dilations, stride, groups, tf32);
  SeparableProblem& p = call.problem;
  const int64_t rows = normalize ? groups : 0;
  std::optional<Tensor> partial;  // until the forward has read it
  Tensor mean = torch::stable::new_empty(inputs[0], {rows, p.inputs, p.c}, call.sums());
  Tensor rstd = torch::stable::new_empty(mean, {rows, p.inputs, p.c});
  if (normalize) {
    if (given_mean.has_value()) {  // one row is that of all groups
      torch::stable::copy_(mean, *given_mean), torch::stable::copy_(rstd, *given_rstd);
    } else {
      partial = statistics(call, groups, eps, mean, rstd, device.stream());
    }
    p.mean = mean.const_data_ptr(), p.rstd = rstd.const_data_ptr();
  }
  std::vector<Tensor> outputs;
  for (size_t f = 0; f < weights.size(); ++f) outputs.push_back(call.image(p.out_c, p.out_h, p.out_w));
  call.in_launches(false, [&](SeparableProblem& q, const std::vector<size_t>& filters) {
    for (int f = 0; f < q.count; ++f) q.filters[f].data = outputs[filters[static_cast<size_t>(f)]].mutable_data_ptr();
    DDARTS_CUDA_CHECK(ddarts::separable_forward(call.dtype(), q, device.stream()));
  });
  for (size_t f = 0; f < outputs.size(); ++f)
    outputs[f] = layout::as(outputs[f], layout::channels_last(inputs[static_cast<size_t>(sources[f])]));
  return {outputs, mean, rstd};
}

std::vector<Tensor> relu_separable_conv2d_backward(std::vector<Tensor> grads, std::vector<Tensor> inputs, std::vector<Tensor> weights,
                                                   std::vector<Tensor> pointwise, std::vector<int64_t> sources,
                                                   std::vector<int64_t> dilations, int64_t stride, bool normalize, Tensor mean,
                                                   Tensor rstd, bool batch_statistics, int64_t groups, bool input_grad,
                                                   bool weights_grad, bool tf32) {
  ddarts::check_relu_separable_conv2d_backward(grads, inputs, weights, pointwise, sources, dilations, stride, normalize, mean, rstd, groups);
  const ddarts::DeviceStream device(inputs[0]);
  ddarts::SeparableCall call(inputs, weights, pointwise, sources, dilations, stride, groups, tf32);
  SeparableProblem& p = call.problem;
  const std::vector<Tensor> incoming = ddarts::in_layout(grads, call.last);
  p.out_packets = call.packets(incoming, p.out_c);
  mean = torch::stable::contiguous(mean), rstd = torch::stable::contiguous(rstd);
  if (normalize) p.mean = mean.const_data_ptr(), p.rstd = rstd.const_data_ptr();
  std::vector<Tensor> d_inputs, d_filters;
  for (int64_t i = 0; input_grad && i < p.inputs; ++i) d_inputs.push_back(call.image(p.c, p.h, p.w));
  if (weights_grad) d_filters = ddarts::side_by_side(call.depthwise, call.pointwise);
  ddarts::separable_gradients(call, d_inputs, d_filters, normalize && batch_statistics, device.stream(), [&](ddarts::SeparableFilter& filter, size_t f) {
    filter.data = const_cast<void*>(incoming[f].const_data_ptr());
  });
  for (size_t i = 0; i < d_inputs.size(); ++i) d_inputs[i] = layout::as(d_inputs[i], layout::channels_last(inputs[i]));
  d_inputs.insert(d_inputs.end(), d_filters.begin(), d_filters.end());
  return d_inputs;
}

DDARTS_CUDA_KERNELS(m) {
  m.impl("relu_separable_conv2d", TORCH_BOX(&relu_separable_conv2d));
  m.impl("relu_separable_conv2d_backward", TORCH_BOX(&relu_separable_conv2d_backward));
}

}  // namespace

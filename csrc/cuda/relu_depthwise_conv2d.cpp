// relu_depthwise_conv2d on CUDA: tensors to pointers, up to 32 filters a launch.
#include "relu_depthwise_conv2d.h"

#include "../common/cuda_op.h"
#include "../common/relu_depthwise_conv2d_check.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace layout = ddarts::layout;

ddarts::DepthwiseStrides strides_of(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

ddarts::DepthwiseProblem problem_of(const Tensor& x, int64_t stride, int64_t groups, const Tensor* mean, const Tensor* rstd) {
  ddarts::DepthwiseProblem p{};
  p.x = x.const_data_ptr();
  p.strides = strides_of(x);
  p.packets = ddarts::depthwise_packets(ddarts::dtype_of(x), p.x, p.strides, x.size(1));
  p.n = x.size(0), p.c = x.size(1), p.h = x.size(2), p.w = x.size(3);
  p.out_h = (p.h + stride - 1) / stride, p.out_w = (p.w + stride - 1) / stride;
  p.batch = std::max<int64_t>(1, p.n / groups), p.stride = static_cast<int>(stride);
  p.mean = mean == nullptr ? nullptr : mean->const_data_ptr();
  p.rstd = rstd == nullptr ? nullptr : rstd->const_data_ptr();
  return p;
}

// Calls launch(problem with the next filters, first, last) until all filters had their turn.
template <typename Launch>
void in_batches(ddarts::DepthwiseProblem p, const std::vector<ddarts::DepthwiseFilter>& filters, Launch launch) {
  for (size_t first = 0; first < filters.size(); first += ddarts::kDepthwiseFilters) {
    p.count = static_cast<int>(std::min<size_t>(filters.size() - first, ddarts::kDepthwiseFilters));
    p.pad = 0;
    for (int f = 0; f < p.count; ++f) {
      p.filters[f] = filters[first + static_cast<size_t>(f)];
      p.pad = std::max(p.pad, p.filters[f].dilation * (p.filters[f].k - 1) / 2);
    }
    launch(p, first == 0, first + static_cast<size_t>(p.count) == filters.size());
  }
}

std::vector<ddarts::DepthwiseFilter> filters_of(const std::vector<Tensor>& weights, const std::vector<int64_t>& dilations) {
  std::vector<ddarts::DepthwiseFilter> filters;
  int64_t taps = 0;
  for (size_t f = 0; f < weights.size(); ++f) {
    const int64_t k = weights[f].size(3);
    filters.push_back({weights[f].const_data_ptr(), nullptr, {}, static_cast<int>(k), static_cast<int>(dilations[f]), taps, false,
                       ddarts::dtype_of(weights[f]), nullptr});
    taps += k * k;
  }
  return filters;
}

std::tuple<std::vector<Tensor>, Tensor, Tensor> relu_depthwise_conv2d(
    Tensor x, std::vector<Tensor> weights, std::vector<int64_t> dilations, int64_t stride, bool normalize,
    std::optional<Tensor> given_mean, std::optional<Tensor> given_rstd, int64_t groups, double eps) {
  ddarts::check_relu_depthwise_conv2d(x, weights, dilations, stride, given_mean, given_rstd, groups);
  const ddarts::DeviceStream device(x);
  const ScalarType type = ddarts::accumulate_dtype(x);
  const ddarts::DType dtype = ddarts::dtype_of(x);
  Tensor mean = torch::stable::new_empty(x, {normalize ? groups : 0, x.size(1)}, type);
  Tensor rstd = torch::stable::new_empty(mean, {normalize ? groups : 0, x.size(1)});
  if (normalize && given_mean.has_value()) {
    torch::stable::copy_(mean, *given_mean);  // one row is that of all groups
    torch::stable::copy_(rstd, *given_rstd);
  }
  ddarts::DepthwiseProblem p = problem_of(x, stride, groups, normalize ? &mean : nullptr, normalize ? &rstd : nullptr);
  if (normalize && !given_mean.has_value()) {
    Tensor scratch = torch::stable::new_empty(x, {p.n * ddarts::depthwise_statistics_parts(p), p.c, 2}, ScalarType::Double);
    DDARTS_CUDA_CHECK(ddarts::depthwise_statistics(dtype, p, groups, eps, mean.mutable_data_ptr(), rstd.mutable_data_ptr(),
                                                   static_cast<double*>(scratch.mutable_data_ptr()), device.stream()));
  }
  for (Tensor& weight : weights) weight = ddarts::dense(weight, type);
  std::vector<ddarts::DepthwiseFilter> filters = filters_of(weights, dilations);
  std::vector<Tensor> outputs;
  for (size_t f = 0; f < filters.size(); ++f) {
    outputs.push_back(layout::in_layout_of(x, p.c, p.out_h, p.out_w, x.scalar_type()));
    filters[f].data = outputs[f].mutable_data_ptr();
    filters[f].strides = strides_of(outputs[f]);
  }
  in_batches(p, filters, [&](const ddarts::DepthwiseProblem& q, bool, bool) {
    DDARTS_CUDA_CHECK(ddarts::depthwise_forward(dtype, q, device.stream()));
  });
  return {outputs, mean, rstd};
}

Tensor input_gradient(const Tensor& x, const ddarts::DepthwiseProblem& p, const std::vector<ddarts::DepthwiseFilter>& filters,
                      bool batch_statistics, int64_t groups, cudaStream_t stream) {
  const ddarts::DType dtype = ddarts::dtype_of(x);
  const bool last = layout::channels_last(x), direct = p.mean == nullptr && x.scalar_type() == ddarts::accumulate_dtype(x);
  Tensor dx = layout::like(x, x.scalar_type(), last);
  Tensor dz = direct ? dx : layout::like(x, ddarts::accumulate_dtype(x), last);
  Tensor sums = torch::stable::new_empty(x, {batch_statistics ? ddarts::depthwise_input_tiles(p) : 0, p.c, 2}, ScalarType::Double);
  Tensor means = torch::stable::new_empty(x, {batch_statistics ? groups : 0, p.c, 2}, ScalarType::Double);
  double* rows = batch_statistics ? static_cast<double*>(sums.mutable_data_ptr()) : nullptr;
  const ddarts::DepthwiseStrides strides = strides_of(dz);
  in_batches(p, filters, [&](const ddarts::DepthwiseProblem& q, bool first, bool final) {
    DDARTS_CUDA_CHECK(ddarts::depthwise_input_gradient(dtype, q, dz.mutable_data_ptr(), strides, !first, final,
                                                       final ? rows : nullptr, stream));
  });
  if (!direct)
    DDARTS_CUDA_CHECK(ddarts::depthwise_finish(dtype, p, dz.const_data_ptr(), dx.mutable_data_ptr(), strides, rows,
                                               static_cast<double*>(means.mutable_data_ptr()), stream));
  return dx;
}

std::tuple<Tensor, std::vector<Tensor>> relu_depthwise_conv2d_backward(
    std::vector<Tensor> grads, Tensor x, std::vector<Tensor> weights, std::vector<int64_t> dilations, int64_t stride,
    bool normalize, Tensor mean, Tensor rstd, bool batch_statistics, int64_t groups, bool input_grad, bool weights_grad) {
  ddarts::check_relu_depthwise_conv2d_backward(grads, x, weights, dilations, stride, normalize, mean, rstd, groups);
  const ddarts::DeviceStream device(x);
  const ScalarType type = ddarts::accumulate_dtype(x);
  mean = torch::stable::contiguous(mean), rstd = torch::stable::contiguous(rstd);
  const ddarts::DepthwiseProblem p = problem_of(x, stride, groups, normalize ? &mean : nullptr, normalize ? &rstd : nullptr);
  std::vector<ScalarType> types;
  for (Tensor& weight : weights) {
    types.push_back(weight.scalar_type());
    weight = ddarts::dense(weight, type);
  }
  std::vector<ddarts::DepthwiseFilter> filters = filters_of(weights, dilations);
  for (size_t f = 0; f < filters.size(); ++f) {
    filters[f].data = const_cast<void*>(grads[f].const_data_ptr());
    filters[f].strides = strides_of(grads[f]);
    filters[f].packets = ddarts::depthwise_packets(ddarts::dtype_of(grads[f]), filters[f].data, filters[f].strides, p.c);
  }
  const int64_t taps = filters.back().first + filters.back().k * filters.back().k;
  std::vector<Tensor> dweights;
  if (weights_grad) {
    for (size_t f = 0; f < filters.size(); ++f) {
      dweights.push_back(torch::stable::new_empty(x, {p.c, 1, filters[f].k, filters[f].k}, types[f]));
      filters[f].dweight = dweights.back().mutable_data_ptr();
      filters[f].dweight_dtype = ddarts::dtype_of(dweights.back());
    }
    const ddarts::DType dtype = ddarts::dtype_of(x);
    const int64_t chunks = ddarts::depthwise_weight_chunks(dtype, p, static_cast<int64_t>(filters.size()));
    const Tensor partial = torch::stable::new_empty(x, {chunks, taps, p.c}, type);
    in_batches(p, filters, [&](const ddarts::DepthwiseProblem& q, bool, bool) {
      DDARTS_CUDA_CHECK(ddarts::depthwise_weight_gradient(dtype, q, partial.mutable_data_ptr(), chunks, taps, device.stream()));
    });
  }
  Tensor dx = input_grad ? input_gradient(x, p, filters, batch_statistics && normalize, groups, device.stream())
                         : torch::stable::new_empty(x, {0});
  return {dx, dweights};
}

DDARTS_CUDA_KERNELS(m) {
  m.impl("relu_depthwise_conv2d", TORCH_BOX(&relu_depthwise_conv2d));
  m.impl("relu_depthwise_conv2d_backward", TORCH_BOX(&relu_depthwise_conv2d_backward));
}

}  // namespace

// grouped_batch_norm on CUDA tensors: layouts, dtypes of the parameters, scratch, launchers.
#include "../common/cuda_op.h"
#include "../common/grouped_batch_norm_check.h"
#include "grouped_batch_norm.h"

#include <optional>
#include <tuple>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace layout = ddarts::layout;

ddarts::NormShape shape_of(const Tensor& x, int64_t groups, bool last) {
  return {groups, x.size(0) / groups, x.size(1), x.size(2) * x.size(3), last};
}
const void* pointer(const std::optional<Tensor>& t) { return t ? t->const_data_ptr() : nullptr; }
ddarts::NormParameters parameters(const Tensor& mean, const Tensor& rstd, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias) {
  ddarts::NormParameters p{mean.const_data_ptr(), rstd.const_data_ptr(), pointer(weight), pointer(bias), true};
  for (const void* table : {p.mean, p.rstd, p.weight, p.bias}) p.packets = p.packets && reinterpret_cast<uintptr_t>(table) % 16 == 0;
  return p;
}
Tensor scratch(const Tensor& like, const ddarts::NormShape& s, ddarts::DType dtype) {
  return torch::stable::new_empty(like, {3 * ddarts::norm_parts(dtype, s) * s.groups * s.channels});
}

std::tuple<Tensor, Tensor, Tensor> grouped_batch_norm(const Tensor& input, std::optional<Tensor> weight,
                                                      std::optional<Tensor> bias, std::optional<Tensor> given_mean,
                                                      std::optional<Tensor> given_rstd, int64_t groups, double eps, bool relu) {
  ddarts::check_grouped_batch_norm(input, weight, bias, given_mean, given_rstd, groups);
  const ddarts::DeviceStream device(input);
  const bool last = layout::channels_last(input);
  const Tensor x = layout::as(input, last);
  const ddarts::NormShape s = shape_of(x, groups, last);
  const ScalarType acc = ddarts::accumulate_dtype(x);
  Tensor out = layout::like(x, x.scalar_type(), last), mean = torch::stable::new_empty(x, {groups, s.channels}, acc);
  Tensor rstd = torch::stable::new_empty(mean, {groups, s.channels});
  weight = ddarts::dense(weight, acc), bias = ddarts::dense(bias, acc);
  if (given_mean) {
    torch::stable::copy_(mean, *given_mean), torch::stable::copy_(rstd, *given_rstd);
  } else if (mean.numel() != 0) {
    const Tensor partial = scratch(mean, s, ddarts::dtype_of(x));
    DDARTS_CUDA_CHECK(ddarts::norm_statistics(ddarts::dtype_of(x), x.const_data_ptr(), partial.mutable_data_ptr(),
                                              mean.mutable_data_ptr(), rstd.mutable_data_ptr(), eps, s, device.stream()));
  }
  const ddarts::NormParameters p = parameters(mean, rstd, weight, bias);
  if (x.numel() != 0)
    DDARTS_CUDA_CHECK(ddarts::norm_apply(ddarts::dtype_of(x), x.const_data_ptr(), out.mutable_data_ptr(), p, relu, s, device.stream()));
  return {out, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> grouped_batch_norm_backward(const Tensor& grad_in, const Tensor& input,
                                                               std::optional<Tensor> weight_in, std::optional<Tensor> bias_in,
                                                               const Tensor& mean_in, const Tensor& rstd_in,
                                                               bool batch_statistics, int64_t groups, bool relu) {
  ddarts::check_grouped_batch_norm_backward(grad_in, input, weight_in, bias_in, mean_in, rstd_in, groups);
  const ddarts::DeviceStream device(input);
  const bool last = layout::channels_last(input);
  const Tensor x = layout::as(input, last), grad = layout::as(grad_in, last);
  const ddarts::NormShape s = shape_of(x, groups, last);
  const ScalarType acc = ddarts::accumulate_dtype(x);
  const Tensor mean = ddarts::dense(mean_in, acc), rstd = ddarts::dense(rstd_in, acc);
  const auto weight = ddarts::dense(weight_in, acc), bias = ddarts::dense(bias_in, acc);
  Tensor dx = layout::like(x, x.scalar_type(), last), sums = torch::stable::new_empty(mean, {2, groups, s.channels});
  Tensor dweight = torch::stable::new_zeros(mean, {weight ? s.channels : 0}), dbias = torch::stable::new_zeros(mean, {bias ? s.channels : 0});
  const ddarts::NormParameters p = parameters(mean, rstd, weight, bias);
  if (x.numel() != 0) {
    const ddarts::DType dtype = ddarts::dtype_of(x);
    if (batch_statistics || weight || bias) {
      const Tensor partial = scratch(mean, s, dtype);
      DDARTS_CUDA_CHECK(ddarts::norm_gradient_sums(dtype, grad.const_data_ptr(), x.const_data_ptr(), p, relu,
                                                   partial.mutable_data_ptr(), sums.mutable_data_ptr(),
                                                   weight ? dweight.mutable_data_ptr() : nullptr,
                                                   bias ? dbias.mutable_data_ptr() : nullptr, s, device.stream()));
    }
    DDARTS_CUDA_CHECK(ddarts::norm_input_gradient(dtype, grad.const_data_ptr(), x.const_data_ptr(), p, relu,
                                                  batch_statistics ? sums.const_data_ptr() : nullptr, dx.mutable_data_ptr(),
                                                  s, device.stream()));
  }
  if (weight) dweight = torch::stable::to(dweight, weight_in->scalar_type());
  if (bias) dbias = torch::stable::to(dbias, bias_in->scalar_type());
  return {dx, dweight, dbias};
}

}  // namespace

DDARTS_CUDA_KERNELS(m) {
  m.impl("grouped_batch_norm", TORCH_BOX(&grouped_batch_norm));
  m.impl("grouped_batch_norm_backward", TORCH_BOX(&grouped_batch_norm_backward));
}

// relu_pointwise_conv2d on CUDA: the kernels of relu_separable_conv2d without a depthwise filter. Weight f reads every
// stride-th pixel from pixel (f, f) on, and its outputs are channels of one image.
#include "../common/cuda_op.h"
#include "../common/relu_pointwise_conv2d_check.h"
#include "relu_separable_conv2d.h"

#include <algorithm>
#include <vector>

namespace {

using ddarts::SeparableProblem;
using torch::stable::Tensor;
namespace layout = ddarts::layout;

bool aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

struct Call {
  bool last;
  Tensor x;
  std::vector<Tensor> weights;
  SeparableProblem problem{};

  Call(const Tensor& image, const std::vector<Tensor>& given, int64_t stride, bool tf32) : last(layout::channels_last(image)), x(layout::as(image, last)) {
    SeparableProblem& p = problem;
    for (const Tensor& weight : given) {
      weights.push_back(torch::stable::contiguous(weight));
      p.image_c += weight.size(0);
    }
    p.n = x.size(0), p.c = x.size(1), p.h = x.size(2), p.w = x.size(3), p.stride = static_cast<int>(stride);
    p.out_h = (p.h + stride - 1) / stride, p.out_w = (p.w + stride - 1) / stride;
    p.batch = std::max<int64_t>(1, p.n), p.inputs = 1, p.channels_last = last, p.packets = whole(p.c) && aligned(x.const_data_ptr());
    p.source_count = 1, p.tf32 = tf32;
  }
  bool whole(int64_t channels) const { return last && channels % (ddarts::dtype_of(x) == ddarts::DType::float64 ? 2 : 4) == 0; }

  // launch(problem with weights of one number of channels, the first of them) until all had their turn. image: the outputs or
  // their gradient.
  template <typename Launch>
  void in_launches(const Tensor& image, const Launch& launch) const {
    SeparableProblem p = problem;
    int64_t channel = 0;
    for (size_t first = 0; first < weights.size();) {
      p.out_c = weights[first].size(0), p.count = 0;
      p.out_packets = whole(p.image_c) && whole(p.out_c) && whole(channel) && aligned(image.const_data_ptr());
      size_t f = first;
      for (; f < weights.size() && weights[f].size(0) == p.out_c; ++f, channel += p.out_c) {
        ddarts::SeparableFilter& filter = p.filters[p.count++];
        filter = {};
        filter.pointwise = weights[f].const_data_ptr(), filter.pointwise_dtype = ddarts::dtype_of(weights[f]);
        filter.data = static_cast<char*>(const_cast<void*>(image.const_data_ptr())) +
                      channel * (last ? 1 : p.out_h * p.out_w) * static_cast<int64_t>(x.element_size());
        filter.k = filter.dilation = 1, filter.offset = static_cast<int8_t>(f);
      }
      p.sources[0] = {x.const_data_ptr(), nullptr, nullptr, 0, p.count, 0, first > 0, f == weights.size()};
      launch(p, first);
      first = f;
    }
  }
};

Tensor relu_pointwise_conv2d(Tensor image, std::vector<Tensor> given, int64_t stride, bool tf32) {
  ddarts::check_relu_pointwise_conv2d(image, given, stride);
  const ddarts::DeviceStream device(image);
  const Call call(image, given, stride, tf32);
  const SeparableProblem& p = call.problem;
  Tensor out = layout::empty(call.x, {p.n, p.image_c, p.out_h, p.out_w}, call.x.scalar_type(), call.last);
  call.in_launches(out, [&](const SeparableProblem& q, size_t) {
    DDARTS_CUDA_CHECK(ddarts::separable_forward(ddarts::dtype_of(call.x), q, device.stream()));
  });
  return out;
}

std::vector<Tensor> relu_pointwise_conv2d_backward(Tensor grad, Tensor image, std::vector<Tensor> given, int64_t stride, bool input_grad,
                                                   bool weights_grad, bool tf32) {
  ddarts::check_relu_pointwise_conv2d_backward(grad, image, given, stride);
  const ddarts::DeviceStream device(image);
  Call call(image, given, stride, tf32);
  SeparableProblem& p = call.problem;
  const ddarts::DType dtype = ddarts::dtype_of(call.x);
  grad = layout::as(grad, call.last);
  std::vector<Tensor> found;
  Tensor carry = torch::stable::new_empty(call.x, {0}, ddarts::accumulate_dtype(call.x));
  if (input_grad) {
    found.push_back(layout::like(call.x, call.x.scalar_type(), call.last));
    const bool differ = call.weights.back().size(0) != call.weights[0].size(0);  // two launches, with a sum between them
    if (differ) carry = layout::like(call.x, ddarts::accumulate_dtype(call.x), call.last);
    p.packets = p.packets && aligned(found[0].const_data_ptr()) && aligned(carry.const_data_ptr());
  }
  for (size_t f = 0; weights_grad && f < call.weights.size(); ++f)
    found.push_back(torch::stable::new_empty(call.weights[f], call.weights[f].sizes()));
  ddarts::SeparableScratch scratch{};
  call.in_launches(grad, [&](SeparableProblem q, size_t first) {
    scratch.chunks = ddarts::separable_chunks(dtype, q, q.count), scratch.columns = q.count * q.out_c * q.c;
    const Tensor partial = torch::stable::new_empty(call.x, {weights_grad ? scratch.chunks : 0, scratch.columns}, ddarts::accumulate_dtype(call.x));
    if (weights_grad) scratch.partial = partial.mutable_data_ptr();
    for (int f = 0; weights_grad && f < q.count; ++f) {
      q.filters[f].d_pointwise = found[first + static_cast<size_t>(f) + (input_grad ? 1 : 0)].mutable_data_ptr();
      q.filters[f].column = f * q.out_c * q.c;
    }
    if (input_grad) q.sources[0].dx = found[0].mutable_data_ptr(), q.sources[0].carry = carry.mutable_data_ptr();
    DDARTS_CUDA_CHECK(ddarts::separable_backward(dtype, q, input_grad, scratch, device.stream()));
  });
  return found;
}

DDARTS_CUDA_KERNELS(m) {
  m.impl("relu_pointwise_conv2d", TORCH_BOX(&relu_pointwise_conv2d));
  m.impl("relu_pointwise_conv2d_backward", TORCH_BOX(&relu_pointwise_conv2d_backward));
}

}  // namespace

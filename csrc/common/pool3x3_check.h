// pool3x3: what its arguments must be, on every device.
#pragma once

#include "check.h"

namespace ddarts {
namespace {

inline void check_pool3x3(const Tensor& x, int64_t stride, bool maximum, bool average) {
  check::Op op("pool3x3");
  op.tensor("x", x, {check::kAny, check::kAny, check::kAny, check::kAny});
  op.require(x.size(2) >= 1 && x.size(3) >= 1, "x must have H and W of at least 1");
  op.stride(stride);
  op.require(maximum || average, "maximum or average must be true");
}

inline void check_pool3x3_backward(const std::optional<Tensor>& grad_maximum, const std::optional<Tensor>& grad_average,
                                   const Tensor& argmax, int64_t height, int64_t width, int64_t stride) {
  check::Op op("pool3x3_backward");
  op.require(grad_maximum.has_value() || grad_average.has_value(), "grad_maximum or grad_average must be given");
  op.stride(stride);
  op.require(height >= 1 && width >= 1, "height and width must be at least 1, got ", height, " and ", width);
  const Tensor& either = grad_maximum ? *grad_maximum : *grad_average;
  op.tensor("the gradient", either,
            {check::kAny, check::kAny, check::strided(height, stride), check::strided(width, stride)});
  const std::vector<int64_t> shape = check::Op::shape_of(either);
  op.tensor("grad_average", grad_average, shape, either.scalar_type());
  if (grad_maximum) op.tensor("argmax", argmax, shape, ScalarType::Byte);
}

inline void check_pool3x3_readers_backward(const std::vector<Tensor>& maxima, const std::vector<Tensor>& averages,
                                           const std::vector<Tensor>& others, const Tensor& argmax, int64_t height,
                                           int64_t width, int64_t stride) {
  check::Op op("pool3x3_readers_backward");
  op.require(!maxima.empty() || !averages.empty(), "maxima or averages must have a gradient");
  op.stride(stride);
  op.require(height >= 1 && width >= 1, "height and width must be at least 1, got ", height, " and ", width);
  const Tensor& first = maxima.empty() ? averages[0] : maxima[0];
  op.tensor("the gradient", first,
            {check::kAny, check::kAny, check::strided(height, stride), check::strided(width, stride)});
  const std::vector<int64_t> shape = check::Op::shape_of(first);
  op.tensors("maxima", maxima, shape, first.scalar_type());
  op.tensors("averages", averages, shape, first.scalar_type());
  op.tensors("others", others, std::vector<int64_t>{shape[0], shape[1], height, width}, first.scalar_type());
  if (!maxima.empty()) op.tensor("argmax", argmax, shape, ScalarType::Byte);
}

}  // namespace
}  // namespace ddarts

// What CPU kernels and the CUDA glue ask of tensors besides their layout: the dtype of sums, conversions, typed pointers.
#pragma once

#include "layout.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace ddarts {
namespace {  // per copy of a CPU kernel, on purpose

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Sums and statistics are float64 of float64, float32 of anything else.
inline ScalarType accumulate_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}
inline ScalarType accumulate_dtype(const std::vector<Tensor>& tensors) {
  const auto wide = [](const Tensor& x) { return x.scalar_type() == ScalarType::Double; };
  return std::any_of(tensors.begin(), tensors.end(), wide) ? ScalarType::Double : ScalarType::Float;
}

// The dtype of a sum of the tensors, as torch promotes them.
inline ScalarType promoted(const std::vector<Tensor>& tensors) {
  ScalarType out = tensors[0].scalar_type();
  for (const Tensor& x : tensors) {
    const ScalarType other = x.scalar_type();
    if (other == out || out == ScalarType::Double) continue;
    out = other == ScalarType::Double ? other : ScalarType::Float;  // float16 with bfloat16 is float32
  }
  return out;
}

// The values as a contiguous tensor of this dtype: x itself where it is one.
inline Tensor dense(const Tensor& x, ScalarType dtype) {
  if (x.scalar_type() != dtype) return torch::stable::contiguous(torch::stable::to(x, dtype));
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}
inline std::optional<Tensor> dense(const std::optional<Tensor>& x, ScalarType dtype) {
  if (!x.has_value()) return std::nullopt;
  return dense(*x, dtype);
}

template <typename T>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <typename T>
T* mutable_data(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

}  // namespace
}  // namespace ddarts

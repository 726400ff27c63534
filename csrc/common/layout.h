// The two layouts the kernels read: contiguous, and channels-last. Anything else is copied to contiguous first.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cstdint>

namespace ddarts::layout {
namespace {  // per copy of a CPU kernel, on purpose

// Whether strides are those of channels-last, axes of size 1 aside, as torch's is_contiguous(channels_last) has it.
inline bool dense_channels_last(const torch::stable::Tensor& x) {
  if (x.dim() != 4) return false;
  int64_t expected = 1;
  for (const int axis : {1, 3, 2, 0}) {
    if (x.size(axis) != 1 && x.stride(axis) != expected) return false;
    expected *= x.size(axis);
  }
  return true;
}

// The same answer as memory_format_of in ddarts_ext/ops/_checks.py: both at once counts as contiguous.
inline bool channels_last(const torch::stable::Tensor& x) { return !x.is_contiguous() && dense_channels_last(x); }

inline torch::headeronly::MemoryFormat format(bool last) {
  return last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous;
}

// x itself if it has the layout, else a copy that does.
inline torch::stable::Tensor as(const torch::stable::Tensor& x, bool last) {
  if (last ? dense_channels_last(x) : x.is_contiguous()) return x;
  return torch::stable::contiguous(x, format(last));
}

// [N,C,H,W] in the layout, on the device of `like`.
inline torch::stable::Tensor empty(const torch::stable::Tensor& like, const std::array<int64_t, 4>& size,
                                   torch::headeronly::ScalarType type, bool last) {
  return torch::stable::empty(size, type, std::nullopt, like.device(), std::nullopt, format(last));
}

}  // namespace
}  // namespace ddarts::layout

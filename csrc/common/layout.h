// The two layouts the kernels read: contiguous, and channels-last. Anything else is copied to contiguous first.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
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

// Values from a pixel to the next of a channels-last image, or of one that is some of the channels of such an image; else 0.
inline int64_t pitch_of(const torch::stable::Tensor& x) {
  int64_t pitch = x.size(1);
  for (const int axis : {3, 2, 0})
    if (x.size(axis) > 1) {
      pitch = x.stride(axis) / (axis == 3 ? 1 : axis == 2 ? x.size(3) : x.size(2) * x.size(3));
      break;
    }
  const bool dense = x.size(1) == 1 || x.stride(1) == 1;
  const bool rows = x.size(3) == 1 || x.stride(3) == pitch, columns = x.size(2) == 1 || x.stride(2) == pitch * x.size(3);
  const bool samples = x.size(0) == 1 || x.stride(0) == pitch * x.size(3) * x.size(2);
  return dense && rows && columns && samples && pitch >= x.size(1) && pitch < (int64_t{1} << 31) ? pitch : 0;
}

// As kernels that know of pitches read it: x itself where it has the layout, or in channels-last some of an image's channels.
inline torch::stable::Tensor in_pieces(const torch::stable::Tensor& x, bool last) {
  return last && x.numel() > 0 && pitch_of(x) > 0 ? x : as(x, last);
}

// Of these sizes and strides, on the device of `like`. Not torch::stable::empty, which looks the op up by its name each time.
inline torch::stable::Tensor empty_strided(const torch::stable::Tensor& like, const int64_t* size, const int64_t* strides,
                                           int64_t rank, torch::headeronly::ScalarType type) {
  int32_t device = 0, index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &index));
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(rank, size, strides, static_cast<int32_t>(type), device, index, &made));
  return torch::stable::Tensor(made);
}

// [N,C,H,W] in the layout.
inline torch::stable::Tensor empty(const torch::stable::Tensor& like, const std::array<int64_t, 4>& size,
                                   torch::headeronly::ScalarType type, bool last) {
  std::array<int64_t, 4> strides;
  int64_t stride = 1;
  for (const size_t axis : last ? std::array<size_t, 4>{1, 3, 2, 0} : std::array<size_t, 4>{3, 2, 1, 0}) {
    strides[axis] = stride;
    stride *= std::max<int64_t>(size[axis], 1);
  }
  return empty_strided(like, size.data(), strides.data(), 4, type);
}

// Contiguous, of any rank: statistics, sums, and what stands for a result that was not asked for.
template <size_t rank>
torch::stable::Tensor table(const torch::stable::Tensor& like, const int64_t (&size)[rank], torch::headeronly::ScalarType type) {
  int64_t strides[rank], stride = 1;
  for (size_t axis = rank; axis-- > 0; stride *= std::max<int64_t>(size[axis], 1)) strides[axis] = stride;
  return empty_strided(like, size, strides, rank, type);
}

// An image of the size of x.
inline torch::stable::Tensor like(const torch::stable::Tensor& x, torch::headeronly::ScalarType type, bool last) {
  return empty(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, type, last);
}

// [N,C,H,W] with the batch and layout of x.
inline torch::stable::Tensor in_layout_of(const torch::stable::Tensor& x, int64_t c, int64_t h, int64_t w,
                                          torch::headeronly::ScalarType type) {
  return empty(x, {x.size(0), c, h, w}, type, channels_last(x));
}

// In the layout of x, which is one of the two.
inline torch::stable::Tensor zeros_like(const torch::stable::Tensor& x) {
  torch::stable::Tensor zeros = like(x, x.scalar_type(), channels_last(x));
  return torch::stable::zero_(zeros);
}

}  // namespace
}  // namespace ddarts::layout

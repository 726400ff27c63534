// spawn_group on the CPU: the groups so far and `copies` channel-copies of source[:, :, ::stride, ::stride] (or zeros)
// written side by side, each output byte once; and its backward, the copies summed at the positions that were read.
#include "../common/simd.h"
#include "../common/spawn_group_check.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

namespace ddarts {
namespace {

constexpr int64_t kGrainBytes = 65536;

// Where the values of a [batch, channels, height, width] source and of its subsampled copies lie.
struct Geometry {
  int64_t batch, channels, height, width, copies, stride;
  int64_t out_height() const { return (height + stride - 1) / stride; }
  int64_t out_width() const { return (width + stride - 1) / stride; }
};

int64_t rows_per_task(int64_t row_bytes) { return std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, row_bytes)); }

// One task is a plane of the source (contiguous) or a row of output pixels (channels-last).
template <typename T>
void copy_contiguous(const T* source, T* out, const Geometry& g) {
  const int64_t oh = g.out_height(), ow = g.out_width(), plane = oh * ow;
  torch::stable::parallel_for(0, g.batch * g.channels, rows_per_task(plane * g.copies * sizeof(T)), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t n = i / g.channels, c = i % g.channels;
      T* first = out + (n * g.channels * g.copies + c) * plane;
      const T* from = source + i * g.height * g.width;
      if (g.stride == 1) {
        std::memcpy(first, from, plane * sizeof(T));
      } else {
        for (int64_t y = 0; y < oh; ++y)
          for (int64_t x = 0; x < ow; ++x) first[y * ow + x] = from[y * g.stride * g.width + x * g.stride];
      }
      for (int64_t k = 1; k < g.copies; ++k) std::memcpy(first + k * g.channels * plane, first, plane * sizeof(T));
    }
  });
}

void copy_channels_last(const char* source, char* out, const Geometry& g, int64_t element) {
  const int64_t oh = g.out_height(), ow = g.out_width(), pixel = g.channels * element;
  torch::stable::parallel_for(0, g.batch * oh, rows_per_task(ow * g.copies * pixel), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t n = i / oh, y = i % oh;
      const char* from = source + (n * g.height + y * g.stride) * g.width * pixel;
      char* to = out + i * ow * g.copies * pixel;
      for (int64_t x = 0; x < ow; ++x, from += g.stride * pixel)
        for (int64_t k = 0; k < g.copies; ++k, to += pixel) std::memcpy(to, from, pixel);
    }
  });
}

void copy_bytes(const char* from, char* to, int64_t bytes) {
  torch::stable::parallel_for(0, bytes, kGrainBytes, [&](int64_t b, int64_t e) {
    if (from == nullptr) std::memset(to + b, 0, e - b);
    else std::memcpy(to + b, from + b, e - b);
  });
}

int64_t element_bytes(const Tensor& x) {
  const ScalarType type = x.scalar_type();
  return type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
}

Tensor spawn_group(std::optional<Tensor> groups, Tensor source, int64_t copies, int64_t stride, bool zero) {
  check_spawn_group(groups, source, copies, stride);
  const bool channels_last = layout::channels_last(source);
  const Geometry g{source.size(0), source.size(1), source.size(2), source.size(3), copies, stride};
  const int64_t before = groups.has_value() ? groups->size(0) : 0, element = element_bytes(source);
  const int64_t sample = g.channels * copies * g.out_height() * g.out_width() * element;
  Tensor out = layout::empty(source, {before + g.batch, g.channels * copies, g.out_height(), g.out_width()}, source.scalar_type(), channels_last);
  if (out.numel() == 0) return out;  // no memory stands behind it, and the copies want some
  char* target = static_cast<char*>(out.mutable_data_ptr());
  if (before > 0) {
    const Tensor given = layout::as(*groups, channels_last);
    copy_bytes(static_cast<const char*>(given.const_data_ptr()), target, before * sample);
  }
  target += before * sample;
  if (zero) {
    copy_bytes(nullptr, target, g.batch * sample);
    return out;
  }
  const Tensor x = layout::as(source, channels_last);
  const void* from = x.const_data_ptr();
  if (channels_last) copy_channels_last(static_cast<const char*>(from), target, g, element);
  else if (element == 8) copy_contiguous(static_cast<const int64_t*>(from), reinterpret_cast<int64_t*>(target), g);
  else if (element == 4) copy_contiguous(static_cast<const int32_t*>(from), reinterpret_cast<int32_t*>(target), g);
  else copy_contiguous(static_cast<const int16_t*>(from), reinterpret_cast<int16_t*>(target), g);
  return out;
}

// to[i] = sum over k of from[i + k * step], in the order of k, accumulated wide. wide, row: scratch of n values; not used where
// values are summed in their own type.
template <typename T, typename A>
inline void sum_copies(const T* from, int64_t step, int64_t copies, int64_t n, T* to, A* wide, A* row) {
  if constexpr (std::is_same_v<T, A>) {
    if (copies == 1) {
      std::memcpy(to, from, n * sizeof(T));
      return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = from[i] + from[step + i];
    for (int64_t k = 2; k < copies; ++k) {
      const T* other = from + k * step;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) to[i] += other[i];
    }
    return;
  }
  load_row(from, wide, n);
  for (int64_t k = 1; k < copies; ++k) {
    load_row(from + k * step, row, n);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) wide[i] += row[i];
  }
  store_row(wide, to, n);
}

template <typename T>
void backward_contiguous(const T* grad, T* out, const Geometry& g) {
  using A = accumulate_t<T>;
  const int64_t oh = g.out_height(), ow = g.out_width(), plane = oh * ow, size = g.height * g.width;
  torch::stable::parallel_for(0, g.batch * g.channels, rows_per_task(size * sizeof(T)), [&](int64_t b, int64_t e) {
    const int64_t between = std::is_same_v<T, A> ? 0 : plane;
    std::vector<A> wide(between), row(between);
    std::vector<T> narrow(g.stride == 1 ? 0 : plane);
    for (int64_t i = b; i < e; ++i) {
      const int64_t n = i / g.channels, c = i % g.channels;
      const T* from = grad + (n * g.channels * g.copies + c) * plane;
      T* to = out + i * size;
      sum_copies(from, g.channels * plane, g.copies, plane, g.stride == 1 ? to : narrow.data(), wide.data(), row.data());
      if (g.stride == 1) continue;
      std::memset(static_cast<void*>(to), 0, size * sizeof(T));
      for (int64_t y = 0; y < oh; ++y)
        for (int64_t x = 0; x < ow; ++x) to[y * g.stride * g.width + x * g.stride] = narrow[y * ow + x];
    }
  });
}

template <typename T>
void backward_channels_last(const T* grad, T* out, const Geometry& g) {
  using A = accumulate_t<T>;
  const int64_t ow = g.out_width(), oh = g.out_height(), row_size = g.width * g.channels;
  torch::stable::parallel_for(0, g.batch * g.height, rows_per_task(row_size * sizeof(T)), [&](int64_t b, int64_t e) {
    const int64_t between = std::is_same_v<T, A> ? 0 : g.channels;
    std::vector<A> wide(between), row(between);
    for (int64_t i = b; i < e; ++i) {
      const int64_t n = i / g.height, y = i % g.height;
      T* to = out + i * row_size;
      if (g.stride > 1) std::memset(static_cast<void*>(to), 0, row_size * sizeof(T));
      if (y % g.stride != 0) continue;
      const T* from = grad + (n * oh + y / g.stride) * ow * g.copies * g.channels;
      for (int64_t x = 0; x < ow; ++x, from += g.copies * g.channels) {
        sum_copies(from, g.channels, g.copies, g.channels, to + x * g.stride * g.channels, wide.data(), row.data());
      }
    }
  });
}

Tensor spawn_group_backward(Tensor grad, int64_t height, int64_t width, int64_t copies, int64_t stride) {
  check_spawn_group_backward(grad, height, width, copies, stride);
  const bool channels_last = layout::channels_last(grad);
  const Geometry g{grad.size(0), grad.size(1) / copies, height, width, copies, stride};
  const Tensor x = layout::as(grad, channels_last);
  Tensor out = layout::empty(grad, {g.batch, g.channels, height, width}, grad.scalar_type(), channels_last);
  if (out.numel() == 0) return out;
  with_dtype(x.scalar_type(), [&](auto tag) {
    using scalar_t = decltype(tag);
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    if (channels_last) backward_channels_last(from, to, g);
    else backward_contiguous(from, to, g);
  });
  return out;
}

}  // namespace
}  // namespace ddarts

DDARTS_CPU_KERNELS(m) {
  m.impl("spawn_group", TORCH_BOX(&ddarts::spawn_group));
  m.impl("spawn_group_backward", TORCH_BOX(&ddarts::spawn_group_backward));
}

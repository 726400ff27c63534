// pool3x3: 3x3 max and average pooling, padding 1, forward and backward.
//
// rows and parts, the divisors: rows of a plane that the kernel walks, and N-th parts of a pixel (1 in `rows` kernels).
// Memory: planes x height x width x values (pool3x3.h), so that one layout rule serves contiguous and channels-last.
// A thread makes N consecutive outputs, 16 bytes: in the `pixels` kernels N values of one pixel (channels-last, N divides
// C; or N = 1, which serves any shape of either layout), in the `rows` kernels N pixels of one row (contiguous, where the
// width allows aligned loads). Grid: x strides over rows of all planes, y over the items of a row; a block is
// 2^k items x 256/2^k rows, so that short rows still fill it.
// DRAM traffic: forward reads x once (the overlap of the windows hits L1) and writes each output and one byte of argmax;
// backward reads each gradient and argmax once and writes dx. An output that many ops read has many gradients, which are
// summed where they are read, in their order; so are those of x itself. Memory-bound; no shared memory, no atomics: the backward
// gathers from the up to 9 windows of a pixel in row order, so both are deterministic. 256 threads:
// small enough that a last, partly filled wave of blocks costs little, large enough to fill a multiprocessor with 4 to 8.
#pragma once

#include "../common/cuda_compat.cuh"
#include "../common/divisor.cuh"
#include "pool3x3.h"

#include <cstdint>
#include <limits>

namespace ddarts {
namespace {

constexpr int kPoolThreads = 256;

template <typename A>
constexpr A lowest = -std::numeric_limits<A>::infinity();

// 1 / n for the 1 to 3 rows or columns of a window inside the image.
template <typename A>
__device__ __forceinline__ A reciprocal(int n) {
  return n == 3 ? A(1) / A(3) : n == 2 ? A(0.5) : A(1);
}
// Rows (columns) of window o that lie in the image.
__device__ __forceinline__ int inside(int64_t o, int stride, int64_t size) {
  const int64_t first = o * stride - 1;
  return 3 - (first < 0) - (first + 2 >= size);
}

// torch's rule: a later candidate wins when greater or NaN.
template <typename A>
__device__ __forceinline__ void extend(A& best, int& code, A v, int candidate) {
  if (v > best || v != v) best = v, code = candidate;
}

template <typename T, int N>
__device__ __forceinline__ Packed<T, N> load(const T* from) {
  return *reinterpret_cast<const Packed<T, N>*>(from);
}
template <typename T, int N, typename A>
__device__ __forceinline__ void store(T* to, const A (&from)[N]) {
  Packed<T, N> packed;
#pragma unroll
  for (int j = 0; j < N; ++j) packed.v[j] = narrow<T>(from[j]);
  *reinterpret_cast<Packed<T, N>*>(to) = packed;
}
template <int N>
__device__ __forceinline__ void store_codes(uint8_t* to, const int (&from)[N]) {
  Packed<uint8_t, N> packed;
#pragma unroll
  for (int j = 0; j < N; ++j) packed.v[j] = static_cast<uint8_t>(from[j]);
  *reinterpret_cast<Packed<uint8_t, N>*>(to) = packed;
}

// Calls body(plane, row, item) for this thread's share of planes x rows x items.
template <typename Body>
__device__ __forceinline__ void over_items(int64_t planes, const Divisor& rows, int64_t items, const Body& body) {
  const int64_t row_step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  const int64_t item_step = static_cast<int64_t>(gridDim.y) * blockDim.x;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; r < planes * rows.by; r += row_step) {
    const int64_t plane = rows.divide(r);
    for (int64_t i = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; i < items; i += item_step)
      body(plane, r - plane * rows.by, i);
  }
}

template <typename T, int N, bool kMax, bool kAvg>
__global__ void __launch_bounds__(kPoolThreads, 2)
    pool3x3_pixels(const T* __restrict__ x, T* maximum, T* average, uint8_t* argmax, PoolShape s, Divisor rows, Divisor parts) {
  using A = accumulate_t<T>;
  over_items(s.planes, rows, s.out_width * parts.by, [&](int64_t plane, int64_t oh, int64_t item) {
    const int64_t ow = parts.divide(item), c = (item - ow * parts.by) * N;
    const int64_t top = oh * s.stride - 1, left = ow * s.stride - 1;
    A best[N], sum[N];
    int code[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      best[j] = lowest<A>, sum[j] = A(0);
      code[j] = (top < 0 ? 3 : 0) + (left < 0 ? 1 : 0);  // over nothing but -inf the first pixel is the argmax
    }
#pragma unroll
    for (int row = 0; row < 3; ++row) {
      if (top + row < 0 || top + row >= s.height) continue;
      const T* from = x + ((plane * s.height + top + row) * s.width + left) * s.values + c;
#pragma unroll
      for (int column = 0; column < 3; ++column) {
        if (left + column < 0 || left + column >= s.width) continue;
        const Packed<T, N> in = load<T, N>(from + column * s.values);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const A v = widen(in.v[j]);
          if constexpr (kMax) extend(best[j], code[j], v, 3 * row + column);
          if constexpr (kAvg) sum[j] += v;
        }
      }
    }
    const int64_t at = ((plane * s.out_height + oh) * s.out_width + ow) * s.values + c;
    if constexpr (kMax) store<T, N>(maximum + at, best), store_codes<N>(argmax + at, code);
    if constexpr (kAvg) {
      const A scale = reciprocal<A>(inside(oh, s.stride, s.height)) * reciprocal<A>(inside(ow, s.stride, s.width));
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] *= scale;
      store<T, N>(average + at, sum);
    }
  });
}

template <typename T, int N, int kStride, bool kMax, bool kAvg>
__global__ void __launch_bounds__(kPoolThreads, 2)
    pool3x3_rows(const T* __restrict__ x, T* maximum, T* average, uint8_t* argmax, PoolShape s, Divisor rows, Divisor parts) {
  using A = accumulate_t<T>;
  constexpr int kColumns = kStride * (N - 1) + 3;
  over_items(s.planes, rows, s.out_width / N, [&](int64_t plane, int64_t oh, int64_t item) {
    const int64_t ow = item * N, top = oh * kStride - 1, left = ow * kStride - 1;
    A best[N], sum[N];
    int code[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      best[j] = lowest<A>, sum[j] = A(0);
      code[j] = (top < 0 ? 3 : 0) + (left < 0 && j == 0 ? 1 : 0);
    }
#pragma unroll
    for (int row = 0; row < 3; ++row) {
      if (top + row < 0 || top + row >= s.height) continue;
      const T* from = x + (plane * s.height + top + row) * s.width + left;
      const bool has_left = left >= 0, has_right = left + kColumns <= s.width;
      A in[kColumns];
      in[0] = has_left ? static_cast<A>(widen(from[0])) : A(0);
#pragma unroll
      for (int part = 0; part < kStride; ++part) {
        const Packed<T, N> packed = load<T, N>(from + 1 + part * N);
#pragma unroll
        for (int j = 0; j < N; ++j) in[1 + part * N + j] = widen(packed.v[j]);
      }
      if constexpr (kStride == 1) in[kColumns - 1] = has_right ? static_cast<A>(widen(from[kColumns - 1])) : A(0);
#pragma unroll
      for (int j = 0; j < N; ++j) {
#pragma unroll
        for (int column = 0; column < 3; ++column) {
          const int at = j * kStride + column;
          const bool there = (at > 0 || has_left) && (kStride == 2 || at < kColumns - 1 || has_right);
          if constexpr (kMax) {
            if (there) extend(best[j], code[j], in[at], 3 * row + column);
          }
          if constexpr (kAvg) sum[j] += in[at];
        }
      }
    }
    const int64_t at = (plane * s.out_height + oh) * s.out_width + ow;
    if constexpr (kMax) store<T, N>(maximum + at, best), store_codes<N>(argmax + at, code);
    if constexpr (kAvg) {
      const A by_rows = reciprocal<A>(inside(oh, kStride, s.height));
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] *= by_rows * reciprocal<A>(inside(ow + j, kStride, s.width));
      store<T, N>(average + at, sum);
    }
  });
}

// to[j] += the values at `from` of all gradients of one output.
template <typename T, int N, typename A>
__device__ __forceinline__ void add_all(const void* const (&gradients)[kPoolReaders], int count, int64_t from, A (&to)[N]) {
  for (int r = 0; r < count; ++r) {
    const Packed<T, N> in = load<T, N>(static_cast<const T*>(gradients[r]) + from);
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] += widen(in.v[j]);
  }
}
// The same of what reads x itself, at a pixel of which c is the first value.
template <typename T, int N, typename A>
__device__ __forceinline__ void add_others(const PoolGradients& g, int64_t pixel, int64_t c, A (&to)[N]) {
  for (int r = 0; r < g.others; ++r) {
    const Packed<T, N> in = load<T, N>(static_cast<const T*>(g.other[r]) + pixel * g.pitch[r] + c);
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] += widen(in.v[j]);
  }
}

template <typename T, int N, bool kMax, bool kAvg>
__global__ void __launch_bounds__(kPoolThreads, 2)
    pool3x3_backward_pixels(PoolGradients g, const uint8_t* __restrict__ argmax, T* dx, PoolShape s, Divisor rows,
                            Divisor parts) {
  using A = accumulate_t<T>;
  over_items(s.planes, rows, s.width * parts.by, [&](int64_t plane, int64_t h, int64_t item) {
    const int64_t w = parts.divide(item), c = (item - w * parts.by) * N;
    A sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = A(0);
#pragma unroll
    for (int row = 0; row < 3; ++row) {  // this pixel lies in row `row` and column `column` of the window
      const int64_t oh = (h + 1 - row) >> (s.stride - 1);
      if (h + 1 < row || oh * s.stride != h + 1 - row || oh >= s.out_height) continue;
      const A by_rows = reciprocal<A>(inside(oh, s.stride, s.height));
#pragma unroll
      for (int column = 0; column < 3; ++column) {
        const int64_t ow = (w + 1 - column) >> (s.stride - 1);
        if (w + 1 < column || ow * s.stride != w + 1 - column || ow >= s.out_width) continue;
        const int64_t at = ((plane * s.out_height + oh) * s.out_width + ow) * s.values + c;
        if constexpr (kMax) {
          const Packed<uint8_t, N> code = load<uint8_t, N>(argmax + at);
          A grad[N] = {};
          add_all<T, N>(g.maximum, g.maxima, at, grad);
#pragma unroll
          for (int j = 0; j < N; ++j) sum[j] += code.v[j] == 3 * row + column ? grad[j] : A(0);
        }
        if constexpr (kAvg) {
          const A scale = by_rows * reciprocal<A>(inside(ow, s.stride, s.width));
          A grad[N] = {};
          add_all<T, N>(g.average, g.averages, at, grad);
#pragma unroll
          for (int j = 0; j < N; ++j) sum[j] += grad[j] * scale;
        }
      }
    }
    const int64_t pixel = (plane * s.height + h) * s.width + w;
    add_others<T, N>(g, pixel, c, sum);
    store<T, N>(dx + pixel * s.values + c, sum);
  });
}

// kLeft columns, an aligned load of kMiddle, one more column; `outside` stands for those beyond the row's ends.
template <int kLeft, int kMiddle, typename T, typename V>
__device__ __forceinline__ void load_columns(const T* from, bool has_left, bool has_right, V outside,
                                             V (&to)[kLeft + kMiddle + 1]) {
  if constexpr (kLeft == 1) to[0] = has_left ? static_cast<V>(widen(from[0])) : outside;
  const Packed<T, kMiddle> middle = load<T, kMiddle>(from + kLeft);
#pragma unroll
  for (int j = 0; j < kMiddle; ++j) to[kLeft + j] = widen(middle.v[j]);
  to[kLeft + kMiddle] = has_right ? static_cast<V>(widen(from[kLeft + kMiddle])) : outside;
}

// The same of the sum of all gradients of one output.
template <int kLeft, int kMiddle, typename T, typename A>
__device__ __forceinline__ void add_columns(const void* const (&gradients)[kPoolReaders], int count, int64_t from,
                                            bool has_left, bool has_right, A (&to)[kLeft + kMiddle + 1]) {
#pragma unroll
  for (int j = 0; j < kLeft + kMiddle + 1; ++j) to[j] = A(0);
  for (int r = 0; r < count; ++r) {
    A in[kLeft + kMiddle + 1];
    load_columns<kLeft, kMiddle>(static_cast<const T*>(gradients[r]) + from, has_left, has_right, A(0), in);
#pragma unroll
    for (int j = 0; j < kLeft + kMiddle + 1; ++j) to[j] += in[j];
  }
}

template <typename T, int N, int kStride, bool kMax, bool kAvg>
__global__ void __launch_bounds__(kPoolThreads, 2)
    pool3x3_backward_rows(PoolGradients g, const uint8_t* __restrict__ argmax, T* dx, PoolShape s, Divisor rows,
                          Divisor parts) {
  using A = accumulate_t<T>;
  constexpr int kLeft = kStride == 1 ? 1 : 0, kMiddle = N / kStride, kColumns = kLeft + kMiddle + 1;
  over_items(s.planes, rows, s.width / N, [&](int64_t plane, int64_t h, int64_t item) {
    const int64_t w = item * N, first = w / kStride - kLeft;  // first: output column of grad[0] below
    const bool has_left = first >= 0, has_right = first + kColumns <= s.out_width;
    A sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = A(0);
#pragma unroll
    for (int row = 0; row < 3; ++row) {
      const int64_t oh = (h + 1 - row) / kStride;
      if (h + 1 < row || oh * kStride != h + 1 - row || oh >= s.out_height) continue;
      const int64_t at = (plane * s.out_height + oh) * s.out_width + first;
      A most[kColumns], share[kColumns];
      int code[kColumns];
      if constexpr (kMax) {
        add_columns<kLeft, kMiddle, T>(g.maximum, g.maxima, at, has_left, has_right, most);
        load_columns<kLeft, kMiddle>(argmax + at, has_left, has_right, 255, code);
      }
      if constexpr (kAvg) {
        add_columns<kLeft, kMiddle, T>(g.average, g.averages, at, has_left, has_right, share);
        const A by_rows = reciprocal<A>(inside(oh, kStride, s.height));
#pragma unroll
        for (int j = 0; j < kColumns; ++j) share[j] *= by_rows * reciprocal<A>(inside(first + j, kStride, s.width));
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
#pragma unroll
        for (int column = 0; column < 3; ++column) {
          if ((j + 1 - column) % kStride != 0) continue;
          const int o = (j + 1 - column) / kStride + kLeft;
          if constexpr (kMax) sum[j] += code[o] == 3 * row + column ? most[o] : A(0);
          if constexpr (kAvg) sum[j] += share[o];
        }
      }
    }
    const int64_t pixel = (plane * s.height + h) * s.width + w;
    add_others<T, N>(g, pixel, 0, sum);
    store<T, N>(dx + pixel, sum);
  });
}

}  // namespace
}  // namespace ddarts

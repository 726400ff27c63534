// channel_iim: for every map and sample, 3(C-1)/C * mean_p s_p^-4 (or (sum_p 1/(2 s_p^4))^-1), s_p^2 the unbiased
// variance over the C channels of pixel p.
//
// grid: x = sample, y = map; a block owns one sample of one map, so nothing is shared between blocks, the sum has one
// order and the result is deterministic. Every value is read once (16 bytes a thread where the addresses allow);
// bytes: the maps, plus the statistics, which stay in the caches; one number a sample is written.
// Variances are taken about the pixel's first channel: a constant pixel is exactly zero, and the cancellation in
// sum d^2 - (sum d)^2 / C is at most a factor C, as the first channel is itself one of the C values. Where a pixel's
// channels fit one packet a lane (channels-last, C up to 128 in float32), they stay in registers and the variance is
// the two-pass one. 256 threads a block: enough blocks for every multiprocessor already at a few maps.
#pragma once

#include "../common/cuda_compat.cuh"
#include "channel_iim.h"

namespace ddarts {
namespace iim {

constexpr int kThreads = 256;
constexpr unsigned kWarp = 0xffffffffu;

struct Arguments {
  IimMap maps[kIimMaps];
  IimShape shape;
};

template <typename A>
__device__ __forceinline__ A information(A sum_of_squares, int64_t channels) {
  const A variance = channels > 1 ? sum_of_squares / static_cast<A>(channels - 1) : A(0);
  return A(1) / (variance * variance);
}

// Sum over the block, in thread 0; every thread of the block must call it.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double parts[kThreads / 32];
  for (int d = 16; d > 0; d >>= 1) value += __shfl_down_sync(kWarp, value, d);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0)
    for (unsigned w = 1; w < blockDim.x / 32; ++w) value += parts[w];
  return value;
}

template <typename A>
__device__ __forceinline__ void finish(double total, const IimShape& shape, void* out) {
  total = block_sum(total);
  if (threadIdx.x != 0) return;
  const double channels = static_cast<double>(shape.channels);
  const double factor = shape.channels > 1 ? 3.0 * (channels - 1.0) / channels : 1.0;
  const double result = shape.paper ? 2.0 / total : factor * total / static_cast<double>(shape.pixels);
  static_cast<A*>(out)[blockIdx.x] = static_cast<A>(result);
}

// Rows of mean and rstd of this block's group; null where the map is measured raw.
template <typename A>
__device__ __forceinline__ const A* statistics(const void* rows, const IimShape& shape) {
  if (rows == nullptr) return nullptr;
  return static_cast<const A*>(rows) + static_cast<int64_t>(blockIdx.x) / shape.per_group * shape.group_stride;
}

// Contiguous: a thread walks the channels of V neighbouring pixels.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads) contiguous_kernel(Arguments arguments) {
  using A = accumulate_t<T>;
  const IimShape& shape = arguments.shape;
  const IimMap& map = arguments.maps[blockIdx.y];
  const int64_t packets = shape.pixels / V;
  const auto* x = static_cast<const Packed<T, V>*>(map.data) + blockIdx.x * shape.channels * packets;
  const A* mean = statistics<A>(map.mean, shape);
  const A* rstd = statistics<A>(map.rstd, shape);
  double total = 0;
  for (int64_t p = threadIdx.x; p < packets; p += blockDim.x) {
    A first[V], sum[V], square[V];
    const Packed<T, V> start = x[p];
    const A m0 = mean == nullptr ? A(0) : mean[0], r0 = rstd == nullptr ? A(1) : rstd[0];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      first[v] = (widen(start.v[v]) - m0) * r0;
      sum[v] = square[v] = A(0);
    }
#pragma unroll 4
    for (int64_t c = 1; c < shape.channels; ++c) {
      const Packed<T, V> value = x[c * packets + p];
      const A m = mean == nullptr ? A(0) : mean[c], r = rstd == nullptr ? A(1) : rstd[c];
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const A d = (widen(value.v[v]) - m) * r - first[v];
        sum[v] += d;
        square[v] += d * d;
      }
    }
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A centred = square[v] - sum[v] * sum[v] / static_cast<A>(shape.channels);
      total += static_cast<double>(information(centred > A(0) ? centred : A(0), shape.channels));
    }
  }
  finish<A>(total, shape, map.out);
}

// Channels-last: `lanes` neighbouring lanes (a power of two) share a pixel, V channels a lane at a time.
// Once: a lane has at most one packet of a pixel, so its statistics and values stay in registers.
template <typename T, int V, bool Once>
__global__ void __launch_bounds__(kThreads) channels_last_kernel(Arguments arguments, int lanes) {
  using A = accumulate_t<T>;
  const IimShape& shape = arguments.shape;
  const IimMap& map = arguments.maps[blockIdx.y];
  const int64_t packets = shape.channels / V, pitch = map.pitch / V;
  const auto* x = static_cast<const Packed<T, V>*>(map.data) + blockIdx.x * shape.pixels * pitch;
  const A* mean = statistics<A>(map.mean, shape);
  const A* rstd = statistics<A>(map.rstd, shape);
  const int lane = static_cast<int>(threadIdx.x) % lanes, at_once = static_cast<int>(blockDim.x) / lanes;
  const A inverse = A(1) / static_cast<A>(shape.channels);
  A m[V], r[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const bool given = Once && mean != nullptr && lane < packets;
    m[v] = given ? mean[lane * V + v] : A(0);
    r[v] = given ? rstd[lane * V + v] : A(1);
  }
  double total = 0;
  // The bound is the same for all lanes of a warp: all of them take part in every shuffle.
  for (int64_t base = 0; base < shape.pixels; base += at_once) {
    const int64_t pixel = base + static_cast<int>(threadIdx.x) / lanes;
    const bool inside = pixel < shape.pixels;
    A sum = A(0), square = A(0), first = A(0);
    if constexpr (Once) {
      const bool mine = inside && lane < packets;
      A values[V] = {};
      if (mine) {
        const Packed<T, V> value = x[pixel * pitch + lane];
#pragma unroll
        for (int v = 0; v < V; ++v) values[v] = (widen(value.v[v]) - m[v]) * r[v];
      }
      first = __shfl_sync(kWarp, values[0], 0, lanes);
#pragma unroll
      for (int v = 0; v < V; ++v) sum += values[v] = mine ? values[v] - first : A(0);
      for (int d = lanes / 2; d > 0; d >>= 1) sum += __shfl_xor_sync(kWarp, sum, d);
#pragma unroll
      for (int v = 0; v < V; ++v) square += mine ? (values[v] - sum * inverse) * (values[v] - sum * inverse) : A(0);
      for (int d = lanes / 2; d > 0; d >>= 1) square += __shfl_xor_sync(kWarp, square, d);
    } else {
      if (inside) {
        const A start = widen(x[pixel * pitch].v[0]);
        first = mean == nullptr ? start : (start - mean[0]) * rstd[0];
#pragma unroll 4
        for (int64_t packet = lane; packet < packets; packet += lanes) {
          const Packed<T, V> value = x[pixel * pitch + packet];
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const int64_t c = packet * V + v;
            const A d = (mean == nullptr ? widen(value.v[v]) : (widen(value.v[v]) - mean[c]) * rstd[c]) - first;
            sum += d;
            square += d * d;
          }
        }
      }
      for (int d = lanes / 2; d > 0; d >>= 1) {
        sum += __shfl_xor_sync(kWarp, sum, d);
        square += __shfl_xor_sync(kWarp, square, d);
      }
      square -= sum * sum * inverse;
      square = square > A(0) ? square : A(0);
    }
    if (inside && lane == 0) total += static_cast<double>(information(square, shape.channels));
  }
  finish<A>(total, shape, map.out);
}

}  // namespace iim
}  // namespace ddarts

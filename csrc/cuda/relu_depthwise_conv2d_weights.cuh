// relu_depthwise_conv2d, gradient of the weights: dw_f[c,y,x] = sum over samples and pixels of g_f[i,j] a[i s + y d, j s + x d].
//
// A block has a tile of the activation in shared memory and up to 4 filters, whose taps it all computes from it. A warp has
// one filter, and of the tile's strips (8 outputs in a row, of as many rows as the warp has rows of channels) every
// `parts`-th: larger filters get more warps. A lane owns a channel and all taps of the filter: it reads 8 gradients, each
// once, and of the tile 8 s + (k - 1) d values a row of taps, and multiplies them into k k registers: 3 products a read for
// 5x5, at full lanes. At the end of its tiles a block adds up its warps in order and writes partial[chunk][tap][channel]; a
// second kernel joins the chunks and writes the gradients, in the layout and dtype of the weights. No atomics:
// deterministic. Bytes: g once, x once for 4 filters with the halo of a tile out of the L2 cache.
#pragma once

#include "../common/joined_rows.cuh"
#include "relu_depthwise_conv2d_tile.cuh"

namespace ddarts {
namespace depthwise {

constexpr int kWarps = kThreads / 32, kPack = 4, kStrip = 8;

// Which filter of its pack a warp has, and which of the strips.
struct WeightShare {
  int8_t filter, part, parts;  // no parts: nothing to do
};
struct WeightPlan {
  WeightShare warps[kDepthwiseFilters / kPack][kWarps];
};

// acc[y K + x] += sum_t g[t] in[y D][t S + x D].
template <typename A, int K, int D, int S, int Most>
__device__ __forceinline__ void correlate_strip(A (&acc)[Most * Most], const A (&g)[kStrip], const A* in, int row) {
  constexpr int kWindow = (kStrip - 1) * S + (K - 1) * D + 1;
  if constexpr (K <= Most) {
#pragma unroll
    for (int y = 0; y < K; ++y) {
      A window[kWindow];
#pragma unroll
      for (int j = 0; j < kWindow; ++j) window[j] = in[y * D * row + j * kChannels<A>];
#pragma unroll
      for (int x = 0; x < K; ++x)
#pragma unroll
        for (int t = 0; t < kStrip; ++t) acc[y * K + x] += g[t] * window[t * S + x * D];
    }
  }
}

// Most: side of the largest filter. Grid: x = chunk of tiles of 8 x `columns` outputs, y = block of channels, z = pack.
template <typename T, int S, int Most>
__global__ void __launch_bounds__(kThreads, sizeof(accumulate_t<T>) == 8 || (S == 2 && Most > 5) ? 1 : 2)
    weight_gradient_kernel(DepthwiseProblem p, WeightPlan plan, int columns, accumulate_t<T>* partial, int64_t taps) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kTogether = 32 / kC;  // rows of a strip
  DDARTS_DYNAMIC_SHARED(A, tile);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % kC, level = threadIdx.x % 32 / kC;
  const WeightShare share = plan.warps[blockIdx.z][warp];
  const DepthwiseFilter& filter = p.filters[blockIdx.z * kPack + share.filter];
  const Tile shape = input_tile<A>(kTileRows, columns, S, p.pad);
  const unsigned across = (static_cast<unsigned>(p.out_w) + columns - 1) / columns, down = (static_cast<unsigned>(p.out_h) + kTileRows - 1) / kTileRows;
  const int64_t tiles = p.n * across * down;
  const int strips_across = columns / kStrip, strips = kTileRows / kTogether * strips_across;
  const int skip = p.pad - filter.dilation * (filter.k - 1) / 2, kind = filter.k * 2 + filter.dilation;
  A acc[Most * Most] = {};
  for (int64_t index = blockIdx.x * tiles / gridDim.x; index < (blockIdx.x + 1) * tiles / gridDim.x; ++index) {
    const Place at = place<A>(index, p.out_h, p.out_w, kTileRows, columns);
    const int64_t c = at.first + lane;
    __syncthreads();  // the tile may still be read
    fill_activation<T, A>(p, tile, shape, at.n, at.top * S - p.pad, at.left * S - p.pad, at.first);
    __syncthreads();
    if (share.parts == 0) continue;
    for (int strip = share.part; strip < strips; strip += share.parts) {
      const int i = strip / strips_across * kTogether + level, j = strip % strips_across * kStrip;
      const int64_t row = at.top + i;
      A g[kStrip] = {};
      if (row < p.out_h && c < p.c) {
        const T* from = static_cast<const T*>(filter.data) + at.n * filter.strides.n + c * filter.strides.c + row * filter.strides.h +
                        (at.left + j) * filter.strides.w;
        const int there = static_cast<int>(min(p.out_w - at.left - j, static_cast<int64_t>(kStrip)));
#pragma unroll
        for (int t = 0; t < kStrip; ++t)
          if (t < there) g[t] = widen(from[t * filter.strides.w]);
      }
      const A* in = tile + (i * S + skip) * shape.pitch + (j * S + skip) * kC + lane;
      switch (kind) {
        case 7: correlate_strip<A, 3, 1, S, Most>(acc, g, in, shape.pitch); break;
        case 8: correlate_strip<A, 3, 2, S, Most>(acc, g, in, shape.pitch); break;
        case 11: correlate_strip<A, 5, 1, S, Most>(acc, g, in, shape.pitch); break;
        case 12: correlate_strip<A, 5, 2, S, Most>(acc, g, in, shape.pitch); break;
        case 15: correlate_strip<A, 7, 1, S, Most>(acc, g, in, shape.pitch); break;
        default: correlate_strip<A, 7, 2, S, Most>(acc, g, in, shape.pitch); break;
      }
    }
  }
  // [warp][tap][channel] in the place of the tile, then added up over the warps of a filter.
  __syncthreads();
#pragma unroll
  for (int tap = 0; tap < Most * Most; ++tap) {
    A sum = acc[tap];
#pragma unroll
    for (int d = kC; d < 32; d *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (level == 0 && tap < filter.k * filter.k) tile[(warp * Most * Most + tap) * kC + lane] = sum;
  }
  __syncthreads();
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kC + lane;
  for (int f = 0; f < kPack && static_cast<int>(blockIdx.z) * kPack + f < p.count; ++f) {
    const DepthwiseFilter& one = p.filters[blockIdx.z * kPack + f];
    for (int tap = threadIdx.x / kC; tap < one.k * one.k; tap += kThreads / kC) {
      A total = A(0);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const WeightShare& other = plan.warps[blockIdx.z][w];
        if (other.parts > 0 && other.filter == f) total += tile[(w * Most * Most + tap) * kC + lane];
      }
      if (c < p.c) partial[(blockIdx.x * taps + one.first + tap) * p.c + c] = total;
    }
  }
}

// dweight_f[c][tap] = sum over chunks. Grid: 32 columns a block, of the taps x channels of these filters.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    weight_sum_kernel(DepthwiseProblem p, const A* partial, int64_t chunks, int64_t taps) {
  const DepthwiseFilter& end = p.filters[p.count - 1];
  const int64_t i = p.filters[0].first * p.c + static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const bool mine = i < (end.first + end.k * end.k) * p.c;
  double total[1];
  join_rows(mine ? chunks : 0, total, [&](int64_t chunk, double(&sum)[1]) { sum[0] += partial[chunk * taps * p.c + i]; });
  if (threadIdx.y != 0 || !mine) return;
  const int64_t row = i / p.c, c = i - row * p.c;
  int f = 0;
  while (f + 1 < p.count && p.filters[f + 1].first <= row) ++f;
  const DepthwiseFilter& filter = p.filters[f];
  const int64_t at = c * (filter.k * filter.k) + row - filter.first;
  switch (filter.dweight_dtype) {
    case DType::float64: static_cast<double*>(filter.dweight)[at] = total[0]; break;
    case DType::float32: static_cast<float*>(filter.dweight)[at] = static_cast<float>(total[0]); break;
    case DType::float16: static_cast<__half*>(filter.dweight)[at] = narrow<__half>(total[0]); break;
    case DType::bfloat16: static_cast<__nv_bfloat16*>(filter.dweight)[at] = narrow<__nv_bfloat16>(total[0]); break;
  }
}

}  // namespace depthwise
}  // namespace ddarts

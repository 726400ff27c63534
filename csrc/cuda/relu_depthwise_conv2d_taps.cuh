// Depthwise filters on tiles in shared memory (relu_depthwise_conv2d_tile.cuh): correlation of a row of pixels with all taps, and
// its transpose at stride 2. The taps of a filter pass through shared memory too, [tap][channel], as in global memory
// neighbouring channels are k k values apart.
#pragma once

#include "relu_depthwise_conv2d_tile.cuh"

namespace ddarts {
namespace depthwise {

constexpr int kMostTaps = 49;
template <typename A>
constexpr int kTapPitch = kChannels<A> + 1;  // taps are written along the taps

// taps[t][l] = the filter's tap t of channel first + l. weight[i]: value i of the filter [C,k,k].
template <typename A, typename Weight>
__device__ __forceinline__ void load_taps(A* taps, const Weight& weight, int area, int64_t first, int64_t channels) {
  const int total = static_cast<int>(min(static_cast<int64_t>(kChannels<A>), channels - first)) * area;
  for (int i = threadIdx.x; i < total; i += kThreads) taps[i % area * kTapPitch<A> + i / area] = weight[first * area + i];
}

// acc[t] += sum_{y,x} in[y D][(t S + x D)] w[y][x]; in, w: this thread's channel in shared memory, strides of rows in values.
struct Correlation {
  template <typename A, int K, int D, int S, bool Mirror, int P>
  static __device__ __forceinline__ void run(A (&acc)[P], const A* in, int pitch, const A* w, int) {
    constexpr int kWindow = (P - 1) * S + (K - 1) * D + 1;
#pragma unroll 1
    for (int y = 0; y < K; ++y) {
      A window[kWindow];
#pragma unroll
      for (int j = 0; j < kWindow; ++j) window[j] = in[y * D * pitch + j * kChannels<A>];
#pragma unroll
      for (int x = 0; x < K; ++x) {
        const A tap = w[(Mirror ? (K - 1 - y) * K + K - 1 - x : y * K + x) * kTapPitch<A>];
#pragma unroll
        for (int t = 0; t < P; ++t) acc[t] += tap * window[t * S + x * D];
      }
    }
  }
};
// The transposed convolution at stride 2: acc[t] += sum of w[y][x] in[(row + pad - y D) / 2][(t + pad - x D) / 2] over the
// taps for which both are whole. in: from row and column -(pad / 2) on; t = 0 is an even column, `row` from an even one on.
struct Spreading {
  template <typename A, int K, int D, int S, bool Mirror, int P>
  static __device__ __forceinline__ void run(A (&acc)[P], const A* in, int pitch, const A* w, int row) {
    constexpr int kPad = D * (K - 1) / 2, kBefore = kPad / 2, kWindow = (P - 1 + kPad) / 2 + kBefore + 1;
    if (D == 2 && row % 2 != 0) return;
#pragma unroll 1
    for (int y = D == 2 ? 0 : (row + kPad) % 2; y < K; y += 3 - D) {
      const A* from = in + ((row + kPad - y * D) / 2 + kBefore) * pitch;
      A window[kWindow];
#pragma unroll
      for (int j = 0; j < kWindow; ++j) window[j] = from[j * kChannels<A>];
#pragma unroll
      for (int x = 0; x < K; ++x) {
        const A tap = w[(y * K + x) * kTapPitch<A>];
#pragma unroll
        for (int t = 0; t < P; ++t)
          if ((t + kPad - x * D) % 2 == 0) acc[t] += tap * window[(t + kPad - x * D + 2 * kBefore) / 2];
      }
    }
  }
};

// By How, for the filter that has side `k` and this dilation. Most: side of the largest filter. A side of 1 takes the pixels as
// they are, where the one tap is 1.
template <typename How, typename A, int S, bool Mirror, int Most = 7, int P>
__device__ __forceinline__ void correlate(A (&acc)[P], const A* in, int pitch, int k, int dilation, const A* w, int row) {
  switch (k * 2 + dilation) {
    case 3: return How::template run<A, 1, 1, S, Mirror>(acc, in, pitch, w, row);
    case 7: return How::template run<A, 3, 1, S, Mirror>(acc, in, pitch, w, row);
    case 8: return How::template run<A, 3, 2, S, Mirror>(acc, in, pitch, w, row);
    case 11: return How::template run<A, 5, 1, S, Mirror>(acc, in, pitch, w, row);
    case 12: return How::template run<A, 5, 2, S, Mirror>(acc, in, pitch, w, row);
    default: break;
  }
  if constexpr (Most > 5) {
    if (dilation == 1) return How::template run<A, 7, 1, S, Mirror>(acc, in, pitch, w, row);
    How::template run<A, 7, 2, S, Mirror>(acc, in, pitch, w, row);
  }
}

// The tile of g that the input gradient's tile of 8 x `columns` pixels needs, from `before` rows and columns before it on.
template <typename A>
__host__ __device__ inline Tile gradient_tile(int columns, int stride, int pad, int& before) {
  if (stride == 1) {
    before = pad;
    return input_tile<A>(kTileRows, columns, 1, pad);
  }
  before = pad / 2;
  const int across = (columns - 1 + pad) / 2 + before + 1;
  return {(kTileRows - 1 + pad) / 2 + before + 1, across, across * kChannels<A> + (across % 2 == 0 ? kChannels<A> : 0)};
}

}  // namespace depthwise
}  // namespace ddarts

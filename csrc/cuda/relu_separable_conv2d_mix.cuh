// relu_separable_conv2d, backward: u^T g of a tile, which the gradients of the input and of the taps both begin with.
#pragma once

#include "../common/tensor_core.cuh"
#include "relu_separable_conv2d_tile.cuh"

namespace ddarts {
namespace separable {

template <typename A>
constexpr int kAcross = kChannels<A> / kPacket<A>;  // packets of a block's channels
template <typename A>
constexpr int kSlots = kThreads / kAcross<A>;
template <typename A>
constexpr int kOutputs = 16 * kPacket<A>;  // output channels at once
struct SeparablePlan {
  unsigned filter_blocks, chunks, output_blocks;  // chunks: of tiles of outputs
  int rows, across;                               // rows of such a tile; across: blocks of channels
  int64_t columns, tiles;                         // of outputs
};

// scale [3][kOutputs]: a, s and d of the output channels from o0 on, in the group of sample n, where the filter has a row of them.
// What is behind the last channel stays as it was: zeros, or finite.
template <typename A>
__device__ __forceinline__ void load_coefficients(const SeparableProblem& p, const SeparableFilter& f, unsigned n, int o0, int outputs, A* scale) {
  static_assert(3 * kOutputs<A> <= kThreads);
  const int i = threadIdx.x, which = i / kOutputs<A>, o = i % kOutputs<A>;
  if (which > 2 || o >= outputs || f.row < 0) return;
  const int64_t row = static_cast<int64_t>(n / static_cast<unsigned>(p.batch)) * p.coefficient_rows + f.row;
  scale[i] = static_cast<const A*>(p.coefficients)[which * p.coefficient_plane + row * p.out_c + o0 + o];
}

// The gradients of V outputs of a pixel, from its place in g on, `step` values apart; of the block's channels from o on.
template <typename T, int V, typename A>
__device__ __forceinline__ void output_gradients(const SeparableFilter& f, const T* g, int64_t step, bool packets, int o, int outputs,
                                                 const A* scale, A (&values)[V]) {
  load_channels(g, step, packets, o, outputs, values);
  if (f.row < 0) return;
  A y[V] = {};
  if (f.y != nullptr) {
    const auto bytes = reinterpret_cast<const char*>(g) - static_cast<const char*>(f.data);
    load_channels(reinterpret_cast<const T*>(static_cast<const char*>(f.y) + bytes), step, packets, o, outputs, y);
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    values[v] = scale[o + v] * values[v] + scale[kOutputs<A> + o + v] * y[v] + scale[2 * kOutputs<A> + o + v];
}

// tile[r][j][l] = sum_o g[n,o,top + r,left + j] u[o,first + l], zero outside of the image. All threads call it; mixing, scale and
// tile are free, and there when all threads have met once more. Exact products. Each: pixels of a thread at once.
template <typename T, int Each, typename A>
__device__ __forceinline__ void mix_back_exact(const SeparableProblem& p, const SeparableFilter& f, A* tile, const Tile& shape, A* mixing,
                                               A* scale, unsigned n, int top, int left, int first) {
  constexpr int V = kPacket<A>, kC = kChannels<A>;
  const int q = threadIdx.x % kAcross<A>, slot = threadIdx.x / kAcross<A>, total = shape.rows * shape.columns;
  const int out_h = static_cast<int>(p.out_h), out_w = static_cast<int>(p.out_w);
  const Strides s = strides_of(p.channels_last, p.image_c, p.out_h * p.out_w);
  const T* g = static_cast<const T*>(f.data) + static_cast<int64_t>(n) * s.n;
  const Weight<A> pointwise{f.pointwise, f.pointwise_dtype};
  for (int o0 = 0; o0 < p.out_c; o0 += kOutputs<A>) {
    const int outputs = min(static_cast<int>(p.out_c) - o0, kOutputs<A>);
    if (o0 > 0) __syncthreads();
    load_coefficients<A>(p, f, n, o0, outputs, scale);
    for (int i = threadIdx.x; i < (outputs + V - 1) / V * V * kC; i += kThreads) {
      const int o = i / kC, l = i % kC;
      mixing[i] = o < outputs && first + l < p.c ? pointwise[(o0 + o) * p.c + first + l] : A(0);
    }
    __syncthreads();
    for (int base = slot; base < total; base += Each * kSlots<A>) {
      A acc[Each][V];
      const T* from[Each];
      int to[Each];
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        const int pixel = base + e * kSlots<A>, r = pixel / shape.columns, j = pixel - r * shape.columns, y = top + r, x = left + j;
        to[e] = pixel < total ? r * shape.pitch + j * kC + q * V : -1;
        const bool inside = pixel < total && y >= 0 && y < out_h && x >= 0 && x < out_w;
        from[e] = inside ? g + o0 * s.c + (y * p.out_w + x) * s.pixel : nullptr;
        Packed<A, V> before{};
        if (o0 > 0 && inside) before = *reinterpret_cast<const Packed<A, V>*>(tile + to[e]);
#pragma unroll
        for (int v = 0; v < V; ++v) acc[e][v] = before.v[v];
      }
#pragma unroll 1
      for (int o = 0; o < outputs; o += V) {
        A values[Each][V];
#pragma unroll
        for (int e = 0; e < Each; ++e) {
#pragma unroll
          for (int v = 0; v < V; ++v) values[e][v] = A(0);
          if (from[e] != nullptr) output_gradients<T>(f, from[e] + o * s.c, s.c, p.out_packets, o, outputs, scale, values[e]);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const auto u = *reinterpret_cast<const Packed<A, V>*>(mixing + (o + v) * kC + q * V);
#pragma unroll
          for (int e = 0; e < Each; ++e)
#pragma unroll
            for (int w = 0; w < V; ++w) acc[e][w] += values[e][v] * u.v[w];
        }
      }
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        if (to[e] < 0) continue;
        Packed<A, V> packet;
#pragma unroll
        for (int v = 0; v < V; ++v) packet.v[v] = acc[e][v];
        *reinterpret_cast<Packed<A, V>*>(tile + to[e]) = packet;
      }
    }
  }
}

// The same on tensor cores: a warp owns 16 pixels (8 where Each is 1, and half of a product is empty) and all channels. With
// h = lane / 4 and t = lane % 4 a lane reads outputs 4t to 4t + 3 of 16 at pixels h and h + 8, each of them once in the block, and
// owns channels 4t to 4t + 3 of these pixels.
template <typename T, int Each>
__device__ __forceinline__ void mix_back_on_cores(const SeparableProblem& p, const SeparableFilter& f, float* tile, const Tile& shape,
                                                  float* mixing, float* scale, unsigned n, int top, int left, int first) {
  constexpr int kC = kChannels<float>, kWarps = kThreads / 32;
  using Packet = Packed<float, 4>;
  const int thread = anew(static_cast<int>(threadIdx.x)), h = thread % 32 / 4, t = thread % 4, total = shape.rows * shape.columns;
  const int out_h = static_cast<int>(p.out_h), out_w = static_cast<int>(p.out_w);
  const Strides s = strides_of(p.channels_last, p.image_c, p.out_h * p.out_w);
  const T* g = static_cast<const T*>(f.data) + static_cast<int64_t>(n) * s.n;
  const Weight<float> pointwise{f.pointwise, f.pointwise_dtype};
  // Weights of channel l = 4 (k / 2) + 2 v + k % 2, column k of product v, and outputs 4 `quad` to 4 `quad` + 3: 16 outputs a row, their
  // quads exchanged such that neither who reads along k nor who writes along l meets a bank twice.
  const auto weights_at = [&](int k, int v, int quad) {
    return reinterpret_cast<Packet*>(mixing + ((quad / 4 * 2 + v) * 8 + k) * kC + (quad % 4 ^ (2 * v + k / 2 % 2)) * 4);
  };
  for (int o0 = 0; o0 < p.out_c; o0 += kOutputs<float>) {
    const int outputs = min(static_cast<int>(p.out_c) - o0, kOutputs<float>), pieces = (outputs + 15) / 16;
    if (o0 > 0) __syncthreads();
    load_coefficients<float>(p, f, n, o0, outputs, scale);
    const int l = thread % kC, quad = thread / kC;
    if (quad < 4 * pieces) {
      Packet u;
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const int o = 4 * quad + v;
        u.v[v] = o < outputs && first + l < p.c ? to_tf32(pointwise[(o0 + o) * p.c + first + l]) : 0.0f;
      }
      *weights_at(l / 4 * 2 + l % 2, l / 2 % 2, quad) = u;
    }
    __syncthreads();
#pragma unroll 1
    for (int base = thread / 32 * 8 * Each; base < total; base += kWarps * 8 * Each) {
      float acc[2][4] = {};
      const T* from[Each];
      int to[Each];
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        const int pixel = base + h + 8 * e, r = pixel / shape.columns, j = pixel - r * shape.columns, y = top + r, x = left + j;
        to[e] = pixel < total ? r * shape.pitch + j * kC + 4 * t : -1;
        const bool inside = pixel < total && y >= 0 && y < out_h && x >= 0 && x < out_w;
        from[e] = inside ? g + (o0 + 4 * t) * s.c + (y * p.out_w + x) * s.pixel : nullptr;
        Packet before{};
        if (o0 > 0 && inside) before = *reinterpret_cast<const Packet*>(tile + to[e]);
#pragma unroll
        for (int v = 0; v < 4; ++v) acc[v / 2][2 * e + v % 2] = before.v[v];
      }
#pragma unroll 1
      for (int piece = 0; piece < pieces; ++piece) {
        const int o = 16 * piece + 4 * t;
        float values[2][4] = {};
#pragma unroll
        for (int e = 0; e < Each; ++e) {
          if (from[e] != nullptr && o < outputs)
            output_gradients<T>(f, from[e] + 16 * piece * s.c, s.c, p.out_packets, o, outputs, scale, values[e]);
#pragma unroll
          for (int v = 0; v < 4; ++v) values[e][v] = to_tf32(values[e][v]);
        }
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          const Packet u = *weights_at(h, v, 4 * piece + t);
#pragma unroll
          for (int k = 0; k < 4; k += 2)
            mma_tf32(acc[v], {values[0][k], values[1][k], values[0][k + 1], values[1][k + 1]}, {u.v[k], u.v[k + 1]});
        }
      }
#pragma unroll
      for (int e = 0; e < Each; ++e) {
        if (to[e] < 0) continue;
        Packet packet;
#pragma unroll
        for (int v = 0; v < 4; ++v) packet.v[v] = acc[v / 2][2 * e + v % 2];
        *reinterpret_cast<Packet*>(tile + to[e]) = packet;
      }
    }
  }
}

// Cores: which of the two.
template <typename T, int Each, bool Cores, typename A>
__device__ __forceinline__ void mix_back(const SeparableProblem& p, const SeparableFilter& f, A* tile, const Tile& shape, A* mixing,
                                         A* scale, unsigned n, int top, int left, int first) {
  if constexpr (Cores) {
    mix_back_on_cores<T, Each>(p, f, tile, shape, mixing, scale, n, top, left, first);
  } else {
    mix_back_exact<T, Each>(p, f, tile, shape, mixing, scale, n, top, left, first);
  }
}

}  // namespace separable
}  // namespace ddarts

// relu_separable_conv2d, forward: the 1x1 products of a block, out[o][pixel] += sum_c u[o,c] z[c][pixel], of a tile of 8 x 2P pixels
// and 16 O output channels, 64 bytes of input channels at a time; in two ways that the kernel uses alike.
#pragma once

#include "../common/tensor_core.cuh"
#include "relu_separable_conv2d_tile.cuh"

namespace ddarts {
namespace separable {

// What a thread's outputs are stored with.
struct OutputPlace {
  Strides to;
  int64_t o0, out_h, out_w;
  int top, left, rows, outputs;  // outputs: of the block, from o0 on
};

// What join_moments_of_warps needs.
template <int O>
constexpr int kMomentParts = (kThreads / 32 + 1) * 16 * O;

// place() [3][Co] = number, mean and squares about the mean of a tile's outputs, as they are stored, of a block's output channels.
// sum(pass, centre) writes the sums over the pixels of each warp to parts [warps][kOfWarp]: of the outputs, then of the squares
// about centre [kOfWarp], which lies behind the parts. All threads call it; parts is free.
template <int kOfWarp, typename A, typename Sum, typename To>
__device__ __forceinline__ void join_moments_of_warps(int pixels, A* parts, int outputs, int64_t out_c, const Sum& sum, const To& place) {
  constexpr int kWarps = kThreads / 32;
  A* centre = parts + kWarps * kOfWarp;
  const int o = anew(static_cast<int>(threadIdx.x));
  A mean = A(0);
#pragma unroll
  for (int pass = 0; pass < 2; ++pass) {
    __syncthreads();  // of what was in parts all is read
    sum(pass, centre);
    __syncthreads();
    if (o < kOfWarp) {
      A total = A(0);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += parts[w * kOfWarp + o];
      if (pass == 0) {
        centre[o] = mean = total / static_cast<A>(pixels);
      } else if (o < outputs) {
        A* to = place();
        to[o] = static_cast<A>(pixels), to[out_c + o] = mean, to[2 * out_c + o] = total;
      }
    }
  }
}

// Exact products: a thread owns P pixels x O outputs, 16 apart.
template <typename A, int P, int O>
struct LaneProduct {
  static constexpr int kC = kChannels<A>, V = kPacket<A>;
  static constexpr int kPitch = kTileRows * 2 * P + V;  // of [channel][pixel]: 8 lanes of 16 bytes meet all banks
  static constexpr int kMixing = kC * (16 * O + 1);
  static constexpr int kBetween = kC * kPitch > kMomentParts<O> ? kC * kPitch : kMomentParts<O>;
  A acc[O][P] = {};

  static __device__ __forceinline__ A factor(A x) { return x; }
  static __device__ __forceinline__ int mixing_at(int c, int o) { return c * (16 * O + 1) + o; }  // written along c

  static __device__ __forceinline__ void put(A* between, const Strip<A, P>& strip, const A (&z)[P]) {
    A* row = between + strip.lane * kPitch + strip.row * 2 * P + strip.column;
#pragma unroll
    for (int t = 0; t < P; t += V) {
      Packed<A, V> packet;
#pragma unroll
      for (int v = 0; v < V; ++v) packet.v[v] = z[t + v];
      *reinterpret_cast<Packed<A, V>*>(row + t) = packet;
    }
  }

  __device__ __forceinline__ void add(const A* between, const A* mixing, int outputs) {
    const int o = threadIdx.x % 16, first = threadIdx.x / 16 * P;
#pragma unroll 2
    for (int c = 0; c < kC; ++c) {
      A z[P];
#pragma unroll
      for (int t = 0; t < P; t += V) {
        const auto packet = *reinterpret_cast<const Packed<A, V>*>(between + c * kPitch + first + t);
#pragma unroll
        for (int v = 0; v < V; ++v) z[t + v] = packet.v[v];
      }
#pragma unroll
      for (int j = 0; j < O; ++j) {
        if (16 * j >= outputs) break;
        const A u = mixing[mixing_at(c, o + 16 * j)];
#pragma unroll
        for (int t = 0; t < P; ++t) acc[j][t] += u * z[t];
      }
    }
  }

  template <typename T, typename To>
  __device__ __forceinline__ void moments(const OutputPlace& at, int pixels, A* parts, int64_t out_c, const To& place) const {
    const int thread = anew(static_cast<int>(threadIdx.x)), part = thread / 16, row = part / 2;  // a part is half a row
    const bool inside = row < at.rows && at.top + row < anew(static_cast<int>(at.out_h));
    const int there = inside ? anew(static_cast<int>(at.out_w)) - at.left - part % 2 * P : 0;
    join_moments_of_warps<16 * O>(pixels, parts, at.outputs, out_c, [&](int pass, const A* centre) {
#pragma unroll
      for (int j = 0; j < O; ++j) {
        const A mean = pass == 0 ? A(0) : centre[thread % 16 + 16 * j];
        A sum = A(0);
#pragma unroll
        for (int t = 0; t < P; ++t) {
          const A value = static_cast<A>(widen(narrow<T>(acc[j][t]))) - mean;
          if (t < there) sum += pass == 0 ? value : value * value;
        }
        sum += __shfl_xor_sync(0xffffffffu, sum, 16);
        if (thread % 32 < 16) parts[thread / 32 * 16 * O + thread % 16 + 16 * j] = sum;
      }
    }, place);
  }

  template <typename T>
  __device__ __forceinline__ void store(T* data, const OutputPlace& at) const {
    const int thread = anew(static_cast<int>(threadIdx.x)), part = thread / 16, row = part / 2, lane = thread % 16;
    const int64_t i = at.top + row, left = at.left + part % 2 * P;
    if (row >= at.rows || i >= at.out_h) return;
    T* out = data + (at.o0 + lane) * at.to.c + (i * at.out_w + left) * at.to.pixel;
#pragma unroll
    for (int t = 0; t < P; ++t) {
      if (left + t >= at.out_w) break;
#pragma unroll
      for (int j = 0; j < O; ++j)
        if (lane + 16 * j < at.outputs) out[t * at.to.pixel + 16 * j * at.to.c] = narrow<T>(acc[j][t]);
    }
  }
};

// On tensor cores, factors in TF32: a warp owns a row of the tile, 8 pixels at a time, and all outputs. With g = lane / 4 and
// t = lane % 4 a lane owns pixels 2t and 2t + 1, and of each 8 kWide outputs those from kWide g on, which it stores as one.
// Channel 4t + 2s + i of a piece is place t + 4i of product s, so that a lane reads its factors by 16 bytes.
template <int P, int O>
struct CoreProduct {
  static constexpr int kC = 16, kAcross = P / 4, kWide = O == 1 ? 2 : 4, kBlock = 9 * kC;  // banks of neighbouring blocks differ
  static constexpr int kPitch = 2 * P * kC + kC;  // of rows of [pixel][channel]
  static constexpr int kMixing = 2 * O * kBlock, kBetween = kTileRows * kPitch;
  static_assert(kBetween >= kMomentParts<O>);
  float acc[O][kAcross][4] = {};

  static __device__ __forceinline__ float factor(float x) { return to_tf32(x); }
  static __device__ __forceinline__ int mixing_at(int c, int o) {
    return (o / (8 * kWide) * kWide + o % kWide) * kBlock + o / kWide % 8 * kC + c;
  }

  static __device__ __forceinline__ void put(float* between, const Strip<float, P>& strip, const float (&z)[P]) {
    float* row = between + strip.row * kPitch + strip.column * kC + strip.lane;
#pragma unroll
    for (int t = 0; t < P; ++t) row[t * kC] = to_tf32(z[t]);
  }

  __device__ __forceinline__ void add(const float* between, const float* mixing, int outputs) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    Packed<float, 4> z[kAcross];
#pragma unroll
    for (int n = 0; n < kAcross; ++n)
      z[n] = *reinterpret_cast<const Packed<float, 4>*>(between + threadIdx.x / 32 * kPitch + (8 * n + g) * kC + 4 * t);
#pragma unroll
    for (int i = 0; i < O; ++i) {
      if (i / (kWide / 2) * 8 * kWide >= outputs) break;
      Packed<float, 4> u[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) u[h] = *reinterpret_cast<const Packed<float, 4>*>(mixing + (2 * i + h) * kBlock + g * kC + 4 * t);
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const float a[4] = {u[0].v[2 * s], u[1].v[2 * s], u[0].v[2 * s + 1], u[1].v[2 * s + 1]};
#pragma unroll
        for (int n = 0; n < kAcross; ++n) mma_tf32(acc[i][n], a, {z[n].v[2 * s], z[n].v[2 * s + 1]});
      }
    }
  }

  template <typename T, typename To>
  __device__ __forceinline__ void moments(const OutputPlace& at, int pixels, float* parts, int64_t out_c, const To& place) const {
    const int thread = anew(static_cast<int>(threadIdx.x)), row = thread / 32, g = thread % 32 / 4, t = thread % 4;
    const bool inside = row < at.rows && at.top + row < anew(static_cast<int>(at.out_h));
    const int there = inside ? anew(static_cast<int>(at.out_w)) - at.left - 2 * t : 0;
    join_moments_of_warps<16 * O>(pixels, parts, at.outputs, out_c, [&](int pass, const float* centre) {
#pragma unroll
      for (int b = 0; b < 2 * O; ++b) {
        const int o = b / kWide * 8 * kWide + kWide * g + b % kWide;
        const float mean = pass == 0 ? 0.0f : centre[o];
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < kAcross; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float own = static_cast<float>(widen(narrow<T>(acc[b / 2][n][2 * (b % 2) + e]))) - mean;
            if (8 * n + e < there) sum += pass == 0 ? own : own * own;
          }
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (t == 0) parts[row * 16 * O + o] = sum;
      }
    }, place);
  }

  template <typename T>
  __device__ __forceinline__ void store(T* data, const OutputPlace& at) const {
    const int thread = anew(static_cast<int>(threadIdx.x)), row = thread / 32, g = thread % 32 / 4, t = thread % 4;
    const int64_t i = at.top + row, left = at.left + 2 * t;
    if (row >= at.rows || i >= at.out_h) return;
    T* out = data + at.o0 * at.to.c + (i * at.out_w + left) * at.to.pixel;
    const bool packets = at.to.c == 1 && at.to.pixel % kWide == 0 && reinterpret_cast<uintptr_t>(data + at.o0) % (kWide * sizeof(T)) == 0;
#pragma unroll
    for (int n = 0; n < kAcross; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if (left + 8 * n + e >= at.out_w) break;
#pragma unroll
        for (int q = 0; q < 2 * O / kWide; ++q) {
          const int o = 8 * kWide * q + kWide * g;
          T* to = out + (8 * n + e) * at.to.pixel + o * at.to.c;
          Packed<T, kWide> packet;
#pragma unroll
          for (int j = 0; j < kWide; ++j) packet.v[j] = narrow<T>(acc[(kWide * q + j) / 2][n][2 * (j % 2) + e]);
          if (packets && o + kWide <= at.outputs) {
            *reinterpret_cast<Packed<T, kWide>*>(to) = packet;
          } else {
#pragma unroll
            for (int j = 0; j < kWide; ++j)
              if (o + j < at.outputs) to[j * at.to.c] = packet.v[j];
          }
        }
      }
  }
};

}  // namespace separable
}  // namespace ddarts

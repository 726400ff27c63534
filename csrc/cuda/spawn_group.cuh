// spawn_group: out = [groups ; copies x source[:, :, ::s, ::s]] along the batch, in one launch; and its backward.
//
// Both layouts are one pattern. The subsampled source, flat, consists of runs that are repeated `copies` times one after
// the other: in channels-last a run is the channels of a pixel, in contiguous it is a whole sample. Subsampling moves
// units of `inner` words: the channels of a pixel, or one element. All counts below are in words (forward: the widest
// of 16, 8, 4, 2 bytes that divides a run) or in packets of V elements (backward, which has to add).
// Bytes: groups read and written, the read positions of source read once and written `copies` times; backward: grad
// read once, out written once. No thread shares an output: deterministic. 256 threads, a grid-stride loop; indices are
// 32-bit where every count fits (the divisions are what this kernel computes), else 64-bit.
#pragma once

#include "../common/cuda_compat.cuh"
#include "spawn_group.h"

namespace ddarts {
namespace spawn {

constexpr int kThreads = 256;

template <typename I>
struct Pattern {
  I run, inner, height, width, out_height, out_width, copies, stride;

  // Where word i of the subsampled source lies in copy k of the spawned group.
  __device__ __forceinline__ I target(I i, I k) const { return (i / run * copies + k) * run + i % run; }

  // Where word i of the subsampled source lies in the source.
  __device__ __forceinline__ I source(I i) const {
    if (stride == 1) return i;
    const I q = i % inner, pixel = i / inner;
    const I x = pixel % out_width, line = pixel / out_width;
    const I y = line % out_height, plane = line / out_height;
    return ((plane * height + y * stride) * width + x * stride) * inner + q;
  }

  // The inverse: whether word i of the source was read, and as which word of the subsampled source.
  __device__ __forceinline__ bool subsampled(I i, I& j) const {
    j = i;
    if (stride == 1) return true;
    const I q = i % inner, pixel = i / inner;
    const I x = pixel % width, line = pixel / width;
    const I y = line % height, plane = line / height;
    j = ((plane * out_height + y / stride) * out_width + x / stride) * inner + q;
    return y % stride == 0 && x % stride == 0;
  }
};

// before, words: words of the groups so far, and of the subsampled source (with source null: of the whole new group).
template <typename Word, typename I>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Word* groups, I before, const Word* source, I words, Word* out, Pattern<I> pattern) {
  const I first = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x, step = static_cast<I>(gridDim.x) * kThreads;
  for (I i = first; i < before; i += step) out[i] = groups[i];
  Word* spawned = out + before;
  if (source == nullptr) {
    for (I i = first; i < words; i += step) spawned[i] = Word{};
    return;
  }
  for (I i = first; i < words; i += step) {
    const Word value = source[pattern.source(i)];
    for (I k = 0; k < pattern.copies; ++k) spawned[pattern.target(i, k)] = value;
  }
}

// packets: of the source, all of which are written.
template <typename T, int V, typename I>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Packed<T, V>* grad, Packed<T, V>* out, I packets, Pattern<I> pattern) {
  using A = accumulate_t<T>;
  const I step = static_cast<I>(gridDim.x) * kThreads;
  for (I i = static_cast<I>(blockIdx.x) * kThreads + threadIdx.x; i < packets; i += step) {
    A sum[V] = {};
    I j;
    if (pattern.subsampled(i, j)) {
      for (I k = 0; k < pattern.copies; ++k) {
        const Packed<T, V> value = grad[pattern.target(j, k)];
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += widen(value.v[v]);
      }
    }
    Packed<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.v[v] = narrow<T>(sum[v]);
    out[i] = result;
  }
}

}  // namespace spawn
}  // namespace ddarts

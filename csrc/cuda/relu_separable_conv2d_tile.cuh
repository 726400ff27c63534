// relu_separable_conv2d: what its kernels share. The tiles are those of relu_depthwise_conv2d: [row][column][64 bytes of
// channels]. A 1x1 convolution passes through shared memory in pieces of these channels.
#pragma once

#include "relu_depthwise_conv2d_taps.cuh"
#include "relu_separable_conv2d.h"

namespace ddarts {
namespace separable {

using namespace depthwise;

// Strides of a dense image: a sample, a channel, a pixel.
struct Strides {
  int64_t n, c, pixel;
};
__device__ __forceinline__ Strides strides_of(bool channels_last, int64_t c, int64_t pixels) {
  return {c * pixels, channels_last ? 1 : pixels, channels_last ? c : 1};
}

// V channels of a pixel from number c on, `step` values apart; those from `end` on do not exist.
template <typename T, int V, typename A>
__device__ __forceinline__ void load_channels(const T* from, int64_t step, bool packets, int c, int end, A (&to)[V]) {
  Packed<T, V> packet{};
  if (packets) {
    packet = *reinterpret_cast<const Packed<T, V>*>(from);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (c + v < end) packet.v[v] = from[v * step];
  }
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] = static_cast<A>(widen(packet.v[v]));
}

// A filter as the kernels read it.
template <typename A>
struct Weight {
  const void* data;
  DType dtype;
  __device__ __forceinline__ A operator[](int64_t i) const {
    switch (dtype) {
      case DType::float64: return static_cast<A>(static_cast<const double*>(data)[i]);
      case DType::float32: return static_cast<A>(static_cast<const float*>(data)[i]);
      case DType::float16: return static_cast<A>(widen(static_cast<const __half*>(data)[i]));
      default: return static_cast<A>(widen(static_cast<const __nv_bfloat16*>(data)[i]));
    }
  }
};
template <typename A>
__device__ __forceinline__ void store_weight(void* data, DType dtype, int64_t i, A value) {
  switch (dtype) {
    case DType::float64: static_cast<double*>(data)[i] = static_cast<double>(value); break;
    case DType::float32: static_cast<float*>(data)[i] = static_cast<float>(value); break;
    case DType::float16: static_cast<__half*>(data)[i] = narrow<__half>(value); break;
    default: static_cast<__nv_bfloat16*>(data)[i] = narrow<__nv_bfloat16>(value); break;
  }
}
template <typename A>
__device__ __forceinline__ void load_taps(A* taps, const SeparableProblem& p, const SeparableFilter& f, int first) {
  if (f.depthwise == nullptr) {
    if (threadIdx.x < kChannels<A>) taps[threadIdx.x] = A(1);
    return;
  }
  depthwise::load_taps<A>(taps, Weight<A>{f.depthwise, f.depthwise_dtype}, f.k * f.k, first, p.c);
}

template <typename A>
__device__ __forceinline__ Affine<A> affine(const SeparableProblem& p, const SeparableSource& source, unsigned n, int64_t c) {
  if (p.mean == nullptr) return {A(0), A(1)};
  const int64_t at = (n / static_cast<unsigned>(p.batch) * p.inputs + source.index) * p.c + c;
  return {static_cast<const A*>(p.mean)[at], static_cast<const A*>(p.rstd)[at]};
}

// relu(x) or relu((x - mean) rstd) from row `top` and column `left` on, channels from `first` on; zeros outside of the image.
// Ahead: packets in flight. own: mean and rstd of the tile's channels [2][kChannels], or null where they are in global memory.
template <typename T, int Ahead = 4, typename A>
__device__ __forceinline__ void fill_input(const SeparableProblem& p, const SeparableSource& from, A* shared, const Tile& tile, unsigned n,
                                           int top, int left, int first, const A* own = nullptr) {
  const Strides s = strides_of(p.channels_last, p.c, p.h * p.w);
  const T* x = static_cast<const T*>(from.x) + static_cast<int64_t>(n) * s.n;
  const int h = static_cast<int>(p.h), w = static_cast<int>(p.w);
  const auto source = [&](int r, int j, int l) -> const T* {
    const int i = top + r, q = left + j;
    if (i < 0 || i >= h || q < 0 || q >= w || first + l >= p.c) return nullptr;
    return x + (first + l) * s.c + (i * p.w + q) * s.pixel;
  };
  const auto scale = [&](int l) -> Affine<A> {
    if (own != nullptr) return {own[l], own[kChannels<A> + l]};
    return affine<A>(p, from, n, first + l);
  };
  const auto value = [&](A x, int l, int v) { return activation(scale(l + v), x); };
  if (p.packets) {
    Affine<A> kept[kPacket<A>];  // of the channels that this thread keeps
    const int l = static_cast<int>(threadIdx.x) % (kChannels<A> / kPacket<A>)*kPacket<A>;
#pragma unroll
    for (int v = 0; v < kPacket<A>; ++v) kept[v] = first + l < p.c ? scale(l + v) : Affine<A>{A(0), A(1)};
    fill_packets<T, Ahead>(shared, tile, source, [&](A x, int, int v) { return activation(kept[v], x); });
  } else if (p.channels_last) {
    fill_values<T>(shared, tile, source, value);
  } else {
    fill_columns<T>(shared, tile, left, source, value);
  }
}

// Where a thread computes pixels of a tile of kTileRows x 2 P: a row of its half of the columns, of one channel.
template <typename A, int P>
struct Strip {
  int lane, row, column;
  __device__ __forceinline__ Strip()
      : lane(threadIdx.x % kChannels<A>),
        row(threadIdx.x / kChannels<A> % kTileRows),
        column(threadIdx.x / kChannels<A> / kTileRows * P) {}
  __device__ __forceinline__ bool inside() const { return column < 2 * P; }  // of float64 there are threads left
};

// Sample and first pixel of tile `index` of those of `rows` x `columns`, counted through all samples.
struct At {
  unsigned n;
  int top, left;
  __device__ __forceinline__ At(unsigned index, int64_t h, int64_t w, int rows, int columns) {
    const unsigned across = (static_cast<unsigned>(w) + columns - 1) / columns, down = (static_cast<unsigned>(h) + rows - 1) / rows;
    n = index / across / down;
    top = static_cast<int>(index / across % down) * rows;
    left = static_cast<int>(index % across) * columns;
  }
};

}  // namespace separable
}  // namespace ddarts

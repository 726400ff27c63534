// relu_depthwise_conv2d: what its kernels share, a tile of an image in shared memory and how it gets there.
//
// A block of 256 threads owns a tile of pixels and 64 bytes of channels (16, or 8 of float64). The tile lies
// [row][column][channel], so that a row of lanes reads 64 dense bytes; rows are padded such that the other half of a warp, on
// the next row of outputs, reads the other 16 banks. Channels-last maps come by packets of 4 channels (2 of float64) where
// addresses allow it: a thread keeps its channels and walks over pixels without a division, four packets in flight. Contiguous
// maps come by 8 columns a warp, which begin where a sector does.
#pragma once

#include "../common/cuda_compat.cuh"
#include "relu_depthwise_conv2d.h"

namespace ddarts {
namespace depthwise {

constexpr int kThreads = 256;
constexpr int kTileRows = 8;  // of outputs; half of them where a tile at stride 2 would be too large
template <typename A>
constexpr int kChannels = 64 / static_cast<int>(sizeof(A));
template <typename A>
constexpr int kPacket = 16 / static_cast<int>(sizeof(A));

template <typename A>
struct Affine {
  A mean, rstd;
};

template <typename A>
__device__ __forceinline__ Affine<A> affine(const DepthwiseProblem& p, int64_t n, int64_t c) {
  if (p.mean == nullptr) return {A(0), A(1)};
  const int64_t at = n / p.batch * p.c + c;
  return {static_cast<const A*>(p.mean)[at], static_cast<const A*>(p.rstd)[at]};
}
template <typename A>
__device__ __forceinline__ A activation(const Affine<A>& s, A x) {
  const A z = (x - s.mean) * s.rstd;
  return z < A(0) ? A(0) : z;
}

// [rows][columns][kChannels], rows `pitch` values apart.
struct Tile {
  int rows, columns, pitch;
};
// The input of `rows` x `columns` outputs at this stride. Rows of outputs lie 64 bytes apart modulo 128.
template <typename A>
__host__ __device__ inline Tile input_tile(int rows, int columns, int stride, int pad) {
  const int across = (columns - 1) * stride + 1 + 2 * pad;
  return {(rows - 1) * stride + 1 + 2 * pad, across, across * kChannels<A> + 64 / stride / static_cast<int>(sizeof(A))};
}
template <typename A>
inline size_t bytes_of(const Tile& tile) {
  return sizeof(A) * static_cast<size_t>(tile.rows) * static_cast<size_t>(tile.pitch);
}

// shared[r][j][l] = value(*source(r, j, l), l, 0), or zero where source gives no pointer; threads walk along the channels.
template <typename T, typename A, typename Source, typename Value>
__device__ __forceinline__ void fill_values(A* shared, const Tile& tile, const Source& source, const Value& value) {
  constexpr int kC = kChannels<A>;
  const int total = tile.rows * tile.columns * kC;
  for (int i = threadIdx.x; i < total; i += kThreads) {
    const int l = i % kC, j = i / kC % tile.columns, r = i / kC / tile.columns;
    const T* from = source(r, j, l);
    shared[r * tile.pitch + j * kC + l] = from == nullptr ? A(0) : value(static_cast<A>(widen(*from)), l, 0);
  }
}
// The same by packets, Ahead of them in flight: value(x, l, v) for channel l + v, where l is the same in every call of a thread.
template <typename T, int Ahead = 4, typename A, typename Source, typename Value>
__device__ __forceinline__ void fill_packets(A* shared, const Tile& tile, const Source& source, const Value& value) {
  constexpr int V = kPacket<A>, kAcross = kChannels<A> / V, kStep = kThreads / kAcross;
  const int l = threadIdx.x % kAcross * V, first = threadIdx.x / kAcross;
  const int down = kStep / tile.columns, right = kStep - down * tile.columns;
  int r = first / tile.columns, j = first - r * tile.columns;
  while (r < tile.rows) {
    Packed<T, V> packets[Ahead];
    int to[Ahead];
    bool inside[Ahead];
#pragma unroll
    for (int b = 0; b < Ahead; ++b) {
      to[b] = r < tile.rows ? r * tile.pitch + j * kChannels<A> + l : -1;
      const T* from = to[b] < 0 ? nullptr : source(r, j, l);
      inside[b] = from != nullptr;
      if (inside[b]) packets[b] = *reinterpret_cast<const Packed<T, V>*>(from);
      r += down, j += right;
      if (j >= tile.columns) j -= tile.columns, ++r;
    }
#pragma unroll
    for (int b = 0; b < Ahead; ++b) {
      if (to[b] < 0) break;
      Packed<A, V> values{};
      if (inside[b]) {
#pragma unroll
        for (int v = 0; v < V; ++v) values.v[v] = value(static_cast<A>(widen(packets[b].v[v])), l, v);
      }
      *reinterpret_cast<Packed<A, V>*>(shared + to[b]) = values;
    }
  }
}
// The same where pixels lie side by side, from column `left` of the image on. A warp has 8 columns x 4 packets: each of its loads
// reads 8 values of 4 channels, and 8 lanes store 128 dense bytes. l of a thread as in fill_packets.
template <typename T, typename A, typename Source, typename Value>
__device__ __forceinline__ void fill_columns(A* shared, const Tile& tile, int left, const Source& source, const Value& value) {
  constexpr int V = kPacket<A>, kAcross = kChannels<A> / V, kColumns = 32 / kAcross;
  const int l = threadIdx.x % kAcross * V, column = threadIdx.x / kAcross % kColumns, skew = left & (kColumns - 1);
  const int strips = (tile.columns + skew + kColumns - 1) / kColumns;
  for (int k = threadIdx.x / 32; k < tile.rows * strips; k += kThreads / 32) {
    const int r = k / strips, j = (k - r * strips) * kColumns + column - skew;
    if (j < 0 || j >= tile.columns) continue;
    Packed<A, V> values{};
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const T* from = source(r, j, l + v);
      if (from != nullptr) values.v[v] = value(static_cast<A>(widen(*from)), l, v);
    }
    *reinterpret_cast<Packed<A, V>*>(shared + r * tile.pitch + j * kChannels<A> + l) = values;
  }
}
template <typename T, typename A, typename Source, typename Value>
__device__ __forceinline__ void fill(A* shared, const Tile& tile, bool packets, bool channels_dense, int left, const Source& source,
                                     const Value& value) {
  if (packets) {
    fill_packets<T>(shared, tile, source, value);
  } else if (channels_dense) {
    fill_values<T>(shared, tile, source, value);
  } else {
    fill_columns<T>(shared, tile, left, source, value);
  }
}

// relu(x) or relu((x - mean) rstd) from row `top` and column `left` on, channels from `first` on.
template <typename T, typename A>
__device__ __forceinline__ void fill_activation(const DepthwiseProblem& p, A* shared, const Tile& tile, int64_t n, int top, int left,
                                                int64_t first) {
  const T* x = static_cast<const T*>(p.x) + n * p.strides.n;
  const int h = static_cast<int>(p.h), w = static_cast<int>(p.w);
  const auto source = [&](int r, int j, int l) -> const T* {
    const int i = top + r, q = left + j;
    if (i < 0 || i >= h || q < 0 || q >= w || first + l >= p.c) return nullptr;
    return x + (first + l) * p.strides.c + i * p.strides.h + q * p.strides.w;
  };
  const auto value = [&](A x, int l, int v) { return activation(affine<A>(p, n, first + l + v), x); };
  if (p.packets) {
    Affine<A> own[kPacket<A>];  // of the channels that this thread keeps
    const int64_t c = first + threadIdx.x % (kChannels<A> / kPacket<A>)*kPacket<A>;
#pragma unroll
    for (int v = 0; v < kPacket<A>; ++v) own[v] = c < p.c ? affine<A>(p, n, c + v) : Affine<A>{A(0), A(1)};
    fill_packets<T>(shared, tile, source, [&](A x, int, int v) { return activation(own[v], x); });
  } else if (p.strides.c == 1) {
    fill_values<T>(shared, tile, source, value);
  } else {
    fill_columns<T>(shared, tile, left, source, value);
  }
}

struct Place {
  int64_t n, first;  // sample, first channel of the block
  int top, left;     // first pixel
};
// Block `block` of those over `rows` x `columns` tiles of all samples.
template <typename A>
__device__ __forceinline__ Place place(int64_t block, int64_t h, int64_t w, int rows, int columns) {
  const unsigned across = (static_cast<unsigned>(w) + columns - 1) / columns, down = (static_cast<unsigned>(h) + rows - 1) / rows;
  const unsigned tile = static_cast<unsigned>(block);
  return {tile / across / down, static_cast<int64_t>(blockIdx.y) * kChannels<A>, static_cast<int>(tile / across % down) * rows,
          static_cast<int>(tile % across) * columns};
}

}  // namespace depthwise
}  // namespace ddarts

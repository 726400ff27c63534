// relu_depthwise_conv2d: a = relu(x) or relu((x - mean) rstd), out_f = depthwise convolution of a with w_f, for all f.
//
// A block of 256 threads owns a tile of pixels (8 x 16 outputs at stride 1, 4 x 8 at stride 2) and 64 bytes of channels:
// the input tile with its halo is brought into shared memory once, prologue applied on the way, zeros outside of the
// image; every filter is computed from it. grid: x = (sample, tile row, tile column), y = block of channels.
// A thread owns one channel and 8 neighbouring pixels: of each input row it reads 8 s + (k - 1) d values into registers
// and uses them for all k taps. Shared memory is [row][column][channel], so that half of a warp reads 64 dense bytes; rows
// are padded so that the other half, one row of outputs below, reads the other 16 banks. The taps of a filter pass through
// shared memory too, [tap][channel], as in global memory neighbouring channels are k k values apart. Channels-last maps are
// read by packets of 4 channels (2 of float64) where addresses allow it. docs/kernels/report.md has what is left.
// The input gradient is the same on tiles of g, mirrored filters, zeros put between the pixels of g at stride 2.
// Weight gradient: a thread owns one channel and a few taps; a block adds up tiles in order, and a second kernel joins the
// blocks in a fixed order. No atomics anywhere: deterministic. Bytes: x once and F outputs; halos come out of the L2 cache.
#pragma once

#include "../common/cuda_compat.cuh"
#include "../common/joined_rows.cuh"
#include "relu_depthwise_conv2d.h"

namespace ddarts {
namespace depthwise {

constexpr int kThreads = 256;  // bounds of (kThreads, 2) leave 128 registers a thread: with ptxas' own choice sm_80 spills
constexpr int kPixels = 8;  // of a thread
template <typename A>
constexpr int kChannels = 64 / static_cast<int>(sizeof(A));
template <typename A>
constexpr int kGradientChannels = 32 / static_cast<int>(sizeof(A));
constexpr int kGradientTile = 8;
// Between the rows of the tile, after `columns` pixels of 64 bytes: rows of outputs, `stride` rows of the tile apart, lie
// 64 bytes apart modulo 128. Columns are even in number at stride 1 and odd at stride 2.
constexpr int row_padding_bytes(int stride) { return 64 / stride; }
constexpr int kMostTaps = 49;
template <typename A>
constexpr int kTapPitch = kChannels<A> + 1;  // taps are written along the taps
template <typename A>
constexpr int kPacket = 16 / static_cast<int>(sizeof(A));
__host__ __device__ constexpr int tile_rows(int stride) { return stride == 1 ? 8 : 4; }
__host__ __device__ constexpr int tile_columns(int stride) { return stride == 1 ? 16 : 8; }

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

// The tile of a block in shared memory: [rows][columns][channels], rows `pitch` values apart.
struct Tile {
  int rows, columns, channels, pitch;
};

// shared[r][j][l] = f(r, j, l); threads walk along what is dense.
template <typename A, typename F>
__device__ __forceinline__ void fill_tile(A* shared, const Tile& tile, bool channels_dense, F f) {
  const int total = tile.rows * tile.columns * tile.channels;
  for (int i = threadIdx.x; i < total; i += kThreads) {
    int r, j, l;
    if (channels_dense) {
      l = i % tile.channels, j = i / tile.channels % tile.columns, r = i / tile.channels / tile.columns;
    } else {
      j = i % tile.columns, r = i / tile.columns % tile.rows, l = i / tile.columns / tile.rows;
    }
    shared[r * tile.pitch + j * tile.channels + l] = f(r, j, l);
  }
}
// The same by packets of channels: f(r, j, l, values).
template <typename A, typename F>
__device__ __forceinline__ void fill_packets(A* shared, const Tile& tile, F f) {
  constexpr int V = kPacket<A>;
  const int across = tile.channels / V, total = tile.rows * tile.columns * across;
  for (int i = threadIdx.x; i < total; i += kThreads) {
    const int l = i % across * V, j = i / across % tile.columns, r = i / across / tile.columns;
    Packed<A, V> values{};
    f(r, j, l, values.v);
    *reinterpret_cast<Packed<A, V>*>(shared + r * tile.pitch + j * tile.channels + l) = values;
  }
}
template <typename T, typename A>
__device__ __forceinline__ void load_packet(const T* from, A (&values)[kPacket<A>]) {
  const auto packet = *reinterpret_cast<const Packed<T, kPacket<A>>*>(from);
#pragma unroll
  for (int v = 0; v < kPacket<A>; ++v) values[v] = static_cast<A>(widen(packet.v[v]));
}

template <typename T, typename A>
__device__ __forceinline__ void fill_activation(const DepthwiseProblem& p, A* shared, const Tile& tile, int64_t n, int64_t top,
                                                int64_t left, int64_t first) {
  const T* x = static_cast<const T*>(p.x) + n * p.strides.n;
  if (p.packets) {
    fill_packets(shared, tile, [&](int r, int j, int l, A(&values)[kPacket<A>]) {
      const int64_t i = top + r, q = left + j, c = first + l;
      if (i < 0 || i >= p.h || q < 0 || q >= p.w || c >= p.c) return;
      load_packet(x + c + i * p.strides.h + q * p.strides.w, values);
#pragma unroll
      for (int v = 0; v < kPacket<A>; ++v) {
        const Affine<A> s = affine<A>(p, n, c + v);
        const A z = (values[v] - s.mean) * s.rstd;
        values[v] = z < A(0) ? A(0) : z;
      }
    });
    return;
  }
  fill_tile(shared, tile, p.strides.c == 1, [&](int r, int j, int l) {
    const int64_t i = top + r, q = left + j, c = first + l;
    if (i < 0 || i >= p.h || q < 0 || q >= p.w || c >= p.c) return A(0);
    const Affine<A> s = affine<A>(p, n, c);
    const A z = (static_cast<A>(widen(x[c * p.strides.c + i * p.strides.h + q * p.strides.w])) - s.mean) * s.rstd;
    return z < A(0) ? A(0) : z;
  });
}

// taps[t][l] = the filter's tap t of channel first + l.
template <typename A>
__device__ __forceinline__ void load_taps(A* taps, const DepthwiseFilter& filter, int64_t first, int64_t channels) {
  const int area = filter.k * filter.k;
  const A* w = static_cast<const A*>(filter.weight) + first * area;
  const int total = static_cast<int>(min(static_cast<int64_t>(kChannels<A>), channels - first)) * area;
  for (int i = threadIdx.x; i < total; i += kThreads) taps[i % area * kTapPitch<A> + i / area] = w[i];
}

// acc[t] += sum_{y,x} in[y D][(t S + x D)] w[y][x]; in, w: this thread's channel in shared memory, strides of rows and
// columns in values.
template <typename A, int K, int D, int S, bool Mirror>
__device__ __forceinline__ void correlate(A (&acc)[kPixels], const A* in, int row, int column, const A* w) {
  constexpr int kWindow = (kPixels - 1) * S + (K - 1) * D + 1;
#pragma unroll 1
  for (int y = 0; y < K; ++y) {
    A window[kWindow];
#pragma unroll
    for (int j = 0; j < kWindow; ++j) window[j] = in[y * D * row + j * column];
#pragma unroll
    for (int x = 0; x < K; ++x) {
      const A tap = w[(Mirror ? (K - 1 - y) * K + K - 1 - x : y * K + x) * kTapPitch<A>];
#pragma unroll
      for (int t = 0; t < kPixels; ++t) acc[t] += tap * window[t * S + x * D];
    }
  }
}

template <typename A, int S, bool Mirror>
__device__ __forceinline__ void correlate(A (&acc)[kPixels], const A* in, int row, int column, const DepthwiseFilter& f,
                                          const A* w) {
  switch (f.k * 2 + f.dilation) {
    case 7: return correlate<A, 3, 1, S, Mirror>(acc, in, row, column, w);
    case 8: return correlate<A, 3, 2, S, Mirror>(acc, in, row, column, w);
    case 11: return correlate<A, 5, 1, S, Mirror>(acc, in, row, column, w);
    case 12: return correlate<A, 5, 2, S, Mirror>(acc, in, row, column, w);
    case 15: return correlate<A, 7, 1, S, Mirror>(acc, in, row, column, w);
    default: return correlate<A, 7, 2, S, Mirror>(acc, in, row, column, w);
  }
}

struct Place {
  int64_t n, top, left, first;  // sample, first pixel and first channel of the block
};

template <typename A>
__device__ __forceinline__ Place place(int64_t block, int64_t h, int64_t w, int rows, int columns, int channels) {
  const int64_t across = (w + columns - 1) / columns, down = (h + rows - 1) / rows;
  return {block / across / down, block / across % down * rows, block % across * columns,
          static_cast<int64_t>(blockIdx.y) * channels};
}

template <typename T, int S>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(DepthwiseProblem p) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kRows = tile_rows(S), kColumns = tile_columns(S);
  __shared__ A taps[2][kMostTaps * kTapPitch<A>];
  DDARTS_DYNAMIC_SHARED(A, tile);
  const Place at = place<A>(blockIdx.x, p.out_h, p.out_w, kRows, kColumns, kC);
  const int columns = (kColumns - 1) * S + 1 + 2 * p.pad, rows = (kRows - 1) * S + 1 + 2 * p.pad;
  const int pitch = columns * kC + row_padding_bytes(S) / static_cast<int>(sizeof(A));
  fill_activation<T, A>(p, tile, {rows, columns, kC, pitch}, at.n, at.top * S - p.pad, at.left * S - p.pad, at.first);
  const int lane = threadIdx.x % kC, row = threadIdx.x / kC % kRows, column = threadIdx.x / kC / kRows * kPixels;
  const int64_t c = at.first + lane, i = at.top + row;
  const bool mine = c < p.c && column < kColumns && i < p.out_h;
  for (int f = 0; f < p.count; ++f) {
    const DepthwiseFilter& filter = p.filters[f];
    load_taps<A>(taps[f % 2], filter, at.first, p.c);
    __syncthreads();  // the tile and these taps are there; those of two filters ago are no longer read
    if (!mine) continue;
    const int skip = p.pad - filter.dilation * (filter.k - 1) / 2;
    A acc[kPixels] = {};
    const A* in = tile + (row * S + skip) * pitch + (column * S + skip) * kC + lane;
    correlate<A, S, false>(acc, in, pitch, kC, filter, taps[f % 2] + lane);
    T* out = static_cast<T*>(filter.data) + at.n * filter.strides.n + c * filter.strides.c + i * filter.strides.h;
#pragma unroll
    for (int t = 0; t < kPixels; ++t) {
      const int64_t j = at.left + column + t;
      if (j < p.out_w) out[j * filter.strides.w] = narrow<T>(acc[t]);
    }
  }
}

// sums [blockIdx.x][c][2] of dz and dz * a over the tile, where given.
template <typename T>
__global__ void __launch_bounds__(kThreads) input_gradient_kernel(DepthwiseProblem p, accumulate_t<T>* dz,
                                                                  DepthwiseStrides strides, bool add, bool last,
                                                                  double* sums) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kRows = tile_rows(1), kColumns = tile_columns(1);
  __shared__ double parts[kThreads][2];
  __shared__ A taps[kMostTaps * kTapPitch<A>];
  DDARTS_DYNAMIC_SHARED(A, tile);
  const Place at = place<A>(blockIdx.x, p.h, p.w, kRows, kColumns, kC);
  const int lane = threadIdx.x % kC, row = threadIdx.x / kC % kRows, column = threadIdx.x / kC / kRows * kPixels;
  const int64_t c = at.first + lane, i = at.top + row;
  const bool mine = c < p.c && column < kColumns && i < p.h;
  A acc[kPixels] = {};
  for (int f = 0; f < p.count; ++f) {
    const DepthwiseFilter& filter = p.filters[f];
    const int pad = filter.dilation * (filter.k - 1) / 2, columns = kColumns + 2 * pad;
    const T* g = static_cast<const T*>(filter.data) + at.n * filter.strides.n;
    const int pitch = columns * kC + row_padding_bytes(1) / static_cast<int>(sizeof(A));
    const Tile shape{kRows + 2 * pad, columns, kC, pitch};
    // Offset of the value of the gradient at this place of the tile, or -1 where a zero is.
    const auto source = [&](int r, int q, int l) {
      const int64_t y = at.top - pad + r, x = at.left - pad + q, channel = at.first + l;
      const bool on = y >= 0 && x >= 0 && y % p.stride == 0 && x % p.stride == 0 && channel < p.c;
      if (!on || y / p.stride >= p.out_h || x / p.stride >= p.out_w) return int64_t(-1);
      return channel * filter.strides.c + y / p.stride * filter.strides.h + x / p.stride * filter.strides.w;
    };
    __syncthreads();  // tile and taps may still be read for the filter before
    load_taps<A>(taps, filter, at.first, p.c);
    if (filter.packets) {
      fill_packets(tile, shape, [&](int r, int q, int l, A(&values)[kPacket<A>]) {
        const int64_t from = source(r, q, l);
        if (from >= 0) load_packet(g + from, values);
      });
    } else {
      fill_tile(tile, shape, filter.strides.c == 1, [&](int r, int q, int l) {
        const int64_t from = source(r, q, l);
        return from < 0 ? A(0) : static_cast<A>(widen(g[from]));
      });
    }
    __syncthreads();
    if (mine) correlate<A, 1, true>(acc, tile + row * pitch + column * kC + lane, pitch, kC, filter, taps + lane);
  }
  A sum = A(0), product = A(0);
  if (mine) {
    const Affine<A> s = affine<A>(p, at.n, c);
    const T* x = static_cast<const T*>(p.x) + at.n * p.strides.n + c * p.strides.c + i * p.strides.h;
    A* out = dz + at.n * strides.n + c * strides.c + i * strides.h;
#pragma unroll
    for (int t = 0; t < kPixels; ++t) {
      const int64_t j = at.left + column + t;
      if (j >= p.w) continue;
      A value = acc[t] + (add ? out[j * strides.w] : A(0));
      if (last) {
        const A z = (static_cast<A>(widen(x[j * p.strides.w])) - s.mean) * s.rstd;
        if (z <= A(0)) value = A(0);
        sum += value;
        product += value * (z <= A(0) ? A(0) : z);
      }
      out[j * strides.w] = value;
    }
  }
  if (sums == nullptr) return;
  parts[threadIdx.x][0] = sum, parts[threadIdx.x][1] = product;
  __syncthreads();
  if (threadIdx.x >= kC || c >= p.c) return;
  for (int which = 0; which < 2; ++which) {
    double total = 0;
    for (int q = threadIdx.x; q < kThreads; q += kC) total += parts[q][which];
    sums[(static_cast<int64_t>(blockIdx.x) * p.c + c) * 2 + which] = total;
  }
}

// means [G,C,2] of the tiles' sums. Grid: 32 of a group's 2 C columns a block, group after group.
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    mean_kernel(const double* sums, int64_t tiles_of_group, int64_t columns, double values, double* means) {
  const int64_t across = (columns + kJoinColumns - 1) / kJoinColumns, group = blockIdx.x / across;
  const int64_t at = blockIdx.x % across * kJoinColumns + threadIdx.x;
  const double* from = sums + group * tiles_of_group * columns + at;
  double total[1];
  join_rows(at < columns ? tiles_of_group : 0, total, [&](int64_t t, double(&sum)[1]) { sum[0] += from[t * columns]; });
  if (threadIdx.y == 0 && at < columns) means[group * columns + at] = total[0] / values;
}

// dx = r dz, or r (dz - mean(dz) - xhat mean(dz xhat)); without a norm dx = dz, rounded.
template <typename T>
__global__ void __launch_bounds__(kThreads) finish_kernel(DepthwiseProblem p, const accumulate_t<T>* dz, T* dx,
                                                          DepthwiseStrides strides, const double* means) {
  using A = accumulate_t<T>;
  const int64_t total = p.n * p.c * p.h * p.w;
  for (int64_t k = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; k < total; k += static_cast<int64_t>(gridDim.x) * kThreads) {
    int64_t n, c, i, j;
    if (strides.c == 1) {
      c = k % p.c, j = k / p.c % p.w, i = k / p.c / p.w % p.h, n = k / p.c / p.w / p.h;
    } else {
      j = k % p.w, i = k / p.w % p.h, c = k / p.w / p.h % p.c, n = k / p.w / p.h / p.c;
    }
    const int64_t at = n * strides.n + c * strides.c + i * strides.h + j * strides.w;
    const Affine<A> s = affine<A>(p, n, c);
    A value = dz[at];
    if (means != nullptr) {
      const double* m = means + (n / p.batch * p.c + c) * 2;
      const T x = static_cast<const T*>(p.x)[n * p.strides.n + c * p.strides.c + i * p.strides.h + j * p.strides.w];
      value -= static_cast<A>(m[0]) + (static_cast<A>(widen(x)) - s.mean) * s.rstd * static_cast<A>(m[1]);
    }
    dx[at] = narrow<T>(value * s.rstd);
  }
}

// partial[chunk][first + tap][c]; grid: x = chunk, y = block of channels, z = filter.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) weight_gradient_kernel(DepthwiseProblem p, accumulate_t<T>* partial, int64_t taps) {
  using A = accumulate_t<T>;
  constexpr int kC = kGradientChannels<A>, kTile = kGradientTile, kSlots = kThreads / kC;
  constexpr int kMost = (49 + kSlots - 1) / kSlots;  // taps of a thread
  DDARTS_DYNAMIC_SHARED(A, gradient);  // the tile of g, then that of the activation
  A* tile = gradient + kTile * kTile * kC;
  const DepthwiseFilter& filter = p.filters[blockIdx.z];
  const int k = filter.k, d = filter.dilation, pad = d * (k - 1) / 2, side = (kTile - 1) * p.stride + 1 + 2 * pad;
  const int lane = threadIdx.x % kC, slot = threadIdx.x / kC;
  const int64_t across = (p.out_w + kTile - 1) / kTile, down = (p.out_h + kTile - 1) / kTile, tiles = p.n * across * down;
  A acc[kMost] = {};
  int offset[kMost];
#pragma unroll
  for (int q = 0; q < kMost; ++q) {
    const int tap = slot + q * kSlots;
    offset[q] = tap < k * k ? (tap / k * d * side + tap % k * d) * kC + lane : lane;
  }
  for (int64_t t = blockIdx.x * tiles / gridDim.x; t < (blockIdx.x + 1) * tiles / gridDim.x; ++t) {
    const Place at = place<A>(t, p.out_h, p.out_w, kTile, kTile, kC);
    const T* g = static_cast<const T*>(filter.data) + at.n * filter.strides.n;
    __syncthreads();  // the tiles may still be read
    // Offset of a value of the gradient, or -1 outside.
    const auto source = [&](int r, int q, int l) {
      const int64_t i = at.top + r, j = at.left + q, c = at.first + l;
      if (i >= p.out_h || j >= p.out_w || c >= p.c) return int64_t(-1);
      return c * filter.strides.c + i * filter.strides.h + j * filter.strides.w;
    };
    const Tile of_gradient{kTile, kTile, kC, kTile * kC};
    if (filter.packets) {
      fill_packets(gradient, of_gradient, [&](int r, int q, int l, A(&values)[kPacket<A>]) {
        const int64_t from = source(r, q, l);
        if (from >= 0) load_packet(g + from, values);
      });
    } else {
      fill_tile(gradient, of_gradient, filter.strides.c == 1, [&](int r, int q, int l) {
        const int64_t from = source(r, q, l);
        return from < 0 ? A(0) : static_cast<A>(widen(g[from]));
      });
    }
    fill_activation<T, A>(p, tile, {side, side, kC, side * kC}, at.n, at.top * p.stride - pad, at.left * p.stride - pad, at.first);
    __syncthreads();
    for (int i = 0; i < kTile; ++i)
      for (int j = 0; j < kTile; ++j) {
        const A value = gradient[(i * kTile + j) * kC + lane];
        const A* in = tile + (i * side + j) * p.stride * kC;
#pragma unroll
        for (int q = 0; q < kMost; ++q) acc[q] += value * in[offset[q]];
      }
  }
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kC + lane;
#pragma unroll
  for (int q = 0; q < kMost; ++q) {
    const int tap = slot + q * kSlots;
    if (tap < k * k && c < p.c) partial[(blockIdx.x * taps + filter.first + tap) * p.c + c] = acc[q];
  }
}

// dw[first * C + c k k + tap] = sum over chunks. Grid: 32 columns a block, of the taps x channels of these filters.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    weight_sum_kernel(DepthwiseProblem p, const A* partial, int64_t chunks, int64_t taps, A* dw) {
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
  dw[filter.first * p.c + c * (filter.k * filter.k) + row - filter.first] = static_cast<A>(total[0]);
}

// scratch[n][c] = mean and sum of squares about it, of one image: a block a (sample, 8 channels), two passes.
template <typename T>
__global__ void __launch_bounds__(kThreads) image_statistics_kernel(DepthwiseProblem p, double* scratch) {
  constexpr int kC = 8, kSlots = kThreads / kC, kPitch = kSlots + 1;  // one more: the 8 channels lie in different banks
  __shared__ double parts[kC * kPitch];
  const bool dense = p.strides.c == 1;
  const int lane = dense ? threadIdx.x % kC : threadIdx.x / kSlots, slot = dense ? threadIdx.x / kC : threadIdx.x % kSlots;
  const int64_t n = blockIdx.x, c = static_cast<int64_t>(blockIdx.y) * kC + lane, pixels = p.h * p.w;
  const T* x = static_cast<const T*>(p.x) + n * p.strides.n + c * p.strides.c;
  double mean = 0, result = 0;
  for (int pass = 0; pass < 2; ++pass) {
    double sum = 0;
    for (int64_t q = slot; c < p.c && q < pixels; q += kSlots) {
      const double value = static_cast<double>(widen(x[q / p.w * p.strides.h + q % p.w * p.strides.w])) - mean;
      sum += pass == 0 ? value : value * value;
    }
    __syncthreads();  // parts may still be read
    parts[lane * kPitch + slot] = sum;
    __syncthreads();
    result = 0;
    for (int q = 0; q < kSlots; ++q) result += parts[lane * kPitch + q];
    if (pass == 0) mean = result / static_cast<double>(pixels);
  }
  if (slot != 0 || c >= p.c) return;
  scratch[(n * p.c + c) * 2] = mean;
  scratch[(n * p.c + c) * 2 + 1] = result;
}

// Mean of the group's images, then the squares about it: all images have as many pixels. Grid as of mean_kernel.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    merge_statistics_kernel(const double* scratch, int64_t batch, int64_t channels, double pixels, double eps, A* mean, A* rstd) {
  const int64_t across = (channels + kJoinColumns - 1) / kJoinColumns, group = blockIdx.x / across;
  const int64_t c = blockIdx.x % across * kJoinColumns + threadIdx.x;
  const double* from = scratch + (group * batch * channels + c) * 2;
  const int64_t images = c < channels ? batch : 0;
  double middle[1], squares[1];
  join_rows(images, middle, [&](int64_t n, double(&sum)[1]) { sum[0] += from[n * channels * 2]; });
  middle[0] /= static_cast<double>(batch);  // of no image: NaN
  join_rows(images, squares, [&](int64_t n, double(&sum)[1]) {
    const double delta = from[n * channels * 2] - middle[0];
    sum[0] += from[n * channels * 2 + 1] + pixels * delta * delta;
  });
  if (threadIdx.y != 0 || c >= channels) return;
  mean[group * channels + c] = static_cast<A>(middle[0]);
  rstd[group * channels + c] = static_cast<A>(1.0 / sqrt(squares[0] / (pixels * static_cast<double>(batch)) + eps));
}

}  // namespace depthwise
}  // namespace ddarts

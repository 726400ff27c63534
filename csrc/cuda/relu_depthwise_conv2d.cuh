// relu_depthwise_conv2d: a = relu(x) or relu((x - mean) rstd), out_f = depthwise convolution of a with w_f, for all f.
//
// A block owns a tile of 8 x 16 outputs, 8 x 8 where the image is narrower or the stride is 2, and 64 bytes of channels: the
// input with its halo is brought into shared memory once (relu_depthwise_conv2d_tile.cuh), prologue applied on the way, zeros
// outside of the image; every filter is computed from it. grid: x = (sample, tile row, tile column), y = block of channels.
// A thread owns one channel and P neighbouring pixels, half a row of the tile: of each input row it reads
// (P - 1) s + (k - 1) d + 1 values into registers and uses them for all k taps. The taps of a filter pass through shared memory
// too, [tap][channel], as in global memory neighbouring channels are k k values apart.
// The input gradient at stride 1 is the same on tiles of g with mirrored filters. At stride 2 a pixel is reached by every other
// tap of a row and of a column (or, at dilation 2, by all or none): parities of columns are known when compiling, rows of a
// warp have one parity. No atomics anywhere: deterministic. Bytes: x once and F outputs; halos come out of the L2 cache.
#pragma once

#include "../common/divisor.cuh"
#include "../common/joined_rows.cuh"
#include "relu_depthwise_conv2d_taps.cuh"

namespace ddarts {
namespace depthwise {

// rows: of outputs, at most kTileRows. P: pixels of a thread, the tile has two times as many columns.
template <typename T, int S, int P>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(DepthwiseProblem p, int rows) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kColumns = 2 * P;
  __shared__ A taps[2][kMostTaps * kTapPitch<A>];
  DDARTS_DYNAMIC_SHARED(A, tile);
  const Place at = place<A>(blockIdx.x, p.out_h, p.out_w, rows, kColumns);
  const Tile shape = input_tile<A>(rows, kColumns, S, p.pad);
  fill_activation<T, A>(p, tile, shape, at.n, at.top * S - p.pad, at.left * S - p.pad, at.first);
  const int lane = threadIdx.x % kC, row = threadIdx.x / kC % kTileRows, column = threadIdx.x / kC / kTileRows * P;
  const int64_t c = at.first + lane, i = at.top + row;
  const int there = static_cast<int>(min(p.out_w - at.left - column, static_cast<int64_t>(P)));
  const bool mine = c < p.c && column < kColumns && row < rows && i < p.out_h && there > 0;
  for (int f = 0; f < p.count; ++f) {
    const DepthwiseFilter& filter = p.filters[f];
    load_taps<A>(taps[f % 2], static_cast<const A*>(filter.weight), filter.k * filter.k, at.first, p.c);
    __syncthreads();  // the tile and these taps are there; those of two filters ago are no longer read
    if (!mine) continue;
    const int skip = p.pad - filter.dilation * (filter.k - 1) / 2;
    A acc[P] = {};
    const A* in = tile + (row * S + skip) * shape.pitch + (column * S + skip) * kC + lane;
    correlate<Correlation, A, S, false>(acc, in, shape.pitch, filter.k, filter.dilation, taps[f % 2] + lane, 0);
    T* out = static_cast<T*>(filter.data) + at.n * filter.strides.n + c * filter.strides.c + i * filter.strides.h +
             (at.left + column) * filter.strides.w;
#pragma unroll
    for (int t = 0; t < P; ++t)
      if (t < there) out[t * filter.strides.w] = narrow<T>(acc[t]);
  }
}

// sums [blockIdx.x][c][2] of dz and dz * a over the tile, where given.
template <typename T, int S, int P>
__global__ void __launch_bounds__(kThreads, sizeof(accumulate_t<T>) == 8 ? 2 : 3)
    input_gradient_kernel(DepthwiseProblem p, accumulate_t<T>* dz, DepthwiseStrides strides, bool add, bool last, double* sums) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kColumns = 2 * P;
  __shared__ double parts[kThreads][2];
  __shared__ A taps[kMostTaps * kTapPitch<A>];
  DDARTS_DYNAMIC_SHARED(A, tile);
  const Place at = place<A>(blockIdx.x, p.h, p.w, kTileRows, kColumns);
  const int lane = threadIdx.x % kC, slot = threadIdx.x / kC % kTileRows, column = threadIdx.x / kC / kTileRows * P;
  // At stride 2 neighbouring slots, halves of a warp, have rows 2 apart: 0 2 1 3 4 6 5 7.
  const int row = S == 1 ? slot : (slot & 4) | (slot & 1) << 1 | (slot >> 1 & 1);
  const int64_t c = at.first + lane, i = at.top + row;
  const int there = static_cast<int>(min(p.w - at.left - column, static_cast<int64_t>(P)));
  const bool mine = c < p.c && column < kColumns && i < p.h && there > 0;
  const int out_h = static_cast<int>(p.out_h), out_w = static_cast<int>(p.out_w);
  A acc[P] = {};
  for (int f = 0; f < p.count; ++f) {
    const DepthwiseFilter& filter = p.filters[f];
    const T* g = static_cast<const T*>(filter.data) + at.n * filter.strides.n;
    int before;
    const Tile shape = gradient_tile<A>(kColumns, S, filter.dilation * (filter.k - 1) / 2, before);
    const int top = at.top / S - before, left = at.left / S - before;
    const auto source = [&](int r, int q, int l) -> const T* {
      const int y = top + r, x = left + q;
      if (y < 0 || y >= out_h || x < 0 || x >= out_w || at.first + l >= p.c) return nullptr;
      return g + (at.first + l) * filter.strides.c + y * filter.strides.h + x * filter.strides.w;
    };
    __syncthreads();  // tile and taps may still be read for the filter before
    load_taps<A>(taps, static_cast<const A*>(filter.weight), filter.k * filter.k, at.first, p.c);
    fill<T>(tile, shape, filter.packets, filter.strides.c == 1, left, source, [](A value, int, int) { return value; });
    __syncthreads();
    if (!mine) continue;
    if constexpr (S == 1) {
      correlate<Correlation, A, 1, true>(acc, tile + row * shape.pitch + column * kC + lane, shape.pitch, filter.k, filter.dilation, taps + lane, 0);
    } else {
      correlate<Spreading, A, S, false>(acc, tile + column / S * kC + lane, shape.pitch, filter.k, filter.dilation, taps + lane, row);
    }
  }
  A sum = A(0), product = A(0);
  if (mine) {
    const Affine<A> s = affine<A>(p, at.n, c);
    const int64_t j = at.left + column;
    const T* x = static_cast<const T*>(p.x) + at.n * p.strides.n + c * p.strides.c + i * p.strides.h + j * p.strides.w;
    A* out = dz + at.n * strides.n + c * strides.c + i * strides.h + j * strides.w;
#pragma unroll
    for (int t = 0; t < P; ++t) {
      if (t >= there) break;
      A value = acc[t] + (add ? out[t * strides.w] : A(0));
      if (last) {
        const A a = activation(s, static_cast<A>(widen(x[t * p.strides.w])));
        if (a <= A(0)) value = A(0);
        sum += value;
        product += value * a;
      }
      out[t * strides.w] = value;
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

// Where element k of a dense image lies in it.
struct Geometry {
  Divisor channels, pixels, width, batch;
  bool channels_last;
};

// dx = r dz, or r (dz - mean(dz) - xhat mean(dz xhat)); without a norm dx = dz, rounded. dz, dx: dense, V channels (V = 1:
// elements) a thread at a time.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads) finish_kernel(DepthwiseProblem p, const accumulate_t<T>* dz, T* dx, Geometry at,
                                                          const double* means) {
  using A = accumulate_t<T>;
  const int64_t total = p.n * p.c * p.h * p.w / V;
  for (int64_t k = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; k < total; k += static_cast<int64_t>(gridDim.x) * kThreads) {
    int64_t n, c, pixel;
    if (at.channels_last) {
      const int64_t rest = at.channels.divide(k);
      c = (k - rest * at.channels.by) * V, n = at.pixels.divide(rest), pixel = rest - n * at.pixels.by;
    } else {
      const int64_t rest = at.pixels.divide(k);
      pixel = k - rest * at.pixels.by, n = at.channels.divide(rest), c = rest - n * at.channels.by;
    }
    const auto in = *reinterpret_cast<const Packed<A, V>*>(dz + k * V);
    const int64_t row = p.mean == nullptr ? 0 : at.batch.divide(n) * p.c + c;
    Packed<T, V> x{}, out;
    if (means != nullptr) {
      const int64_t i = at.width.divide(pixel), j = pixel - i * at.width.by;
      x = *reinterpret_cast<const Packed<T, V>*>(static_cast<const T*>(p.x) + n * p.strides.n + c * p.strides.c + i * p.strides.h + j * p.strides.w);
    }
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Affine<A> s = p.mean == nullptr ? Affine<A>{A(0), A(1)}
                                            : Affine<A>{static_cast<const A*>(p.mean)[row + v], static_cast<const A*>(p.rstd)[row + v]};
      A value = in.v[v];
      if (means != nullptr) {
        const double* m = means + (row + v) * 2;
        value -= static_cast<A>(m[0]) + (static_cast<A>(widen(x.v[v])) - s.mean) * s.rstd * static_cast<A>(m[1]);
      }
      out.v[v] = narrow<T>(value * s.rstd);
    }
    *reinterpret_cast<Packed<T, V>*>(dx + k * V) = out;
  }
}

// scratch[n parts + part][c] = mean and sum of squares about it of a part of an image, in float64 about the part's first
// value. Grid: x = (sample, part), y = block of channels. V channels a thread, of one pixel after the other.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads) image_statistics_kernel(DepthwiseProblem p, Divisor width, int parts, double* scratch) {
  constexpr int kC = kChannels<accumulate_t<T>>, kLanes = kC / V, kSlots = kThreads / kLanes, kAhead = 4;
  constexpr int kPitch = kSlots + 1, kTeam = kThreads / (2 * kC);  // threads that add up a channel
  __shared__ double sums[2][kC][kPitch];
  const bool dense = p.strides.c == 1;
  const int lane = dense ? threadIdx.x % kLanes : threadIdx.x / kSlots, slot = dense ? threadIdx.x / kLanes : threadIdx.x % kSlots;
  const int64_t n = blockIdx.x / parts, first = static_cast<int64_t>(blockIdx.y) * kC, c = first + lane * V;
  const int64_t pixels = p.h * p.w / parts, begin = blockIdx.x % parts * pixels;
  const T* x = static_cast<const T*>(p.x) + n * p.strides.n + c * p.strides.c;
  const auto load = [&](int64_t pixel) {
    const int64_t i = width.divide(pixel), j = pixel - i * width.by;
    return *reinterpret_cast<const Packed<T, V>*>(x + i * p.strides.h + j * p.strides.w);
  };
  double origin[V] = {}, sum[V] = {}, square[V] = {};
  if (c < p.c) {
    const Packed<T, V> one = load(begin);
#pragma unroll
    for (int v = 0; v < V; ++v) origin[v] = static_cast<double>(widen(one.v[v]));
    for (int64_t q = slot; q < pixels; q += kAhead * kSlots) {
      Packed<T, V> values[kAhead];
#pragma unroll
      for (int b = 0; b < kAhead; ++b) values[b] = q + b * kSlots < pixels ? load(begin + q + b * kSlots) : one;
#pragma unroll
      for (int b = 0; b < kAhead; ++b)
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const double d = static_cast<double>(widen(values[b].v[v])) - origin[v];
          sum[v] += d, square[v] += d * d;
        }
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) sums[0][lane * V + v][slot] = sum[v], sums[1][lane * V + v][slot] = square[v];
  __syncthreads();
  const int team = threadIdx.x / kTeam, member = threadIdx.x % kTeam, which = team % 2, channel = team / 2;
  double total = 0;
  for (int q = member; q < kSlots; q += kTeam) total += sums[which][channel][q];
  for (int d = kTeam / 2; d > 0; d >>= 1) total += __shfl_xor_sync(0xffffffffu, total, d);
  const double other = __shfl_xor_sync(0xffffffffu, total, kTeam);  // the squares, in the team of the sum
  if (member != 0 || which != 0 || first + channel >= p.c) return;
  const int64_t i = width.divide(begin), j = begin - i * width.by;
  const double centre = static_cast<double>(widen(static_cast<const T*>(p.x)[n * p.strides.n + (first + channel) * p.strides.c + i * p.strides.h + j * p.strides.w]));
  const double shift = total / static_cast<double>(pixels), left = other - total * shift;
  double* to = scratch + (static_cast<int64_t>(blockIdx.x) * p.c + first + channel) * 2;
  to[0] = centre + shift;
  to[1] = left < 0 ? 0 : left;
}

// Mean of the parts of a group's images, then the squares about it: all parts have as many pixels. Grid as of mean_kernel.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    merge_statistics_kernel(const double* scratch, int64_t rows, int64_t channels, double pixels, double eps, A* mean, A* rstd) {
  const auto across = static_cast<unsigned>((channels + kJoinColumns - 1) / kJoinColumns);  // a grid counts in 32 bits
  const int64_t group = blockIdx.x / across;
  const int64_t c = blockIdx.x % across * kJoinColumns + threadIdx.x;
  const double* from = scratch + (group * rows * channels + c) * 2;
  const int64_t own = c < channels ? rows : 0;
  const double share = rows == 0 ? 0.0 : 1.0 / static_cast<double>(rows);  // of no image: mean 0, variance 0
  double middle[1], squares[1];
  join_rows(own, middle, [&](int64_t n, double(&sum)[1]) { sum[0] += from[n * channels * 2]; });
  middle[0] *= share;
  join_rows(own, squares, [&](int64_t n, double(&sum)[1]) {
    const double delta = from[n * channels * 2] - middle[0];
    sum[0] += from[n * channels * 2 + 1] + pixels * delta * delta;
  });
  if (threadIdx.y != 0 || c >= channels) return;
  mean[group * channels + c] = static_cast<A>(middle[0]);
  rstd[group * channels + c] = static_cast<A>(1.0 / sqrt(squares[0] * share / pixels + eps));
}

}  // namespace depthwise
}  // namespace ddarts

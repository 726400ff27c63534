// relu_separable_conv2d, backward: the blocks of the input's gradient; see relu_separable_conv2d_backward.cuh.
#pragma once

#include "relu_separable_conv2d_mix.cuh"

namespace ddarts {
namespace separable {

// sums [I, tiles, C, 2] of dz and dz a over the tile, where given: dx is then finished by another kernel.
template <typename T, int S, int P, int Most, bool Cores>
__device__ __forceinline__ void input_gradient(const SeparableProblem& p, unsigned block, const SeparablePlan& plan, accumulate_t<T>* taps,
                                               accumulate_t<T>* mixing, accumulate_t<T>* scale, accumulate_t<T>* tile,
                                               double* sums) {
  using A = accumulate_t<T>;
  constexpr int kC = kChannels<A>, kColumns = 2 * P;
  const unsigned tiles = (gridDim.x - plan.filter_blocks) / plan.across / p.source_count, index = block / plan.across % tiles;
  const SeparableSource& source = p.sources[block / plan.across / tiles];
  const int first = static_cast<int>(block % plan.across) * kC;
  const At at(index, p.h, p.w, kTileRows, kColumns);
  const Strip<A, P> strip;
  // At stride 2 neighbouring strips, halves of a warp, have rows 2 apart: 0 2 1 3 4 6 5 7.
  const int row = S == 1 ? strip.row : (strip.row & 4) | (strip.row & 1) << 1 | (strip.row >> 1 & 1);
  const int c = first + strip.lane, i = at.top + row, j = at.left + strip.column;
  const int there = min(static_cast<int>(p.w) - j, P);
  const bool mine = c < p.c && strip.inside() && i < p.h && there > 0;
  A acc[P] = {};
  for (int f = source.first; f < source.first + source.count; ++f) {
    const SeparableFilter& filter = p.filters[f];
    int before;
    const Tile shape = gradient_tile<A>(kColumns, S, filter.dilation * (filter.k - 1) / 2, before);
    __syncthreads();  // of the filter before all is read
    load_taps<A>(taps, p, filter, first);
    mix_back<T, S == 2 ? 1 : 2, Cores>(p, filter, tile, shape, mixing, scale, at.n, at.top / S - before, at.left / S - before, first);
    __syncthreads();
    if (!mine) continue;
    if constexpr (S == 1) {
      correlate<Correlation, A, 1, true, Most>(acc, tile + row * shape.pitch + strip.column * kC + strip.lane, shape.pitch, filter.k,
                                         filter.dilation, taps + strip.lane, 0);
    } else {
      const A* in = tile + strip.column / S * kC + strip.lane;
      if (filter.offset == 0) {
        correlate<Spreading, A, S, false, Most>(acc, in, shape.pitch, filter.k, filter.dilation, taps + strip.lane, row);
      } else if (row % 2 != 0) {  // of pixels one further
        A moved[P] = {};
        Spreading::run<A, 1, 1, S, false>(moved, in, shape.pitch, taps + strip.lane, row - 1);
#pragma unroll
        for (int t = 0; t + 1 < P; t += 2) acc[t + 1] += moved[t];
      }
    }
  }
  A sum = A(0), product = A(0);
  if (mine) {
    const Strides s = strides_of(p.channels_last, p.c, p.h * p.w);
    const int64_t offset = static_cast<int64_t>(at.n) * s.n + c * s.c + (i * p.w + j) * s.pixel;
    const T* x = static_cast<const T*>(source.x) + offset;
    T* dx = static_cast<T*>(source.dx) + offset;
    A* carry = static_cast<A*>(source.carry) + offset;
    const Affine<A> norm = affine<A>(p, source, at.n, c);
#pragma unroll
    for (int t = 0; t < P; ++t) {
      if (t >= there) break;
      A value = acc[t] + (source.add ? carry[t * s.pixel] : A(0));
      if (source.last) {
        const A a = activation(norm, static_cast<A>(widen(x[t * s.pixel])));
        if (a <= A(0)) value = A(0);
        sum += value;
        product += value * a;
      }
      if (source.last && (sums == nullptr || p.before_norm)) {
        dx[t * s.pixel] = narrow<T>(p.before_norm ? value : value * norm.rstd);
      } else {
        carry[t * s.pixel] = value;
      }
    }
  }
  if (sums == nullptr || !source.last) return;
  __syncthreads();
  double* parts = reinterpret_cast<double*>(tile);
  parts[threadIdx.x] = static_cast<double>(sum), parts[kThreads + threadIdx.x] = static_cast<double>(product);
  __syncthreads();
  if (threadIdx.x >= 2 * kC) return;
  const int which = threadIdx.x / kC, lane = threadIdx.x % kC;
  if (first + lane >= p.c) return;
  double total = 0;
  for (int q = lane; q < kThreads; q += kC) total += parts[which * kThreads + q];
  sums[((source.index * tiles + index) * p.c + first + lane) * 2 + which] = total;
}

}  // namespace separable
}  // namespace ddarts

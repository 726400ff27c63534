// relu_separable_conv2d, gradients: with g_f that of output f,
//
//   dz_f = u_f^T g_f    dx = [a > 0] sum_f (transposed depthwise of dz_f with w_f)    du_f = g_f z_f^T    dw_f = dz_f a
//
// in one launch. Its first blocks give the gradients of the filters, the others that of the input.
// Input: a block owns a tile of 8 x 2P pixels of x and 64 bytes of channels. For each filter that reads x it computes dz_f on the
// tile with its halo into shared memory, from g_f as it lies in global memory (every value is asked for by four lanes at once,
// and again by the blocks of the other channels and of neighbouring tiles: L1 and L2), and from there on all is as in
// relu_depthwise_conv2d. Filters: a block has one filter, 64 bytes of input channels, 64 output channels (32 of float64) and a
// part of the tiles of outputs. From the tile of the input it computes z, multiplies it with g (a thread owns 2 x 4 products,
// 1 x 2 of float64), then dz, and multiplies that with the input (a thread owns a
// channel and every second row of taps). Blocks add up their
// threads in order and write partial[chunk][column], which a second kernel joins: no atomics, deterministic.
// Bytes: x and g twice, dx once; what is asked for again comes out of the L2 cache.
#pragma once

#include "../common/divisor.cuh"
#include "../common/joined_rows.cuh"
#include "relu_separable_conv2d_filters.cuh"
#include "relu_separable_conv2d_input.cuh"

namespace ddarts {
namespace separable {

// Most: side of the largest filter. Cores: whether products over channels are on tensor cores.
template <typename T, int S, int P, int Most, bool Cores>
__global__ void __launch_bounds__(kThreads, sizeof(accumulate_t<T>) == 8 || Most > 5 ? 1 : 2)
    separable_backward_kernel(SeparableProblem p, SeparablePlan plan, accumulate_t<T>* partial, double* sums) {
  using A = accumulate_t<T>;
  __shared__ A taps[Most * Most * kTapPitch<A>];
  __shared__ __align__(16) A mixing[kOutputs<A> * kChannels<A>];  // [o][c]
  __shared__ __align__(16) A scale[3 * kOutputs<A>];
  DDARTS_DYNAMIC_SHARED(A, tile);
  if (threadIdx.x < 3 * kOutputs<A>) scale[threadIdx.x] = A(0);  // by the threads that write it later
  if (blockIdx.x < plan.filter_blocks) {
    filter_gradients<T, S, S == 2 ? 4 : P, Most, Cores>(p, blockIdx.x, plan, taps, mixing, scale, tile, partial);
  } else {
    input_gradient<T, S, P, Most, Cores>(p, blockIdx.x - plan.filter_blocks, plan, taps, mixing, scale, tile, sums);
  }
}

// The gradients of the filters from partial [chunks, columns], and means [I,G,2,C] of the tiles' sums. A block has 32 columns;
// the first `filter_blocks` are for the filters, then `across` for each group of each source of this launch.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    separable_join_kernel(SeparableProblem p, const A* partial, int64_t chunks, int64_t columns, int64_t filter_blocks, const double* sums,
                          int64_t tiles_of_group, int64_t groups, unsigned across, A* means) {
  double total[1];
  if (blockIdx.x >= filter_blocks) {
    const unsigned block = static_cast<unsigned>(blockIdx.x - filter_blocks), row = block / across;
    const int64_t group = row % groups, at = static_cast<int64_t>(block % across) * kJoinColumns + threadIdx.x;
    const SeparableSource& source = p.sources[row / groups];
    if (!source.last) return;
    const bool mine = at < 2 * p.c;
    const double* from = sums + (source.index * groups + group) * tiles_of_group * 2 * p.c + at;
    join_rows(mine ? tiles_of_group : 0, total, [&](int64_t t, double(&sum)[1]) { sum[0] += from[t * 2 * p.c]; });
    const double mean = total[0] / static_cast<double>(p.batch * p.h * p.w), other = __shfl_xor_sync(0xffffffffu, mean, 1);
    if (threadIdx.y != 0 || !mine) return;
    if (!p.before_norm) {
      means[(source.index * groups + group) * 2 * p.c + at % 2 * p.c + at / 2] = static_cast<A>(mean);
    } else if (at % 2 == 0) {  // r (dz - mean(dz) - xhat mean(dz xhat)) as a dz + s x + d
      const int64_t c = at / 2, row = (group * p.inputs + source.index) * p.c + c;
      const double r = static_cast<double>(static_cast<const A*>(p.rstd)[row]), s = -r * r * other;
      A* to = static_cast<A*>(p.coefficients) + (group * p.coefficient_rows + p.norm_row + source.index) * p.c + c;
      to[0] = static_cast<A>(r), to[p.coefficient_plane] = static_cast<A>(s);
      to[2 * p.coefficient_plane] = static_cast<A>(-r * mean - s * static_cast<double>(static_cast<const A*>(p.mean)[row]));
    }
    return;
  }
  const SeparableFilter& end = p.filters[p.count - 1];
  const int64_t i = p.filters[0].column + static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const bool mine = i < end.column + ((end.depthwise == nullptr ? 0 : end.k * end.k) + p.out_c) * p.c;
  join_rows(mine ? chunks : 0, total, [&](int64_t chunk, double(&sum)[1]) { sum[0] += static_cast<double>(partial[chunk * columns + i]); });
  if (threadIdx.y != 0 || !mine) return;
  int f = 0;
  while (f + 1 < p.count && p.filters[f + 1].column <= i) ++f;
  const SeparableFilter& filter = p.filters[f];
  const int64_t at = i - filter.column, area = filter.depthwise == nullptr ? 0 : filter.k * filter.k;
  if (at < area * p.c) {
    const int64_t tap = at / p.c;
    store_weight(filter.d_depthwise, filter.depthwise_dtype, (at - tap * p.c) * area + tap, total[0]);
  } else {
    store_weight(filter.d_pointwise, filter.pointwise_dtype, at - area * p.c, total[0]);
  }
}

// dx = r (dz - mean(dz) - a mean(dz a)), where dz is not zero a = xhat; else with xhat of x. V channels (V = 1: elements) a
// thread at a time. grid: y = source. tables: those of means and norms can be read in packets, too.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    separable_finish_kernel(SeparableProblem p, Divisor channels, Divisor pixels, Divisor batch, int64_t groups, const accumulate_t<T>* means, bool tables) {
  using A = accumulate_t<T>;
  const SeparableSource& source = p.sources[blockIdx.y];
  if (!source.last) return;
  const int64_t total = p.n * p.c * p.h * p.w / V;
  for (int64_t k = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; k < total; k += static_cast<int64_t>(gridDim.x) * kThreads) {
    int64_t n, c;
    if (p.channels_last) {
      const int64_t rest = channels.divide(k);
      c = (k - rest * channels.by) * V, n = pixels.divide(rest);
    } else {
      const int64_t rest = pixels.divide(k);
      n = channels.divide(rest), c = rest - n * channels.by;
    }
    const int64_t group = batch.divide(n), row = (group * p.inputs + source.index) * p.c + c;
    const A* own = means + (source.index * groups + group) * 2 * p.c + c;
    A of_dz[V], of_product[V], centre[V], scale[V];
    load_entries(own, tables, of_dz), load_entries(own + p.c, tables, of_product);
    load_entries(static_cast<const A*>(p.mean) + row, tables, centre), load_entries(static_cast<const A*>(p.rstd) + row, tables, scale);
    const auto dz = *reinterpret_cast<const Packed<A, V>*>(static_cast<const A*>(source.carry) + k * V);
    const auto x = *reinterpret_cast<const Packed<T, V>*>(static_cast<const T*>(source.x) + k * V);
    Packed<T, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A xhat = (static_cast<A>(widen(x.v[v])) - centre[v]) * scale[v];
      out.v[v] = narrow<T>(scale[v] * (dz.v[v] - of_dz[v] - xhat * of_product[v]));
    }
    *reinterpret_cast<Packed<T, V>*>(static_cast<T*>(source.dx) + k * V) = out;
  }
}

}  // namespace separable
}  // namespace ddarts

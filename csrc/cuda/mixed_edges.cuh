// mixed_edges: sums[t] = previous[t] + sum_k w[g,k] BN(y_k) over the ops k that enter node t, and its gradients
// (docs/kernels/mixed_edges.md). The convolutions are relu_separable_conv2d's, whose forward writes the moments of its outputs
// tile by tile, and whose backward evaluates the gradient of an output, a g + s y + d per channel, where it reads it. What
// is between is here: the moments of all tiles become mean and rstd; the sums; the sums of g and g (y - mean) that a norm's
// gradient needs; a, s and d. A gradient of an op's output is never stored.
//
// Frames, places and packets are those of mixed_sum. DRAM traffic: the sums read each y once and each previous once, and write
// each sum once; the products read each y once and each g ceil(K/4) times, out of L2 but for the first. Tables are small.
// Deterministic: partial sums are joined in the order of the tiles, which depends on the shape alone.
#pragma once

#include "mixed_edges.h"
#include "mixed_sum.cuh"

namespace ddarts {
namespace mixed {

// Grid (blocks of 32 channels, entries, groups).
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows) edges_join_kernel(Frame f, EdgesJoin join, double eps) {
  const EdgesMoments& entry = join.entry[blockIdx.y];
  const int64_t channels = f.shape.channels, c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const int64_t group = f.first_group + blockIdx.z, to = group * entry.rows * channels + c;
  A *mean = static_cast<A*>(entry.mean), *rstd = static_cast<A*>(entry.rstd);
  if (entry.partial == nullptr) {  // the whole block
    if (threadIdx.y == 0 && c < channels) mean[to] = A(0), rstd[to] = A(1);
    return;
  }
  double centre[1], squares[1];
  join_tiles(c < channels ? entry.tiles : 0, static_cast<const A*>(entry.partial) + group * entry.tiles * 3 * channels + c, channels, f.share,
             centre, squares);
  if (threadIdx.y != 0 || c >= channels) return;
  mean[to] = static_cast<A>(centre[0]);
  rstd[to] = static_cast<A>(1.0 / sqrt(squares[0] * f.share + eps));
}

// Grid y = target. A thread writes F packets of one column.
template <typename A, int V, int F>
__global__ void __launch_bounds__(kThreads)
    edges_output_kernel(Frame f, MixedTable table, EdgesTargets targets, const A* weights, const A* mean, const A* rstd, DType dtype) {
  const Place<V> at(f);
  const EdgesTarget& target = targets.target[blockIdx.y];
  const int64_t start = at.tile * f.depth * F + at.level;
  if (!at.inside || start >= f.positions) return;
  A total[F][V] = {};
  int64_t rows[F];
  const int count = packets_from(f, at, start, rows);
#pragma unroll
  for (int u = 0; u < F; ++u)
    if (target.previous != nullptr) load(dtype, target.previous, at.offset(f, rows[u], f.shape.channels), total[u]);
  add_branches(f, table, target.begin, target.end, at, rows, weights, mean, rstd, total);
#pragma unroll
  for (int u = 0; u < F; ++u)
    if (u < count) store(dtype, target.out, at.offset(f, rows[u], f.shape.channels), total[u]);
}

// Grid y = four entries of one target; the first four of a target also add up g.
template <typename A, int V>
__global__ void __launch_bounds__(kThreads, 2)
    edges_products_kernel(Frame f, MixedTable table, EdgesTargets targets, const A* mean, A* partial, DType dtype) {
  int t = 0, quad = static_cast<int>(blockIdx.y);
  for (;; ++t) {
    const int quads = (targets.target[t].end - targets.target[t].begin + kTogether - 1) / kTogether;
    if (quad < quads) break;
    quad -= quads;
  }
  const EdgesTarget& target = targets.target[t];
  const int base = target.begin + quad * kTogether;
  products<A, V>(f, table, base, min(kTogether, target.end - base), true, target.grad, dtype, f.shape.channels, mean, partial,
                 quad == 0 ? f.shape.branches + target.target : -1);
}

// Grid (entries, 1, groups). dy = w r (g - S0/M - xhat P/M), S0 = sum g, P = sum g xhat, M values a channel; or w r g where the
// statistics are constants.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    edges_coefficients_kernel(Frame f, EdgesTerms terms, const A* partial, const A* weights, const A* mean, const A* rstd, A* coefficients,
                              A* d_weights) {
  const EdgesTerm& term = terms.term[blockIdx.x];
  const int64_t channels = f.shape.channels, group = f.first_group + blockIdx.z, branches = f.shape.branches;
  const int64_t row = group * branches + term.k, plane = f.shape.groups * terms.rows * channels;
  const double weight = static_cast<double>(weights[row]);
  const A* products = partial + (term.k * f.shape.groups + group) * f.tiles * channels;
  const A* sums = partial + ((branches + term.target) * f.shape.groups + group) * f.tiles * channels;
  double of_weight = 0;
  for (int64_t first = 0; first < channels; first += kJoinColumns) {
    const int64_t c = first + threadIdx.x;
    double total[2] = {};
    if (term.summed)  // the whole block
      join_rows(c < channels ? f.tiles : 0, total, [&](int64_t tile, double(&sum)[2]) {
        sum[0] += static_cast<double>(products[tile * channels + c]);
        sum[1] += static_cast<double>(sums[tile * channels + c]);
      });
    if (threadIdx.y != 0 || c >= channels) continue;
    const double r = static_cast<double>(rstd[row * channels + c]), product = total[0] * r;
    of_weight += product;
    double s = 0, d = 0;
    if (term.centred) {
      s = -weight * r * r * product * f.share;
      d = -weight * r * total[1] * f.share - s * static_cast<double>(mean[row * channels + c]);
    }
    A* to = coefficients + (group * terms.rows + term.k) * channels + c;
    to[0] = static_cast<A>(weight * r), to[plane] = static_cast<A>(s), to[2 * plane] = static_cast<A>(d);
  }
  if (threadIdx.y != 0 || !terms.weights_grad) return;
  for (int d = 16; d > 0; d >>= 1) of_weight += __shfl_down_sync(0xffffffffu, of_weight, d);
  if (threadIdx.x == 0) d_weights[row] = static_cast<A>(of_weight);
}

}  // namespace mixed
}  // namespace ddarts

// mixed_sum: out = sum_k w[g,k] (x_k - mean[g,k,c]) rstd[g,k,c], and its gradients (docs/kernels/mixed_sum.md).
//
// Memory: a group is `columns` x `positions` packets of V values (16 bytes of float32; V = 1 where addresses or sizes do
// not allow more). Channels-last: a column is V channels, a position a pixel. Contiguous: a column is a channel, a position
// V pixels of one image. A block is 256 threads = lanes (columns) x depth (positions).
// Grid: x = tile of positions and block of columns, y = branch (or four of them), z = group.
// DRAM traffic: moments K reads; output K reads, 1 write; products K reads and ceil(K/4) of grad, which stays in L2 for
// most; gradients K+1 reads, K writes. All memory-bound. Partial sums are merged in the order of the tiles, which depends
// on the shape alone: deterministic, no atomics. 256 threads: 8 blocks fill a multiprocessor at 32 registers, 4 at 64.
#pragma once

#include "../common/cuda_compat.cuh"
#include "../common/joined_rows.cuh"
#include "mixed_sum.h"

namespace ddarts {
namespace mixed {

constexpr int kThreads = 256, kFlight = 4, kTogether = 4;

struct Frame {
  MixedShape shape;
  int64_t columns, positions, per_image;  // per_image: positions of an image, contiguous only
  int64_t tile;                           // positions of a reduction's tile
  int lanes, depth;
  int64_t column_blocks, tiles;
  double share;  // 1 / values of a channel of a group
  int64_t first_group;  // of a launch, which takes as many groups as a grid has room for in z
};

// Where a thread stands: its column, its channels, the position it starts at and the stride to the next.
template <int V>
struct Place {
  int64_t column, channel, group, tile;
  int lane, level;
  bool inside;
  __device__ __forceinline__ explicit Place(const Frame& f) {
    lane = static_cast<int>(threadIdx.x) % f.lanes;
    level = static_cast<int>(threadIdx.x) / f.lanes;
    column = blockIdx.x % f.column_blocks * f.lanes + lane;
    tile = blockIdx.x / f.column_blocks;
    group = f.first_group + blockIdx.z;
    channel = f.shape.channels_last ? column * V : column;
    inside = column < f.columns;
  }
  // Where a packet is: the number of its pixel in channels-last, else its offset in values from the start of the tensor.
  __device__ __forceinline__ int64_t row(const Frame& f, int64_t position) const {
    const MixedShape& s = f.shape;
    if (s.channels_last) return group * f.positions + position;
    const int64_t image = f.positions <= 0x7fffffff
                              ? static_cast<int64_t>(static_cast<uint32_t>(position) / static_cast<uint32_t>(f.per_image))
                              : position / f.per_image;
    return ((group * s.batch + image) * s.channels + column) * s.pixels + (position - image * f.per_image) * V;
  }
  // Its offset in a tensor whose pixels lie `pitch` values apart.
  __device__ __forceinline__ int64_t offset(const Frame& f, int64_t row, int64_t pitch) const {
    return f.shape.channels_last ? row * pitch + column * V : row;
  }
};

// Where the F packets of a thread are, from position `start` on, and how many there are. Past the end: the first one again, which
// is not to be written.
template <int V, int F>
__device__ __forceinline__ int packets_from(const Frame& f, const Place<V>& at, int64_t start, int64_t (&rows)[F]) {
  int count = 0;
#pragma unroll
  for (int u = 0; u < F; ++u) {
    const int64_t p = start + static_cast<int64_t>(u) * f.depth;
    count += p < f.positions;
    rows[u] = at.row(f, p < f.positions ? p : start);
  }
  return count;
}

template <typename T, typename A, int V>
__device__ __forceinline__ void load_as(const void* data, int64_t offset, A (&value)[V]) {
  const auto packet = *reinterpret_cast<const Packed<T, V>*>(static_cast<const T*>(data) + offset);
#pragma unroll
  for (int v = 0; v < V; ++v) value[v] = static_cast<A>(widen(packet.v[v]));
}
template <typename A, int V>
__device__ __forceinline__ void load(DType dtype, const void* data, int64_t offset, A (&value)[V]) {
  if (dtype == DType::float32) {
    load_as<float>(data, offset, value);
  } else if (dtype == DType::bfloat16) {
    load_as<__nv_bfloat16>(data, offset, value);
  } else if (dtype == DType::float16) {
    load_as<__half>(data, offset, value);
  } else if constexpr (std::is_same_v<A, double>) {
    load_as<double>(data, offset, value);
  }
}
template <typename T, typename A, int V>
__device__ __forceinline__ void store_as(void* data, int64_t offset, const A (&value)[V]) {
  Packed<T, V> packet;
#pragma unroll
  for (int v = 0; v < V; ++v) packet.v[v] = narrow<T>(value[v]);
  *reinterpret_cast<Packed<T, V>*>(static_cast<T*>(data) + offset) = packet;
}
template <typename A, int V>
__device__ __forceinline__ void store(DType dtype, void* data, int64_t offset, const A (&value)[V]) {
  if (dtype == DType::float32) {
    store_as<float>(data, offset, value);
  } else if (dtype == DType::bfloat16) {
    store_as<__nv_bfloat16>(data, offset, value);
  } else if (dtype == DType::float16) {
    store_as<__half>(data, offset, value);
  } else if constexpr (std::is_same_v<A, double>) {
    store_as<double>(data, offset, value);
  }
}
// The entries of a [C] row for the channels of a packet: one a value, or one for all. Tables lie as images do, on 16 bytes.
template <typename A, int V>
__device__ __forceinline__ void load_row(const Frame& f, const A* row, int64_t channel, A (&value)[V]) {
  if (f.shape.channels_last) {
    load_entries(row + channel, true, value);
  } else {
    const A one = row[channel];
#pragma unroll
    for (int v = 0; v < V; ++v) value[v] = one;
  }
}

// 1/n for a count. In float64 from float32 by two Newton steps: the division's slow path would cost registers a call.
__device__ __forceinline__ float reciprocal(float n) { return 1.0f / n; }
__device__ __forceinline__ double reciprocal(double n) {
  double r = static_cast<double>(1.0f / static_cast<float>(n));
  r *= 2.0 - n * r;
  return r * (2.0 - n * r);
}

// n, mean and sum of squares about the mean of two disjoint sets, merged into the first (Chan).
template <typename A>
__device__ __forceinline__ void merge(A& n, A& mean, A& squares, A n2, A mean2, A squares2) {
  const A total = n + n2;
  if (n2 == A(0)) return;
  const A delta = mean2 - mean, share = n2 * reciprocal(total);
  mean += delta * share;
  squares += squares2 + delta * delta * n * share;
  n = total;
}

// partial [row][group][tile][3][channels] of the moments; grid y = entry of the table, which is the row.
template <typename A, int V>
__global__ void __launch_bounds__(kThreads) moments_kernel(Frame f, MixedTable table, A* partial) {
  constexpr int kInFlight = sizeof(A) > 4 ? kFlight / 2 : kFlight;  // as many registers, and none spills
  __shared__ A all[3][kThreads];
  const Place<V> at(f);
  const MixedBranch branch = table.branch[blockIdx.y];
  A n = A(0), mean[V] = {}, squares[V] = {};
  const int64_t end = min((at.tile + 1) * f.tile, f.positions);
  for (int64_t p = at.tile * f.tile + at.level; at.inside && p < end; p += static_cast<int64_t>(kInFlight) * f.depth) {
    A x[kInFlight][V], sum[V] = {};
    int count = 0;
#pragma unroll
    for (int u = 0; u < kInFlight; ++u)
      if (p + static_cast<int64_t>(u) * f.depth < end) {
        load(branch.dtype, branch.x, at.offset(f, at.row(f, p + static_cast<int64_t>(u) * f.depth), branch.pitch), x[u]);
        ++count;
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) x[u][v] = A(0);
      }
    const A part = static_cast<A>(count), inverse = reciprocal(part), share = part * reciprocal(n + part);
#pragma unroll
    for (int v = 0; v < V; ++v) {
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) sum[v] += x[u][v];
      const A centre = sum[v] * inverse, delta = centre - mean[v];
      A spread = A(0);
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) spread += u < count ? (x[u][v] - centre) * (x[u][v] - centre) : A(0);
      mean[v] += delta * share;
      squares[v] += spread + delta * delta * n * share;
    }
    n += part;
  }
  if (!f.shape.channels_last) {  // all values of a packet belong to one channel
    A total = n;
#pragma unroll
    for (int v = 1; v < V; ++v) merge(total, mean[0], squares[0], n, mean[v], squares[v]);
    n = total;
  }
  A* out = partial + ((blockIdx.y * f.shape.groups + at.group) * f.tiles + at.tile) * 3 * f.shape.channels;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (v > 0 && !f.shape.channels_last) break;
    __syncthreads();
    all[0][threadIdx.x] = n, all[1][threadIdx.x] = mean[v], all[2][threadIdx.x] = squares[v];
    for (int half = f.depth / 2; half > 0; half /= 2) {
      __syncthreads();
      if (at.level < half) {
        const int a = threadIdx.x, b = a + half * f.lanes;
        merge(all[0][a], all[1][a], all[2][a], all[0][b], all[1][b], all[2][b]);
      }
    }
    if (at.level == 0 && at.inside)
      for (int j = 0; j < 3; ++j) out[j * f.shape.channels + at.channel + v] = all[j][threadIdx.x];
  }
}

// centre = sum n_t mean_t / n, then the squares about it, of the moments [tiles, 3, channels] at `from`; share: 1 / n.
template <typename A>
__device__ __forceinline__ void join_tiles(int64_t tiles, const A* from, int64_t channels, double share, double (&centre)[1], double (&squares)[1]) {
  join_rows(tiles, centre, [&](int64_t t, double(&sum)[1]) {
    const A* at = from + t * 3 * channels;
    sum[0] += static_cast<double>(at[0]) * static_cast<double>(at[channels]);
  });
  centre[0] *= share;
  join_rows(tiles, squares, [&](int64_t t, double(&sum)[1]) {
    const A* at = from + t * 3 * channels;
    const double delta = static_cast<double>(at[channels]) - centre[0];
    sum[0] += static_cast<double>(at[2 * channels]) + static_cast<double>(at[0]) * delta * delta;
  });
}

// Grid (blocks of 32 channels, entries of the table, groups).
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    statistics_kernel(Frame f, MixedTable table, const A* partial, double eps, A* mean, A* rstd) {
  const int64_t channels = f.shape.channels, c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const int64_t group = f.first_group + blockIdx.z;
  double centre[1], squares[1];
  join_tiles(c < channels ? f.tiles : 0, partial + (blockIdx.y * f.shape.groups + group) * f.tiles * 3 * channels + c, channels, f.share,
             centre, squares);
  if (threadIdx.y != 0 || c >= channels) return;
  const int64_t to = (group * f.shape.branches + table.branch[blockIdx.y].index) * channels + c;
  mean[to] = static_cast<A>(centre[0]);
  rstd[to] = static_cast<A>(1.0 / sqrt(squares[0] * f.share + eps));
}

template <typename A>
__global__ void __launch_bounds__(kThreads) given_kernel(Frame f, MixedTable table, const A* given_mean,
                                                         const A* given_rstd, int64_t given_groups, A* mean, A* rstd) {
  const MixedBranch branch = table.branch[blockIdx.y];
  const int64_t row = f.shape.channels, group = f.first_group + blockIdx.z;
  const int64_t from = ((given_groups == 1 ? 0 : group) * f.shape.branches + branch.index) * row;
  const int64_t to = (group * f.shape.branches + branch.index) * row;
  for (int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; c < row; c += static_cast<int64_t>(gridDim.x) * kThreads) {
    mean[to + c] = branch.flag ? given_mean[from + c] : A(0);
    rstd[to + c] = branch.flag ? given_rstd[from + c] : A(1);
  }
}

// total += the entries [begin, end) of the table, normalised and weighted, of F packets.
template <typename A, int V, int F>
__device__ __forceinline__ void add_branches(const Frame& f, const MixedTable& table, int begin, int end, const Place<V>& at, const int64_t (&rows)[F],
                                             const A* weights, const A* mean, const A* rstd, A (&total)[F][V]) {
  for (int k = begin; k < end; ++k) {
    const MixedBranch& branch = table.branch[k];
    const int64_t row = at.group * f.shape.branches + branch.index;
    A centre[V], scale[V], x[F][V];
#pragma unroll
    for (int u = 0; u < F; ++u) load(branch.dtype, branch.x, at.offset(f, rows[u], branch.pitch), x[u]);
    if (branch.flag) {
      load_row(f, mean + row * f.shape.channels, at.channel, centre);
      load_row(f, rstd + row * f.shape.channels, at.channel, scale);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) centre[v] = A(0), scale[v] = A(1);
    }
    const A weight = weights[row];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      scale[v] *= weight;
#pragma unroll
      for (int u = 0; u < F; ++u) total[u][v] += (x[u][v] - centre[v]) * scale[v];
    }
  }
}

// A thread writes F packets of one column. Blocks from `blocks` on, one an entry of the table, write the rows of mean
// and rstd that stand for no norm; nobody here reads those.
template <typename A, int V, int F>
__global__ void __launch_bounds__(kThreads)
    output_kernel(Frame f, MixedTable table, const A* weights, A* mean, A* rstd, A* carry, bool first, bool last, void* out,
                  DType out_dtype, unsigned blocks) {
  if (blockIdx.x >= blocks) {
    const MixedBranch& branch = table.branch[blockIdx.x - blocks];
    const int64_t to = ((f.first_group + blockIdx.z) * f.shape.branches + branch.index) * f.shape.channels;
    for (int64_t c = threadIdx.x; !branch.flag && c < f.shape.channels; c += kThreads) mean[to + c] = A(0), rstd[to + c] = A(1);
    return;
  }
  const Place<V> at(f);
  const int64_t start = at.tile * f.depth * F + at.level;
  if (!at.inside || start >= f.positions) return;
  A total[F][V] = {};
  int64_t rows[F];
  const int count = packets_from(f, at, start, rows);
#pragma unroll
  for (int u = 0; u < F; ++u)
    if (!first) load_as<A>(carry, at.offset(f, rows[u], f.shape.channels), total[u]);
  add_branches(f, table, 0, table.count, at, rows, weights, static_cast<const A*>(mean), static_cast<const A*>(rstd), total);
#pragma unroll
  for (int u = 0; u < F; ++u) {
    if (u >= count) break;
    const int64_t offset = at.offset(f, rows[u], f.shape.channels);
    if (last) {
      store(out_dtype, out, offset, total[u]);
    } else {
      store_as<A>(carry, offset, total[u]);
    }
  }
}

// partial [row][group][tile][channels], of `wanted` entries of the table from `base` on, at most four, and of the sum of grad,
// row `grad_row` if it is not negative. by_index: rows are the numbers of the branches, else the places in the table.
template <typename A, int V>
__device__ __forceinline__ void products(const Frame& f, const MixedTable& table, int base, int wanted, bool by_index, const void* grad, DType grad_dtype,
                                         int64_t grad_pitch, const A* mean, A* partial, int64_t grad_row) {
  __shared__ A all[kThreads];
  const Place<V> at(f);
  A sum[kTogether + 1][V] = {}, centre[kTogether][V] = {};
#pragma unroll
  for (int j = 0; j < kTogether; ++j)
    if (at.inside && j < wanted)
      load_row(f, mean + (at.group * f.shape.branches + table.branch[base + j].index) * f.shape.channels, at.channel, centre[j]);
  const int64_t end = min((at.tile + 1) * f.tile, f.positions);
#pragma unroll 2
  for (int64_t p = at.tile * f.tile + at.level; at.inside && p < end; p += f.depth) {
    const int64_t row = at.row(f, p);
    A g[V];
    load(grad_dtype, grad, at.offset(f, row, grad_pitch), g);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[kTogether][v] += g[v];
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      if (j >= wanted) break;
      A x[V];
      load(table.branch[base + j].dtype, table.branch[base + j].x, at.offset(f, row, table.branch[base + j].pitch), x);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[j][v] += g[v] * (x[v] - centre[j][v]);
    }
  }
#pragma unroll
  for (int j = 0; j <= kTogether; ++j) {
    const bool is_grad = j == kTogether;
    const bool writes = is_grad ? grad_row >= 0 : j < wanted;
    const int64_t row = is_grad ? grad_row : by_index && writes ? table.branch[base + j].index : base + j;
    A* out = partial + ((row * f.shape.groups + at.group) * f.tiles + at.tile) * f.shape.channels;
    if (!f.shape.channels_last) {
#pragma unroll
      for (int v = 1; v < V; ++v) sum[j][0] += sum[j][v];
    }
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (!writes || (v > 0 && !f.shape.channels_last)) break;  // the same for the whole block
      __syncthreads();
      all[threadIdx.x] = sum[j][v];
      for (int half = f.depth / 2; half > 0; half /= 2) {
        __syncthreads();
        if (at.level < half) all[threadIdx.x] += all[threadIdx.x + half * f.lanes];
      }
      if (at.level == 0 && at.inside) out[at.channel + v] = all[threadIdx.x];
    }
  }
}

// Rows = entries of the table, one more for the sum of grad. Grid y = four entries.
template <typename A, int V>
__global__ void __launch_bounds__(kThreads) products_kernel(Frame f, MixedTable table, const void* grad, DType grad_dtype, int64_t grad_pitch,
                                                            const A* mean, A* partial, bool sum_grad) {
  const int base = static_cast<int>(blockIdx.y) * kTogether;
  products<A, V>(f, table, base, min(kTogether, table.count - base), false, grad, grad_dtype, grad_pitch, mean, partial,
                 sum_grad && blockIdx.y == 0 ? table.count : -1);
}

// Grid (blocks of 32 channels, rows of the partial sums, groups). sums [G,K+1,C].
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    products_merge_kernel(Frame f, MixedTable table, const A* partial, const A* rstd, A* sums) {
  const int64_t channels = f.shape.channels, c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const int64_t group = f.first_group + blockIdx.z;
  const A* from = partial + (blockIdx.y * f.shape.groups + group) * f.tiles * channels + c;
  double total[1];
  join_rows(c < channels ? f.tiles : 0, total, [&](int64_t t, double(&sum)[1]) { sum[0] += static_cast<double>(from[t * channels]); });
  if (threadIdx.y != 0 || c >= channels) return;
  const bool is_grad = static_cast<int>(blockIdx.y) == table.count;
  const int64_t k = is_grad ? f.shape.branches : table.branch[blockIdx.y].index;
  const double scale = is_grad ? 1.0 : static_cast<double>(rstd[(group * f.shape.branches + k) * channels + c]);
  sums[(group * (f.shape.branches + 1) + k) * channels + c] = static_cast<A>(total[0] * scale);
}

// d_weights[g,k] = sum over channels of sums[g,k,c], or 0 without sums, one warp a weight: what a block of kThreads gives, of
// as many as needed.
constexpr int kWeightsOfABlock = kThreads / 32;
template <typename A>
__device__ __forceinline__ void weight_gradients(const Frame& f, int64_t block, const A* sums, A* d_weights) {
  const int64_t group = f.first_group + blockIdx.z, k = block * kWeightsOfABlock + threadIdx.x / 32;
  if (k >= f.shape.branches) return;  // the whole warp
  const int64_t row = (group * (f.shape.branches + 1) + k) * f.shape.channels;
  double total = 0;
  for (int64_t c = threadIdx.x % 32; sums && c < f.shape.channels; c += 32) total += static_cast<double>(sums[row + c]);
  for (int d = 16; d > 0; d >>= 1) total += __shfl_down_sync(0xffffffffu, total, d);
  if (threadIdx.x % 32 == 0) d_weights[group * f.shape.branches + k] = static_cast<A>(total);
}

// dx_k = w r (g - g0/M - xhat g1/M), or w r g where the statistics are constants; F packets of g stay in registers.
// Blocks from `blocks` on give the gradients of the weights.
template <typename A, int V, int F>
__global__ void __launch_bounds__(kThreads, 2)
    gradients_kernel(Frame f, MixedTable table, const void* grad, DType grad_dtype, int64_t grad_pitch, const A* weights, const A* mean,
                     const A* rstd, const A* sums, unsigned blocks, const A* weight_sums, A* d_weights) {
  if (blockIdx.x >= blocks) return weight_gradients(f, blockIdx.x - blocks, weight_sums, d_weights);
  const Place<V> at(f);
  const int64_t start = at.tile * f.depth * F + at.level, channels = f.shape.channels, branches = f.shape.branches;
  if (!at.inside || start >= f.positions) return;
  A g[F][V], g0[V];
  int64_t rows[F];
  const int count = packets_from(f, at, start, rows);
#pragma unroll
  for (int u = 0; u < F; ++u) load(grad_dtype, grad, at.offset(f, rows[u], grad_pitch), g[u]);
  const A share = static_cast<A>(f.share);
  load_row(f, sums + (at.group * (branches + 1) + branches) * channels, at.channel, g0);
  for (int k = 0; k < table.count; ++k) {
    const MixedBranch& branch = table.branch[k];
    const int64_t row = at.group * branches + branch.index;
    A scale[V], centre[V] = {}, slope[V] = {}, x[F][V] = {};
    load_row(f, rstd + row * channels, at.channel, scale);
    if (branch.flag) {
#pragma unroll
      for (int u = 0; u < F; ++u) load(branch.dtype, branch.x, at.offset(f, rows[u], branch.pitch), x[u]);
      load_row(f, mean + row * channels, at.channel, centre);
      load_row(f, sums + (at.group * (branches + 1) + branch.index) * channels, at.channel, slope);
    }
    const A weight = weights[row];
#pragma unroll
    for (int u = 0; u < F; ++u) {
      A dx[V];
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const A inner = branch.flag ? g[u][v] - share * (g0[v] + (x[u][v] - centre[v]) * scale[v] * slope[v]) : g[u][v];
        dx[v] = weight * scale[v] * inner;
      }
      if (u < count) store(branch.dtype, branch.dx, at.offset(f, rows[u], f.shape.channels), dx);
    }
  }
}

}  // namespace mixed
}  // namespace ddarts

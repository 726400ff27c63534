// grouped_batch_norm: batch norm over groups of the batch; ddarts_ext/ops/grouped_batch_norm.py has the equations.
//
// Every kernel walks the same way. A chunk is what N consecutive values (16 bytes, or one value where shapes or addresses
// do not allow it) belong to: N channels in channels-last, one channel in contiguous. A chunk has rows of N values: the
// pixels of the group, or N-th parts of its planes. Grid: x parts of the rows, y chunks, z groups; a block is tx chunks
// x ty rows, tx = 1 in contiguous. So a thread keeps one chunk's parameters in registers over all its rows, and
// neighbouring threads read neighbouring 16 bytes.
// Bytes: forward reads x twice and writes out; backward reads x and grad twice and writes dx. Partial results of the
// reductions are joined in order by a second small kernel: deterministic, no atomics; parts depend on the shape alone.
// 256 threads: the shared memory of a reduction stays at 16 KiB and 4 to 8 blocks fit a multiprocessor.
#pragma once

#include "../common/cuda_compat.cuh"
#include "../common/divisor.cuh"
#include "../common/joined_rows.cuh"
#include "grouped_batch_norm.h"

#include <cstdint>

namespace ddarts {
namespace {

constexpr int kNormThreads = 256, kAhead = 4;  // kAhead: rows loaded before the first is used

// Where row r of a chunk of group g begins; parts: rows of one image.
template <int N, bool kLast>
__device__ __forceinline__ int64_t address(const NormShape& s, const Divisor& parts, int64_t g, int64_t chunk, int64_t r) {
  if constexpr (kLast) return (g * s.batch * s.pixels + r) * s.channels + chunk * N;
  const int64_t image = parts.divide(r);
  return ((g * s.batch + image) * s.channels + chunk) * s.pixels + (r - image * parts.by) * N;
}
template <int N, bool kLast>
__device__ __forceinline__ int64_t rows_of(const NormShape& s) {
  return kLast ? s.batch * s.pixels : s.batch * (s.pixels / N);
}
template <int N, bool kLast>
__device__ __forceinline__ int64_t chunks_of(const NormShape& s) {
  return kLast ? s.channels / N : s.channels;
}
template <typename T, int N>
__device__ __forceinline__ Packed<T, N> load(const T* from) {
  return *reinterpret_cast<const Packed<T, N>*>(from);
}

// Entries of a table that belong to a chunk; at: the first.
template <int N, bool kLast, typename A>
__device__ __forceinline__ void read_entries(const A* table, int64_t at, bool packets, A (&to)[N]) {
  if constexpr (kLast) {
    load_entries(table + at, packets, to);
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] = table[at];
  }
}

// A chunk's parameters: y = (x - mean) scale + bias.
template <typename A, int N>
struct Chunk {
  A mean[N], scale[N], bias[N];
  template <bool kLast>
  __device__ __forceinline__ void read(const NormParameters& p, const NormShape& s, int64_t g, int64_t chunk) {
    const int64_t c = kLast ? chunk * N : chunk, at = g * s.channels + c;
    read_entries<N, kLast>(static_cast<const A*>(p.mean), at, p.packets, mean);
    read_entries<N, kLast>(static_cast<const A*>(p.rstd), at, p.packets, scale);
#pragma unroll
    for (int j = 0; j < N; ++j) bias[j] = A(0);
    if (p.bias) read_entries<N, kLast>(static_cast<const A*>(p.bias), c, p.packets, bias);
    if (!p.weight) return;
    A weight[N];
    read_entries<N, kLast>(static_cast<const A*>(p.weight), c, p.packets, weight);
#pragma unroll
    for (int j = 0; j < N; ++j) scale[j] *= weight[j];
  }
  __device__ __forceinline__ A affine(A x, int j) const { return (x - mean[j]) * scale[j] + bias[j]; }
};

// Two numbers a lane, added or joined over the block's rows; the result is in the threads with threadIdx.y == 0.
// join(a0, a1, count_a, b0, b1, count_b) makes b part of a. All threads of the block must call it.
template <typename A, int N, typename Join>
__device__ __forceinline__ void over_block(A (&first)[N], A (&second)[N], A& count, const Join& join) {
  __shared__ A shared[2][N][kNormThreads];
  __shared__ A counts[kNormThreads];
  const int me = threadIdx.y * blockDim.x + threadIdx.x;
  for (int half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();  // the round before, or the group before, has been read
#pragma unroll
    for (int j = 0; j < N; ++j) shared[0][j][me] = first[j], shared[1][j][me] = second[j];
    counts[me] = count;
    __syncthreads();
    if (threadIdx.y < half) {
      const int other = me + half * blockDim.x;
#pragma unroll
      for (int j = 0; j < N; ++j) join(first[j], second[j], count, shared[0][j][other], shared[1][j][other], counts[other]);
      count += counts[other];
    }
  }
}

// (mean, sum of squares about it, count): Chan's formula.
struct JoinMoments {
  template <typename A>
  __device__ __forceinline__ void operator()(A& mean, A& m2, A count, A mean_b, A m2_b, A count_b) const {
    if (count_b == A(0)) return;
    const A delta = mean_b - mean, share = count_b / (count + count_b);
    mean += delta * share;
    m2 += m2_b + delta * delta * count * share;
  }
};
struct JoinSums {
  template <typename A>
  __device__ __forceinline__ void operator()(A& a, A& b, A, A other_a, A other_b, A) const {
    a += other_a, b += other_b;
  }
};

// Joins the lanes of a contiguous chunk, which are one channel, and writes a part's results: partial[3][parts][G*C].
template <typename A, int N, bool kLast, typename Join>
__device__ __forceinline__ void write_part(A (&first)[N], A (&second)[N], A count, A* partial, const NormShape& s,
                                           int64_t g, int64_t chunk, const Join& join) {
  if constexpr (!kLast) {
    A lanes = count;
#pragma unroll
    for (int j = 1; j < N; ++j) join(first[0], second[0], lanes, first[j], second[j], count), lanes += count;
    count = lanes;
  }
  const int64_t plane = s.groups * s.channels, all = gridDim.x * plane;
  constexpr int V = !kLast || N * sizeof(A) < 16 ? 1 : 16 / static_cast<int>(sizeof(A));
#pragma unroll
  for (int j = 0; j < (kLast ? N : 1); j += V) {
    A* to = partial + blockIdx.x * plane + g * s.channels + (kLast ? chunk * N : chunk) + j;
    Packed<A, V> packets[3];
#pragma unroll
    for (int v = 0; v < V; ++v) packets[0].v[v] = first[j + v], packets[1].v[v] = second[j + v], packets[2].v[v] = count;
#pragma unroll
    for (int k = 0; k < 3; ++k) *reinterpret_cast<Packed<A, V>*>(to + k * all) = packets[k];
  }
}

template <typename T, int N, bool kLast>
__global__ void __launch_bounds__(kNormThreads, 2) norm_statistics_parts(const T* __restrict__ x, accumulate_t<T>* partial, NormShape s, Divisor image) {
  using A = accumulate_t<T>;
  const int64_t chunks = chunks_of<N, kLast>(s), rows = rows_of<N, kLast>(s);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  for (int64_t g = blockIdx.z; g < s.groups; g += gridDim.z) {
    for (int64_t base = static_cast<int64_t>(blockIdx.y) * blockDim.x; base < chunks; base += static_cast<int64_t>(gridDim.y) * blockDim.x) {
      const int64_t chunk = base + threadIdx.x;
      A mean[N], m2[N], count = A(0);
#pragma unroll
      for (int j = 0; j < N; ++j) mean[j] = m2[j] = A(0);
      int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
      for (; chunk < chunks && r < rows; r += kAhead * step) {
        Packed<T, N> in[kAhead];
        const int n = static_cast<int>(min(static_cast<int64_t>(kAhead), (rows - r + step - 1) / step));
#pragma unroll
        for (int k = 0; k < kAhead; ++k)
          if (k < n) in[k] = load<T, N>(x + address<N, kLast>(s, image, g, chunk, r + k * step));
        const A inverse = A(1) / static_cast<A>(n), share = static_cast<A>(n) / (count + static_cast<A>(n));
#pragma unroll
        for (int j = 0; j < N; ++j) {  // the rows at hand in two passes over registers, then joined to what came before
          A sum = A(0), square = A(0);
#pragma unroll
          for (int k = 0; k < kAhead; ++k) sum += k < n ? static_cast<A>(widen(in[k].v[j])) : A(0);
          const A average = sum * inverse;
#pragma unroll
          for (int k = 0; k < kAhead; ++k) {
            const A d = k < n ? static_cast<A>(widen(in[k].v[j])) - average : A(0);
            square += d * d;
          }
          const A delta = average - mean[j];
          mean[j] += delta * share;
          m2[j] += square + delta * delta * count * share;
        }
        count += static_cast<A>(n);
      }
      over_block<A, N>(mean, m2, count, JoinMoments());
      if (threadIdx.y == 0 && chunk < chunks) write_part<A, N, kLast>(mean, m2, count, partial, s, g, chunk, JoinMoments());
    }
  }
}

// mean = sum n_i mean_i / M; M2 = sum M2_i + n_i (mean_i - mean)^2. Grid: 32 of the groups' channels a block.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    norm_statistics_join(const A* __restrict__ partial, int64_t parts, A* mean, A* rstd, A eps, NormShape s) {
  const int64_t plane = s.groups * s.channels, all = parts * plane;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const A m = static_cast<A>(s.batch * s.pixels), inverse = m > A(0) ? A(1) / m : A(0);
  const A* const from = partial + i;
  A mu[1], square[1];
  join_rows(i < plane ? parts : 0, mu, [&](int64_t p, A(&sum)[1]) { sum[0] += from[2 * all + p * plane] * inverse * from[p * plane]; });
  join_rows(i < plane ? parts : 0, square, [&](int64_t p, A(&sum)[1]) {
    const A d = from[p * plane] - mu[0];
    sum[0] += from[all + p * plane] + from[2 * all + p * plane] * d * d;
  });
  if (threadIdx.y != 0 || i >= plane) return;
  mean[i] = mu[0];
  rstd[i] = A(1) / sqrt(square[0] * inverse + eps);
}

template <typename T, int N, bool kLast>
__global__ void __launch_bounds__(kNormThreads, 2) norm_apply_kernel(const T* __restrict__ x, T* out, NormParameters p, bool relu, NormShape s, Divisor image) {
  using A = accumulate_t<T>;
  const int64_t chunks = chunks_of<N, kLast>(s), rows = rows_of<N, kLast>(s);
  for (int64_t g = blockIdx.z; g < s.groups; g += gridDim.z) {
    for (int64_t chunk = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; chunk < chunks; chunk += static_cast<int64_t>(gridDim.y) * blockDim.x) {
      Chunk<A, N> q;
      q.template read<kLast>(p, s, g, chunk);
#pragma unroll 2
      for (int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; r < rows; r += static_cast<int64_t>(gridDim.x) * blockDim.y) {
        const int64_t at = address<N, kLast>(s, image, g, chunk, r);
        const Packed<T, N> in = load<T, N>(x + at);
        Packed<T, N> result;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const A y = q.affine(widen(in.v[j]), j);
          result.v[j] = narrow<T>(relu && y < A(0) ? A(0) : y);  // NaN stays NaN, as in torch
        }
        *reinterpret_cast<Packed<T, N>*>(out + at) = result;
      }
    }
  }
}

// d, the gradient that the ReLU let through.
template <typename A, int N>
__device__ __forceinline__ A passed(const Chunk<A, N>& q, bool relu, A grad, A x, int j) {
  return relu && q.affine(x, j) <= A(0) ? A(0) : grad;
}

template <typename T, int N, bool kLast>
__global__ void __launch_bounds__(kNormThreads, 2)
    norm_gradient_parts(const T* __restrict__ grad, const T* __restrict__ x, NormParameters p, bool relu, accumulate_t<T>* partial, NormShape s, Divisor image) {
  using A = accumulate_t<T>;
  const int64_t chunks = chunks_of<N, kLast>(s), rows = rows_of<N, kLast>(s);
  for (int64_t g = blockIdx.z; g < s.groups; g += gridDim.z) {
    for (int64_t base = static_cast<int64_t>(blockIdx.y) * blockDim.x; base < chunks; base += static_cast<int64_t>(gridDim.y) * blockDim.x) {
      const int64_t chunk = base + threadIdx.x;
      A sum[N], product[N], count = A(0);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] = product[j] = A(0);
      if (chunk < chunks) {
        Chunk<A, N> q;
        q.template read<kLast>(p, s, g, chunk);
#pragma unroll 2
        for (int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; r < rows; r += static_cast<int64_t>(gridDim.x) * blockDim.y) {
          const int64_t at = address<N, kLast>(s, image, g, chunk, r);
          const Packed<T, N> dy = load<T, N>(grad + at), in = load<T, N>(x + at);
#pragma unroll
          for (int j = 0; j < N; ++j) {
            const A v = widen(in.v[j]), d = passed<A, N>(q, relu, widen(dy.v[j]), v, j);
            sum[j] += d;
            product[j] += d * (v - q.mean[j]);
          }
        }
      }
      over_block<A, N>(sum, product, count, JoinSums());
      if (threadIdx.y == 0 && chunk < chunks) write_part<A, N, kLast>(sum, product, count, partial, s, g, chunk, JoinSums());
    }
  }
}

// sums [2][G*C] over the parts, then the gradients of weight and bias over the groups. Grid: x = 32 channels, y = groups,
// one where they are added up. `team` threads of a column, a power of two, share a group's parts; the other threads of
// the column have other groups.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    norm_gradient_join(const A* __restrict__ partial, int64_t parts, int team, const A* __restrict__ rstd, A* sums, A* dweight,
                       A* dbias, NormShape s) {
  __shared__ A shared[2][kJoinRows][kJoinColumns];
  const int64_t plane = s.groups * s.channels, all = parts * plane, c = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  const int x = threadIdx.x, y = threadIdx.y, member = y % team, at_once = kJoinRows / team;
  A dw = A(0), db = A(0);
  for (int64_t base = static_cast<int64_t>(blockIdx.y) * at_once; base < s.groups; base += static_cast<int64_t>(gridDim.y) * at_once) {
    const int64_t g = base + y / team, i = g * s.channels + c;
    const bool mine = g < s.groups && c < s.channels;
    A sum = A(0), product = A(0);
#pragma unroll 4
    for (int64_t p = member; mine && p < parts; p += team) sum += partial[p * plane + i], product += partial[all + p * plane + i];
    __syncthreads();  // those of the groups before may still be read
    shared[0][y][x] = sum, shared[1][y][x] = product;
    __syncthreads();
    if (member != 0 || !mine) continue;
    for (int t = 1; t < team; ++t) sum += shared[0][y + t][x], product += shared[1][y + t][x];
    sums[i] = sum, sums[plane + i] = product;
    db += sum, dw += product * rstd[i];
  }
  if (dweight == nullptr && dbias == nullptr) return;
  __syncthreads();
  shared[0][y][x] = dw, shared[1][y][x] = db;
  __syncthreads();
  if (y != 0 || c >= s.channels) return;
  for (int t = team; t < kJoinRows; t += team) dw += shared[0][t][x], db += shared[1][t][x];
  if (dweight) dweight[c] = dw;
  if (dbias) dbias[c] = db;
}

// dx = (d - G0/M - (x - mean) r^2 G/M) scale with G the sum of d (x - mean); with given statistics dx = d scale.
template <typename T, int N, bool kLast>
__global__ void __launch_bounds__(kNormThreads, 2)
    norm_dx_kernel(const T* __restrict__ grad, const T* __restrict__ x, NormParameters p, bool relu,
                   const accumulate_t<T>* __restrict__ sums, T* dx, NormShape s, Divisor image) {
  using A = accumulate_t<T>;
  const int64_t chunks = chunks_of<N, kLast>(s), rows = rows_of<N, kLast>(s), plane = s.groups * s.channels;
  const A inverse = A(1) / static_cast<A>(s.batch * s.pixels);
  for (int64_t g = blockIdx.z; g < s.groups; g += gridDim.z) {
    for (int64_t chunk = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; chunk < chunks; chunk += static_cast<int64_t>(gridDim.y) * blockDim.x) {
      Chunk<A, N> q;
      q.template read<kLast>(p, s, g, chunk);
      A shift[N] = {}, slope[N] = {};
      if (sums) {
        const int64_t i = g * s.channels + (kLast ? chunk * N : chunk);
        A rstd[N];
        read_entries<N, kLast>(static_cast<const A*>(p.rstd), i, p.packets, rstd);
        read_entries<N, kLast>(sums, i, true, shift), read_entries<N, kLast>(sums + plane, i, true, slope);
#pragma unroll
        for (int j = 0; j < N; ++j) shift[j] *= inverse, slope[j] *= rstd[j] * rstd[j] * inverse;
      }
      for (int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; r < rows; r += static_cast<int64_t>(gridDim.x) * blockDim.y) {
        const int64_t at = address<N, kLast>(s, image, g, chunk, r);
        const Packed<T, N> dy = load<T, N>(grad + at);
        Packed<T, N> in{}, result;
        if (relu || sums) in = load<T, N>(x + at);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const A v = widen(in.v[j]);
          A d = passed<A, N>(q, relu, widen(dy.v[j]), v, j);
          if (sums) d -= shift[j] + (v - q.mean[j]) * slope[j];
          result.v[j] = narrow<T>(d * q.scale[j]);
        }
        *reinterpret_cast<Packed<T, N>*>(dx + at) = result;
      }
    }
  }
}

}  // namespace
}  // namespace ddarts

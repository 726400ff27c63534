// recurrent_node: the mixed update of a node of the recurrent cell; ddarts_ext/ops/recurrent_node.py has the equations.
//
// A thread has a packet (N values, 16 bytes, or one value where shapes or addresses do not allow it) of a sample's hidden
// units: neighbouring threads read neighbouring packets of a row. Forward: grid x over all packets, a thread visits every
// predecessor and writes once. Backward: grid x parts of the packets, y predecessors; a block adds up the sums of its
// predecessor's weights in shared memory and a second small kernel joins the parts in order: deterministic, no atomics.
// Bytes: forward reads states and gates once and writes out; backward reads them once, grad once a predecessor (from the
// cache), and writes their gradients. Activations are computed again in the backward. Indices are 64-bit. 256 threads.
#pragma once

#include "../common/cuda_compat.cuh"
#include "../common/joined_rows.cuh"
#include "recurrent_node.h"

#include <cmath>
#include <cstdint>

namespace ddarts {
namespace {

constexpr int kRecurrentThreads = 256;

template <typename A>
__device__ __forceinline__ A sigmoid(A x) {
  return A(1) / (A(1) + exp(-x));
}

// A predecessor's weights, 0 where an activation is not used (`uses` keeps 0 times infinity out), and their sum.
template <typename A>
struct RecurrentWeights {
  A of[4], total;
  bool uses[4];
  __device__ __forceinline__ RecurrentWeights(const A* row, const RecurrentShape& s) : total(A(0)) {
#pragma unroll
    for (int f = 0; f < 4; ++f) {
      uses[f] = s.column[f] >= 0;
      of[f] = uses[f] ? row[s.column[f]] : A(0);
      total += of[f];
    }
  }
};

// Values and slopes of the activations that are used; the others are 0.
template <typename A>
struct Activations {
  A value[4], slope[4];
  __device__ __forceinline__ Activations(A h, const RecurrentWeights<A>& w) {
    value[0] = w.uses[0] ? tanh(h) : A(0);
    value[1] = w.uses[1] && !(h < A(0)) ? h : A(0);  // NaN stays NaN, as in torch
    value[2] = w.uses[2] ? sigmoid(h) : A(0);
    value[3] = w.uses[3] ? h : A(0);
    slope[0] = A(1) - value[0] * value[0];
    slope[1] = h > A(0) ? A(1) : A(0);
    slope[2] = value[2] * (A(1) - value[2]);
    slope[3] = A(1);
  }
  __device__ __forceinline__ static A mixed(const A (&of)[4], const A (&by)[4]) {
    A sum = A(0);
#pragma unroll
    for (int f = 0; f < 4; ++f) sum += by[f] * of[f];
    return sum;
  }
};

template <typename T, int N>
__device__ __forceinline__ Packed<T, N> packet(const void* from, int64_t at) {
  return *reinterpret_cast<const Packed<T, N>*>(static_cast<const T*>(from) + at);
}

template <typename T, int N>
__global__ void __launch_bounds__(kRecurrentThreads)
    recurrent_node_kernel(RecurrentTable table, RecurrentShape s, const accumulate_t<T>* __restrict__ weights, T* out) {
  using A = accumulate_t<T>;
  const int64_t wide = s.hidden / N, packets = s.batch * wide;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRecurrentThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kRecurrentThreads + threadIdx.x; i < packets; i += step) {
    const int64_t row = i / wide, column = (i - row * wide) * N;
    A sum[N] = {};
    for (int p = 0; p < table.count; ++p) {
      const RecurrentWeights<A> w(weights + static_cast<int64_t>(p) * s.columns, s);
      const int64_t gate = row * table.gates_stride[p] + column;
      const Packed<T, N> carried = packet<T, N>(table.state[p], row * table.state_stride[p] + column);
      const Packed<T, N> c = packet<T, N>(table.gates[p], gate), h = packet<T, N>(table.gates[p], gate + s.hidden);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const Activations<A> f(widen(h.v[j]), w);
        const A kept = w.total * static_cast<A>(widen(carried.v[j]));
        sum[j] += kept + sigmoid(static_cast<A>(widen(c.v[j]))) * (f.mixed(f.value, w.of) - kept);
      }
    }
    Packed<T, N> result;
#pragma unroll
    for (int j = 0; j < N; ++j) result.v[j] = narrow<T>(sum[j]);
    *reinterpret_cast<Packed<T, N>*>(out + i * N) = result;
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kRecurrentThreads)
    recurrent_node_backward_kernel(RecurrentTable table, RecurrentShape s, const accumulate_t<T>* __restrict__ weights,
                                   const T* __restrict__ grad, T* of_states, T* of_gates, accumulate_t<T>* partial) {
  using A = accumulate_t<T>;
  __shared__ A shared[4][kRecurrentThreads];
  const int64_t wide = s.hidden / N, packets = s.batch * wide;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRecurrentThreads;
  const int p = static_cast<int>(blockIdx.y);
  const RecurrentWeights<A> w(weights + static_cast<int64_t>(p) * s.columns, s);
  A of_weights[4] = {};
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kRecurrentThreads + threadIdx.x; i < packets; i += step) {
    const int64_t row = i / wide, column = (i - row * wide) * N, gate = row * table.gates_stride[p] + column;
    const Packed<T, N> sent = packet<T, N>(grad, i * N);
    const Packed<T, N> carried = packet<T, N>(table.state[p], row * table.state_stride[p] + column);
    const Packed<T, N> c = packet<T, N>(table.gates[p], gate), h = packet<T, N>(table.gates[p], gate + s.hidden);
    Packed<T, N> ds, dc, dh;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const Activations<A> f(widen(h.v[j]), w);
      const A d = widen(sent.v[j]), x = widen(carried.v[j]), g = sigmoid(static_cast<A>(widen(c.v[j]))), kept = A(1) - g;
      ds.v[j] = narrow<T>(d * w.total * kept);
      dc.v[j] = narrow<T>(d * g * kept * (f.mixed(f.value, w.of) - w.total * x));
      dh.v[j] = narrow<T>(d * g * f.mixed(f.slope, w.of));
#pragma unroll
      for (int k = 0; k < 4; ++k) of_weights[k] += d * (kept * x + g * f.value[k]);
    }
    const int64_t line = static_cast<int64_t>(p) * s.batch + row;
    *reinterpret_cast<Packed<T, N>*>(of_states + line * s.hidden + column) = ds;
    *reinterpret_cast<Packed<T, N>*>(of_gates + line * 2 * s.hidden + column) = dc;
    *reinterpret_cast<Packed<T, N>*>(of_gates + (line * 2 + 1) * s.hidden + column) = dh;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) shared[k][threadIdx.x] = of_weights[k];
  for (int half = kRecurrentThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
#pragma unroll
      for (int k = 0; k < 4; ++k) shared[k][threadIdx.x] += shared[k][threadIdx.x + half];
    }
  }
  if (threadIdx.x != 0) return;
  A* to = partial + (static_cast<int64_t>(blockIdx.x) * table.count + p) * s.columns;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (s.column[k] >= 0) to[s.column[k]] = shared[k][0];
}

// of_weights[i] = sum over parts. Grid: 32 of the values a block.
template <typename A>
__global__ void __launch_bounds__(kJoinColumns* kJoinRows)
    recurrent_node_join(const A* __restrict__ partial, int64_t parts, int64_t values, A* of_weights) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kJoinColumns + threadIdx.x;
  A total[1];
  join_rows(i < values ? parts : 0, total, [&](int64_t part, A(&sum)[1]) { sum[0] += partial[part * values + i]; });
  if (threadIdx.y == 0 && i < values) of_weights[i] = total[0];
}

}  // namespace
}  // namespace ddarts

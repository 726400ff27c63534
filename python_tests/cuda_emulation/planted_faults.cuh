// Kernels that are wrong on purpose, and one that is right: what the emulation must tell apart.
#pragma once

#include "../../csrc/common/cuda_compat.cuh"

namespace ddarts {

template <typename T>
__device__ __forceinline__ T warp_total(T v) {
  for (int distance = 16; distance > 0; distance >>= 1) v += __shfl_down_sync(0xffffffffu, v, distance);
  return v;
}

// Right: the sum of each block's elements through warps, static and dynamic shared memory, in float32.
template <typename T>
__global__ void block_totals(const T* x, int64_t n, accumulate_t<T>* totals) {
  using A = accumulate_t<T>;
  __shared__ A of_warp[32];
  DDARTS_DYNAMIC_SHARED(A, values);
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  values[threadIdx.x] = i < n ? widen(x[i]) : A(0);
  __syncthreads();
  const A total = warp_total(values[blockDim.x - 1 - threadIdx.x]);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = total;
  __syncthreads();
  if (threadIdx.x < 32) {
    const A sum = warp_total(threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : A(0));
    if (threadIdx.x == 0) totals[blockIdx.x] = sum;
  }
}

__global__ void missing_barrier(const float* x, float* reversed) {
  __shared__ float tile[256];
  tile[threadIdx.x] = x[threadIdx.x];
  reversed[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

__global__ void divergent_barrier(const float* x, float* out) {
  out[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void barrier_against_warp(const float* x, float* out) {
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    v = __shfl_xor_sync(0xffffffffu, v, 1);
  }
  out[threadIdx.x] = v;
}

__global__ void absent_lane(const float* x, float* out) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}

__global__ void unwritten_shared(const float* x, float* out) {
  __shared__ float tile[256];
  if (threadIdx.x > 0) tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void past_the_end(const float* x, float* out, int64_t n) {
  const int64_t i = threadIdx.x;
  if (i <= n) out[i < n ? i : 0] = x[i];
}

}  // namespace ddarts

// Kernels that waste memory accesses or race on purpose, beside ones that do not: what the laboratory must tell apart.
#pragma once

#include "../../csrc/common/cuda_compat.cuh"

namespace ddarts {

template <typename T>
__global__ void coalesced_copy(const T* x, T* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  out[i] = x[i];
}

// 16 bytes a lane: a warp's load is four requests.
__global__ void wide_copy(const float* x, float* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  reinterpret_cast<Packed<float, 4>*>(out)[i] = reinterpret_cast<const Packed<float, 4>*>(x)[i];
}

// A struct of 24 bytes is copied in three words of 8.
struct Triple {
  double v[3];
};
__global__ void struct_copy(const float* x, float* out) {
  reinterpret_cast<Triple*>(out)[threadIdx.x] = reinterpret_cast<const Triple*>(x)[threadIdx.x];
}

__global__ void strided_read(const float* x, float* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  out[i] = x[i * 9];
}

// All lanes want one value: a sector, of which little is used, but none fewer would do.
__global__ void broadcast_read(const float* x, float* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = x[blockIdx.x * 8];
}
// A request that begins within a sector takes one more than it must; one of every second value twice as many.
template <int Step, int First>
__global__ void stepped_read(const float* x, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = x[i * Step + First];
}

// The columns of a tile of 32 x P values; a pitch of 33 puts them into different banks.
template <int P>
__device__ __forceinline__ void transpose(float* tile, const float* x, float* out) {
  const int row = threadIdx.x / 32, column = threadIdx.x % 32;
  tile[row * P + column] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[column * P + row];
}
template <int P>
__global__ void column_of_static(const float* x, float* out) {
  __shared__ float tile[32 * P];
  transpose<P>(tile, x, out);
}
template <int P>
__global__ void column_of_dynamic(const float* x, float* out) {
  DDARTS_DYNAMIC_SHARED(float, tile);
  transpose<P>(tile, x, out);
}

// The two halves of a warp read the same banks.
__global__ void two_way_conflict(const float* x, float* out) {
  __shared__ float tile[1024];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x % 16 + threadIdx.x / 16 * 32 % 1024];
}

// A race, whatever order the threads take: nothing separates the write from the read by the other warp.
__global__ void race_in_block(const float* x, float* out) {
  __shared__ float tile[1024];
  tile[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = tile[threadIdx.x ^ 32];
}
__global__ void race_in_warp(const float* x, float* out) {
  __shared__ float tile[1024];
  tile[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}
__global__ void warp_barrier(const float* x, float* out) {
  __shared__ float tile[1024];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}
__global__ void race_of_blocks(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x] + static_cast<float>(blockIdx.x); }
__global__ void atomic_of_blocks(const float* x, float* out) { atomicAdd(&out[threadIdx.x], x[threadIdx.x]); }

// What a kernel does between two barriers is seen as well.
__global__ void between_barriers(const float* x, float* out) {
  __shared__ float tile[1024];
  __syncthreads();
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

// Lanes leave the loop at different times, and meet again at the barrier: the second copy is coalesced for all.
__global__ void ragged_loop(const float* x, float* out) {
  __shared__ float tile[1024];
  tile[threadIdx.x] = 0.0f;
  for (int pass = 0; pass < 2; ++pass) {
    if (threadIdx.x % 3 != static_cast<unsigned>(pass)) tile[threadIdx.x] += x[threadIdx.x];
    __syncthreads();
  }
  out[threadIdx.x] = tile[threadIdx.x];
}

}  // namespace ddarts

// The one header that a kernel (.cuh) and its launchers (.cu) include: CUDA itself under nvcc, and under a host compiler
// with -DDDARTS_EMULATE the emulation of python_tests/cuda_emulation, which runs the same kernels on a CPU.
//
//   DDARTS_LAUNCH((kernel<T, 3>), grid, block, shared_bytes, stream, arguments...);   parentheses round a template
//   DDARTS_DYNAMIC_SHARED(float, tile);                                              float* tile, 16-byte aligned
//   DDARTS_DISPATCH_DTYPE(dtype, T, { ... T is double, float, __half or __nv_bfloat16 ... });
//
// A launcher ends with `return cudaGetLastError();` and its caller wraps it in DDARTS_CUDA_CHECK (cuda_op.h).
#pragma once

#if defined(DDARTS_EMULATE)
#include "cuda_emulation.h"
#define DDARTS_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::emulation::launch((grid), (block), (shared_bytes), (stream), (kernel), __VA_ARGS__)
#define DDARTS_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(::emulation::block->dynamic_shared())
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define DDARTS_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define DDARTS_DYNAMIC_SHARED(T, name)                                \
  extern __shared__ __align__(16) unsigned char ddarts_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(ddarts_dynamic_shared)
#endif

#include "dtype.h"

#include <type_traits>

namespace ddarts {

// float64 accumulates in float64, everything else in float32.
template <typename T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

__host__ __device__ __forceinline__ int widen(uint8_t v) { return v; }
__host__ __device__ __forceinline__ double widen(double v) { return v; }
__host__ __device__ __forceinline__ float widen(float v) { return v; }
__host__ __device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__host__ __device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

template <typename T, typename A>
__host__ __device__ __forceinline__ T narrow(A v) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(static_cast<float>(v));
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(static_cast<float>(v));
  } else {
    return static_cast<T>(v);
  }
}

// x, of which the compiler does not know that it is the same in every turn of a loop: what follows from it is computed where it
// is needed, and holds no register before.
__device__ __forceinline__ int anew(int x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

// N elements that are loaded and stored by one instruction; its address must be a multiple of its size.
template <typename T, int N>
struct alignas(sizeof(T) * N) Packed {
  T v[N];
};

// Entries of a table of the accumulation type, by 16 bytes where `packets` says that they lie so.
template <typename From, typename To, int N>
__device__ __forceinline__ void load_entries(const From* from, bool packets, To (&to)[N]) {
  constexpr int V = N * sizeof(From) > 16 ? 16 / static_cast<int>(sizeof(From)) : N;
  if (packets) {
#pragma unroll
    for (int i = 0; i < N; i += V) {
      const auto packet = *reinterpret_cast<const Packed<From, V>*>(from + i);
#pragma unroll
      for (int v = 0; v < V; ++v) to[i + v] = static_cast<To>(packet.v[v]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = static_cast<To>(from[i]);
  }
}

// Whether a pointer may be read in words of this many bytes.
inline bool aligned(const void* pointer, size_t bytes = 16) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks for one thread an element, at most `most` (the kernel strides over the rest); never none.
inline unsigned grid_size(int64_t elements, int threads, int64_t most = 1 << 16) {
  const int64_t blocks = ceil_div(elements, threads);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

// Of a large device: what a grid should fill, where results must not depend on the device.
constexpr int64_t kMultiprocessors = 132;

// Streaming multiprocessors of the current device.
inline int multiprocessors() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

}  // namespace ddarts

#define DDARTS_DISPATCH_DTYPE(dtype, T, ...)                                  \
  switch (dtype) {                                                            \
    case ::ddarts::DType::float64: { using T = double; __VA_ARGS__; break; }  \
    case ::ddarts::DType::float32: { using T = float; __VA_ARGS__; break; }   \
    case ::ddarts::DType::float16: { using T = __half; __VA_ARGS__; break; }  \
    case ::ddarts::DType::bfloat16: { using T = __nv_bfloat16; __VA_ARGS__; break; } \
  }

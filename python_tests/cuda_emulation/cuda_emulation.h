// Runs CUDA kernels under a host compiler, block by block on one CPU thread: what csrc/common/cuda_compat.cuh includes
// when DDARTS_EMULATE is defined. Half and bfloat16 are the CUDA toolkit's own, through its host paths.
//
// Threads of a block run in the order that settings.order names and switch only at barriers and warp collectives, so a
// missing barrier shows as a result that changes with the order or as NaN from poisoned shared memory. Built with
// -fsanitize=address, accesses outside a tensor are found. Tensor cores: mma.m16n8k8 in TF32. Not covered: cooperative
// groups, cp.async, other shapes of mma, time.
#pragma once
#if defined(__CUDACC__)
#error "cuda_emulation.h is for host compilers"
#endif

#include "block.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <driver_types.h>

#include <cmath>
#include <mutex>
#include <tuple>
#include <type_traits>

namespace emulation {

extern uint64_t launches;  // control.cpp
extern bool dry;           // launches are counted, and nothing runs

constexpr size_t most_shared_bytes = 163 * 1024;  // what one block may have on sm_80

template <class... Parameters, class... Arguments>
void launch(dim3 grid, dim3 size, size_t shared_bytes, cudaStream_t, void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "more than 4 KiB of kernel parameters");
  const uint64_t threads = uint64_t(size.x) * size.y * size.z;
  if (threads == 0 || threads > 1024 || size.z > 64) fail("a block of " + std::to_string(threads) + " threads");
  if (!grid.x || !grid.y || !grid.z || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) fail("bad grid size");
  if (shared_bytes > most_shared_bytes) fail("too much dynamic shared memory");
  static std::mutex one_launch_at_a_time;
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  static Block runner;
  block = &runner;
  ++launches;
  const std::tuple<Parameters...> copy(static_cast<Parameters>(arguments)...);
  const std::function<void()> body = [&] { std::apply(kernel, copy); };
  std::vector<uint64_t> blocks(uint64_t(grid.x) * grid.y * grid.z);
  for (uint64_t i = 0; i < blocks.size(); ++i) blocks[i] = settings.order == Order::reverse ? blocks.size() - 1 - i : i;
  if (settings.order == Order::random) {
    std::mt19937_64 random(settings.seed);
    std::shuffle(blocks.begin(), blocks.end(), random);
  }
  laboratory::begin_launch(reinterpret_cast<const void*>(kernel), grid, size, shared_bytes);
  if (!dry)
    for (const uint64_t b : blocks) runner.run(body, b, grid, size, shared_bytes, settings.seed + b);
  laboratory::end_launch();
}

inline int barrier(const char* site, int predicate = 0, Vote vote = Vote::none) {
  return block->barrier(site, predicate, vote);
}
inline int lane() {
  const laboratory::Pause pause;
  return block->current().number & 31;
}
inline uint32_t ballot(uint32_t mask, int predicate) {
  const laboratory::Pause pause;
  Thread& self = block->current();
  self.predicate = predicate;
  block->collective(mask, -1);
  return self.ballot & mask;
}
template <class T>
T shuffle(uint32_t mask, T value, int source) {
  static_assert(sizeof(T) <= sizeof(Slot) && std::is_trivially_copyable_v<T>);
  const laboratory::Pause pause;
  Thread& self = block->current();
  std::memcpy(&self.given, static_cast<const void*>(&value), sizeof(T));
  block->collective(mask, source);
  std::memcpy(static_cast<void*>(&value), &self.received, sizeof(T));
  return value;
}
// d += a b of a warp, [16,8] by [8,8], of fragments as the PTX manual lays out mma.m16n8k8 with .tf32: row g = lane / 4, column
// t = lane % 4; a: (g,t), (g+8,t), (g,t+4), (g+8,t+4); b: (t,g), (t+4,g); d: (g,2t), (g,2t+1), (g+8,2t), (g+8,2t+1). Of every
// operand ten bits of the fraction are read, as on a device.
struct Fragments {
  float *d, a[4], b[2];
};
inline void product_of_fragments(void* const (&lanes)[32]) {
  const auto read = [](float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof(v));
    bits &= 0xffffe000u;
    std::memcpy(&v, &bits, sizeof(v));
    return static_cast<double>(v);
  };
  double a[16][8], b[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const Fragments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 4] = read(own.a[i]);
    for (int i = 0; i < 2; ++i) b[t + i * 4][g] = read(own.b[i]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const Fragments*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double sum = static_cast<double>(own.d[i]);
      for (int k = 0; k < 8; ++k) sum += a[row][k] * b[k][column];
      own.d[i] = static_cast<float>(sum);
    }
  }
}
inline void mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  const laboratory::Pause pause;
  Fragments own{d, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  block->together(&own, product_of_fragments);
}
// Replaces *address by f(old), gives old. One thread runs at a time, so nothing need be atomic.
template <class T, class F>
T exchange(T* address, F f) {
  const laboratory::Atomic atomic;
  const T old = *address;
  *address = f(old);
  return old;
}

}  // namespace emulation

// ------------------------------------------------------------------------------------------------ CUDA's own names
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local
#define __constant__ static const
#define __launch_bounds__(...)
#if defined(DDARTS_LABORATORY)
#define __forceinline__ inline __attribute__((always_inline))  // a site is then told apart by the call it comes from
#else
#define __forceinline__ inline
#endif
#define __align__(n) __attribute__((aligned(n)))
#define threadIdx (::emulation::place.thread)
#define blockIdx (::emulation::place.block)
#define blockDim (::emulation::place.block_size)
#define gridDim (::emulation::place.grid_size)
static constexpr int warpSize = 32;

#define DDARTS_EMULATION_TEXT(x) #x
#define DDARTS_EMULATION_LINE(x) DDARTS_EMULATION_TEXT(x)
#define DDARTS_EMULATION_SITE __FILE__ ":" DDARTS_EMULATION_LINE(__LINE__)
#define __syncthreads() ::emulation::barrier(DDARTS_EMULATION_SITE)
#define __syncthreads_or(p) ::emulation::barrier(DDARTS_EMULATION_SITE, (p), ::emulation::Vote::any)
#define __syncthreads_and(p) ::emulation::barrier(DDARTS_EMULATION_SITE, (p), ::emulation::Vote::all)
#define __syncthreads_count(p) ::emulation::barrier(DDARTS_EMULATION_SITE, (p), ::emulation::Vote::count)

inline unsigned __activemask() { return ::emulation::block->active_lanes(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  const ::emulation::laboratory::Pause pause;
  ::emulation::block->collective(mask == 0xffffffffu ? __activemask() : mask, -1);
  ::emulation::laboratory::passed_warp_barrier(::emulation::block->current().number);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline unsigned __ballot_sync(unsigned mask, int p) { return ::emulation::ballot(mask, p); }
inline int __any_sync(unsigned mask, int p) { return ::emulation::ballot(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return ::emulation::ballot(mask, p) == mask; }
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  return ::emulation::shuffle(mask, v, (::emulation::lane() & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const int lane = ::emulation::lane(), d = static_cast<int>(delta);
  return ::emulation::shuffle(mask, v, (lane & (width - 1)) < d ? lane : lane - d);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const int lane = ::emulation::lane(), d = static_cast<int>(delta);
  return ::emulation::shuffle(mask, v, (lane & (width - 1)) + d >= width ? lane : lane + d);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
  const int lane = ::emulation::lane(), source = lane ^ bits;
  return ::emulation::shuffle(mask, v, (source & ~(width - 1)) > (lane & ~(width - 1)) ? lane : source);
}

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
template <class T> void __stcg(T* p, T v) { *p = v; }

template <class T> T atomicAdd(T* p, T v) { return ::emulation::exchange(p, [v](T old) { return static_cast<T>(old + v); }); }
template <class T> T atomicMax(T* p, T v) { return ::emulation::exchange(p, [v](T old) { return old > v ? old : v; }); }
template <class T> T atomicMin(T* p, T v) { return ::emulation::exchange(p, [v](T old) { return old < v ? old : v; }); }
template <class T> T atomicExch(T* p, T v) { return ::emulation::exchange(p, [v](T) { return v; }); }
template <class T> T atomicCAS(T* p, T expected, T v) {
  return ::emulation::exchange(p, [=](T old) { return old == expected ? v : old; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return ::emulation::exchange(p, [limit](unsigned old) { return old >= limit ? 0u : old + 1; });
}

template <class To, class From>
To emulation_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}
inline int __float_as_int(float v) { return emulation_bits<int>(v); }
inline unsigned __float_as_uint(float v) { return emulation_bits<unsigned>(v); }
inline float __int_as_float(int v) { return emulation_bits<float>(v); }
inline float __uint_as_float(unsigned v) { return emulation_bits<float>(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline float rsqrt(float v) { return 1.0f / std::sqrt(v); }
inline double rsqrt(double v) { return 1.0 / std::sqrt(v); }
using std::max;
using std::min;
inline void __trap() { ::emulation::fail("__trap()"); }

// The few runtime calls that launchers make.
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount             ? 3
           : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? static_cast<int>(::emulation::most_shared_bytes)
           : attribute == cudaDevAttrMaxSharedMemoryPerBlock      ? 48 * 1024
                                                                   : 0;
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  ++::emulation::launches;
  return std::memset(to, value, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  ++::emulation::launches;
  return std::memcpy(to, from, bytes), cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  return *blocks = 2, cudaSuccess;
}

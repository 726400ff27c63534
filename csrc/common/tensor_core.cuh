// Products of a warp on tensor cores, in TF32: factors of float32 with ten bits of their fraction, sums of float32.
#pragma once

#include "cuda_compat.cuh"

namespace ddarts {

// x rounded to ten bits of its fraction, halves away from zero. What a product reads must be rounded: it would cut.
__device__ __forceinline__ float to_tf32(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return __uint_as_float(rounded);
#else
  const unsigned bits = __float_as_uint(x);
  return (bits & 0x7f800000u) == 0x7f800000u ? x : __uint_as_float((bits + 0x1000u) & 0xffffe000u);
#endif
}

// d += a b by shuffles: what mma_tf32 is on devices before sm_80.
__device__ __forceinline__ void product_by_shuffles(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    float rows[4], columns[2][2];  // of lane (g,k); of lanes (2t,k) and (2t+1,k)
#pragma unroll
    for (int i = 0; i < 4; ++i) rows[i] = __shfl_sync(0xffffffffu, a[i], 4 * g + k);
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i) columns[j][i] = __shfl_sync(0xffffffffu, b[i], 4 * (2 * t + j) + k);
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] += rows[i / 2] * columns[i % 2][0] + rows[2 + i / 2] * columns[i % 2][1];
  }
}

// d += a b, a [16,8], b [8,8]; with g = lane / 4 and t = lane % 4 a lane holds a at (g,t), (g+8,t), (g,t+4), (g+8,t+4), b at (t,g),
// (t+4,g), and d at (g,2t), (g,2t+1), (g+8,2t), (g+8,2t+1) (PTX ISA, mma.m16n8k8 with .tf32). Factors come from to_tf32. All lanes
// of a warp call it.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
#if defined(DDARTS_EMULATE)
  ::emulation::mma_tf32(d, a, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#else
  product_by_shuffles(d, a, b);
#endif
}

}  // namespace ddarts

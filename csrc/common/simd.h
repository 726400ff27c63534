// CPU kernels for several instruction sets from one source.
//
// Every csrc/cpu/<op>.cpp is compiled once per capability (baseline: any x86-64 or other machine; avx2: AVX2+FMA+F16C;
// avx512: AVX-512 F, DQ, BW and VL beside them) and the copy that fits the processor registers itself when the library is
// loaded. For an op's author that means:
//   1. #include "../common/simd.h" first; write plain loops that the compiler vectorises (`#pragma omp simd` is on).
//   2. Put everything into an anonymous namespace: code that were shared between the copies would run the wrong one. What
//      several files share is declared in namespace ddarts::DDARTS_CPU_COPY, of which every capability has its own.
//   3. End the file with DDARTS_CPU_KERNELS(m) { m.impl("<op>", TORCH_BOX(&<op>)); m.impl("<op>_backward", ...); }
//      and never with STABLE_TORCH_LIBRARY_IMPL, which would register every copy.
//   4. No dynamic initialisers (`static const std::vector<...>` at namespace scope): they would run AVX code anywhere.
//   5. Intrinsics only inside #ifdef __AVX2__ or __AVX512F__, with the plain loop in #else.
//   6. Half and bfloat16: convert whole rows with load_row / store_row; float16 element by element is 4 to 10 times slower.
// By hand: g++ -mavx2 -mfma -mf16c ... without -DDDARTS_CPU_CAPABILITY gives one copy that always registers itself.
#pragma once

#include "cpu_capability.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__) && defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(DDARTS_CPU_CAPABILITY)
#define DDARTS_CPU_COPY DDARTS_CPU_CAPABILITY
#else
#define DDARTS_CPU_COPY only
#endif

// On small functions and lambdas that the compiler must not leave as calls.
#define DDARTS_INLINE __attribute__((always_inline))

namespace ddarts {

namespace {  // per copy, on purpose

// Where a kernel chooses the width of its vectors itself.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// float64 accumulates in float64, everything else in float32.
template <typename T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename A>
constexpr torch::headeronly::ScalarType kScalarType =
    std::is_same_v<A, double> ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;

// f(T()) with the type of the values of a floating dtype.
template <typename F>
inline void with_dtype(torch::headeronly::ScalarType dtype, const F& f) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Double: return f(double());
    case ScalarType::Float: return f(float());
    case ScalarType::Half: return f(torch::headeronly::Half());
    case ScalarType::BFloat16: return f(torch::headeronly::BFloat16());
    default: STD_TORCH_CHECK(false, "ddarts_ext: expected a tensor of float64, float32, float16 or bfloat16");
  }
}

// dst[i] = src[i], widened to the accumulation type.
template <typename T, typename A>
inline void load_row(const T* __restrict__ src, A* __restrict__ dst, int64_t n) {
  int64_t i = 0;
  if constexpr (std::is_same_v<T, torch::headeronly::BFloat16> && std::is_same_v<A, float>) {
    const auto* bits = reinterpret_cast<const uint16_t*>(src);
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      const uint32_t wide = static_cast<uint32_t>(bits[j]) << 16;
      std::memcpy(dst + j, &wide, 4);  // not through a uint32_t*: the caller reads floats
    }
    return;
  }
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, torch::headeronly::Half> && std::is_same_v<A, float>) {
    for (; i + 16 <= n; i += 16)
      _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i))));
    if (i == n) return;
    const auto tail = static_cast<__mmask16>((1u << (n - i)) - 1);
    _mm512_mask_storeu_ps(dst + i, tail, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(tail, src + i)));
    return;
  }
#elif defined(__AVX2__) && defined(__F16C__)
  if constexpr (std::is_same_v<T, torch::headeronly::Half> && std::is_same_v<A, float>) {
    for (; i + 8 <= n; i += 8)
      _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i))));
  }
#endif
  for (; i < n; ++i) dst[i] = static_cast<A>(src[i]);
}

// dst[i] = src[i], rounded to nearest even.
template <typename T, typename A>
inline void store_row(const A* __restrict__ src, T* __restrict__ dst, int64_t n) {
  int64_t i = 0;
  if constexpr (std::is_same_v<T, torch::headeronly::BFloat16> && std::is_same_v<A, float>) {
    auto* out = reinterpret_cast<uint16_t*>(dst);
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      uint32_t bits;
      std::memcpy(&bits, src + j, 4);
      const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
      out[j] = static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
    }
    return;
  }
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, torch::headeronly::Half> && std::is_same_v<A, float>) {
    for (; i + 16 <= n; i += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i),
                          _mm512_cvtps_ph(_mm512_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    if (i == n) return;
    const auto tail = static_cast<__mmask16>((1u << (n - i)) - 1);
    _mm256_mask_storeu_epi16(dst + i, tail,
                             _mm512_cvtps_ph(_mm512_maskz_loadu_ps(tail, src + i), _MM_FROUND_TO_NEAREST_INT));
    return;
  }
#elif defined(__AVX2__) && defined(__F16C__)
  if constexpr (std::is_same_v<T, torch::headeronly::Half> && std::is_same_v<A, float>) {
    for (; i + 8 <= n; i += 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i),
                       _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < n; ++i) dst[i] = static_cast<T>(src[i]);
}

}  // namespace
}  // namespace ddarts

// The registering function itself must run anywhere, though its file is compiled for AVX2 or AVX-512.
#if defined(__x86_64__)
#define DDARTS_PORTABLE __attribute__((target("no-avx"), noinline))
#else
#define DDARTS_PORTABLE __attribute__((noinline))
#endif

#if defined(DDARTS_CPU_CAPABILITY)
#define DDARTS_CPU_SELECTED (ddarts::cpu_capability() == ddarts::CpuCapability::DDARTS_CPU_CAPABILITY)
#else
#define DDARTS_CPU_SELECTED true
#endif

#define DDARTS_CPU_KERNELS(m)                                                                             \
  static void ddarts_add_cpu_kernels(torch::stable::detail::StableLibrary& m);                            \
  __attribute__((noinline)) static void ddarts_register_cpu_kernels() {                                   \
    static const torch::stable::detail::StableTorchLibraryInit registration(                              \
        torch::stable::detail::StableLibrary::Kind::IMPL, &ddarts_add_cpu_kernels, "ddarts_ext", "CPU",   \
        __FILE__, __LINE__);                                                                              \
  }                                                                                                       \
  __attribute__((constructor)) DDARTS_PORTABLE static void ddarts_register_where_it_fits() {              \
    if (DDARTS_CPU_SELECTED) ddarts_register_cpu_kernels();                                               \
  }                                                                                                       \
  static void ddarts_add_cpu_kernels(torch::stable::detail::StableLibrary& m)

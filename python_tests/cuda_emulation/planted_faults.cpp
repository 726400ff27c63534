// The kernels of planted_faults.cuh as functions for ctypes; each gives nullptr or what the emulation complained of.
#include "planted_faults.cuh"

namespace {

template <typename Call>
const char* complaint(const Call& call) {
  static std::string text;
  try {
    call();
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
    return text.c_str();
  }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default"))) const char*

EXPORT block_totals(int dtype, const void* x, int64_t n, void* totals, int blocks, int threads) {
  return complaint([&] {
    DDARTS_DISPATCH_DTYPE(static_cast<ddarts::DType>(dtype), T, {
      using A = ddarts::accumulate_t<T>;
      DDARTS_LAUNCH(ddarts::block_totals<T>, dim3(blocks), dim3(threads), threads * sizeof(A), nullptr,
                    static_cast<const T*>(x), n, static_cast<A*>(totals));
    });
  });
}

#define EXPORT_FAULT(name)                                                                                     \
  EXPORT name(const float* x, float* out, int threads) {                                                       \
    return complaint([&] { DDARTS_LAUNCH(ddarts::name, dim3(1), dim3(threads), 0, nullptr, x, out); });        \
  }

EXPORT_FAULT(missing_barrier)
EXPORT_FAULT(divergent_barrier)
EXPORT_FAULT(barrier_against_warp)
EXPORT_FAULT(absent_lane)
EXPORT_FAULT(unwritten_shared)

EXPORT past_the_end(const float* x, float* out, int threads) {
  return complaint([&] { DDARTS_LAUNCH(ddarts::past_the_end, dim3(1), dim3(threads), 0, nullptr, x, out, int64_t(threads) - 1); });
}

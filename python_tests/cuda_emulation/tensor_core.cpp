// A product of one warp as csrc/common/tensor_core.cuh makes it, as a function for ctypes.
#include "../../csrc/common/tensor_core.cuh"

namespace ddarts {

// out [16,8] = d [16,8] + a [16,8] b [8,8].
__global__ void product(const float* a, const float* b, const float* d, float* out, bool rounds, bool shuffles) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  const auto factor = [&](float x) { return rounds ? to_tf32(x) : x; };
  const float own_a[4] = {factor(a[g * 8 + t]), factor(a[(g + 8) * 8 + t]), factor(a[g * 8 + t + 4]), factor(a[(g + 8) * 8 + t + 4])};
  const float own_b[2] = {factor(b[t * 8 + g]), factor(b[(t + 4) * 8 + g])};
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  if (shuffles) {
    product_by_shuffles(sum, own_a, own_b);
  } else {
    mma_tf32(sum, own_a, own_b);
  }
  for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

}  // namespace ddarts

extern "C" __attribute__((visibility("default"))) void product(const float* a, const float* b, const float* d, float* out, int rounds, int shuffles) {
  DDARTS_LAUNCH(ddarts::product, dim3(1), dim3(32), 0, nullptr, a, b, d, out, rounds != 0, shuffles != 0);
}

// Division by a number that the launcher knows: a multiplication, where a 64-bit division is a call that costs a kernel
// some 70 instructions and spilled registers.
#pragma once

#include "cuda_compat.cuh"

#include <cstdint>

namespace ddarts {

struct Divisor {
  int64_t by;
  double inverse;
  explicit Divisor(int64_t n) : by(n), inverse(1.0 / static_cast<double>(n)) {}
  // a / by for 0 <= a < 2^52: the product is off by less than one, which the remainder corrects.
  __device__ __forceinline__ int64_t divide(int64_t a) const {
    const int64_t quotient = static_cast<int64_t>(static_cast<double>(a) * inverse), rest = a - quotient * by;
    return quotient + (rest >= by) - (rest < 0);
  }
};

}  // namespace ddarts

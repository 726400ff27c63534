// What a launcher's header needs: the dtypes of the ops and the names of CUDA's handles. No torch, no CUDA calls.
#pragma once

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace ddarts {

enum class DType : int32_t { float64, float32, float16, bfloat16 };

constexpr size_t size_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

}  // namespace ddarts

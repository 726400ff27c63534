// relu_separable_conv2d: the tiles that its launchers choose.
#pragma once

#include "../common/cuda_compat.cuh"
#include "relu_separable_conv2d.h"

namespace ddarts {
namespace {

inline unsigned extent(int64_t v) { return static_cast<unsigned>(v); }

// Tiles of 8 columns, not 16: where they cover the width with fewer pixels, and where 16 with their halo would not fit.
inline bool narrow_tiles(const SeparableProblem& p) { return p.stride == 2 || (p.out_w - 1) % 16 < 8 || p.pad > 4; }

inline int tile_rows(const SeparableProblem& p) { return p.stride == 2 && p.pad > 4 ? 4 : 8; }

// Fewer where the gradients of the filters are computed, which needs more room besides.
inline int filter_rows(const SeparableProblem& p) { return p.stride == 2 && p.pad > 2 ? 4 : 8; }

inline int64_t output_tiles(const SeparableProblem& p, int rows) {
  return p.n * ceil_div(p.out_h, rows) * ceil_div(p.out_w, narrow_tiles(p) ? 8 : 16);
}

// f(std::true_type) where products are on tensor cores: of float16 and bfloat16, of float32 where the call allows it; else
// f(std::false_type).
template <typename T, typename F>
void with_products(const SeparableProblem& p, const F& f) {
  if constexpr (sizeof(T) == 2) {
    f(std::true_type{});
  } else if constexpr (sizeof(T) == 4) {
    p.tf32 ? f(std::true_type{}) : f(std::false_type{});
  } else {
    f(std::false_type{});
  }
}

// Channels that a block has of an image at once.
inline int64_t channels_at_once(DType dtype) { return dtype == DType::float64 ? 8 : 16; }

}  // namespace
}  // namespace ddarts

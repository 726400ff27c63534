// Mean and rstd of one channel where sums in float32 overflowed: values near the largest float32 have a mean, and a variance
// that is none. Rare, so value by value, in float64.
#pragma once

#include "simd.h"

#include <cmath>
#include <cstdint>

namespace ddarts {
namespace {  // per copy of a CPU kernel, on purpose

// The values of a channel: [samples,height,width] with these strides.
struct ChannelValues {
  int64_t samples, height, width;
  int64_t sample_stride, row_stride, column_stride;

  template <typename F>
  void each(const F& f) const {
    for (int64_t n = 0; n < samples; ++n)
      for (int64_t i = 0; i < height; ++i)
        for (int64_t j = 0; j < width; ++j) f(n * sample_stride + i * row_stride + j * column_stride);
  }
};

// Leaves mean and rstd alone where they are finite. As in torch, a variance beyond the largest A counts as infinite.
template <typename T, typename A>
void mend_moments(const T* x, const ChannelValues& values, double eps, A* mean, A* rstd) {
  if (std::isfinite(*mean) && std::isfinite(*rstd)) return;
  const double count = static_cast<double>(values.samples * values.height * values.width);
  double sum = 0, squares = 0;
  values.each([&](int64_t at) { sum += static_cast<double>(static_cast<A>(x[at])) / count; });
  values.each([&](int64_t at) {
    const double d = static_cast<double>(static_cast<A>(x[at])) - sum;
    squares += d * d / count;
  });
  *mean = static_cast<A>(sum);
  *rstd = static_cast<A>(1.0 / std::sqrt(static_cast<double>(static_cast<A>(squares)) + eps));
}

}  // namespace
}  // namespace ddarts

// Launchers of pool3x3; see pool3x3.cuh.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

// planes of height x width pixels of `values` consecutive values: channels-last N planes, values = C; contiguous N*C, 1.
struct PoolShape {
  int64_t planes, height, width, out_height, out_width, values;
  int stride;
};

inline PoolShape pool_shape(int64_t n, int64_t c, int64_t height, int64_t width, int64_t stride, bool channels_last) {
  return {channels_last ? n : n * c,   height, width, (height - 1) / stride + 1, (width - 1) / stride + 1, channels_last ? c : 1,
          static_cast<int>(stride)};
}

// Outputs that are null are not computed; argmax goes with maximum.
cudaError_t pool3x3(DType dtype, const void* x, void* maximum, void* average, uint8_t* argmax, const PoolShape& shape,
                    cudaStream_t stream);

constexpr int kPoolReaders = 16;  // of each kind, in one launch

// What is read of the gradients of all that read x: of its maximum, of its average, and of x itself.
struct PoolGradients {
  const void *maximum[kPoolReaders], *average[kPoolReaders], *other[kPoolReaders];
  int32_t pitch[kPoolReaders];  // of each other: from a pixel to the next, at least `values`; 1 where values is 1
  int maxima, averages, others;
};

// dx = the gradient of the pools, of the sums of their gradients, + the sum of the others; argmax goes with maxima. At least
// one maximum or average.
cudaError_t pool3x3_backward(DType dtype, const PoolGradients& gradients, const uint8_t* argmax, void* dx,
                             const PoolShape& shape, cudaStream_t stream);

}  // namespace ddarts

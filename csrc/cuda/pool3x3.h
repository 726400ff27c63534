// Launchers of pool3x3; see pool3x3.cuh.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

// planes of height x width pixels of `values` consecutive values: channels-last N planes, values = C; contiguous N*C, 1.
struct PoolShape {
  int64_t planes, height, width, out_height, out_width, values;
  int stride;
};

// Outputs that are null are not computed; argmax goes with maximum.
cudaError_t pool3x3(DType dtype, const void* x, void* maximum, void* average, uint8_t* argmax, const PoolShape& shape,
                    cudaStream_t stream);

// Gradients that are null count as zero; argmax goes with grad_maximum.
cudaError_t pool3x3_backward(DType dtype, const void* grad_maximum, const void* grad_average, const uint8_t* argmax,
                             void* dx, const PoolShape& shape, cudaStream_t stream);

}  // namespace ddarts

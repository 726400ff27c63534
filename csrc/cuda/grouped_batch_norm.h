// Launchers of grouped_batch_norm; see grouped_batch_norm.cuh.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

struct NormShape {
  int64_t groups, batch, channels, pixels;  // batch: images of one group
  bool channels_last;
};

// Tables [groups,channels] and vectors [channels] of the accumulation type; weight and bias may be null. packets: all lie at
// multiples of 16 bytes.
struct NormParameters {
  const void *mean, *rstd, *weight, *bias;
  bool packets;
};

// Partial results per group and channel, a number that depends on the shape alone.
int64_t norm_parts(DType dtype, const NormShape& shape);

// partial: scratch for 3 * parts * groups * channels values of the accumulation type.
cudaError_t norm_statistics(DType dtype, const void* x, void* partial, void* mean, void* rstd, double eps,
                            const NormShape& shape, cudaStream_t stream);
cudaError_t norm_apply(DType dtype, const void* x, void* out, const NormParameters& parameters, bool relu,
                       const NormShape& shape, cudaStream_t stream);

// sums [2,groups,channels]: of d, and of d (x - mean). dweight and dbias [channels] or null.
cudaError_t norm_gradient_sums(DType dtype, const void* grad, const void* x, const NormParameters& parameters, bool relu,
                               void* partial, void* sums, void* dweight, void* dbias, const NormShape& shape,
                               cudaStream_t stream);
// sums null: given statistics, dx = d rstd weight.
cudaError_t norm_input_gradient(DType dtype, const void* grad, const void* x, const NormParameters& parameters, bool relu,
                                const void* sums, void* dx, const NormShape& shape, cudaStream_t stream);

}  // namespace ddarts

// Launchers of spawn_group; see spawn_group.cuh.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

struct SpawnShape {
  int64_t batch, channels, height, width, copies, stride;
  bool channels_last;
};

// out: the `before` samples of groups, then `batch` samples of copies of source, or of zeros where source is null.
cudaError_t spawn_group(DType dtype, const void* groups, int64_t before, const void* source, void* out,
                        const SpawnShape& shape, cudaStream_t stream);

// grad: gradient of the spawned group alone; out: [batch, channels, height, width], all of it written.
cudaError_t spawn_group_backward(DType dtype, const void* grad, void* out, const SpawnShape& shape, cudaStream_t stream);

}  // namespace ddarts

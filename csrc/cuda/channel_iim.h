// Launcher of channel_iim; see channel_iim.cuh.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

constexpr int kIimMaps = 64;  // in one launch: their pointers travel as kernel arguments, so a graph can capture it

struct IimMap {
  const void* data;
  const void* mean;  // [groups, ...] rows of `channels` values of the accumulation type, or null: measured raw
  const void* rstd;
  void* out;  // [samples] of the accumulation type
  int64_t pitch;  // values from a pixel to the next in channels-last: more than there are channels where it is a part of them
};

struct IimShape {
  int64_t samples, channels, pixels;
  int64_t per_group;     // samples in a group
  int64_t group_stride;  // from a group's row of mean to the next group's
  bool channels_last, paper;
};

// All maps share dtype, shape and layout; count is at most kIimMaps.
cudaError_t channel_iim(DType dtype, const IimMap* maps, int count, const IimShape& shape, cudaStream_t stream);

}  // namespace ddarts

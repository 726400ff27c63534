// Launchers of relu_separable_conv2d and relu_pointwise_conv2d; see relu_separable_conv2d.cuh. Images are dense, all of one
// layout; an output may be some of the channels of an image.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

constexpr int64_t kSeparableMomentTiles = 128;  // at most, that every block of the forward joins for itself
constexpr int kSeparableFilters = 24;  // in one launch: kernel arguments, so that a graph can capture it; as many sources

struct SeparableFilter {
  const void *depthwise, *pointwise;  // [C,k,k], [Co,C], each of its own dtype; no depthwise: k is 1, the pixels as they are
  void* data;                         // forward: output; backward: incoming gradient
  const void* y;                      // backward: the output, where its gradient depends on it, or null
  void *d_depthwise, *d_pointwise;    // backward: gradients of the filters, of the filters' dtypes
  int64_t column;                     // backward: first of its columns in the partial sums: k k C taps, then Co C products
  DType depthwise_dtype, pointwise_dtype;
  int32_t row = -1;  // forward: of the moments; backward: of the coefficients, -1 where `data` is the gradient itself
  int8_t k, dilation, source, offset;  // source: which of this launch; offset: of the pixels, down and to the right

  int64_t taps() const { return depthwise == nullptr ? 0 : static_cast<int64_t>(k) * k; }
};

struct SeparableSource {
  const void* x;
  void *dx, *carry;  // backward: its gradient; the sum so far or before the norm, of the accumulation type
  int first, count;  // its filters in this launch
  int64_t index;     // which of all inputs
  bool add, last;    // backward: filters came in an earlier launch; no more will come
};

struct SeparableProblem {
  int64_t n, c, out_c, h, w, out_h, out_w;
  int64_t image_c;          // channels of the images that outputs are part of
  int64_t batch, inputs;    // samples of a group; I
  const void *mean, *rstd;  // [G,I,C] of the accumulation type, or null
  const void* moments;      // forward: not null where mean and rstd are still to be made of the inputs' moments, as mixed_sum has
  int64_t moment_tiles;     // them: [I, G, tiles, 3, C]
  void* out_moments;        // forward: not null where the outputs' moments are wanted: [rows, G, tiles, 3, Co]
  void* coefficients;       // backward: [3, G, coefficient_rows, Co]: an output's gradient is a data + s y + d with its row of a, s, d
  int64_t coefficient_rows, coefficient_plane;  // plane: values from a to s and from s to d
  double eps;
  int stride, pad;          // pad: the largest of the filters
  bool tf32;                // products of float32 may be on tensor cores, which read ten bits of a fraction
  bool channels_last, packets, out_packets;  // packets: of images with C, and with Co channels, 16 bytes of sums at once
  // Backward, with statistics of the batch: dx is left as it is before the norm, and what the norm makes of it is written as
  // coefficients (of dx, x and 1) to the rows behind those of this launch's outputs, from `norm_row` on, one a source.
  bool before_norm;
  int norm_row;
  SeparableFilter filters[kSeparableFilters];
  SeparableSource sources[kSeparableFilters];
  int count, source_count;
};

// What the backward needs room for. tiles: of a source's input gradient. chunks: of the weight gradients, which have `columns`
// in all launches together.
struct SeparableScratch {
  void* partial;  // [chunks, columns] of the accumulation type; null: no weight gradients
  int64_t chunks, columns;
  double* sums;   // [I, tiles, C, 2]; null: the statistics are constants
  void* means;    // [I, G, 2, C] of the accumulation type, of the sums
};

int64_t separable_tiles(const SeparableProblem& p);
// Tiles that the moments of a group's outputs come in.
int64_t separable_moment_tiles(const SeparableProblem& p);
int64_t separable_chunks(DType dtype, const SeparableProblem& p, int64_t filters);

cudaError_t separable_forward(DType dtype, const SeparableProblem& p, cudaStream_t stream);
// One launch for both kinds of gradients, one that joins partial sums, and with statistics of the batch one that finishes dx,
// unless it is wanted as before the norm.
cudaError_t separable_backward(DType dtype, const SeparableProblem& p, bool input_grad, const SeparableScratch& scratch,
                               cudaStream_t stream);

}  // namespace ddarts

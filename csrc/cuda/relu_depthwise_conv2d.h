// Launchers of relu_depthwise_conv2d; see relu_depthwise_conv2d.cuh. Weights and statistics are of the accumulation type.
#pragma once

#include "../common/dtype.h"

namespace ddarts {

constexpr int kDepthwiseFilters = 32;  // in one launch: kernel arguments, so that a graph can capture it

struct DepthwiseStrides {
  int64_t n, c, h, w;
};

struct DepthwiseFilter {
  const void* weight;  // [C,k,k]
  void* data;          // forward: output; backward: incoming gradient
  DepthwiseStrides strides;
  int k, dilation;
  int64_t first;  // of its taps in the partial sums of the weight gradients
  bool packets;   // backward: as depthwise_packets says of data
  DType dweight_dtype;
  void* dweight;  // [C,k,k] of this dtype: its gradient
};

struct DepthwiseProblem {
  const void* x;
  DepthwiseStrides strides;
  int64_t n, c, h, w, out_h, out_w;
  int64_t batch;  // samples of a group
  int stride;
  const void *mean, *rstd;  // [G,C], or null
  DepthwiseFilter filters[kDepthwiseFilters];
  int count, pad;  // filters of this launch, their largest padding
  bool packets;    // as depthwise_packets says of x
};

// Whether channels lie densely and 4 of them (2 of float64) may be read at once.
inline bool depthwise_packets(DType dtype, const void* data, const DepthwiseStrides& strides, int64_t channels) {
  const int64_t count = dtype == DType::float64 ? 2 : 4;
  const bool aligned = reinterpret_cast<uintptr_t>(data) % (static_cast<size_t>(count) * size_of(dtype)) == 0;
  const bool whole = channels % count == 0 && strides.n % count == 0 && strides.h % count == 0 && strides.w % count == 0;
  return strides.c == 1 && aligned && whole;
}

// Blocks over pixels of the input-gradient launch, and over chunks of the weight-gradient launches of so many filters: sizes
// of scratch.
int64_t depthwise_input_tiles(const DepthwiseProblem& p);
int64_t depthwise_statistics_parts(const DepthwiseProblem& p);  // of an image
int64_t depthwise_weight_chunks(DType dtype, const DepthwiseProblem& p, int64_t filters);

// scratch: double [n * parts, c, 2].
cudaError_t depthwise_statistics(DType dtype, const DepthwiseProblem& p, int64_t groups, double eps, void* mean,
                                 void* rstd, double* scratch, cudaStream_t stream);
cudaError_t depthwise_forward(DType dtype, const DepthwiseProblem& p, cudaStream_t stream);
// dz [N,C,H,W] of the accumulation type, added to if `add`; its last launch (`last`) applies the ReLU's mask.
cudaError_t depthwise_input_gradient(DType dtype, const DepthwiseProblem& p, void* dz, const DepthwiseStrides& strides,
                                     bool add, bool last, double* sums, cudaStream_t stream);
// dx from dz, and from its sums [tiles, c, 2] where `sums` is given (statistics of the batch). means: scratch [G, c, 2].
cudaError_t depthwise_finish(DType dtype, const DepthwiseProblem& p, const void* dz, void* dx,
                             const DepthwiseStrides& strides, const double* sums, double* means, cudaStream_t stream);
// The filters' dweight. partial: scratch [chunks, taps, c] of the accumulation type.
cudaError_t depthwise_weight_gradient(DType dtype, const DepthwiseProblem& p, void* partial, int64_t chunks, int64_t taps,
                                      cudaStream_t stream);

}  // namespace ddarts

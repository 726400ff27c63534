// Grids and shared memory of relu_depthwise_conv2d; see relu_depthwise_conv2d.cuh. Shared memory stays below 48 KiB.
#include "relu_depthwise_conv2d.cuh"

namespace ddarts {
namespace {

using namespace depthwise;

unsigned extent(int64_t v) { return static_cast<unsigned>(v); }

template <typename T, int S>
void launch_forward(const DepthwiseProblem& p, cudaStream_t stream) {
  using A = accumulate_t<T>;
  const int rows = tile_rows(S), columns = tile_columns(S);
  const int64_t tiles = p.n * ceil_div(p.out_h, rows) * ceil_div(p.out_w, columns);
  const size_t pitch = 64 * ((columns - 1) * S + 1 + 2 * p.pad) + row_padding_bytes(S);
  const size_t bytes = pitch * ((rows - 1) * S + 1 + 2 * p.pad);
  const dim3 grid(extent(tiles), extent(ceil_div(p.c, kChannels<A>)));
  DDARTS_LAUNCH((forward_kernel<T, S>), grid, dim3(kThreads), bytes, stream, p);
}

}  // namespace

int64_t depthwise_input_tiles(const DepthwiseProblem& p) {
  return p.n * ceil_div(p.h, tile_rows(1)) * ceil_div(p.w, tile_columns(1));
}

int64_t depthwise_weight_chunks(const DepthwiseProblem& p) {
  const int64_t tiles = p.n * ceil_div(p.out_h, kGradientTile) * ceil_div(p.out_w, kGradientTile);
  return tiles < 1 ? 1 : tiles < 128 ? tiles : 128;
}

cudaError_t depthwise_statistics(DType dtype, const DepthwiseProblem& p, int64_t groups, double eps, void* mean,
                                 void* rstd, double* scratch, cudaStream_t stream) {
  const double pixels = static_cast<double>(p.h * p.w);
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    const dim3 grid(extent(p.n), extent(ceil_div(p.c, 8)));
    if (p.n > 0) DDARTS_LAUNCH((image_statistics_kernel<T>), grid, dim3(kThreads), 0, stream, p, scratch);
    DDARTS_LAUNCH((merge_statistics_kernel<A>), dim3(extent(groups * ceil_div(p.c, kJoinColumns))), join_block(), 0, stream,
                  scratch, p.n / groups, p.c, pixels, eps, static_cast<A*>(mean), static_cast<A*>(rstd));
  })
  return cudaGetLastError();
}

cudaError_t depthwise_forward(DType dtype, const DepthwiseProblem& p, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    if (p.stride == 1) {
      launch_forward<T, 1>(p, stream);
    } else {
      launch_forward<T, 2>(p, stream);
    }
  })
  return cudaGetLastError();
}

cudaError_t depthwise_input_gradient(DType dtype, const DepthwiseProblem& p, void* dz, const DepthwiseStrides& strides,
                                     bool add, bool last, double* sums, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    const size_t bytes = (64 * (tile_columns(1) + 2 * p.pad) + row_padding_bytes(1)) * (tile_rows(1) + 2 * p.pad);
    const dim3 grid(extent(depthwise_input_tiles(p)), extent(ceil_div(p.c, kChannels<A>)));
    DDARTS_LAUNCH((input_gradient_kernel<T>), grid, dim3(kThreads), bytes, stream, p, static_cast<A*>(dz), strides, add,
                  last, sums);
  })
  return cudaGetLastError();
}

cudaError_t depthwise_finish(DType dtype, const DepthwiseProblem& p, const void* dz, void* dx,
                             const DepthwiseStrides& strides, const double* sums, double* means, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  const int64_t groups = p.n / p.batch;
  if (sums != nullptr)
    DDARTS_LAUNCH((mean_kernel), dim3(extent(groups * ceil_div(p.c * 2, kJoinColumns))), join_block(), 0, stream, sums,
                  depthwise_input_tiles(p) / groups, p.c * 2, static_cast<double>(p.batch * p.h * p.w), means);
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    DDARTS_LAUNCH((finish_kernel<T>), dim3(grid_size(p.n * p.c * p.h * p.w, kThreads)), dim3(kThreads), 0, stream, p,
                  static_cast<const A*>(dz), static_cast<T*>(dx), strides, sums == nullptr ? nullptr : static_cast<const double*>(means));
  })
  return cudaGetLastError();
}

cudaError_t depthwise_weight_gradient(DType dtype, const DepthwiseProblem& p, void* partial, int64_t taps, void* dw,
                                      cudaStream_t stream) {
  const int64_t chunks = depthwise_weight_chunks(p), side = (kGradientTile - 1) * p.stride + 1 + 2 * p.pad;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    const size_t bytes = 32 * (kGradientTile * kGradientTile + side * side);
    const dim3 grid(extent(chunks), extent(ceil_div(p.c, kGradientChannels<A>)), extent(p.count));
    DDARTS_LAUNCH((weight_gradient_kernel<T>), grid, dim3(kThreads), bytes, stream, p, static_cast<A*>(partial), taps);
    const DepthwiseFilter& end = p.filters[p.count - 1];
    const int64_t columns = (end.first + end.k * end.k - p.filters[0].first) * p.c;
    DDARTS_LAUNCH((weight_sum_kernel<A>), dim3(extent(ceil_div(columns, kJoinColumns))), join_block(), 0, stream, p,
                  static_cast<const A*>(partial), chunks, taps, static_cast<A*>(dw));
  })
  return cudaGetLastError();
}

}  // namespace ddarts

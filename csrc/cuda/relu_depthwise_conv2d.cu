// Grids and shared memory of relu_depthwise_conv2d; see relu_depthwise_conv2d.cuh. Shared memory stays below 48 KiB.
#include "relu_depthwise_conv2d.cuh"

namespace ddarts {
namespace {

using namespace depthwise;

unsigned extent(int64_t v) { return static_cast<unsigned>(v); }

// Whether tiles of 8 columns cover this width with fewer pixels than tiles of 16.
bool narrow_tiles(int64_t width) { return (width - 1) % 16 < 8; }

template <typename T, int S, int P>
void launch_forward(const DepthwiseProblem& p, cudaStream_t stream) {
  using A = accumulate_t<T>;
  const int rows = S == 2 && p.pad > 4 ? kTileRows / 2 : kTileRows;
  const int64_t tiles = p.n * ceil_div(p.out_h, rows) * ceil_div(p.out_w, 2 * P);
  const dim3 grid(extent(tiles), extent(ceil_div(p.c, kChannels<A>)));
  DDARTS_LAUNCH((forward_kernel<T, S, P>), grid, dim3(kThreads), bytes_of<A>(input_tile<A>(rows, 2 * P, S, p.pad)), stream, p, rows);
}

template <typename T, int S, int P>
void launch_input_gradient(const DepthwiseProblem& p, void* dz, const DepthwiseStrides& strides, bool add, bool last,
                           double* sums, cudaStream_t stream) {
  using A = accumulate_t<T>;
  int before;
  const dim3 grid(extent(depthwise_input_tiles(p)), extent(ceil_div(p.c, kChannels<A>)));
  DDARTS_LAUNCH((input_gradient_kernel<T, S, P>), grid, dim3(kThreads), bytes_of<A>(gradient_tile<A>(2 * P, S, p.pad, before)), stream,
                p, static_cast<A*>(dz), strides, add, last, sums);
}

}  // namespace

int64_t depthwise_input_tiles(const DepthwiseProblem& p) {
  return p.n * ceil_div(p.h, kTileRows) * ceil_div(p.w, p.stride == 1 && narrow_tiles(p.w) ? 8 : 16);
}

// Parts of an image, all of as many pixels: at least 64.
int64_t depthwise_statistics_parts(const DepthwiseProblem& p) {
  int64_t parts = 8;
  while (parts > 1 && (p.h * p.w % parts != 0 || p.h * p.w < 64 * parts)) parts /= 2;
  return parts;
}

cudaError_t depthwise_statistics(DType dtype, const DepthwiseProblem& p, int64_t groups, double eps, void* mean,
                                 void* rstd, double* scratch, cudaStream_t stream) {
  const int64_t parts = depthwise_statistics_parts(p);
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    const dim3 grid(extent(p.n * parts), extent(ceil_div(p.c, kChannels<A>)));
    const auto kernel = p.packets ? &image_statistics_kernel<T, kPacket<A>> : &image_statistics_kernel<T, 1>;
    if (p.n > 0) DDARTS_LAUNCH((kernel), grid, dim3(kThreads), 0, stream, p, Divisor(p.w), static_cast<int>(parts), scratch);
    DDARTS_LAUNCH((merge_statistics_kernel<A>), dim3(extent(groups * ceil_div(p.c, kJoinColumns))), join_block(), 0, stream,
                  scratch, p.n / groups * parts, p.c, static_cast<double>(p.h * p.w / parts), eps, static_cast<A*>(mean),
                  static_cast<A*>(rstd));
  })
  return cudaGetLastError();
}

cudaError_t depthwise_forward(DType dtype, const DepthwiseProblem& p, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    if (p.stride == 2) {
      launch_forward<T, 2, 4>(p, stream);
    } else if (narrow_tiles(p.out_w)) {
      launch_forward<T, 1, 4>(p, stream);
    } else {
      launch_forward<T, 1, 8>(p, stream);
    }
  })
  return cudaGetLastError();
}

cudaError_t depthwise_input_gradient(DType dtype, const DepthwiseProblem& p, void* dz, const DepthwiseStrides& strides,
                                     bool add, bool last, double* sums, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    const auto run = p.stride == 2       ? &launch_input_gradient<T, 2, 8>
                     : narrow_tiles(p.w) ? &launch_input_gradient<T, 1, 4>
                                         : &launch_input_gradient<T, 1, 8>;
    run(p, dz, strides, add, last, sums, stream);
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
    const bool packets = p.packets && strides.c == 1 && aligned(dz) && aligned(dx);
    const int64_t v = packets ? kPacket<A> : 1;
    const auto kernel = packets ? &finish_kernel<T, kPacket<A>> : &finish_kernel<T, 1>;
    const Geometry at{Divisor(p.c / v), Divisor(p.h * p.w), Divisor(p.w), Divisor(p.batch), strides.c == 1};
    DDARTS_LAUNCH((kernel), dim3(grid_size(p.n * p.c * p.h * p.w / v, kThreads)), dim3(kThreads), 0, stream, p,
                  static_cast<const A*>(dz), static_cast<T*>(dx), at, sums == nullptr ? nullptr : static_cast<const double*>(means));
  })
  return cudaGetLastError();
}

}  // namespace ddarts

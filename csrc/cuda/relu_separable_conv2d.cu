// Grids and shared memory of the forward of relu_separable_conv2d; see relu_separable_conv2d.cuh. Shared memory stays below
// 48 KiB.
#include "relu_separable_conv2d.cuh"

#include "relu_separable_conv2d_plan.h"

#include <algorithm>

namespace ddarts {
namespace {

using namespace separable;

constexpr int64_t kBlocks = 528;  // 4 for each multiprocessor of a large device

template <typename T, int S, int P, int O>
void launch_forward(const SeparableProblem& p, cudaStream_t stream) {
  using A = accumulate_t<T>;
  const int rows = tile_rows(p);
  const int64_t tiles = output_tiles(p, rows), outputs = ceil_div(p.out_c, 16 * O);
  // Filters of one source share its tile where that is all channels, as long as there are blocks enough.
  int each = 1;
  while (p.source_count == 1 && p.c <= kChannels<A> && each < 4 && !p.filters[0].offset && !p.filters[p.count - 1].offset && tiles * outputs * ceil_div(p.count, 2 * each) >= kBlocks) each *= 2;
  const dim3 grid(extent(tiles), extent(ceil_div(p.count, each)), extent(outputs));
  with_products<T>(p, [&](auto cores) {
    constexpr bool kCores = decltype(cores)::value;
    const auto kernel =
        p.out_moments != nullptr ? &separable_forward_kernel<T, S, P, O, true, kCores> : &separable_forward_kernel<T, S, P, O, false, kCores>;
    DDARTS_LAUNCH((kernel), grid, dim3(kThreads), bytes_of<A>(input_tile<A>(rows, 2 * P, S, p.pad)), stream, p, rows, each);
  });
}

template <typename T, int O>
void launch_tiles(const SeparableProblem& p, cudaStream_t stream) {
  if (p.stride == 2) {
    launch_forward<T, 2, 4, O>(p, stream);
  } else if (narrow_tiles(p)) {
    launch_forward<T, 1, 4, O>(p, stream);
  } else {
    launch_forward<T, 1, 8, O>(p, stream);
  }
}

}  // namespace

int64_t separable_moment_tiles(const SeparableProblem& p) { return output_tiles(p, tile_rows(p)) / (p.n / p.batch); }

cudaError_t separable_forward(DType dtype, const SeparableProblem& p, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  // 16 output channels a block also where 64 would leave a device idle, although each block then computes its z
  const int64_t blocks = output_tiles(p, tile_rows(p)) * p.count * ceil_div(p.out_c, 64);
  const bool few = p.out_c <= 16 || blocks < kMultiprocessors;
  DDARTS_DISPATCH_DTYPE(dtype, T, { few ? launch_tiles<T, 1>(p, stream) : launch_tiles<T, 4>(p, stream); })
  return cudaGetLastError();
}

}  // namespace ddarts

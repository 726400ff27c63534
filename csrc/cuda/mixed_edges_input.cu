// Grid and shared memory of the gradient through pools and skips; see mixed_edges_input.cuh.
#include "mixed_edges_input.cuh"

namespace ddarts {

cudaError_t mixed_edges_input(DType dtype, const EdgesInput& p, cudaStream_t stream) {
  if (p.n * p.c * p.h * p.w == 0) return cudaSuccess;
  const int columns = (p.w - 1) % 16 < 8 ? 8 : 16;
  const int64_t tiles = p.n * ceil_div(p.h, edges::kTileRows) * ceil_div(p.w, columns);
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    const edges::Windows windows = edges::windows_of(p.stride, columns);
    const int64_t across = ceil_div(p.c, edges::kChannels<A>);
    const int kinds = p.has[kEdgesSkip] ? 3 : p.has[kEdgesAverage] ? 2 : 1;
    const size_t bytes = sizeof(A) * static_cast<size_t>(kinds * windows.rows * windows.columns * edges::kChannels<A>);
    const auto kernel = p.stride == 1 ? &edges::input_kernel<T, 1> : &edges::input_kernel<T, 2>;
    DDARTS_LAUNCH((kernel), dim3(static_cast<unsigned>(tiles * across)), dim3(edges::kThreads), bytes, stream, p, columns,
                  static_cast<unsigned>(across));
  })
  return cudaGetLastError();
}

}  // namespace ddarts

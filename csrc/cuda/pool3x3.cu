// Launchers of pool3x3: which kernel serves a shape, and its grid.
#include "pool3x3.cuh"

namespace ddarts {
namespace {

// A block of 2^k items x 256/2^k rows, and the grid that covers all of them or strides.
struct Grid {
  dim3 blocks, threads;
  Grid(int64_t rows, int64_t items) {
    unsigned most = kPoolThreads, x = 1;
    while (most > 64 && rows * items / most < kMultiprocessors) most /= 2;
    while (x < most && x < items) x *= 2;
    const unsigned y = most / x;
    threads = dim3(x, y);
    const int64_t across = ceil_div(items, x);
    blocks = dim3(grid_size(rows, static_cast<int>(y), 1 << 20), static_cast<unsigned>(across < 32768 ? across : 32768));
  }
};

enum class Path { rows, vector_pixels, pixels };

// N: values of 16 bytes. all_aligned: every tensor begins on 16 bytes, and argmax on N.
Path path_of(const PoolShape& s, int n, bool all_aligned) {
  if (!all_aligned) return Path::pixels;
  if (s.values % n == 0) return Path::vector_pixels;
  return s.values == 1 && s.width % (n * s.stride) == 0 ? Path::rows : Path::pixels;
}

// The kernels of one direction, which have one list of arguments: rows of stride 1 and 2, pixels in packets and in values.
template <typename Kernel>
struct Kernels {
  Kernel rows[2], packets, pixels;
};

// height, width: of what is written. n, all_aligned: as for path_of.
template <typename Kernel, typename... Arguments>
void launch(const Kernels<Kernel>& kernels, const PoolShape& s, int64_t height, int64_t width, int n, bool all_aligned,
            cudaStream_t stream, Arguments... arguments) {
  const Path path = path_of(s, n, all_aligned);
  const int64_t values = path == Path::rows ? 1 : path == Path::vector_pixels ? s.values / n : s.values;
  const Kernel kernel = path == Path::rows            ? kernels.rows[s.stride - 1]
                        : path == Path::vector_pixels ? kernels.packets
                                                      : kernels.pixels;
  const Grid grid(s.planes * height, path == Path::rows ? width / n : width * values);
  DDARTS_LAUNCH((kernel), grid.blocks, grid.threads, 0, stream, arguments..., s, Divisor(height), Divisor(values));
}

template <typename T, bool kMax, bool kAvg>
void forward(const T* x, T* maximum, T* average, uint8_t* argmax, const PoolShape& s, cudaStream_t stream) {
  constexpr int N = 16 / sizeof(T);
  const bool all_aligned = aligned(x) && aligned(maximum) && aligned(average) && aligned(argmax, N);
  const Kernels<decltype(&pool3x3_pixels<T, N, kMax, kAvg>)> kernels{
      {&pool3x3_rows<T, N, 1, kMax, kAvg>, &pool3x3_rows<T, N, 2, kMax, kAvg>},
      &pool3x3_pixels<T, N, kMax, kAvg>,
      &pool3x3_pixels<T, 1, kMax, kAvg>};
  launch(kernels, s, s.out_height, s.out_width, N, all_aligned, stream, x, maximum, average, argmax);
}

// Whether all of it can be read in packets of n values; of one channel with a pitch these would be of one pixel.
bool whole(const PoolGradients& g, int64_t values, int n) {
  bool found = true;
  for (int r = 0; r < g.maxima; ++r) found = found && aligned(g.maximum[r]);
  for (int r = 0; r < g.averages; ++r) found = found && aligned(g.average[r]);
  for (int r = 0; r < g.others; ++r) found = found && aligned(g.other[r]) && (values == 1 ? g.pitch[r] == 1 : g.pitch[r] % n == 0);
  return found;
}

template <typename T, bool kMax, bool kAvg>
void backward(const PoolGradients& g, const uint8_t* argmax, T* dx, const PoolShape& s, cudaStream_t stream) {
  constexpr int N = 16 / sizeof(T);
  const bool all_aligned = whole(g, s.values, N) && aligned(dx) && aligned(argmax, N);
  const Kernels<decltype(&pool3x3_backward_pixels<T, N, kMax, kAvg>)> kernels{
      {&pool3x3_backward_rows<T, N, 1, kMax, kAvg>, &pool3x3_backward_rows<T, N, 2, kMax, kAvg>},
      &pool3x3_backward_pixels<T, N, kMax, kAvg>,
      &pool3x3_backward_pixels<T, 1, kMax, kAvg>};
  launch(kernels, s, s.height, s.width, N, all_aligned, stream, g, argmax, dx);
}

}  // namespace

cudaError_t pool3x3(DType dtype, const void* x, void* maximum, void* average, uint8_t* argmax, const PoolShape& shape,
                    cudaStream_t stream) {
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    const auto run = maximum && average ? &forward<T, true, true> : maximum ? &forward<T, true, false> : &forward<T, false, true>;
    run(static_cast<const T*>(x), static_cast<T*>(maximum), static_cast<T*>(average), argmax, shape, stream);
  });
  return cudaGetLastError();
}

cudaError_t pool3x3_backward(DType dtype, const PoolGradients& gradients, const uint8_t* argmax, void* dx,
                             const PoolShape& shape, cudaStream_t stream) {
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    const auto run = gradients.maxima && gradients.averages ? &backward<T, true, true>
                     : gradients.maxima                     ? &backward<T, true, false>
                                                            : &backward<T, false, true>;
    run(gradients, argmax, static_cast<T*>(dx), shape, stream);
  });
  return cudaGetLastError();
}

}  // namespace ddarts

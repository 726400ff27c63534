// Launchers of pool3x3: which kernel serves a shape, and its grid.
#include "pool3x3.cuh"

namespace ddarts {
namespace {

bool aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// A block of 2^k items x 256/2^k rows, and the grid that covers all of them or strides.
struct Grid {
  dim3 blocks, threads;
  Grid(int64_t rows, int64_t items) {
    unsigned x = 1;
    while (x < kPoolThreads && x < items) x *= 2;
    const unsigned y = kPoolThreads / x;
    threads = dim3(x, y);
    const int64_t across = (items + x - 1) / x;
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

template <typename T, bool kMax, bool kAvg>
void forward(const T* x, T* maximum, T* average, uint8_t* argmax, const PoolShape& s, cudaStream_t stream) {
  constexpr int N = 16 / sizeof(T);
  const int64_t rows = s.planes * s.out_height;
  const Path path = path_of(s, N, aligned(x, 16) && aligned(maximum, 16) && aligned(average, 16) && aligned(argmax, N));
  if (path == Path::rows) {
    const Grid grid(rows, s.out_width / N);
    if (s.stride == 1) {
      DDARTS_LAUNCH((pool3x3_rows<T, N, 1, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, x, maximum, average, argmax, s,
                    Divisor(s.out_height), Divisor(1));
    } else {
      DDARTS_LAUNCH((pool3x3_rows<T, N, 2, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, x, maximum, average, argmax, s,
                    Divisor(s.out_height), Divisor(1));
    }
  } else if (path == Path::vector_pixels) {
    const Grid grid(rows, s.out_width * s.values / N);
    DDARTS_LAUNCH((pool3x3_pixels<T, N, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, x, maximum, average, argmax, s,
                    Divisor(s.out_height), Divisor(s.values / N));
  } else {
    const Grid grid(rows, s.out_width * s.values);
    DDARTS_LAUNCH((pool3x3_pixels<T, 1, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, x, maximum, average, argmax, s,
                    Divisor(s.out_height), Divisor(s.values));
  }
}

template <typename T, bool kMax, bool kAvg>
void backward(const T* gm, const T* ga, const uint8_t* argmax, T* dx, const PoolShape& s, cudaStream_t stream) {
  constexpr int N = 16 / sizeof(T);
  const int64_t rows = s.planes * s.height;
  const Path path = path_of(s, N, aligned(gm, 16) && aligned(ga, 16) && aligned(dx, 16) && aligned(argmax, N));
  if (path == Path::rows) {
    const Grid grid(rows, s.width / N);
    if (s.stride == 1) {
      DDARTS_LAUNCH((pool3x3_backward_rows<T, N, 1, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, gm, ga, argmax, dx, s,
                    Divisor(s.height), Divisor(1));
    } else {
      DDARTS_LAUNCH((pool3x3_backward_rows<T, N, 2, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, gm, ga, argmax, dx, s,
                    Divisor(s.height), Divisor(1));
    }
  } else if (path == Path::vector_pixels) {
    const Grid grid(rows, s.width * s.values / N);
    DDARTS_LAUNCH((pool3x3_backward_pixels<T, N, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, gm, ga, argmax, dx, s,
                    Divisor(s.height), Divisor(s.values / N));
  } else {
    const Grid grid(rows, s.width * s.values);
    DDARTS_LAUNCH((pool3x3_backward_pixels<T, 1, kMax, kAvg>), grid.blocks, grid.threads, 0, stream, gm, ga, argmax, dx, s,
                    Divisor(s.height), Divisor(s.values));
  }
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

cudaError_t pool3x3_backward(DType dtype, const void* grad_maximum, const void* grad_average, const uint8_t* argmax,
                             void* dx, const PoolShape& shape, cudaStream_t stream) {
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    const auto run = grad_maximum && grad_average ? &backward<T, true, true>
                     : grad_maximum               ? &backward<T, true, false>
                                                  : &backward<T, false, true>;
    run(static_cast<const T*>(grad_maximum), static_cast<const T*>(grad_average), argmax, static_cast<T*>(dx), shape, stream);
  });
  return cudaGetLastError();
}

}  // namespace ddarts

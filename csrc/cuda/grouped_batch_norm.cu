// Launchers of grouped_batch_norm: width of the loads, grids, order of the kernels.
#include "grouped_batch_norm.cuh"

#include <algorithm>

namespace ddarts {
namespace {

struct Grid {
  dim3 blocks, threads;
  // parts: of the rows, or 0 for about 8 rows a thread, fewer where a device would not be full.
  Grid(const NormShape& s, int n, int64_t parts) {
    const int64_t chunks = s.channels_last ? s.channels / n : s.channels;
    const int64_t rows = s.channels_last ? s.batch * s.pixels : s.batch * (s.pixels / n);
    unsigned x = 1;
    while (s.channels_last && x < 32 && x < chunks) x *= 2;
    threads = dim3(x, kNormThreads / x);
    const int64_t across = (chunks + x - 1) / x;
    int64_t each = 8;
    while (each > 1 && ceil_div(rows, each * threads.y) * across * s.groups < kMultiprocessors) each /= 2;
    if (parts == 0) parts = ceil_div(rows, each * threads.y);
    blocks = dim3(static_cast<unsigned>(parts < 1 ? 1 : parts < (1 << 20) ? parts : 1 << 20),
                  static_cast<unsigned>(across < 1 ? 1 : across < 32768 ? across : 32768),
                  static_cast<unsigned>(s.groups < 32768 ? s.groups : 32768));
  }
};

bool divides(const NormShape& s, int n) { return (s.channels_last ? s.channels : s.pixels) % n == 0; }

// Runs body<N, kLast>() with the widest loads that shape and addresses allow.
#define DDARTS_NORM_WIDTH(T, wide, ...)                                                                                \
  do {                                                                                                                 \
    if (wide) { constexpr int N = 16 / sizeof(T); if (shape.channels_last) { constexpr bool kLast = true; __VA_ARGS__; } \
                else { constexpr bool kLast = false; __VA_ARGS__; } }                                                  \
    else { constexpr int N = 1; if (shape.channels_last) { constexpr bool kLast = true; __VA_ARGS__; }                 \
           else { constexpr bool kLast = false; __VA_ARGS__; } }                                                       \
  } while (false)

}  // namespace

// About 1024 blocks in all, at least 4 rows for each thread, where that fills a device: few enough to join quickly.
int64_t norm_parts(DType dtype, const NormShape& s) {
  const int n = divides(s, static_cast<int>(16 / size_of(dtype))) ? static_cast<int>(16 / size_of(dtype)) : 1;
  const Grid one(s, n, 1);
  const int64_t rows = s.channels_last ? s.batch * s.pixels : s.batch * (s.pixels / n);
  const int64_t others = static_cast<int64_t>(one.blocks.y) * one.blocks.z, wanted = 1024 / others;
  int64_t most = rows / (4 * one.threads.y);
  if (most * others < kMultiprocessors) most = std::min(rows / one.threads.y, ceil_div(kMultiprocessors, others));
  const int64_t parts = wanted < most ? wanted : most;
  return parts < 1 ? 1 : parts > 256 ? 256 : parts;
}

cudaError_t norm_statistics(DType dtype, const void* x, void* partial, void* mean, void* rstd, double eps,
                            const NormShape& shape, cudaStream_t stream) {
  const int64_t parts = norm_parts(dtype, shape);
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    A* part = static_cast<A*>(partial);
    const bool wide = divides(shape, 16 / sizeof(T)) && aligned(x);
    DDARTS_NORM_WIDTH(T, wide, {
      const Grid grid(shape, N, parts);
      DDARTS_LAUNCH((norm_statistics_parts<T, N, kLast>), grid.blocks, grid.threads, 0, stream, static_cast<const T*>(x), part, shape,
                    Divisor(shape.pixels / N));
    });
    DDARTS_LAUNCH((norm_statistics_join<A>), dim3(static_cast<unsigned>(ceil_div(shape.groups * shape.channels, kJoinColumns))),
                  join_block(), 0, stream, part, parts, static_cast<A*>(mean), static_cast<A*>(rstd), static_cast<A>(eps), shape);
  });
  return cudaGetLastError();
}

cudaError_t norm_apply(DType dtype, const void* x, void* out, const NormParameters& parameters, bool relu,
                       const NormShape& shape, cudaStream_t stream) {
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    const bool wide = divides(shape, 16 / sizeof(T)) && aligned(x) && aligned(out);
    DDARTS_NORM_WIDTH(T, wide, {
      const Grid grid(shape, N, 0);
      DDARTS_LAUNCH((norm_apply_kernel<T, N, kLast>), grid.blocks, grid.threads, 0, stream, static_cast<const T*>(x),
                    static_cast<T*>(out), parameters, relu, shape, Divisor(shape.pixels / N));
    });
  });
  return cudaGetLastError();
}

cudaError_t norm_gradient_sums(DType dtype, const void* grad, const void* x, const NormParameters& parameters, bool relu,
                               void* partial, void* sums, void* dweight, void* dbias, const NormShape& shape,
                               cudaStream_t stream) {
  const int64_t parts = norm_parts(dtype, shape);
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    A* part = static_cast<A*>(partial);
    const bool wide = divides(shape, 16 / sizeof(T)) && aligned(grad) && aligned(x);
    DDARTS_NORM_WIDTH(T, wide, {
      const Grid grid(shape, N, parts);
      DDARTS_LAUNCH((norm_gradient_parts<T, N, kLast>), grid.blocks, grid.threads, 0, stream, static_cast<const T*>(grad),
                    static_cast<const T*>(x), parameters, relu, part, shape,
                    Divisor(shape.pixels / N));
    });
    int team = 1;
    while (team < kJoinRows && team < parts) team *= 2;
    const unsigned groups = dweight || dbias ? 1 : grid_size(shape.groups, kJoinRows / team, 32768);
    const dim3 grid(static_cast<unsigned>(ceil_div(shape.channels, kJoinColumns)), groups);
    DDARTS_LAUNCH((norm_gradient_join<A>), grid, join_block(), 0, stream, part, parts, team,
                  static_cast<const A*>(parameters.rstd), static_cast<A*>(sums), static_cast<A*>(dweight),
                  static_cast<A*>(dbias), shape);
  });
  return cudaGetLastError();
}

cudaError_t norm_input_gradient(DType dtype, const void* grad, const void* x, const NormParameters& parameters, bool relu,
                                const void* sums, void* dx, const NormShape& shape, cudaStream_t stream) {
  DDARTS_DISPATCH_DTYPE(dtype, T, {
    using A = accumulate_t<T>;
    const bool wide = divides(shape, 16 / sizeof(T)) && aligned(grad) && aligned(x) && aligned(dx);
    DDARTS_NORM_WIDTH(T, wide, {
      const Grid grid(shape, N, 0);
      DDARTS_LAUNCH((norm_dx_kernel<T, N, kLast>), grid.blocks, grid.threads, 0, stream, static_cast<const T*>(grad),
                    static_cast<const T*>(x), parameters, relu, static_cast<const A*>(sums), static_cast<T*>(dx), shape,
                    Divisor(shape.pixels / N));
    });
  });
  return cudaGetLastError();
}

}  // namespace ddarts

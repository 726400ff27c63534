// Launchers of mixed_sum; see mixed_sum.cuh and mixed_sum_plan.h.
#include "mixed_sum_plan.h"

namespace ddarts {

int64_t mixed_sum_tiles(const MixedShape& shape) { return frame_of(shape).tiles; }

bool mixed_sum_packets(const MixedShape& shape) {
  return (shape.channels_last ? shape.channels : shape.pixels) % (shape.wide ? 2 : 4) == 0;
}

cudaError_t mixed_sum_moments(const MixedShape& s, const MixedTable& table, void* partial, cudaStream_t stream) {
  if (empty(s) || table.count == 0) return cudaSuccess;
  const mixed::Frame frame = frame_of(s);
  with_packet(s, [&](auto acc, auto v) {
    using A = decltype(acc);
    constexpr int V = decltype(v)::value;
    by_groups(frame, reduction_grid(frame, table.count), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::moments_kernel<A, V>), grid, dim3(mixed::kThreads), 0, stream, f, table, static_cast<A*>(partial));
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_sum_statistics(const MixedShape& s, const MixedTable& table, void* partial, double eps, void* mean,
                                 void* rstd, cudaStream_t stream) {
  if (s.groups == 0 || s.channels == 0 || table.count == 0) return cudaSuccess;
  const cudaError_t error = mixed_sum_moments(s, table, partial, stream);
  if (error != cudaSuccess) return error;
  const mixed::Frame frame = frame_of(s);
  with_sums(s, [&](auto acc) {
    using A = decltype(acc);
    by_groups(frame, merge_grid(frame, table.count), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::statistics_kernel<A>), grid, join_block(), 0, stream, f, table, static_cast<const A*>(partial), eps,
                    static_cast<A*>(mean), static_cast<A*>(rstd));
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_sum_given(const MixedShape& s, const MixedTable& table, const void* given_mean, const void* given_rstd,
                            int64_t given_groups, void* mean, void* rstd, cudaStream_t stream) {
  if (s.groups == 0 || s.channels == 0 || table.count == 0) return cudaSuccess;
  with_sums(s, [&](auto acc) {
    using A = decltype(acc);
    by_groups(frame_of(s), dim3(grid_size(s.channels, mixed::kThreads), whole(table.count)), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::given_kernel<A>), grid, dim3(mixed::kThreads), 0, stream, f, table,
                    static_cast<const A*>(given_mean), static_cast<const A*>(given_rstd), given_groups,
                    static_cast<A*>(mean), static_cast<A*>(rstd));
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_sum_output(const MixedShape& s, const MixedTable& table, const void* weights, void* mean, void* rstd,
                             bool fill, void* carry, bool first, bool last, void* out, DType out_dtype,
                             cudaStream_t stream) {
  if (empty(s)) return cudaSuccess;
  const mixed::Frame frame = frame_of(s);
  with_packet(s, [&](auto acc, auto v) {
    using A = decltype(acc);
    constexpr int V = decltype(v)::value;
    in_flight(frame, [&](dim3 whole_grid, auto flight) {
      const unsigned blocks = whole_grid.x;
      if (fill) whole_grid.x += static_cast<unsigned>(table.count);
      by_groups(frame, whole_grid, [&](const mixed::Frame& f, dim3 grid) {
        DDARTS_LAUNCH((mixed::output_kernel<A, V, decltype(flight)::value>), grid, dim3(mixed::kThreads), 0, stream, f, table,
                      static_cast<const A*>(weights), static_cast<A*>(mean), static_cast<A*>(rstd), static_cast<A*>(carry), first,
                      last, out, out_dtype, blocks);
      });
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_sum_products(const MixedShape& s, const MixedTable& table, const void* grad, DType grad_dtype, int64_t grad_pitch,
                               const void* mean, const void* rstd, void* partial, bool sum_grad, void* sums,
                               cudaStream_t stream) {
  if (empty(s)) return cudaSuccess;
  const mixed::Frame frame = frame_of(s);
  const int fours = (table.count + mixed::kTogether - 1) / mixed::kTogether;
  with_packet(s, [&](auto acc, auto v) {
    using A = decltype(acc);
    constexpr int V = decltype(v)::value;
    by_groups(frame, reduction_grid(frame, fours), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::products_kernel<A, V>), grid, dim3(mixed::kThreads), 0, stream, f, table, grad, grad_dtype, grad_pitch,
                    static_cast<const A*>(mean), static_cast<A*>(partial), sum_grad);
    });
    by_groups(frame, merge_grid(frame, table.count + (sum_grad ? 1 : 0)), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::products_merge_kernel<A>), grid, join_block(), 0, stream, f, table, static_cast<const A*>(partial),
                    static_cast<const A*>(rstd), static_cast<A*>(sums));
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_sum_gradients(const MixedShape& s, const MixedTable& table, const void* grad, DType grad_dtype, int64_t grad_pitch,
                                const void* weights, const void* mean, const void* rstd, const void* sums,
                                bool weights_grad, void* d_weights, cudaStream_t stream) {
  if (empty(s)) return cudaSuccess;
  const mixed::Frame frame = frame_of(s);
  with_packet(s, [&](auto acc, auto v) {
    using A = decltype(acc);
    constexpr int V = decltype(v)::value;
    in_flight(frame, [&](dim3 whole_grid, auto flight) {
      const unsigned blocks = whole_grid.x;
      if (d_weights) whole_grid.x += whole(ceil_div(s.branches, mixed::kWeightsOfABlock));
      by_groups(frame, whole_grid, [&](const mixed::Frame& f, dim3 grid) {
        DDARTS_LAUNCH((mixed::gradients_kernel<A, V, decltype(flight)::value>), grid, dim3(mixed::kThreads), 0, stream, f, table, grad,
                      grad_dtype, grad_pitch, static_cast<const A*>(weights), static_cast<const A*>(mean),
                      static_cast<const A*>(rstd), static_cast<const A*>(sums), blocks,
                      weights_grad ? static_cast<const A*>(sums) : nullptr, static_cast<A*>(d_weights));
      });
    });
  });
  return cudaGetLastError();
}

}  // namespace ddarts

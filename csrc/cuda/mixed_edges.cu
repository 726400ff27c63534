// Grids of mixed_edges; see mixed_edges.cuh.
#include "mixed_edges.cuh"

#include "mixed_sum_plan.h"

namespace ddarts {
namespace {

template <typename A>
const A* as(const void* data) {
  return static_cast<const A*>(data);
}

}  // namespace

cudaError_t mixed_edges_join(const MixedShape& s, const EdgesJoin& join, double eps, cudaStream_t stream) {
  if (s.groups == 0 || s.channels == 0 || join.count == 0) return cudaSuccess;
  const mixed::Frame frame = frame_of(s);
  with_sums(s, [&](auto acc) {
    by_groups(frame, merge_grid(frame, join.count), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::edges_join_kernel<decltype(acc)>), grid, join_block(), 0, stream, f, join, eps);
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_edges_output(const MixedShape& s, const MixedTable& table, const EdgesTargets& targets, const void* weights, const void* mean,
                               const void* rstd, DType dtype, cudaStream_t stream) {
  if (empty(s) || targets.count == 0) return cudaSuccess;
  const mixed::Frame frame = frame_of(s);
  with_packet(s, [&](auto acc, auto v) {
    using A = decltype(acc);
    constexpr int V = decltype(v)::value;
    in_flight(frame, [&](dim3 whole_grid, auto flight) {
      whole_grid.y = whole(targets.count);
      by_groups(frame, whole_grid, [&](const mixed::Frame& f, dim3 grid) {
        DDARTS_LAUNCH((mixed::edges_output_kernel<A, V, decltype(flight)::value>), grid, dim3(mixed::kThreads), 0, stream, f, table, targets,
                      as<A>(weights), as<A>(mean), as<A>(rstd), dtype);
      });
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_edges_products(const MixedShape& s, const MixedTable& table, const EdgesTargets& targets, const void* mean, void* partial,
                                 DType dtype, cudaStream_t stream) {
  if (empty(s)) return cudaSuccess;
  const mixed::Frame frame = frame_of(s);
  int64_t fours = 0;
  for (int t = 0; t < targets.count; ++t) fours += ceil_div(targets.target[t].end - targets.target[t].begin, mixed::kTogether);
  if (fours == 0) return cudaSuccess;
  with_packet(s, [&](auto acc, auto v) {
    using A = decltype(acc);
    constexpr int V = decltype(v)::value;
    by_groups(frame, reduction_grid(frame, static_cast<int>(fours)), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::edges_products_kernel<A, V>), grid, dim3(mixed::kThreads), 0, stream, f, table, targets, as<A>(mean),
                    static_cast<A*>(partial), dtype);
    });
  });
  return cudaGetLastError();
}

cudaError_t mixed_edges_coefficients(const MixedShape& s, const EdgesTerms& terms, const void* partial, const void* weights, const void* mean,
                                     const void* rstd, void* coefficients, void* d_weights, cudaStream_t stream) {
  if (empty(s) || terms.count == 0) return cudaSuccess;
  with_sums(s, [&](auto acc) {
    using A = decltype(acc);
    by_groups(frame_of(s), dim3(whole(terms.count)), [&](const mixed::Frame& f, dim3 grid) {
      DDARTS_LAUNCH((mixed::edges_coefficients_kernel<A>), grid, join_block(), 0, stream, f, terms, as<A>(partial), as<A>(weights), as<A>(mean),
                    as<A>(rstd), static_cast<A*>(coefficients), static_cast<A*>(d_weights));
    });
  });
  return cudaGetLastError();
}

}  // namespace ddarts

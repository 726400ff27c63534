// Chooses packets, block shape and grids of mixed_sum; see mixed_sum.cuh.
#include "mixed_sum.cuh"
#include "relu_separable_conv2d.h"

#include <algorithm>

namespace ddarts {
namespace {

constexpr int64_t kMostTiles = 512, kMostGroups = 65535;  // of a grid in z

int packet_of(const MixedShape& s) { return s.packets ? (s.wide ? 2 : 4) : 1; }

mixed::Frame frame_of(const MixedShape& s) {
  mixed::Frame f{};
  const int64_t v = packet_of(s);
  f.shape = s;
  f.columns = s.channels_last ? s.channels / v : s.channels;
  f.positions = s.channels_last ? s.values() : s.values() / v;
  f.per_image = std::max<int64_t>(s.channels_last ? s.pixels : s.pixels / v, 1);
  f.share = 1.0 / static_cast<double>(std::max<int64_t>(s.values(), 1));
  f.lanes = 1;
  while (s.channels_last && f.lanes < 32 && f.lanes < f.columns) f.lanes *= 2;
  f.depth = mixed::kThreads / f.lanes;
  f.column_blocks = (f.columns + f.lanes - 1) / f.lanes;
  // 16 packets a thread, more where there would be too many partial sums to merge, fewer where a device would not be full and
  // the partial sums stay few enough for others to join them in passing
  int64_t packets = std::max<int64_t>(16, ceil_div(f.positions, kMostTiles * f.depth));
  const auto tiles = [&](int64_t each) { return ceil_div(f.positions, each * f.depth); };
  while (packets > 4 && tiles(packets) * f.column_blocks * s.groups < kMultiprocessors && tiles(packets / 2) <= kSeparableMomentTiles) packets /= 2;
  f.tile = packets * f.depth;
  f.tiles = (f.positions + f.tile - 1) / f.tile;
  return f;
}

bool empty(const MixedShape& s) { return s.groups == 0 || s.values() == 0 || s.channels == 0; }

unsigned whole(int64_t n) { return static_cast<unsigned>(n); }

// f(A(), V): the sums' type and the packet, as constants
template <typename F>
void with_packet(const MixedShape& s, const F& f) {
  if (s.wide) {
    s.packets ? f(double(), std::integral_constant<int, 2>()) : f(double(), std::integral_constant<int, 1>());
  } else {
    s.packets ? f(float(), std::integral_constant<int, 4>()) : f(float(), std::integral_constant<int, 1>());
  }
}
template <typename F>
void with_sums(const MixedShape& s, const F& f) {
  s.wide ? f(double()) : f(float());
}

// Grids but for their groups, which by_groups gives.
dim3 elementwise_grid(const mixed::Frame& f, int flight) {
  return dim3(whole(ceil_div(f.positions, f.depth * flight) * f.column_blocks));
}
dim3 reduction_grid(const mixed::Frame& f, int rows) { return dim3(whole(f.tiles * f.column_blocks), whole(rows)); }
dim3 merge_grid(const mixed::Frame& f, int rows) { return dim3(whole(ceil_div(f.shape.channels, kJoinColumns)), whole(rows)); }

// launch(grid, F): packets that a thread has in flight, as a constant; fewer where a device would not be full
template <typename F>
void in_flight(const mixed::Frame& f, const F& launch) {
  const dim3 grid = elementwise_grid(f, mixed::kFlight);
  if (grid.x * f.shape.groups < kMultiprocessors) {
    launch(elementwise_grid(f, 1), std::integral_constant<int, 1>());
  } else {
    launch(grid, std::integral_constant<int, mixed::kFlight>());
  }
}

// launch(frame, grid) for as many groups at a time as a grid has room for.
template <typename F>
void by_groups(mixed::Frame f, dim3 grid, const F& launch) {
  for (; f.first_group < f.shape.groups; f.first_group += kMostGroups) {
    grid.z = whole(std::min(kMostGroups, f.shape.groups - f.first_group));
    launch(f, grid);
  }
}

}  // namespace

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

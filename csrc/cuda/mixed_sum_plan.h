// mixed_sum: packets, block shapes and grids that its launchers, and those of mixed_edges, choose.
#pragma once

#include "mixed_sum.cuh"
#include "relu_separable_conv2d.h"

#include <algorithm>

namespace ddarts {
namespace {

constexpr int64_t kMostTiles = 512, kMostGroups = 65535;  // of a grid in z

inline int packet_of(const MixedShape& s) { return s.packets ? (s.wide ? 2 : 4) : 1; }

inline mixed::Frame frame_of(const MixedShape& s) {
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

inline bool empty(const MixedShape& s) { return s.groups == 0 || s.values() == 0 || s.channels == 0; }

inline unsigned whole(int64_t n) { return static_cast<unsigned>(n); }

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
inline dim3 elementwise_grid(const mixed::Frame& f, int flight) {
  return dim3(whole(ceil_div(f.positions, f.depth * flight) * f.column_blocks));
}
inline dim3 reduction_grid(const mixed::Frame& f, int rows) { return dim3(whole(f.tiles * f.column_blocks), whole(rows)); }
inline dim3 merge_grid(const mixed::Frame& f, int rows) { return dim3(whole(ceil_div(f.shape.channels, kJoinColumns)), whole(rows)); }

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
}  // namespace ddarts

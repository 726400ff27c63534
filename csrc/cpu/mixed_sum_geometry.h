// What mixed_sum's passes on the CPU stand on: the cut into blocks, the runs of branches of one dtype, layouts.
#pragma once

#include "../common/parallel.h"
#include "../common/tensors.h"
#include "mixed_sum_tiles.h"

#include <algorithm>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

// How [groups*batch,C,H,W] in one of the two layouts is cut into blocks: groups x tiles x panels.
struct Geometry {
  int64_t groups, batch, channels, pixels;  // batch: of one group
  bool last;                                // channels-last (or a single pixel, which is the same memory)
  int64_t width, rows, tile_rows;           // channels-last: lanes of a folded row, folded rows of a group and of a tile
  int64_t images, chunks;                   // contiguous: images of a tile, tiles that a plane is cut into
  int64_t tiles, panels;

  Geometry(const Tensor& x, int64_t groups_, bool channels_last);
  int64_t values() const { return batch * pixels; }
  int64_t lanes() const { return panels * kLanes; }
  int64_t units() const { return groups * tiles * panels; }

  Block block(int64_t group, int64_t tile, int64_t panel, int64_t& offset) const;
  // Channel of a lane; a lane past the width stands for none, -1.
  int64_t channel(int64_t lane) const { return !last ? lane / kLanes : lane < width ? lane % channels : -1; }

  // The 16 entries of a [C] table that belong to a panel's lanes.
  template <typename A>
  void gather(const A* table, int64_t panel, A* lanes) const {
    if (!last) {
      std::fill_n(lanes, kLanes, table[panel]);
    } else if (width == channels && (panel + 1) * kLanes <= width) {
      std::copy_n(table + panel * kLanes, kLanes, lanes);
    } else {
      for (int l = 0; l < kLanes; ++l) lanes[l] = table[std::max<int64_t>(channel(panel * kLanes + l), 0)];
    }
  }
  // Units of one thread at least, when `reads` tensors are visited.
  int64_t grain(int64_t reads) const {
    return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, kTile / std::max<int64_t>(1, last ? panels : 1) * reads));
  }
  template <typename F>
  void for_units(int64_t reads, const F& f) const {
    parallel_pieces(units(), grain(reads), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) f(u / (tiles * panels), u / panels % tiles, u % panels);
    });
  }
};

template <typename F>
inline void with_count(int count, const F& f) {
  switch (count) {
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    default: return f(std::integral_constant<int, kTogether>());
  }
}

// Up to four branches of one dtype, read side by side.
struct Run {
  ScalarType dtype;
  int count;
  int64_t index[kTogether];
};

// wanted: which branches, by default all.
std::vector<Run> runs_of(const std::vector<Tensor>& branches, const std::vector<bool>& wanted = {});

int64_t branches_of(const std::vector<Run>& runs);

// The runs without the branches that are not wanted.
std::vector<Run> selected(const std::vector<Run>& runs, const std::vector<bool>& wanted);

constexpr int64_t kCachedValues = 1 << 20;  // what the last-level cache keeps of branches from one pass to the next

// Runs whose branches, of `values` values each, stay in the last-level cache together from one pass to the next.
std::vector<std::vector<Run>> cached_batches(const std::vector<Run>& runs, int64_t values);

}  // namespace ddarts::DDARTS_CPU_COPY

// What mixed_sum's passes on the CPU stand on: the cut into blocks, the runs of branches of one dtype, layouts.
#pragma once

#include "../common/layout.h"
#include "../common/parallel.h"
#include "mixed_sum_tiles.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// How [groups*batch,C,H,W] in one of the two layouts is cut into blocks: groups x tiles x panels.
struct Geometry {
  int64_t groups, batch, channels, pixels;  // batch: of one group
  bool last;                                // channels-last (or a single pixel, which is the same memory)
  int64_t width, rows, tile_rows;           // channels-last: lanes of a folded row, folded rows of a group and of a tile
  int64_t images, chunks;                   // contiguous: images of a tile, tiles that a plane is cut into
  int64_t tiles, panels;

  Geometry(const Tensor& x, int64_t groups_, bool channels_last)
      : groups(groups_), batch(x.size(0) / groups_), channels(x.size(1)), pixels(x.size(2) * x.size(3)) {
    last = channels_last || pixels == 1;
    const int64_t fold = kLanes / std::gcd(std::max<int64_t>(channels, 1), int64_t(kLanes));
    const bool folds = fold <= kLanes && batch * pixels % fold == 0;
    width = folds ? channels * fold : channels;
    rows = folds ? batch * pixels / fold : batch * pixels;
    panels = last ? (width + kLanes - 1) / kLanes : channels;
    tile_rows = std::clamp<int64_t>(kTile / (kLanes * std::max<int64_t>(panels, 1)), 16, kTile / kLanes);
    const int64_t padded = std::max<int64_t>((pixels + kLanes - 1) / kLanes * kLanes, 1);
    images = std::max<int64_t>(1, kTile / padded);
    chunks = (pixels + kTile - 1) / kTile;
    tiles = last ? (rows + tile_rows - 1) / tile_rows : (batch + images - 1) / images * chunks;
    if (values() == 0 || channels == 0) tiles = panels = 0;
  }
  int64_t values() const { return batch * pixels; }
  int64_t lanes() const { return panels * kLanes; }
  int64_t units() const { return groups * tiles * panels; }

  Block block(int64_t group, int64_t tile, int64_t panel, int64_t& offset) const {
    offset = group * batch * channels * pixels;
    if (last) {
      const int64_t row = tile * tile_rows;
      offset += row * width + panel * kLanes;
      return {1, 0, std::min(tile_rows, rows - row), width, int(std::min<int64_t>(kLanes, width - panel * kLanes)), 0};
    }
    const int64_t image = tile / chunks * images, pixel = tile % chunks * kTile;
    const int64_t count = std::min(kTile, pixels - pixel);
    offset += (image * channels + panel) * pixels + pixel;
    return {std::min(images, batch - image), channels * pixels, count / kLanes, kLanes, kLanes, int(count % kLanes)};
  }
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
    ddarts::parallel_pieces(units(), grain(reads), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) f(u / (tiles * panels), u / panels % tiles, u % panels);
    });
  }
};

template <typename F>
inline void with_dtype(ScalarType dtype, const F& f) {
  switch (dtype) {
    case ScalarType::Double: return f(double());
    case ScalarType::Float: return f(float());
    case ScalarType::Half: return f(torch::headeronly::Half());
    case ScalarType::BFloat16: return f(torch::headeronly::BFloat16());
    default: STD_TORCH_CHECK(false, "mixed_sum: unsupported dtype");
  }
}
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
inline std::vector<Run> runs_of(const std::vector<Tensor>& branches, const std::vector<bool>& wanted = {}) {
  std::vector<Run> runs;
  for (ScalarType dtype : {ScalarType::Double, ScalarType::Float, ScalarType::Half, ScalarType::BFloat16}) {
    bool open = false;
    for (size_t k = 0; k < branches.size(); ++k) {
      if (branches[k].scalar_type() != dtype || (!wanted.empty() && !wanted[k])) continue;
      if (!open || runs.back().count == kTogether) runs.push_back({dtype, 0, {}});
      open = true;
      runs.back().index[runs.back().count++] = static_cast<int64_t>(k);
    }
  }
  return runs;
}

inline int64_t branches_of(const std::vector<Run>& runs) {
  return std::accumulate(runs.begin(), runs.end(), int64_t(0), [](int64_t sum, const Run& run) { return sum + run.count; });
}

// The runs without the branches that are not wanted.
inline std::vector<Run> selected(const std::vector<Run>& runs, const std::vector<bool>& wanted) {
  std::vector<Run> found;
  for (const Run& run : runs) {
    Run kept{run.dtype, 0, {}};
    for (int n = 0; n < run.count; ++n)
      if (wanted[run.index[n]]) kept.index[kept.count++] = run.index[n];
    if (kept.count) found.push_back(kept);
  }
  return found;
}

constexpr int64_t kCachedValues = 1 << 20;  // what the last-level cache keeps of branches from one pass to the next

// Runs whose branches, of `values` values each, stay in the last-level cache together from one pass to the next.
inline std::vector<std::vector<Run>> cached_batches(const std::vector<Run>& runs, int64_t values) {
  std::vector<std::vector<Run>> batches;
  int64_t held = 0;
  for (const Run& run : runs) {
    if (batches.empty() || held + run.count * values > kCachedValues) batches.emplace_back(), held = 0;
    batches.back().push_back(run);
    held += run.count * values;
  }
  return batches;
}

inline Tensor new_like(const Tensor& x, ScalarType dtype, bool last) {
  return ddarts::layout::empty(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, dtype, last);
}
inline Tensor table_of(const Tensor& x, ScalarType dtype) {
  return torch::stable::contiguous(x.scalar_type() == dtype ? x : torch::stable::to(x, dtype));
}
template <typename T>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <typename T>
T* mutable_data(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

inline ScalarType promoted(const std::vector<Tensor>& branches) {
  ScalarType out = branches[0].scalar_type();
  for (const Tensor& x : branches) {
    const ScalarType other = x.scalar_type();
    if (other == out || out == ScalarType::Double) continue;
    // float16 with bfloat16 is float32, as torch promotes them
    out = other == ScalarType::Double ? other : ScalarType::Float;
  }
  return out;
}

}  // namespace ddarts::DDARTS_CPU_COPY

// How mixed_sum on the CPU cuts tensors into blocks and branches into runs.
#include "mixed_sum_geometry.h"

#include <numeric>

namespace ddarts::DDARTS_CPU_COPY {

Geometry::Geometry(const Tensor& x, int64_t groups_, bool channels_last)
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

Block Geometry::block(int64_t group, int64_t tile, int64_t panel, int64_t& offset) const {
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

std::vector<Run> runs_of(const std::vector<Tensor>& branches, const std::vector<bool>& wanted) {
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

int64_t branches_of(const std::vector<Run>& runs) {
  return std::accumulate(runs.begin(), runs.end(), int64_t(0), [](int64_t sum, const Run& run) { return sum + run.count; });
}

std::vector<Run> selected(const std::vector<Run>& runs, const std::vector<bool>& wanted) {
  std::vector<Run> found;
  for (const Run& run : runs) {
    Run kept{run.dtype, 0, {}};
    for (int n = 0; n < run.count; ++n)
      if (wanted[run.index[n]]) kept.index[kept.count++] = run.index[n];
    if (kept.count) found.push_back(kept);
  }
  return found;
}

std::vector<std::vector<Run>> cached_batches(const std::vector<Run>& runs, int64_t values) {
  std::vector<std::vector<Run>> batches;
  int64_t held = 0;
  for (const Run& run : runs) {
    if (batches.empty() || held + run.count * values > kCachedValues) batches.emplace_back(), held = 0;
    batches.back().push_back(run);
    held += run.count * values;
  }
  return batches;
}

}  // namespace ddarts::DDARTS_CPU_COPY

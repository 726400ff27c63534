// What forward and backward of relu_depthwise_conv2d and relu_separable_conv2d share: sizes, bands, tables of weights.
#pragma once

#include "../common/channel_tiles.h"
#include "../common/tensors.h"

#include <optional>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

struct Filter {
  int64_t k, dilation, pad;
  int64_t first;  // of its taps in a table of all filters' taps
};

// A sample's image is cut into bands of rows and panels of channel blocks whose tiles fit into the L2 cache.
struct Plan {
  int64_t n, c, h, w, stride, out_h, out_w;
  int64_t lanes, blocks;               // channels of a block, number of blocks
  int64_t panel, panels;               // blocks of a panel, number of panels
  int64_t mixed = 0, mixed_blocks = 0; // output channels and blocks of the pointwise convolutions, 0 without
  int64_t pad = 0, taps = 0;           // the largest padding, all filters' taps
  int64_t out_columns, in_columns;     // of tiles; out_columns is a multiple of 8
  int64_t band, bands, in_rows;        // output rows of a band, number of bands, rows of an input tile
  std::vector<Filter> filters;

  // First output row of a band and the end of its rows.
  int64_t begin(int64_t b) const { return b * band; }
  int64_t end(int64_t b) const { return std::min(out_h, (b + 1) * band); }
  // Blocks of a panel that exist.
  int64_t blocks_of(int64_t panel_) const { return std::min(panel, blocks - panel_ * panel); }
  int64_t in_tile() const { return (in_rows + stride) * in_columns; }
  bool mixes() const { return mixed > 0; }
};

constexpr int64_t kTileBytes = 128 << 10;
constexpr int64_t kPanel = 2;  // blocks that fill a cache line of float32

inline Plan make_plan(const Tensor& x, const std::vector<Tensor>& weights,
                      const std::vector<Tensor>& pointwise, const std::vector<int64_t>& dilations,
                      int64_t stride, int64_t lanes, bool whole_panel) {
  Plan p;
  p.n = x.size(0), p.c = x.size(1), p.h = x.size(2), p.w = x.size(3), p.stride = stride;
  p.out_h = (p.h + stride - 1) / stride, p.out_w = (p.w + stride - 1) / stride;
  p.lanes = lanes, p.blocks = (p.c + lanes - 1) / lanes;
  p.panel = whole_panel ? p.blocks : std::min(kPanel, p.blocks), p.panels = (p.blocks + p.panel - 1) / p.panel;
  if (!pointwise.empty()) p.mixed = pointwise[0].size(0), p.mixed_blocks = (p.mixed + lanes - 1) / lanes;
  for (size_t f = 0; f < weights.size(); ++f) {
    const int64_t k = weights[f].size(3), pad = dilations[f] * (k - 1) / 2;
    p.filters.push_back({k, dilations[f], pad, p.taps});
    p.pad = std::max(p.pad, pad);
    p.taps += k * k;
  }
  p.out_columns = (p.out_w + 7) / 8 * 8;
  p.in_columns = (p.out_columns - 1) * stride + 1 + 2 * p.pad;
  const int64_t rows = kTileBytes / (p.panel * p.in_columns * kVectorBytes) - 2 * p.pad;
  const int64_t most = std::max<int64_t>(8, rows / stride);
  p.bands = (p.out_h + most - 1) / most;
  p.band = (p.out_h + p.bands - 1) / p.bands;
  p.in_rows = (p.band - 1) * stride + 1 + 2 * p.pad;
  return p;
}

// Rows of a band that go through a depthwise filter, and a pointwise matrix where there is one, together, so that they stay
// in the L1 cache.
inline int64_t rows_together(const Plan& p) { return std::max<int64_t>(1, (p.mixes() ? 64 : 256) / p.out_columns); }

// mean and rstd [G,C] as vectors [G][blocks][2], zeros past the last channel; empty without a norm.
template <typename A>
inline Table<A> norm_table(const Plan& p, const std::vector<A>& mean, const std::vector<A>& rstd) {
  const int64_t groups = static_cast<int64_t>(mean.size()) / p.c;
  Table<A> table(static_cast<size_t>(groups * p.blocks * 2 * p.lanes), A(0));
  for (int64_t i = 0; i < groups * p.c; ++i) {
    A* lanes = table.data() + (i / p.c * p.blocks + i % p.c / p.lanes) * 2 * p.lanes + i % p.c % p.lanes;
    // An rstd of 0 (see mend_moments) makes 0 of everything, x - mean may be infinite.
    lanes[p.lanes] = rstd[static_cast<size_t>(i)], lanes[0] = lanes[p.lanes] == A(0) ? A(0) : mean[static_cast<size_t>(i)];
  }
  return table;
}

// The two vectors of a block.
template <typename A>
inline const Vector<A>* norm_of(const Plan& p, const Table<A>& table, int64_t group, int64_t block) {
  return reinterpret_cast<const Vector<A>*>(table.data()) + (group * p.blocks + block) * 2;
}

// The ReLU, after a norm where there is one, of rows of an input as tiles.
template <typename T, typename A>
inline void load_activation(const Plan& p, const View<const T>& x, const Table<A>& norms, int64_t n, int64_t group,
                            int64_t first_block, int64_t blocks, int64_t first, int64_t rows, Vector<A>* tiles) {
  const Tiles<A> to{tiles, p.in_tile(), p.in_columns, p.pad};
  if (norms.empty()) {
    load_tiles<Prologue::relu, T, A>(x, n, first_block, blocks, first, rows, to, nullptr);
  } else {
    load_tiles<Prologue::norm_relu, T, A>(x, n, first_block, blocks, first, rows, to,
                                          norm_of<A>(p, norms, group, first_block));
  }
}

}  // namespace ddarts::DDARTS_CPU_COPY

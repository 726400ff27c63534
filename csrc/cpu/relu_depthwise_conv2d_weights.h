// relu_depthwise_conv2d on the CPU: the filters that read an input, and tables of their weights.
#pragma once

#include "../common/channel_mixing.h"
#include "../common/parallel.h"
#include "relu_depthwise_conv2d_plan.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

// The filters that read one of several inputs; weights are dense.
struct Selection {
  std::vector<size_t> filters;  // their places among all
  std::vector<Tensor> weights, pointwise;
  std::vector<int64_t> dilations;
};

inline Selection filters_of(int64_t input, const std::vector<int64_t>& sources, const std::vector<Tensor>& weights,
                            const std::vector<Tensor>& pointwise, const std::vector<int64_t>& dilations) {
  Selection read;
  for (size_t f = 0; f < sources.size(); ++f) {
    if (sources[f] != input) continue;
    read.filters.push_back(f);
    read.weights.push_back(layout::as(weights[f], false));
    if (!pointwise.empty()) read.pointwise.push_back(layout::as(pointwise[f], false));
    read.dilations.push_back(dilations[f]);
  }
  return read;
}

// Order of a filter's taps for its outputs.
inline int64_t forward_position(const Filter& f, int64_t y, int64_t x) { return y * f.k + x; }

// table[block][position(filter, y, x)]: the taps as vectors over a block's channels, zero past the last channel. One
// filter of a table that begins as zeros.
template <typename A, typename Position>
void fill_taps(const Plan& p, const Filter& filter, const Tensor& weight, const Position& position, Table<A>& table) {
  const int64_t size = filter.k * filter.k;
  const Values<A> values(weight);
  std::vector<int64_t> places;
  for (int64_t t = 0; t < size; ++t) places.push_back(filter.first + position(filter, t / filter.k, t % filter.k));
  for (int64_t b = 0; b < p.blocks; ++b) {
    const A* channels = values.data + b * p.lanes * size;
    A* taps = table.data() + b * p.taps * p.lanes;
    for (int64_t c = 0; c < std::min(p.lanes, p.c - b * p.lanes); ++c)
      for (int64_t t = 0; t < size; ++t) taps[places[static_cast<size_t>(t)] * p.lanes + c] = channels[c * size + t];
  }
}

template <typename A>
Table<A> empty_taps(const Plan& p) {
  return Table<A>(static_cast<size_t>(p.blocks * p.taps * p.lanes), A(0));
}

// Filters whose tables take longer to fill than a second thread takes to begin.
template <typename Job>
int64_t tables_worth_a_thread(const std::vector<Job>& jobs) {
  constexpr int64_t kEntries = 1 << 14;
  if (jobs.empty() || jobs[0].filters() == 0) return 1;
  const Plan& p = jobs[0].p;
  return 1 + kEntries / (p.c * (p.taps / jobs[0].filters() + p.mixed));
}

}  // namespace ddarts::DDARTS_CPU_COPY

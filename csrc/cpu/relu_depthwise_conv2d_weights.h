// Several inputs, each with the filters that read it: tables of their weights, and loops over all of them at once.
#pragma once

#include "../common/parallel.h"
#include "relu_depthwise_conv2d_plan.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace ddarts {
namespace {

using torch::stable::Tensor;

// f(job, task) for task < count(job) of every job, in one parallel loop: jobs may be too small for a loop of their own.
// grain: tasks that are worth a thread.
template <typename Job, typename Count, typename F>
void for_tasks(std::vector<Job>& jobs, const Count& count, const F& f, int64_t grain = 1) {
  std::vector<int64_t> first(1, 0);
  for (const Job& job : jobs) first.push_back(first.back() + count(job));
  parallel_pieces(first.back(), grain, [&](int64_t begin, int64_t end) {
    size_t j = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), begin) - first.begin()) - 1;
    for (int64_t t = begin; t < end; ++t) {
      while (t >= first[j + 1]) ++j;
      f(jobs[j], t - first[j]);
    }
  });
}

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

// All entries of a dense tensor of any floating dtype: where they are, or converted.
template <typename A>
struct Values {
  std::vector<A> converted;
  const A* data;
  size_t size;

  explicit Values(const Tensor& dense) : size(static_cast<size_t>(dense.numel())) {
    data = static_cast<const A*>(dense.const_data_ptr());
    if (dense.scalar_type() == kScalarType<A>) return;
    converted.resize(size);
    THO_DISPATCH_V2(dense.scalar_type(), "relu_depthwise_conv2d", AT_WRAP(([&] {
      load_row<scalar_t, A>(static_cast<const scalar_t*>(dense.const_data_ptr()), converted.data(), dense.numel());
    })), AT_EXPAND(AT_FLOATING_TYPES), torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16);
    data = converted.data();
  }
  Values(const Values&) = delete;
};

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

// A pointwise weight [Co,Ci,1,1] for mix, zero past the last channels: [pairs of Co blocks][Ci blocks * lanes][2 or, of a
// last block on its own, 1 vector], or with `transposed` the same of the transposed weight. A pair's part is dense, so that
// it stays in the first-level cache.
template <typename A>
Table<A> mixing_table(const Plan& p, const Tensor& weight, bool transposed) {
  const int64_t rows = transposed ? p.mixed : p.c, columns = transposed ? p.c : p.mixed, lanes = p.lanes;
  const auto blocks = [&](int64_t channels) { return (channels + lanes - 1) / lanes; };
  const int64_t in = blocks(rows) * lanes, out = blocks(columns);
  const Values<A> values(weight);
  Table<A> table(static_cast<size_t>(in * out * lanes));
  if (in != rows || out * lanes != columns) std::fill(table.begin(), table.end(), A(0));
  for (int64_t b = 0; b < out; ++b) {
    const int64_t step = (b / 2 * 2 + 1 < out ? 2 : 1) * lanes, width = std::min(lanes, columns - b * lanes);
    A* first = table.data() + (b / 2 * 2 * in + b % 2) * lanes;
    if (transposed) {  // rows of the weight are rows here
      for (int64_t r = 0; r < rows; ++r) std::copy_n(values.data + r * columns + b * lanes, width, first + r * step);
    } else {
      for (int64_t l = 0; l < width; ++l)
        for (int64_t r = 0; r < rows; ++r) first[r * step + l] = values.data[(b * lanes + l) * rows + r];
    }
  }
  return table;
}

// Filters whose tables take longer to fill than a second thread takes to begin.
template <typename Job>
int64_t tables_worth_a_thread(const std::vector<Job>& jobs) {
  constexpr int64_t kEntries = 1 << 14;
  if (jobs.empty() || jobs[0].filters() == 0) return 1;
  const Plan& p = jobs[0].p;
  return 1 + kEntries / (p.c * (p.taps / jobs[0].filters() + p.mixed));
}

}  // namespace
}  // namespace ddarts

// mixed_edges on the CPU: what its forward and its backward share.
#pragma once

#include "../common/edges.h"
#include "mixed_sum_passes.h"
#include "pool3x3.h"
#include "relu_depthwise_conv2d.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

// What edges consist of.
struct Edges {
  std::vector<int64_t> targets, kinds;      // per branch
  std::vector<int64_t> dilations, seconds;  // per first stage; the convolutions that have a second one
  std::vector<bool> normalize;              // per branch
  int64_t stride;

  int64_t branches() const { return static_cast<int64_t>(kinds.size()); }
  int64_t convolutions() const { return static_cast<int64_t>(dilations.size()); }
  int64_t second_stages() const { return static_cast<int64_t>(seconds.size()); }
  bool is_pool(int64_t k) const { return kinds[k] == kMaximum || kinds[k] == kAverage; }
  bool has(Kind kind) const;
  // The branches that enter a target, those that are wanted.
  std::vector<bool> into(int64_t target, const std::vector<bool>& wanted = {}) const;
  // The convolutions of the edges to targets [begin, end), in the order of branches, and where their second stages stand.
  std::vector<int64_t> convolutions_to(int64_t begin, int64_t end) const;
  std::vector<int64_t> seconds_of(const std::vector<int64_t>& convolutions_) const;
  // [first, ..., T]: runs of targets whose convolutions' outputs, of `values` values, the last-level cache holds together.
  std::vector<int64_t> batches(int64_t targets_, int64_t values) const;
};

// A node for all branches, in the layout of x. like: any tensor of a branch's shape.
template <typename A>
Node<A> node_of(const Tensor& like, const Tensor& weights, bool last) {
  return {Geometry(like, weights.size(0), last), std::vector<Tensor>(weights.size(1), like), data<A>(weights), weights.size(1)};
}

// Rows [G,places,C] of given statistics [1 or G,S,C] or of a table.
template <typename A>
Tensor rows_of(const Tensor& table, const std::vector<int64_t>& places) {
  const Tensor from = dense(table, kScalarType<A>);
  const int64_t groups = from.size(0), count = from.size(1), channels = from.size(2);
  const int64_t size[3] = {groups, static_cast<int64_t>(places.size()), channels};
  Tensor rows = layout::table(from, size, kScalarType<A>);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < size[1]; ++i)
      std::copy_n(data<A>(from) + (g * count + places[i]) * channels, channels,
                  mutable_data<A>(rows) + (g * size[1] + i) * channels);
  return rows;
}

}  // namespace ddarts::DDARTS_CPU_COPY

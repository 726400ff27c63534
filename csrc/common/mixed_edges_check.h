// mixed_edges: what its arguments must be, on every device.
#pragma once

#include "relu_depthwise_conv2d_check.h"

namespace ddarts {
namespace {

// The numbers that say what the edges consist of; sums: how many nodes they enter.
struct EdgeNumbers {
  const std::vector<int64_t>&targets, &kinds, &dilations, &seconds;
  const std::vector<bool>& normalize;
  int64_t sums, stride;

  void check(const check::Op& op) const {
    const int64_t firsts = static_cast<int64_t>(dilations.size()), stages = firsts + static_cast<int64_t>(seconds.size());
    op.stride(stride);
    op.require(!kinds.empty(), "kinds must have at least one branch");
    op.count("targets", targets.size(), kinds.size());
    op.count("normalize", normalize.size(), kinds.size());
    op.require(sums >= 1 && sums <= static_cast<int64_t>(kinds.size()), "sums must be from 1 to ", kinds.size(), ", got ", sums);
    std::vector<bool> entered(static_cast<size_t>(sums)), made(dilations.size()), longer(dilations.size());
    for (const int64_t target : targets) {
      op.require(target >= 0 && target < sums, "targets must be from 0 to ", sums - 1, ", got ", target);
      entered[static_cast<size_t>(target)] = true;
    }
    for (const bool found : entered) op.require(found, "targets must name every sum");
    for (const int64_t kind : kinds) {
      op.require(kind >= -3 && kind < firsts, "kinds must be from -3 to ", firsts - 1, ", got ", kind);
      op.require(kind != -1 || stride == 1, "kinds must not have the identity at stride 2");
      if (kind < 0) continue;
      op.require(!made[static_cast<size_t>(kind)], "kinds must name every convolution once, got ", kind, " twice");
      made[static_cast<size_t>(kind)] = true;
    }
    for (const bool found : made) op.require(found, "kinds must name every convolution once");
    for (const int64_t second : seconds) {
      op.require(second >= 0 && second < firsts, "seconds must be from 0 to ", firsts - 1, ", got ", second);
      op.require(!longer[static_cast<size_t>(second)], "seconds must be different, got ", second, " twice");
      longer[static_cast<size_t>(second)] = true;
    }
    op.require(stages <= int64_t{1} << 20, "the convolutions must be fewer");
  }
};

inline void check_edges(check::Op& op, const Tensor& x, const std::vector<Tensor>& depthwise,
                        const std::vector<Tensor>& pointwise, const Tensor& weights, const EdgeNumbers& edges) {
  op.image("x", x);
  edges.check(op);
  const size_t stages = edges.dilations.size() + edges.seconds.size();
  op.count("depthwise", depthwise.size(), stages);
  op.count("pointwise", pointwise.size(), stages);
  if (stages > 0) {
    std::vector<int64_t> dilations = edges.dilations;
    dilations.resize(stages, 1);
    check_filters(op, x, depthwise, dilations, edges.stride);
  }
  op.tensors("pointwise", pointwise, std::vector<int64_t>{x.size(1), x.size(1), 1, 1});
  op.tensor("weights", weights, {check::kAny, static_cast<int64_t>(edges.kinds.size())});
  op.groups(x.size(0), weights.size(0));
}

inline void check_mixed_edges(const Tensor& x, const std::vector<Tensor>& previous, const std::vector<Tensor>& depthwise,
                              const std::vector<Tensor>& pointwise, const Tensor& weights, const EdgeNumbers& edges,
                              const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd,
                              const std::optional<Tensor>& inner_mean, const std::optional<Tensor>& inner_rstd) {
  check::Op op("mixed_edges");
  check_edges(op, x, depthwise, pointwise, weights, edges);
  if (!previous.empty()) op.count("previous", previous.size(), static_cast<size_t>(edges.sums));
  op.tensors("previous", previous, output_shape(x, x.size(1), edges.stride), x.scalar_type());
  op.require(mean.has_value() == inner_mean.has_value(), "mean, rstd, inner_mean and inner_rstd must be given together");
  op.statistics(mean, rstd, weights.size(0), {static_cast<int64_t>(edges.kinds.size()), x.size(1)});
  op.statistics(inner_mean, inner_rstd, weights.size(0), {static_cast<int64_t>(edges.seconds.size()), x.size(1)});
}

inline void check_mixed_edges_backward(const std::vector<Tensor>& grads, const Tensor& x, const std::vector<Tensor>& depthwise,
                                       const std::vector<Tensor>& pointwise, const Tensor& weights,
                                       const std::vector<Tensor>& saved, const EdgeNumbers& edges, const Tensor& mean,
                                       const Tensor& rstd, const Tensor& inner_mean, const Tensor& inner_rstd) {
  check::Op op("mixed_edges_backward");
  check_edges(op, x, depthwise, pointwise, weights, edges);
  const std::vector<int64_t> image = output_shape(x, x.size(1), edges.stride);
  op.tensors("grads", grads, image, x.scalar_type());
  const size_t stages = edges.dilations.size() + edges.seconds.size();
  op.count("saved", saved.size(), stages + 3);
  for (size_t i = 0; i < stages; ++i) op.tensor("saved", saved[i], image, x.scalar_type());
  const auto has = [&](int64_t kind) { return std::find(edges.kinds.begin(), edges.kinds.end(), kind) != edges.kinds.end(); };
  if (has(-2)) op.tensor("saved", saved[stages], image, x.scalar_type()), op.tensor("saved", saved[stages + 2], image, ScalarType::Byte);
  if (has(-3)) op.tensor("saved", saved[stages + 1], image, x.scalar_type());
  const int64_t groups = weights.size(0);
  const std::vector<int64_t> table{groups, static_cast<int64_t>(edges.kinds.size()), x.size(1)};
  const std::vector<int64_t> inner{groups, static_cast<int64_t>(edges.seconds.size()), x.size(1)};
  op.tensor("mean", mean, table);
  op.tensor("rstd", rstd, table);
  op.tensor("inner_mean", inner_mean, inner);
  op.tensor("inner_rstd", inner_rstd, inner);
}

}  // namespace
}  // namespace ddarts

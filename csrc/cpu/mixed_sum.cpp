// mixed_sum on the CPU: out = sum_k w_k (x_k - mean_k) rstd_k, statistics per group and channel.
//
// Forward: one pass over the branches takes the moments of every block (two visits while it is in the first-level cache),
// the blocks are merged in their fixed order in float64, and a second pass writes out = sum_k a_kc x_k + b_c, one
// multiply-add a value. Backward: one pass for sum g and sum g (x_k - mean_k), one for dx_k = a g + s x_k + d.
// Branches are taken a few at a time, as many as the last-level cache holds: the second pass reads them from there.
// Blocks do not depend on the number of threads, and every sum has a fixed order: results are bitwise reproducible.
#include "../common/mixed_sum_check.h"
#include "mixed_sum_passes.h"

#include <optional>
#include <tuple>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {
namespace {

template <typename A>
Node<A> node_of(const std::vector<Tensor>& branches, const Tensor& weights) {
  const bool last = layout::channels_last(branches[0]);
  Node<A> node{Geometry(branches[0], weights.size(0), last), {}, data<A>(weights), weights.size(1)};
  for (const Tensor& x : branches) node.branches.push_back(layout::as(x, last));
  return node;
}

template <typename A>
std::tuple<Tensor, Tensor, Tensor> forward(const std::vector<Tensor>& branches, const Tensor& weights_,
                                           const std::vector<bool>& normalize, const std::optional<Tensor>& mean_,
                                           const std::optional<Tensor>& rstd_, double eps) {
  constexpr ScalarType acc = kScalarType<A>;
  const Tensor weights = dense(weights_, acc);
  const Node<A> node = node_of<A>(branches, weights);
  const int64_t shape[3] = {node.geometry.groups, node.count, node.geometry.channels};
  const std::vector<Run> runs = runs_of(node.branches);
  Tensor out = layout::like(branches[0], promoted(branches), layout::channels_last(branches[0]));
  Tensor mean = layout::table(out, shape, acc), rstd = layout::table(out, shape, acc);
  A *m = mutable_data<A>(mean), *r = mutable_data<A>(rstd);
  if (mean_ && rstd_) {
    fill_statistics(node, normalize, *mean_, A(0), m);
    fill_statistics(node, normalize, *rstd_, A(1), r);
    write_sum(node, runs, m, r, std::nullopt, out);
    return {out, mean, rstd};
  }
  std::fill_n(m, mean.numel(), A(0));
  std::fill_n(r, rstd.numel(), A(1));
  // A sum that lies between two batches must not be rounded to a narrower type.
  const bool whole = out.scalar_type() != acc;
  const auto batches = whole ? std::vector<std::vector<Run>>{runs} : cached_batches(runs, node.branches[0].numel());
  // The last branches first: they were written last, and what was written last is still in the cache.
  for (auto batch = batches.rbegin(); batch != batches.rend(); ++batch) {
    batch_statistics_of(node, *batch, normalize, eps, m, r);
    write_sum(node, *batch, m, r, batch == batches.rbegin() ? std::nullopt : std::optional(out), out);
  }
  return {out, mean, rstd};
}

template <typename A>
std::tuple<std::vector<Tensor>, Tensor> backward(const Tensor& grad_, const std::vector<Tensor>& branches,
                                                 const Tensor& weights_, const std::vector<bool>& normalize,
                                                 const Tensor& mean_, const Tensor& rstd_, bool batch_statistics,
                                                 bool weights_grad) {
  const Tensor weights = dense(weights_, kScalarType<A>);
  const Node<A> node = node_of<A>(branches, weights);
  const bool last = layout::channels_last(branches[0]);
  const Tensor grad = layout::as(grad_, last);
  std::vector<A> mean = node.table(), rstd = node.table(), g1 = node.table(), g0 = node.row();
  GradientTerms<A> terms(node);
  fill_statistics(node, std::vector<bool>(node.count, true), mean_, A(0), mean.data());
  fill_statistics(node, std::vector<bool>(node.count, true), rstd_, A(1), rstd.data());
  std::vector<bool> centred(node.count), summed(node.count);
  for (int64_t k = 0; k < node.count; ++k) {
    centred[k] = batch_statistics && normalize[k];
    summed[k] = weights_grad || centred[k];
  }
  std::vector<Tensor> grads;
  for (const Tensor& x : branches) grads.push_back(layout::like(x, x.scalar_type(), last));
  for (const auto& batch : cached_batches(runs_of(node.branches), grad.numel())) {
    const std::vector<Run> sums = selected(batch, summed);
    if (!sums.empty()) gradient_sums(node, sums, grad, mean, rstd, g0, g1);
    terms.fill(node, batch, centred, mean, rstd, g0, g1);
    write_gradients(node, batch, grad, centred, terms, grads);
  }
  return {grads, weights_gradient(node, weights_grad ? g1 : node.table(), weights_.scalar_type())};
}

std::tuple<Tensor, Tensor, Tensor> mixed_sum(std::vector<Tensor> branches, Tensor weights, std::vector<bool> normalize,
                                             std::optional<Tensor> mean, std::optional<Tensor> rstd, double eps) {
  check_mixed_sum(branches, weights, normalize, mean, rstd);
  const auto run = [&](auto acc) {
    return forward<decltype(acc)>(branches, weights, normalize, mean, rstd, eps);
  };
  return accumulate_dtype(branches) == ScalarType::Double ? run(double()) : run(float());
}

std::tuple<std::vector<Tensor>, Tensor> mixed_sum_backward(Tensor grad, std::vector<Tensor> branches, Tensor weights,
                                                           std::vector<bool> normalize, Tensor mean, Tensor rstd,
                                                           bool batch_statistics, bool weights_grad) {
  check_mixed_sum_backward(grad, branches, weights, normalize, mean, rstd);
  const auto run = [&](auto acc) {
    return backward<decltype(acc)>(grad, branches, weights, normalize, mean, rstd, batch_statistics, weights_grad);
  };
  return accumulate_dtype(branches) == ScalarType::Double ? run(double()) : run(float());
}

}  // namespace
}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) {
  m.impl("mixed_sum", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::mixed_sum));
  m.impl("mixed_sum_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::mixed_sum_backward));
}

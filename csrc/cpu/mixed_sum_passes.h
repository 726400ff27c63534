// The passes of mixed_sum over branches, for the ops that sum branches: mixed_sum and mixed_edges.
//
// Everything per group, branch and channel lies in tables [G,K,C] of the accumulation type A. A pass takes the branches of
// some runs, so that those of one node may come from several places and at several times.
#pragma once

#include "mixed_sum_geometry.h"

#include <optional>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {

template <typename A>
struct Node {
  Geometry geometry;
  std::vector<Tensor> branches;  // all in one layout
  const A* weights;              // [G,K]
  int64_t count;                 // K

  int64_t at(int64_t g, int64_t k) const { return (g * count + k) * geometry.channels; }
  std::vector<A> table() const { return std::vector<A>(std::max<int64_t>(geometry.groups * count * geometry.channels, 1)); }
  // [G,C]
  std::vector<A> row() const { return std::vector<A>(std::max<int64_t>(geometry.groups * geometry.channels, 1)); }
};

// Given statistics [1 or G,K,C] or the op's own [G,K,C] as a table; `without` for branches without norm.
template <typename A>
void fill_statistics(const Node<A>& node, const std::vector<bool>& normalize, const Tensor& given, A without, A* table);

// Mean and rstd of the batch, of the normalised ones among the branches of `runs`.
template <typename A>
void batch_statistics_of(const Node<A>& node, const std::vector<Run>& runs, const std::vector<bool>& normalize, double eps,
                         A* mean, A* rstd);

// out = start + bias_gc + sum over the branches of `runs` of scale_gkc x_k; start may be out itself, or nothing.
template <typename A>
void linear_sum(const Node<A>& node, const std::vector<Run>& runs, const std::vector<A>& scale, const std::vector<A>& bias,
                const std::optional<Tensor>& start, const Tensor& out);

// out = start + sum over the branches of `runs` of w_gk (x_k - mean_gkc) rstd_gkc.
template <typename A>
void write_sum(const Node<A>& node, const std::vector<Run>& runs, const A* mean, const A* rstd,
               const std::optional<Tensor>& start, const Tensor& out);

// g1[g,k,c] = sum g xhat_k of the branches of `runs`, and g0[g,c] = sum g, from one read of everything.
template <typename A>
void gradient_sums(const Node<A>& node, const std::vector<Run>& runs, const Tensor& grad, const std::vector<A>& mean,
                   const std::vector<A>& rstd, std::vector<A>& g0, std::vector<A>& g1);

// dx_k = w r (g - g0/M - xhat g1/M) as a g + s x + d, or w r g where a branch is not centred: its statistics are constants.
template <typename A>
struct GradientTerms {
  std::vector<A> by_gradient, by_input, constant;
  explicit GradientTerms(const Node<A>& node) : by_gradient(node.table()), by_input(node.table()), constant(node.table()) {}
  void fill(const Node<A>& node, const std::vector<Run>& runs, const std::vector<bool>& centred, const std::vector<A>& mean,
            const std::vector<A>& rstd, const std::vector<A>& g0, const std::vector<A>& g1);
};

template <typename A>
void write_gradients(const Node<A>& node, const std::vector<Run>& runs, const Tensor& grad, const std::vector<bool>& centred,
                     const GradientTerms<A>& terms, const std::vector<Tensor>& grads);

// dw[g,k] = sum_c g1[g,k,c]
template <typename A>
Tensor weights_gradient(const Node<A>& node, const std::vector<A>& g1, ScalarType dtype);

}  // namespace ddarts::DDARTS_CPU_COPY

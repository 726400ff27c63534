// mixed_edges on the CPU: all ops on all edges that leave one node, and what they add to the sums of the nodes they enter.
//
// Edge after edge: the convolutions of an edge, the statistics of their outputs, and the sum over all branches of the edge,
// so that an output is still in the last-level cache when it is normalised and summed. Backward likewise: the sums over
// an edge's branches that the norms need, then its second stages, then its first stages, which add to one gradient of x.
// The gradient of a convolution's output is never written: it is a g + s x + d of the gradient g of the node's sum and
// the output x, and the convolutions' backward evaluates that where it reads it. The pools, which all edges share, are
// made once; their gradient is one linear sum over the nodes. Deterministic, as the kernels it is made of are.
#include "relu_depthwise_conv2d.h"
#include "mixed_sum_passes.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

namespace ddarts::DDARTS_CPU_COPY {
namespace {

// What a branch is if not a convolution (>= 0: which one).
enum Kind : int64_t { kSkip = -1, kMaximum = -2, kAverage = -3 };

// What edges consist of.
struct Edges {
  std::vector<int64_t> targets, kinds;      // per branch
  std::vector<int64_t> dilations, seconds;  // per first stage; the convolutions that have a second one
  std::vector<bool> normalize;              // per branch
  int64_t stride;

  int64_t branches() const { return static_cast<int64_t>(kinds.size()); }
  int64_t convolutions() const { return static_cast<int64_t>(dilations.size()); }
  bool has(Kind kind) const { return std::count(kinds.begin(), kinds.end(), kind) > 0; }
  bool is_pool(int64_t k) const { return kinds[k] == kMaximum || kinds[k] == kAverage; }

  std::vector<bool> all(const std::vector<bool>& wanted, int64_t target) const {
    std::vector<bool> found(kinds.size());
    for (size_t k = 0; k < kinds.size(); ++k) found[k] = targets[k] == target && (wanted.empty() || wanted[k]);
    return found;
  }
  // The convolutions of the edges to targets [begin, end), in the order of branches, and where their second stages stand.
  std::vector<int64_t> convolutions_to(int64_t begin, int64_t end) const {
    std::vector<int64_t> found;
    for (size_t k = 0; k < kinds.size(); ++k)
      if (targets[k] >= begin && targets[k] < end && kinds[k] >= 0) found.push_back(kinds[k]);
    return found;
  }
  // [first, ..., T]: runs of targets whose convolutions' outputs, of `values` values, the last-level cache holds together.
  std::vector<int64_t> batches(int64_t targets_, int64_t values) const {
    std::vector<int64_t> ends{0};
    for (int64_t t = 1; t < targets_; ++t)
      if (static_cast<int64_t>(convolutions_to(ends.back(), t + 1).size()) * values > kCachedValues) ends.push_back(t);
    ends.push_back(targets_);
    return ends;
  }
  std::vector<int64_t> seconds_of(const std::vector<int64_t>& convolutions_) const {
    std::vector<int64_t> found;
    for (size_t s = 0; s < seconds.size(); ++s)
      if (std::count(convolutions_.begin(), convolutions_.end(), seconds[s])) found.push_back(static_cast<int64_t>(s));
    return found;
  }
};

template <typename V>
std::vector<V> chosen(const std::vector<V>& from, const std::vector<int64_t>& places, int64_t offset = 0) {
  std::vector<V> found;
  for (const int64_t place : places) found.push_back(from[static_cast<size_t>(place + offset)]);
  return found;
}

std::vector<int64_t> counted(size_t size) {
  std::vector<int64_t> found(size);
  std::iota(found.begin(), found.end(), int64_t(0));
  return found;
}

// A node for all branches, in the layout of x. like: any tensor of a branch's shape.
template <typename A>
Node<A> node_of(const Tensor& like, const Tensor& weights, bool last) {
  return {Geometry(like, weights.size(0), last), std::vector<Tensor>(weights.size(1), like), data<A>(weights), weights.size(1)};
}

// Rows [G,places,C] of given statistics [1 or G,S,C] or of a table; and back into the rows of a table.
template <typename A>
Tensor rows_of(const Tensor& table, const std::vector<int64_t>& places) {
  const Tensor dense = table_of(table, kScalarType<A>);
  const int64_t groups = dense.size(0), count = dense.size(1), channels = dense.size(2);
  const int64_t size[3] = {groups, static_cast<int64_t>(places.size()), channels};
  Tensor rows = torch::stable::empty({size, 3}, kScalarType<A>);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < size[1]; ++i)
      std::copy_n(data<A>(dense) + (g * count + places[i]) * channels, channels,
                  mutable_data<A>(rows) + (g * size[1] + i) * channels);
  return rows;
}
template <typename A>
void put_rows(const Tensor& rows, const std::vector<int64_t>& places, const Tensor& table) {
  const int64_t groups = rows.size(0), count = table.size(1), channels = rows.size(2), size = rows.size(1);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < size; ++i)
      std::copy_n(data<A>(rows) + (g * size + i) * channels, channels,
                  mutable_data<A>(table) + (g * count + places[i]) * channels);
}

using Result = std::tuple<std::vector<Tensor>, Tensor, Tensor, Tensor, Tensor>;

template <typename A>
Result forward(const Tensor& x_, const std::vector<Tensor>& previous, const std::vector<Tensor>& depthwise,
               const std::vector<Tensor>& pointwise, const Tensor& weights_, const Edges& edges, int64_t target_count,
               const std::optional<Tensor>& mean_, const std::optional<Tensor>& rstd_,
               const std::optional<Tensor>& inner_mean_, const std::optional<Tensor>& inner_rstd_, double eps) {
  const bool last = layout::channels_last(x_), given = mean_.has_value();
  const Tensor x = layout::as(x_, last), weights = table_of(weights_, kScalarType<A>);
  const int64_t stride = edges.stride, groups = weights.size(0), channels = x.size(1), firsts = edges.convolutions();
  const std::array<int64_t, 4> shape{x.size(0), channels, (x.size(2) + stride - 1) / stride, (x.size(3) + stride - 1) / stride};
  std::vector<Tensor> sums;
  for (int64_t t = 0; t < target_count; ++t) sums.push_back(layout::empty(x, shape, x.scalar_type(), last));
  Node<A> node = node_of<A>(sums[0], weights, last);
  const auto table = [&](int64_t rows) {
    const int64_t size[3] = {groups, rows, channels};
    return torch::stable::empty({size, 3}, kScalarType<A>);
  };
  const Tensor mean = table(edges.branches()), rstd = table(edges.branches());
  const Tensor inner_mean = table(static_cast<int64_t>(edges.seconds.size()));
  const Tensor inner_rstd = table(static_cast<int64_t>(edges.seconds.size()));
  A *m = mutable_data<A>(mean), *r = mutable_data<A>(rstd);
  if (given) {
    fill_statistics(node, edges.normalize, *mean_, A(0), m);
    fill_statistics(node, edges.normalize, *rstd_, A(1), r);
  } else {
    std::fill_n(m, mean.numel(), A(0));
    std::fill_n(r, rstd.numel(), A(1));
  }
  const auto statistics = [&](const std::vector<bool>& of) {
    if (!given) batch_statistics_of(node, runs_of(node.branches, of), edges.normalize, eps, m, r);
  };

  const auto nothing = [&] { return torch::stable::new_empty(x, {0}); };
  std::tuple<Tensor, Tensor, Tensor> pooled{nothing(), nothing(), nothing()};
  if (edges.has(kMaximum) || edges.has(kAverage)) pooled = pool3x3(x, stride, edges.has(kMaximum), edges.has(kAverage));
  std::vector<bool> pools(edges.kinds.size());
  for (int64_t k = 0; k < edges.branches(); ++k) {
    if (edges.kinds[k] == kSkip) node.branches[k] = x;
    if (edges.is_pool(k)) node.branches[k] = edges.kinds[k] == kMaximum ? std::get<0>(pooled) : std::get<1>(pooled);
    pools[k] = edges.is_pool(k);
  }
  // Once for all edges: the branches of the first one stand for all of a kind.
  std::vector<bool> first_of_kind(pools.size());
  std::array<int64_t, 2> stands{-1, -1};
  for (int64_t k = 0; k < edges.branches(); ++k) {
    if (!pools[k] || !edges.normalize[k]) continue;
    int64_t& first = stands[edges.kinds[k] == kMaximum];
    if (first < 0) first = k, first_of_kind[k] = true;
  }
  statistics(first_of_kind);
  for (int64_t k = 0; k < edges.branches(); ++k)
    if (pools[k] && edges.normalize[k] && !given)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t from = stands[edges.kinds[k] == kMaximum];
        if (from == k) continue;
        std::copy_n(m + node.at(g, from), channels, m + node.at(g, k));
        std::copy_n(r + node.at(g, from), channels, r + node.at(g, k));
      }

  std::vector<Tensor> raw(static_cast<size_t>(firsts), x), inner(edges.seconds.size(), x);
  const std::vector<int64_t> batches = edges.batches(target_count, sums[0].numel());
  for (size_t i = 0; i + 1 < batches.size(); ++i) {
    const int64_t begin = batches[i], end = batches[i + 1];
    const std::vector<int64_t> of = edges.convolutions_to(begin, end), longer = edges.seconds_of(of);
    if (!of.empty()) {
      const auto outputs = std::get<0>(relu_separable_conv2d({x}, chosen(depthwise, of), chosen(pointwise, of),
                                                             std::vector<int64_t>(of.size(), 0), chosen(edges.dilations, of),
                                                             stride, false, std::nullopt, std::nullopt, groups, eps));
      for (size_t f = 0; f < of.size(); ++f) raw[of[f]] = outputs[f];
    }
    if (!longer.empty()) {
      const std::vector<Tensor> inputs = chosen(raw, chosen(edges.seconds, longer));
      const auto rows = [&](const std::optional<Tensor>& all) {
        return all.has_value() ? std::optional<Tensor>(rows_of<A>(*all, longer)) : std::nullopt;
      };
      const auto [outputs, means, rstds] = relu_separable_conv2d(
          inputs, chosen(depthwise, longer, firsts), chosen(pointwise, longer, firsts), counted(longer.size()),
          std::vector<int64_t>(longer.size(), 1), 1, true, rows(inner_mean_), rows(inner_rstd_), groups, eps);
      put_rows<A>(means, longer, inner_mean), put_rows<A>(rstds, longer, inner_rstd);
      for (size_t s = 0; s < longer.size(); ++s) inner[longer[s]] = inputs[s], raw[edges.seconds[longer[s]]] = outputs[s];
    }
    std::vector<bool> convolved(edges.kinds.size());
    for (int64_t k = 0; k < edges.branches(); ++k) {
      convolved[k] = edges.targets[k] >= begin && edges.targets[k] < end && edges.kinds[k] >= 0;
      if (convolved[k]) node.branches[k] = raw[edges.kinds[k]];
    }
    if (!of.empty()) statistics(convolved);
    for (int64_t t = begin; t < end; ++t)
      write_sum(node, runs_of(node.branches, edges.all({}, t)), m, r,
                previous.empty() ? std::nullopt : std::optional(layout::as(previous[t], last)), sums[t]);
  }
  std::vector<Tensor> found = sums;
  found.insert(found.end(), raw.begin(), raw.end());
  found.insert(found.end(), inner.begin(), inner.end());
  for (const Tensor& tensor : {std::get<0>(pooled), std::get<1>(pooled), std::get<2>(pooled)}) found.push_back(tensor);
  return {found, mean, rstd, inner_mean, inner_rstd};
}

// Which gradients are wanted.
struct Wanted {
  bool input, parameters, weights;
};

template <typename A>
std::vector<Tensor> backward(const std::vector<Tensor>& grads_, const Tensor& x_, const std::vector<Tensor>& depthwise,
                             const std::vector<Tensor>& pointwise, const Tensor& weights_, const std::vector<Tensor>& saved,
                             const Edges& edges, const Tensor& mean_, const Tensor& rstd_, const Tensor& inner_mean,
                             const Tensor& inner_rstd, bool batch_statistics, const Wanted& wanted) {
  const bool last = layout::channels_last(x_);
  const Tensor x = layout::as(x_, last), weights = table_of(weights_, kScalarType<A>);
  const int64_t firsts = edges.convolutions(), groups = weights.size(0), channels = x.size(1);
  std::vector<Tensor> grads;
  for (const Tensor& grad : grads_) grads.push_back(layout::as(grad, last));
  const auto raw = saved.begin(), inner = raw + firsts, pooled = inner + static_cast<int64_t>(edges.seconds.size());

  Node<A> node = node_of<A>(grads[0], weights, last);
  std::vector<bool> centred(edges.kinds.size()), summed(edges.kinds.size());
  for (int64_t k = 0; k < edges.branches(); ++k) {
    const int64_t kind = edges.kinds[k];
    node.branches[k] = kind >= 0 ? raw[kind] : kind == kSkip ? x : pooled[kind == kAverage];
    centred[k] = batch_statistics && edges.normalize[k];
    summed[k] = wanted.weights || centred[k];
  }
  std::vector<A> mean = node.table(), rstd = node.table(), g0 = node.row(), g1 = node.table();
  fill_statistics(node, std::vector<bool>(edges.kinds.size(), true), mean_, A(0), mean.data());
  fill_statistics(node, std::vector<bool>(edges.kinds.size(), true), rstd_, A(1), rstd.data());
  GradientTerms<A> terms(node);

  std::optional<Tensor> dx;
  std::vector<std::optional<Tensor>> d_depthwise(depthwise.size()), d_pointwise(pointwise.size());
  const auto keep = [&](const std::vector<Tensor>& found, size_t inputs, const std::vector<int64_t>& of, int64_t offset) {
    for (size_t f = 0; wanted.parameters && f < of.size(); ++f) {
      d_depthwise[of[f] + offset] = found[inputs + f];
      d_pointwise[of[f] + offset] = found[inputs + of.size() + f];
    }
  };
  const std::vector<int64_t> batches = edges.batches(static_cast<int64_t>(grads.size()), grads[0].numel());
  for (size_t i = 0; i + 1 < batches.size(); ++i) {
    const int64_t begin = batches[i], end = batches[i + 1];
    for (int64_t t = begin; t < end; ++t) {
      const std::vector<Run> sums = runs_of(node.branches, edges.all(summed, t));
      if (!sums.empty()) gradient_sums(node, sums, grads[t], mean, rstd, g0, g1);
      terms.fill(node, runs_of(node.branches, edges.all({}, t)), centred, mean, rstd, g0, g1);
    }
    const std::vector<int64_t> of = edges.convolutions_to(begin, end), longer = edges.seconds_of(of);
    if (of.empty() || !(wanted.input || wanted.parameters)) continue;
    std::vector<OutputGradient> incoming(static_cast<size_t>(firsts), OutputGradient{grads[begin]});
    for (int64_t k = 0; k < edges.branches(); ++k)
      if (edges.kinds[k] >= 0)
        incoming[edges.kinds[k]] = {grads[edges.targets[k]], node.branches[k],
                                    {terms.by_gradient.data(), terms.by_input.data(), terms.constant.data()},
                                    node.count, k};
    Tensor norm_terms;  // of the norms before second stages, which the first stages' gradients pass last
    if (!longer.empty()) {
      const std::vector<int64_t> places = chosen(edges.seconds, longer);
      const std::vector<Tensor> inputs = chosen(std::vector<Tensor>(inner, pooled), longer);
      const int64_t count = static_cast<int64_t>(longer.size());
      const bool defers = x.scalar_type() == kScalarType<A>;
      const auto found = relu_separable_conv2d_gradients(
          chosen(incoming, places), inputs, chosen(depthwise, longer, firsts), chosen(pointwise, longer, firsts),
          counted(longer.size()), std::vector<int64_t>(longer.size(), 1), 1, true, rows_of<A>(inner_mean, longer),
          rows_of<A>(inner_rstd, longer), batch_statistics, groups, true, wanted.parameters, std::nullopt,
          defers ? &norm_terms : nullptr);
      for (int64_t s = 0; s < count; ++s) {
        incoming[places[s]] = {found[s]};
        if (!defers) continue;
        const A* tables = data<A>(norm_terms);
        const int64_t table = groups * count * channels;
        incoming[places[s]] = {found[s], inputs[s], {tables, tables + table, tables + 2 * table}, count, s};
      }
      keep(found, longer.size(), longer, firsts);
    }
    const auto found = relu_separable_conv2d_gradients(
        chosen(incoming, of), {x}, chosen(depthwise, of), chosen(pointwise, of), std::vector<int64_t>(of.size(), 0),
        chosen(edges.dilations, of), edges.stride, false, inner_mean, inner_rstd, batch_statistics, groups, wanted.input,
        wanted.parameters, dx);
    if (wanted.input) dx = found[0];
    keep(found, wanted.input, of, 0);
  }

  // Of a pool and of x itself: sum over the edges of (a g + s x + d).
  const auto gradient_of = [&](int64_t kind, const std::optional<Tensor>& start, const Tensor& also, bool has_also,
                               const Tensor& out) {
    Node<A> sum{node.geometry, grads, nullptr, static_cast<int64_t>(grads.size()) + 1};
    sum.branches.push_back(also);
    std::vector<A> scale = sum.table(), bias = sum.row();
    for (int64_t g = 0; g < groups; ++g) {
      A* own = &scale[sum.at(g, sum.count - 1)];
      if (kind == kSkip) std::fill_n(own, channels, A(1));
      for (int64_t k = 0; k < edges.branches(); ++k)
        for (int64_t c = 0; edges.kinds[k] == kind && c < channels; ++c) {
          scale[sum.at(g, edges.targets[k]) + c] += terms.by_gradient[node.at(g, k) + c];
          own[c] += terms.by_input[node.at(g, k) + c];
          bias[g * channels + c] += terms.constant[node.at(g, k) + c];
        }
    }
    std::vector<bool> used(sum.branches.size(), true);
    used.back() = has_also;
    linear_sum(sum, runs_of(sum.branches, used), scale, bias, start, out);
  };
  if (wanted.input) {
    std::optional<Tensor> d_maximum, d_average, d_pooled;
    for (const auto& [kind, into] : {std::pair(kMaximum, &d_maximum), std::pair(kAverage, &d_average)}) {
      if (!edges.has(kind)) continue;
      *into = new_like(grads[0], x.scalar_type(), last);
      gradient_of(kind, std::nullopt, pooled[kind == kAverage], batch_statistics, **into);
    }
    if (d_maximum || d_average)
      d_pooled = pool3x3_backward(d_maximum, d_average, pooled[2], x.size(2), x.size(3), edges.stride, last);
    if (edges.has(kSkip)) {
      const std::optional<Tensor> start = dx;
      if (!dx) dx = new_like(x, x.scalar_type(), last);
      gradient_of(kSkip, start, d_pooled.value_or(x), d_pooled.has_value(), *dx);
    } else if (d_pooled && dx) {
      const Node<A> sum{Geometry(x, groups, last), {*d_pooled}, nullptr, 1};
      linear_sum(sum, runs_of(sum.branches), std::vector<A>(sum.table().size(), A(1)), sum.row(), dx, *dx);
    } else if (d_pooled) {
      dx = d_pooled;
    }
  }
  std::vector<Tensor> found;
  if (wanted.input) found.push_back(dx ? *dx : layout::zeros_like(x));
  if (wanted.weights) found.push_back(weights_gradient(node, g1, weights_.scalar_type()));
  for (const auto* gradients : {&d_depthwise, &d_pointwise})
    for (const std::optional<Tensor>& gradient : *gradients)
      if (gradient) found.push_back(*gradient);
  return found;
}

Result mixed_edges(Tensor x, std::vector<Tensor> previous, std::vector<Tensor> depthwise, std::vector<Tensor> pointwise,
                   Tensor weights, std::vector<int64_t> targets, std::vector<int64_t> kinds, std::vector<int64_t> dilations,
                   std::vector<int64_t> seconds, std::vector<bool> normalize, int64_t target_count, int64_t stride,
                   std::optional<Tensor> mean, std::optional<Tensor> rstd, std::optional<Tensor> inner_mean,
                   std::optional<Tensor> inner_rstd, double eps) {
  const Edges edges{targets, kinds, dilations, seconds, normalize, stride};
  const auto run = [&](auto acc) {
    return forward<decltype(acc)>(x, previous, depthwise, pointwise, weights, edges, target_count, mean, rstd, inner_mean,
                                  inner_rstd, eps);
  };
  return x.scalar_type() == ScalarType::Double ? run(double()) : run(float());
}

std::vector<Tensor> mixed_edges_backward(std::vector<Tensor> grads, Tensor x, std::vector<Tensor> depthwise,
                                         std::vector<Tensor> pointwise, Tensor weights, std::vector<Tensor> saved,
                                         std::vector<int64_t> targets, std::vector<int64_t> kinds,
                                         std::vector<int64_t> dilations, std::vector<int64_t> seconds,
                                         std::vector<bool> normalize, int64_t stride, Tensor mean, Tensor rstd,
                                         Tensor inner_mean, Tensor inner_rstd, bool batch_statistics, bool input_grad,
                                         bool parameters_grad, bool weights_grad) {
  const Edges edges{targets, kinds, dilations, seconds, normalize, stride};
  const auto run = [&](auto acc) {
    return backward<decltype(acc)>(grads, x, depthwise, pointwise, weights, saved, edges, mean, rstd, inner_mean, inner_rstd,
                                   batch_statistics, {input_grad, parameters_grad, weights_grad});
  };
  return x.scalar_type() == ScalarType::Double ? run(double()) : run(float());
}

}  // namespace
}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) {
  m.impl("mixed_edges", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::mixed_edges));
  m.impl("mixed_edges_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::mixed_edges_backward));
}

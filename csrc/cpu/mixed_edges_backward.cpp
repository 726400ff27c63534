// mixed_edges on the CPU, backward.
//
// Edge after edge: the sums over an edge's branches that the norms need, then its second stages, then its first stages,
// which add to one gradient of x. The gradient of a convolution's output is never written: it is a g + s x + d of the
// gradient g of the node's sum and the output x, and the convolutions' backward evaluates that where it reads it. The
// gradient of the pools, which all edges share, is one linear sum over the nodes.
#include "mixed_edges.h"

#include "../common/mixed_edges_check.h"

#include <utility>

namespace ddarts::DDARTS_CPU_COPY {
namespace {

// Which gradients are wanted.
struct Wanted {
  bool input, parameters, weights;
};

template <typename A>
struct EdgesBackward {
  const Edges& edges;
  const std::vector<Tensor>&depthwise, &pointwise;
  const Tensor &inner_mean, &inner_rstd;
  const bool batch_statistics;
  const Wanted wanted;
  const bool last;
  const Tensor x, weights;
  const int64_t groups, channels;
  std::vector<Tensor> grads;               // of the sums
  const std::vector<Tensor> inner, pooled;  // what second stages read; maximum, average, argmax
  Node<A> node;
  std::vector<bool> centred, summed;  // branches through whose statistics a gradient flows; those that need sums
  std::vector<A> mean, rstd, g0, g1;
  GradientTerms<A> terms;
  std::optional<Tensor> dx = {};
  std::vector<std::optional<Tensor>> d_depthwise, d_pointwise;

  EdgesBackward(const Edges& edges_, const std::vector<Tensor>& grads_, const Tensor& x_,
                const std::vector<Tensor>& depthwise_, const std::vector<Tensor>& pointwise_, const Tensor& weights_,
                const std::vector<Tensor>& saved, const Tensor& mean_, const Tensor& rstd_, const Tensor& inner_mean_,
                const Tensor& inner_rstd_, bool batch_statistics_, const Wanted& wanted_)
      : edges(edges_), depthwise(depthwise_), pointwise(pointwise_), inner_mean(inner_mean_), inner_rstd(inner_rstd_),
        batch_statistics(batch_statistics_), wanted(wanted_), last(layout::channels_last(x_)), x(layout::as(x_, last)),
        weights(dense(weights_, kScalarType<A>)), groups(weights.size(0)), channels(x.size(1)),
        inner(saved.begin() + edges.convolutions(), saved.end() - 3), pooled(saved.end() - 3, saved.end()),
        node(node_of<A>(grads_[0], weights, last)), centred(edges.kinds.size()), summed(edges.kinds.size()),
        mean(node.table()), rstd(node.table()), g0(node.row()), g1(node.table()), terms(node),
        d_depthwise(depthwise.size()), d_pointwise(pointwise.size()) {
    for (const Tensor& grad : grads_) grads.push_back(layout::as(grad, last));
    for (int64_t k = 0; k < edges.branches(); ++k) {
      const int64_t kind = edges.kinds[k];
      node.branches[k] = kind >= 0 ? saved[kind] : kind == kSkip ? x : pooled[kind == kAverage];
      centred[k] = batch_statistics && edges.normalize[k];
      summed[k] = wanted.weights || centred[k];
    }
    fill_statistics(node, std::vector<bool>(edges.kinds.size(), true), mean_, A(0), mean.data());
    fill_statistics(node, std::vector<bool>(edges.kinds.size(), true), rstd_, A(1), rstd.data());
  }

  // What the gradients of the branches into one target are made of.
  void fill_terms(int64_t target) {
    const std::vector<Run> sums = runs_of(node.branches, edges.into(target, summed));
    if (!sums.empty()) gradient_sums(node, sums, grads[target], mean, rstd, g0, g1);
    terms.fill(node, runs_of(node.branches, edges.into(target)), centred, mean, rstd, g0, g1);
  }

  // The gradients of the convolutions' outputs, of those whose terms are there.
  std::vector<OutputGradient> output_gradients() const {
    std::vector<OutputGradient> incoming(static_cast<size_t>(edges.convolutions()), OutputGradient{grads[0]});
    for (int64_t k = 0; k < edges.branches(); ++k)
      if (edges.kinds[k] >= 0)
        incoming[edges.kinds[k]] = {grads[edges.targets[k]], node.branches[k],
                                    {terms.by_gradient.data(), terms.by_input.data(), terms.constant.data()},
                                    node.count, k};
    return incoming;
  }

  // The gradients of weights that a convolution's backward found behind those of `inputs` inputs.
  void keep(const std::vector<Tensor>& found, size_t inputs, const std::vector<int64_t>& of, int64_t offset) {
    for (size_t f = 0; wanted.parameters && f < of.size(); ++f) {
      d_depthwise[of[f] + offset] = found[inputs + f];
      d_pointwise[of[f] + offset] = found[inputs + of.size() + f];
    }
  }

  // Replaces the gradients of second stages' outputs by those of their first stages. The terms of the norms between them,
  // which the result may point to, are returned.
  Tensor second_stages(const std::vector<int64_t>& of, std::vector<OutputGradient>& incoming) {
    Tensor norm_terms;
    const std::vector<int64_t> places = chosen(edges.seconds, of);
    const std::vector<Tensor> inputs = chosen(inner, of);
    const int64_t count = static_cast<int64_t>(of.size()), firsts = edges.convolutions();
    const bool defers = x.scalar_type() == kScalarType<A>;
    const auto found = relu_separable_conv2d_gradients(
        chosen(incoming, places), inputs, chosen(depthwise, of, firsts), chosen(pointwise, of, firsts), counted(of.size()),
        std::vector<int64_t>(of.size(), 1), 1, true, rows_of<A>(inner_mean, of), rows_of<A>(inner_rstd, of),
        batch_statistics, groups, true, wanted.parameters, std::nullopt, defers ? &norm_terms : nullptr);
    for (int64_t s = 0; s < count; ++s) {
      incoming[places[s]] = {found[s]};
      if (!defers) continue;
      const A* tables = data<A>(norm_terms);
      const int64_t table = groups * count * channels;
      incoming[places[s]] = {found[s], inputs[s], {tables, tables + table, tables + 2 * table}, count, s};
    }
    keep(found, of.size(), of, firsts);
    return norm_terms;
  }

  void first_stages(const std::vector<int64_t>& of, const std::vector<OutputGradient>& incoming) {
    const auto found = relu_separable_conv2d_gradients(
        chosen(incoming, of), {x}, chosen(depthwise, of), chosen(pointwise, of), std::vector<int64_t>(of.size(), 0),
        chosen(edges.dilations, of), edges.stride, false, inner_mean, inner_rstd, batch_statistics, groups, wanted.input,
        wanted.parameters, dx);
    if (wanted.input) dx = found[0];
    keep(found, wanted.input, of, 0);
  }

  void convolutions(int64_t begin, int64_t end) {
    const std::vector<int64_t> of = edges.convolutions_to(begin, end), longer = edges.seconds_of(of);
    if (of.empty() || !(wanted.input || wanted.parameters)) return;
    std::vector<OutputGradient> incoming = output_gradients();
    Tensor norm_terms;
    if (!longer.empty()) norm_terms = second_stages(longer, incoming);
    first_stages(of, incoming);
  }

  // Of y, which all edges share, a pool or x itself: out = start + also + sum over the edges of (a g + s y + d). y is read
  // where statistics depend on it.
  void add_linear(Kind kind, const std::optional<Tensor>& start, const std::optional<Tensor>& also, const Tensor& y,
                  const Tensor& out) const {
    const int64_t count = static_cast<int64_t>(grads.size());
    Node<A> sum{node.geometry, grads, nullptr, count + 2};
    sum.branches.insert(sum.branches.end(), {y, also.value_or(y)});
    std::vector<bool> used(sum.branches.size(), true);
    used[count] = false, used[count + 1] = also.has_value();
    std::vector<A> scale = sum.table(), bias = sum.row();
    for (int64_t k = 0; k < edges.branches(); ++k)
      if (edges.kinds[k] == kind && centred[k]) used[count] = true;
    for (int64_t g = 0; g < groups; ++g) {
      std::fill_n(&scale[sum.at(g, count + 1)], channels, A(1));
      for (int64_t k = 0; k < edges.branches(); ++k)
        for (int64_t c = 0; edges.kinds[k] == kind && c < channels; ++c) {
          scale[sum.at(g, edges.targets[k]) + c] += terms.by_gradient[node.at(g, k) + c];
          scale[sum.at(g, count) + c] += terms.by_input[node.at(g, k) + c];
          bias[g * channels + c] += terms.constant[node.at(g, k) + c];
        }
    }
    linear_sum(sum, runs_of(sum.branches, used), scale, bias, start, out);
  }

  // The gradient of x through the pools, nothing without one.
  std::optional<Tensor> through_pools() const {
    std::optional<Tensor> d_maximum, d_average;
    for (const auto& [kind, into] : {std::pair(kMaximum, &d_maximum), std::pair(kAverage, &d_average)}) {
      if (!edges.has(kind)) continue;
      *into = layout::like(grads[0], x.scalar_type(), last);
      add_linear(kind, std::nullopt, std::nullopt, pooled[kind == kAverage], **into);
    }
    if (!d_maximum && !d_average) return std::nullopt;
    return pool3x3_backward(d_maximum, d_average, pooled[2], x.size(2), x.size(3), edges.stride, last);
  }

  // Adds to the gradient of x what comes through pools and skips.
  void input_gradient() {
    const std::optional<Tensor> d_pooled = through_pools();
    if (edges.has(kSkip)) {
      const std::optional<Tensor> start = dx;
      if (!dx) dx = layout::like(x, x.scalar_type(), last);
      add_linear(kSkip, start, d_pooled, x, *dx);
    } else if (d_pooled && dx) {
      const Node<A> sum{Geometry(x, groups, last), {*d_pooled}, nullptr, 1};
      linear_sum(sum, runs_of(sum.branches), std::vector<A>(sum.table().size(), A(1)), sum.row(), dx, *dx);
    } else if (d_pooled) {
      dx = d_pooled;
    }
    if (!dx) dx = layout::zeros_like(x);
  }

  std::vector<Tensor> run(ScalarType weights_dtype) {
    const std::vector<int64_t> batches = edges.batches(static_cast<int64_t>(grads.size()), grads[0].numel());
    for (size_t i = 0; i + 1 < batches.size(); ++i) {
      for (int64_t t = batches[i]; t < batches[i + 1]; ++t) fill_terms(t);
      convolutions(batches[i], batches[i + 1]);
    }
    std::vector<Tensor> found;
    if (wanted.input) input_gradient(), found.push_back(*dx);
    if (wanted.weights) found.push_back(weights_gradient(node, g1, weights_dtype));
    for (const auto* gradients : {&d_depthwise, &d_pointwise})
      for (const std::optional<Tensor>& gradient : *gradients)
        if (gradient) found.push_back(*gradient);
    return found;
  }
};

std::vector<Tensor> mixed_edges_backward(std::vector<Tensor> grads, Tensor x, std::vector<Tensor> depthwise,
                                         std::vector<Tensor> pointwise, Tensor weights, std::vector<Tensor> saved,
                                         std::vector<int64_t> targets, std::vector<int64_t> kinds,
                                         std::vector<int64_t> dilations, std::vector<int64_t> seconds,
                                         std::vector<bool> normalize, int64_t stride, Tensor mean, Tensor rstd,
                                         Tensor inner_mean, Tensor inner_rstd, bool batch_statistics, bool input_grad,
                                         bool parameters_grad, bool weights_grad, bool /* tf32 */) {
  const int64_t sums = static_cast<int64_t>(grads.size());
  check_mixed_edges_backward(grads, x, depthwise, pointwise, weights, saved,
                             {targets, kinds, dilations, seconds, normalize, sums, stride}, mean, rstd, inner_mean, inner_rstd);
  // One layout for all that a sum reads side by side.
  for (size_t i = 0; i < saved.size() - 1; ++i)
    if (saved[i].dim() == 4) saved[i] = layout::as(saved[i], layout::channels_last(x));
  const Edges edges{targets, kinds, dilations, seconds, normalize, stride};
  const auto run = [&](auto acc) {
    return EdgesBackward<decltype(acc)>(edges, grads, x, depthwise, pointwise, weights, saved, mean, rstd, inner_mean,
                                        inner_rstd, batch_statistics, {input_grad, parameters_grad, weights_grad})
        .run(weights.scalar_type());
  };
  return x.scalar_type() == ScalarType::Double ? run(double()) : run(float());
}

}  // namespace
}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) { m.impl("mixed_edges_backward", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::mixed_edges_backward)); }

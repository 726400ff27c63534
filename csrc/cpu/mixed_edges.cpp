// mixed_edges on the CPU, forward: all ops on all edges that leave one node, and what they add to the sums of the nodes they enter.
//
// Edge after edge: the convolutions of an edge, the statistics of their outputs, and the sum over all branches of the edge,
// so that an output is still in the last-level cache when it is normalised and summed. The pools, which all edges share, are
// made once. Deterministic, as the kernels it is made of are.
#include "mixed_edges.h"

#include "../common/mixed_edges_check.h"

#include <tuple>

namespace ddarts::DDARTS_CPU_COPY {

bool Edges::has(Kind kind) const { return std::count(kinds.begin(), kinds.end(), kind) > 0; }

std::vector<bool> Edges::into(int64_t target, const std::vector<bool>& wanted) const {
  std::vector<bool> found(kinds.size());
  for (size_t k = 0; k < kinds.size(); ++k) found[k] = targets[k] == target && (wanted.empty() || wanted[k]);
  return found;
}

std::vector<int64_t> Edges::convolutions_to(int64_t begin, int64_t end) const {
  std::vector<int64_t> found;
  for (size_t k = 0; k < kinds.size(); ++k)
    if (targets[k] >= begin && targets[k] < end && kinds[k] >= 0) found.push_back(kinds[k]);
  return found;
}

std::vector<int64_t> Edges::seconds_of(const std::vector<int64_t>& convolutions_) const {
  std::vector<int64_t> found;
  for (size_t s = 0; s < seconds.size(); ++s)
    if (std::count(convolutions_.begin(), convolutions_.end(), seconds[s])) found.push_back(static_cast<int64_t>(s));
  return found;
}

std::vector<int64_t> Edges::batches(int64_t targets_, int64_t values) const {
  std::vector<int64_t> ends{0};
  for (int64_t t = 1; t < targets_; ++t)
    if (static_cast<int64_t>(convolutions_to(ends.back(), t + 1).size()) * values > kCachedValues) ends.push_back(t);
  ends.push_back(targets_);
  return ends;
}

namespace {

// The reverse of rows_of, into a table.
template <typename A>
void put_rows(const Tensor& rows, const std::vector<int64_t>& places, const Tensor& table) {
  const int64_t groups = rows.size(0), count = table.size(1), channels = rows.size(2), size = rows.size(1);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < size; ++i)
      std::copy_n(data<A>(rows) + (g * size + i) * channels, channels,
                  mutable_data<A>(table) + (g * count + places[i]) * channels);
}

using Result = std::tuple<std::vector<Tensor>, Tensor, Tensor, Tensor, Tensor>;

// Given statistics, all or none.
struct Given {
  std::optional<Tensor> mean, rstd, inner_mean, inner_rstd;
  explicit operator bool() const { return mean.has_value(); }
};

template <typename A>
struct EdgesForward {
  const Edges& edges;
  const std::vector<Tensor>&depthwise, &pointwise;
  const Given& given;
  const double eps;
  const bool last;
  const Tensor x, weights;
  const int64_t groups, channels;
  std::vector<Tensor> sums;
  Node<A> node;
  const Tensor mean, rstd, inner_mean, inner_rstd;  // [G,K,C] and [G,S,C]
  std::tuple<Tensor, Tensor, Tensor> pooled;        // maximum, average, argmax
  std::vector<Tensor> raw, inner;  // outputs of the convolutions, and what their second stages read

  EdgesForward(const Edges& edges_, const Tensor& x_, const std::vector<Tensor>& depthwise_,
               const std::vector<Tensor>& pointwise_, const Tensor& weights_, int64_t targets, const Given& given_, double eps_)
      : edges(edges_), depthwise(depthwise_), pointwise(pointwise_), given(given_), eps(eps_),
        last(layout::channels_last(x_)), x(layout::as(x_, last)), weights(dense(weights_, kScalarType<A>)),
        groups(weights.size(0)), channels(x.size(1)), sums(empty_sums(targets)), node(node_of<A>(sums[0], weights, last)),
        mean(table(edges.branches())), rstd(table(edges.branches())), inner_mean(table(edges.second_stages())),
        inner_rstd(table(edges.second_stages())), pooled(nothing(), nothing(), nothing()),
        raw(static_cast<size_t>(edges.convolutions()), x), inner(edges.seconds.size(), x) {
    if (given) {
      fill_statistics(node, edges.normalize, *given.mean, A(0), mutable_data<A>(mean));
      fill_statistics(node, edges.normalize, *given.rstd, A(1), mutable_data<A>(rstd));
    } else {
      std::fill_n(mutable_data<A>(mean), mean.numel(), A(0));
      std::fill_n(mutable_data<A>(rstd), rstd.numel(), A(1));
    }
  }

  std::vector<Tensor> empty_sums(int64_t targets) const {
    const int64_t stride = edges.stride, height = (x.size(2) + stride - 1) / stride, width = (x.size(3) + stride - 1) / stride;
    std::vector<Tensor> found;
    for (int64_t t = 0; t < targets; ++t)
      found.push_back(layout::empty(x, {x.size(0), channels, height, width}, x.scalar_type(), last));
    return found;
  }
  Tensor table(int64_t rows) const {
    return layout::table(x, {groups, rows, channels}, kScalarType<A>);
  }
  Tensor nothing() const { return layout::table(x, {0}, x.scalar_type()); }

  // The batch's mean and rstd of some branches, those that have a norm.
  void statistics(const std::vector<bool>& of) {
    if (!given)
      batch_statistics_of(node, runs_of(node.branches, of), edges.normalize, eps, mutable_data<A>(mean),
                          mutable_data<A>(rstd));
  }

  // The branches that are no convolutions, once for all edges.
  void skips_and_pools() {
    if (edges.has(kMaximum) || edges.has(kAverage))
      pooled = pool3x3(x, edges.stride, edges.has(kMaximum), edges.has(kAverage));
    for (int64_t k = 0; k < edges.branches(); ++k) {
      if (edges.kinds[k] == kSkip) node.branches[k] = x;
      if (edges.is_pool(k)) node.branches[k] = edges.kinds[k] == kMaximum ? std::get<0>(pooled) : std::get<1>(pooled);
    }
    if (!given) shared_statistics();
  }

  // Of what all edges share: the first normalised branch of a kind stands for all of that kind.
  void shared_statistics() {
    std::vector<bool> first_of_kind(edges.kinds.size());
    std::array<int64_t, 3> stands{-1, -1, -1};
    const auto normed = [&](int64_t k) { return edges.kinds[k] < 0 && edges.normalize[k]; };
    const auto first = [&](int64_t k) -> int64_t& { return stands[-1 - edges.kinds[k]]; };
    for (int64_t k = 0; k < edges.branches(); ++k)
      if (normed(k) && first(k) < 0) first(k) = k, first_of_kind[k] = true;
    statistics(first_of_kind);
    for (int64_t k = 0; k < edges.branches(); ++k) {
      if (!normed(k) || first(k) == k) continue;
      for (int64_t g = 0; g < groups; ++g)
        for (const Tensor* rows : {&mean, &rstd})
          std::copy_n(mutable_data<A>(*rows) + node.at(g, first(k)), channels, mutable_data<A>(*rows) + node.at(g, k));
    }
  }

  void first_stages(const std::vector<int64_t>& of) {
    const auto outputs = std::get<0>(relu_separable_conv2d({x}, chosen(depthwise, of), chosen(pointwise, of),
                                                           std::vector<int64_t>(of.size(), 0), chosen(edges.dilations, of),
                                                           edges.stride, false, std::nullopt, std::nullopt, groups, eps));
    for (size_t f = 0; f < of.size(); ++f) raw[of[f]] = outputs[f];
  }

  void second_stages(const std::vector<int64_t>& of) {
    const std::vector<Tensor> inputs = chosen(raw, chosen(edges.seconds, of));
    const auto rows = [&](const std::optional<Tensor>& all) {
      return all.has_value() ? std::optional<Tensor>(rows_of<A>(*all, of)) : std::nullopt;
    };
    const auto [outputs, means, rstds] = relu_separable_conv2d(
        inputs, chosen(depthwise, of, edges.convolutions()), chosen(pointwise, of, edges.convolutions()), counted(of.size()),
        std::vector<int64_t>(of.size(), 1), 1, true, rows(given.inner_mean), rows(given.inner_rstd), groups, eps);
    put_rows<A>(means, of, inner_mean), put_rows<A>(rstds, of, inner_rstd);
    for (size_t s = 0; s < of.size(); ++s) inner[of[s]] = inputs[s], raw[edges.seconds[of[s]]] = outputs[s];
  }

  // The convolutions of the edges to targets [begin, end), and their statistics.
  void convolutions(int64_t begin, int64_t end) {
    const std::vector<int64_t> of = edges.convolutions_to(begin, end), longer = edges.seconds_of(of);
    if (of.empty()) return;
    first_stages(of);
    if (!longer.empty()) second_stages(longer);
    std::vector<bool> convolved(edges.kinds.size());
    for (int64_t k = 0; k < edges.branches(); ++k) {
      convolved[k] = edges.targets[k] >= begin && edges.targets[k] < end && edges.kinds[k] >= 0;
      if (convolved[k]) node.branches[k] = raw[edges.kinds[k]];
    }
    statistics(convolved);
  }

  Result run(const std::vector<Tensor>& previous) {
    skips_and_pools();
    const std::vector<int64_t> batches = edges.batches(static_cast<int64_t>(sums.size()), sums[0].numel());
    for (size_t i = 0; i + 1 < batches.size(); ++i) {
      convolutions(batches[i], batches[i + 1]);
      for (int64_t t = batches[i]; t < batches[i + 1]; ++t)
        write_sum(node, runs_of(node.branches, edges.into(t)), data<A>(mean), data<A>(rstd),
                  previous.empty() ? std::nullopt : std::optional(layout::as(previous[t], last)), sums[t]);
    }
    std::vector<Tensor> found = sums;
    found.insert(found.end(), raw.begin(), raw.end());
    found.insert(found.end(), inner.begin(), inner.end());
    for (const Tensor& tensor : {std::get<0>(pooled), std::get<1>(pooled), std::get<2>(pooled)}) found.push_back(tensor);
    return {found, mean, rstd, inner_mean, inner_rstd};
  }
};

Result mixed_edges(Tensor x, std::vector<Tensor> previous, std::vector<Tensor> depthwise, std::vector<Tensor> pointwise,
                   Tensor weights, std::vector<int64_t> targets, std::vector<int64_t> kinds, std::vector<int64_t> dilations,
                   std::vector<int64_t> seconds, std::vector<bool> normalize, int64_t target_count, int64_t stride,
                   std::optional<Tensor> mean, std::optional<Tensor> rstd, std::optional<Tensor> inner_mean,
                   std::optional<Tensor> inner_rstd, double eps, bool /* tf32: products are exact */) {
  check_mixed_edges(x, previous, depthwise, pointwise, weights,
                    {targets, kinds, dilations, seconds, normalize, target_count, stride}, mean, rstd, inner_mean, inner_rstd);
  const Edges edges{targets, kinds, dilations, seconds, normalize, stride};
  const Given given{mean, rstd, inner_mean, inner_rstd};
  const auto run = [&](auto acc) {
    return EdgesForward<decltype(acc)>(edges, x, depthwise, pointwise, weights, target_count, given, eps).run(previous);
  };
  return x.scalar_type() == ScalarType::Double ? run(double()) : run(float());
}

}  // namespace
}  // namespace ddarts::DDARTS_CPU_COPY

DDARTS_CPU_KERNELS(m) { m.impl("mixed_edges", TORCH_BOX(&ddarts::DDARTS_CPU_COPY::mixed_edges)); }

// mixed_sum on the CPU: out = sum_k w_k (x_k - mean_k) rstd_k, statistics per group and channel.
//
// Forward: one pass over the branches takes the moments of every block (two visits while it is in the first-level cache),
// the blocks are merged in their fixed order in float64, and a second pass writes out = sum_k a_kc x_k + b_c, one
// multiply-add a value. Backward: one pass for sum g and sum g (x_k - mean_k), one for dx_k = a g + s x_k + d.
// Branches are taken a few at a time, as many as the last-level cache holds: the second pass reads them from there.
// Blocks do not depend on the number of threads, and every sum has a fixed order: results are bitwise reproducible.
#include "../common/simd.h"
#include "mixed_sum_geometry.h"

#include <array>
#include <cmath>
#include <iterator>
#include <optional>
#include <tuple>
#include <vector>

namespace {

// Branches and everything per [group,branch,channel], in the accumulation type A.
template <typename A>
struct Node {
  Geometry geometry;
  std::vector<Tensor> branches;  // all in one layout
  const A* weights;              // [G,K]
  int64_t count;
  const A* row(const std::vector<A>& table, int64_t g, int64_t k) const { return &table[(g * count + k) * geometry.channels]; }
  std::vector<A> table() const { return std::vector<A>(std::max<int64_t>(geometry.groups * count * geometry.channels, 1)); }
  template <typename T>
  std::array<const T*, kTogether> pointers(const Run& run, int64_t offset) const {
    std::array<const T*, kTogether> p{};
    for (int n = 0; n < run.count; ++n) p[n] = data<T>(branches[run.index[n]]) + offset;
    return p;
  }
};

// Mean and rstd of the batch of branch k, from the moments of its blocks: sum n_i m_i / N, then sum M_i + n_i (m_i - m)^2.
template <typename A>
void merge_moments(const Geometry& geo, int64_t g, const A* means, const A* squares, double eps, A* mean, A* rstd) {
  const int64_t lanes = geo.lanes(), values = geo.values();
  std::vector<double> centre(geo.channels, 0.0), spread(geo.channels, 0.0);
  std::vector<double> lane_sum(kLanes);
  for (int pass = 0; pass < 2; ++pass) {
    std::vector<double>& total = pass == 0 ? centre : spread;
    for (int64_t p = 0; p < geo.panels; ++p) {
      double middle[kLanes] = {}, sum[kLanes] = {};
      if (pass == 1) geo.gather(centre.data(), p, middle);
      for (int64_t t = 0; t < geo.tiles; ++t) {
        int64_t offset;
        const Block b = geo.block(g, t, p, offset);
        const A *m = means + t * lanes + p * kLanes, *q = squares + t * lanes + p * kLanes;
        const double base = lane_values(b, kLanes);
        for (int l = 0; l < kLanes; ++l) {
          const double n = base + (l < b.tail ? static_cast<double>(b.segments) : 0.0), d = m[l] - middle[l];
          sum[l] += pass == 0 ? n * d : q[l] + n * d * d;
        }
      }
      for (int l = 0; l < kLanes; ++l)
        if (const int64_t c = geo.channel(p * kLanes + l); c >= 0) total[c] += sum[l];
    }
    for (double& v : total) v /= static_cast<double>(std::max<int64_t>(values, 1));
  }
  for (int64_t c = 0; c < geo.channels; ++c) {
    mean[c] = static_cast<A>(centre[c]);
    rstd[c] = static_cast<A>(1.0 / std::sqrt(spread[c] + eps));
  }
}

// Mean and rstd of the batch, of the normalised ones among the branches of `runs`.
template <typename A>
void batch_statistics_of(const Node<A>& node, const std::vector<Run>& runs, const std::vector<bool>& normalize, double eps,
                         A* mean, A* rstd) {
  const Geometry& geo = node.geometry;
  std::vector<int64_t> chosen;
  for (const Run& run : runs)
    std::copy_if(run.index, run.index + run.count, std::back_inserter(chosen), [&](int64_t k) { return normalize[k]; });
  const int64_t size = geo.tiles * geo.lanes(), normed = static_cast<int64_t>(chosen.size());
  std::vector<A> means(normed * geo.groups * size), squares(means.size());
  geo.for_units(normed, [&](int64_t g, int64_t t, int64_t p) {
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    for (int64_t i = 0; i < normed; ++i) {
      const Tensor& x = node.branches[chosen[i]];
      const int64_t at = (i * geo.groups + g) * size + t * geo.lanes() + p * kLanes;
      with_dtype(x.scalar_type(), [&](auto tag) {
        block_moments<A>(data<decltype(tag)>(x) + offset, b, &means[at], &squares[at]);
      });
    }
  });
  torch::stable::parallel_for(0, normed * geo.groups, 4, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t g = u % geo.groups, at = (g * node.count + chosen[u / geo.groups]) * geo.channels;
      merge_moments(geo, g, means.data() + u * size, squares.data() + u * size, eps, mean + at, rstd + at);
    }
  });
}

// out (+)= sum over the branches of `runs`; what is there already has the accumulation type.
template <typename A>
void write_sum(const Node<A>& node, const std::vector<Run>& runs, const A* mean, const A* rstd, bool add, const Tensor& out) {
  const Geometry& geo = node.geometry;
  std::vector<A> scale = node.table(), bias(std::max<int64_t>(geo.groups * geo.channels, 1));
  for (int64_t g = 0; g < geo.groups; ++g)
    for (const Run& run : runs)
      for (int64_t i = 0; i < run.count * geo.channels; ++i) {
        const int64_t k = run.index[i / geo.channels], c = i % geo.channels, at = (g * node.count + k) * geo.channels + c;
        scale[at] = node.weights[g * node.count + k] * rstd[at];
        bias[g * geo.channels + c] -= scale[at] * mean[at];
      }
  geo.for_units(branches_of(runs), [&](int64_t g, int64_t t, int64_t p) {
    alignas(32) A total[kTile], lanes[kTogether][kLanes];
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    geo.gather(&bias[g * geo.channels], p, lanes[0]);
    const Lanes<A> start = load_lanes<A>(lanes[0]);
    if (add) read_block(data<A>(out) + offset, b, total);
    for (int64_t s = 0; s < b.slots(); ++s) {
      Lanes<A> row = start;
      if (add) each<A>([&, sum = load_lanes<A>(total + s * kLanes)](auto i) { row.v[i] += sum.v[i]; });
      store_lanes<A>(total + s * kLanes, row);
    }
    for (const Run& run : runs) {
      for (int n = 0; n < run.count; ++n) geo.gather(node.row(scale, g, run.index[n]), p, lanes[n]);
      with_dtype(run.dtype, [&](auto tag) {
        const auto x = node.template pointers<decltype(tag)>(run, offset);
        with_count(run.count, [&](auto n) { block_mix<n.value, A>(x.data(), b, lanes, total); });
      });
    }
    with_dtype(out.scalar_type(), [&](auto tag) { write_block(total, b, mutable_data<decltype(tag)>(out) + offset); });
  });
}

// g1[g,k,c] = sum g xhat_k of the branches of `runs`, and g0[g,c] = sum g, from one read of everything.
template <typename A>
void gradient_sums(const Node<A>& node, const std::vector<Run>& runs, const Tensor& grad, const std::vector<A>& mean,
                   const std::vector<A>& rstd, std::vector<A>& g0, std::vector<A>& g1) {
  const Geometry& geo = node.geometry;
  const int64_t lanes = geo.lanes(), rows = branches_of(runs) + 1;  // the last row of the partial sums is sum g
  std::vector<A> partial(geo.groups * geo.tiles * rows * lanes);
  geo.for_units(rows, [&](int64_t g, int64_t t, int64_t p) {
    alignas(32) A upstream[kTile], centre[kTogether][kLanes], product[kTogether][kLanes];
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    with_dtype(grad.scalar_type(), [&](auto tag) { read_block(data<decltype(tag)>(grad) + offset, b, upstream); });
    A* sums = &partial[(g * geo.tiles + t) * rows * lanes + p * kLanes];
    const Block compact{1, 0, b.slots(), kLanes, kLanes, 0};
    store_lanes<A>(sums + (rows - 1) * lanes, sum_rows<A>(upstream, compact, [](const Lanes<A>& v, auto) { return v; }));
    for (const Run& run : runs) {
      for (int n = 0; n < run.count; ++n) geo.gather(node.row(mean, g, run.index[n]), p, centre[n]);
      with_dtype(run.dtype, [&](auto tag) {
        const auto x = node.template pointers<decltype(tag)>(run, offset);
        with_count(run.count, [&](auto n) { block_products<n.value, A>(upstream, x.data(), b, centre, product); });
      });
      for (int n = 0; n < run.count; ++n, sums += lanes) std::copy_n(product[n], kLanes, sums);
    }
  });
  std::vector<int64_t> index;
  for (const Run& run : runs) index.insert(index.end(), run.index, run.index + run.count);
  torch::stable::parallel_for(0, geo.groups * rows, 4, [&](int64_t begin, int64_t end) {
    std::vector<double> total(geo.channels);
    for (int64_t u = begin; u < end; ++u) {
      const int64_t g = u / rows, row = u % rows;
      std::fill(total.begin(), total.end(), 0.0);
      for (int64_t t = 0; t < geo.tiles; ++t) {
        const A* sums = &partial[((g * geo.tiles + t) * rows + row) * lanes];
        for (int64_t l = 0; l < lanes; ++l)
          if (const int64_t c = geo.channel(l); c >= 0) total[c] += sums[l];
      }
      const int64_t k = row == rows - 1 ? -1 : index[row];
      A* into = k < 0 ? &g0[g * geo.channels] : &g1[(g * node.count + k) * geo.channels];
      const A* scale = k < 0 ? nullptr : node.row(rstd, g, k);
      for (int64_t c = 0; c < geo.channels; ++c) into[c] = static_cast<A>(scale ? total[c] * scale[c] : total[c]);
    }
  });
}

// dx_k = w r (g - g0/M - xhat g1/M) = a g + s x + d, or w r g where the statistics are constants, of the branches of `runs`.
template <typename A>
void write_gradients(const Node<A>& node, const std::vector<Run>& runs, const Tensor& grad, const std::vector<bool>& centred,
                     const std::vector<A>& mean, const std::vector<A>& rstd, const std::vector<A>& g0,
                     const std::vector<A>& g1, const std::vector<Tensor>& grads) {
  const Geometry& geo = node.geometry;
  std::vector<A> by_gradient = node.table(), by_input = node.table(), constant = node.table();
  const A share = A(1) / static_cast<A>(std::max<int64_t>(geo.values(), 1));
  for (int64_t g = 0; g < geo.groups; ++g)
    for (const Run& run : runs)
      for (int64_t i = 0; i < run.count * geo.channels; ++i) {
        const int64_t k = run.index[i / geo.channels], c = i % geo.channels, at = (g * node.count + k) * geo.channels + c;
        by_gradient[at] = node.weights[g * node.count + k] * rstd[at];
        if (!centred[k]) continue;
        by_input[at] = -by_gradient[at] * rstd[at] * g1[at] * share;
        constant[at] = -by_gradient[at] * g0[g * geo.channels + c] * share - by_input[at] * mean[at];
      }
  geo.for_units(2 * branches_of(runs), [&](int64_t g, int64_t t, int64_t p) {
    alignas(32) A upstream[kTile], a[kLanes], s[kLanes], d[kLanes];
    int64_t offset;
    const Block b = geo.block(g, t, p, offset);
    with_dtype(grad.scalar_type(), [&](auto tag) { read_block(data<decltype(tag)>(grad) + offset, b, upstream); });
    for (const Run& run : runs)
      for (int n = 0; n < run.count; ++n) {
        const int64_t k = run.index[n];
        geo.gather(node.row(by_gradient, g, k), p, a);
        geo.gather(node.row(by_input, g, k), p, s);
        geo.gather(node.row(constant, g, k), p, d);
        with_dtype(run.dtype, [&](auto tag) {
          using T = decltype(tag);
          const T* x = data<T>(node.branches[k]) + offset;
          T* dx = mutable_data<T>(grads[k]) + offset;
          centred[k] ? block_gradient<true, A>(upstream, x, dx, b, a, s, d) : block_gradient<false, A>(upstream, x, dx, b, a, s, d);
        });
      }
  });
}

template <typename A>
Node<A> node_of(const std::vector<Tensor>& branches, const Tensor& weights) {
  const bool last = ddarts::layout::channels_last(branches[0]);
  Node<A> node{Geometry(branches[0], weights.size(0), last), {}, data<A>(weights), weights.size(1)};
  for (const Tensor& x : branches) node.branches.push_back(ddarts::layout::as(x, last));
  return node;
}

// Given statistics [1 or G,K,C] or the op's own [G,K,C]; 0 and 1 for branches without norm.
template <typename A>
void fill_statistics(const Node<A>& node, const std::vector<bool>& normalize, const Tensor& given, A without, A* table) {
  const Tensor values = table_of(given, std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float);
  const int64_t channels = node.geometry.channels;
  for (int64_t g = 0; g < node.geometry.groups; ++g)
    for (int64_t k = 0; k < node.count; ++k) {
      A* row = table + (g * node.count + k) * channels;
      const A* from = data<A>(values) + ((given.size(0) == 1 ? 0 : g) * node.count + k) * channels;
      normalize[k] ? std::copy_n(from, channels, row) : std::fill_n(row, channels, without);
    }
}

template <typename A>
std::tuple<Tensor, Tensor, Tensor> forward(const std::vector<Tensor>& branches, const Tensor& weights_, ScalarType acc,
                                           const std::vector<bool>& normalize, const std::optional<Tensor>& mean_,
                                           const std::optional<Tensor>& rstd_, double eps) {
  const Tensor weights = table_of(weights_, acc);
  const Node<A> node = node_of<A>(branches, weights);
  const int64_t shape[3] = {node.geometry.groups, node.count, node.geometry.channels};
  const std::vector<Run> runs = runs_of(node.branches);
  Tensor out = new_like(branches[0], promoted(branches), ddarts::layout::channels_last(branches[0]));
  Tensor mean = torch::stable::empty({shape, 3}, acc), rstd = torch::stable::empty({shape, 3}, acc);
  A *m = mutable_data<A>(mean), *r = mutable_data<A>(rstd);
  if (mean_ && rstd_) {
    fill_statistics(node, normalize, *mean_, A(0), m);
    fill_statistics(node, normalize, *rstd_, A(1), r);
    write_sum(node, runs, m, r, false, out);
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
    write_sum(node, *batch, m, r, batch != batches.rbegin(), out);
  }
  return {out, mean, rstd};
}

template <typename A>
std::tuple<std::vector<Tensor>, Tensor> backward(const Tensor& grad_, const std::vector<Tensor>& branches,
                                                 const Tensor& weights_, ScalarType acc, const std::vector<bool>& normalize,
                                                 const Tensor& mean_, const Tensor& rstd_, bool batch_statistics,
                                                 bool weights_grad) {
  const Tensor weights = table_of(weights_, acc);
  const Node<A> node = node_of<A>(branches, weights);
  const bool last = ddarts::layout::channels_last(branches[0]);
  const Tensor grad = ddarts::layout::as(grad_, last);
  std::vector<A> mean = node.table(), rstd = node.table(), g1 = node.table(), g0(mean.size());
  fill_statistics(node, std::vector<bool>(node.count, true), mean_, A(0), mean.data());
  fill_statistics(node, std::vector<bool>(node.count, true), rstd_, A(1), rstd.data());
  std::vector<bool> centred(node.count), summed(node.count);
  for (int64_t k = 0; k < node.count; ++k) {
    centred[k] = batch_statistics && normalize[k];
    summed[k] = weights_grad || centred[k];
  }
  std::vector<Tensor> grads;
  for (const Tensor& x : branches) grads.push_back(new_like(x, x.scalar_type(), last));
  for (const auto& batch : cached_batches(runs_of(node.branches), grad.numel())) {
    const std::vector<Run> sums = selected(batch, summed);
    if (!sums.empty()) gradient_sums(node, sums, grad, mean, rstd, g0, g1);
    write_gradients(node, batch, grad, centred, mean, rstd, g0, g1, grads);
  }
  Tensor d_weights = torch::stable::empty(weights.sizes(), acc);
  for (int64_t i = 0; i < d_weights.numel(); ++i) {
    double total = 0;
    for (int64_t c = 0; weights_grad && c < node.geometry.channels; ++c) total += g1[i * node.geometry.channels + c];
    mutable_data<A>(d_weights)[i] = static_cast<A>(total);
  }
  return {grads, table_of(d_weights, weights_.scalar_type())};
}

bool any_double(const std::vector<Tensor>& branches) {
  return std::any_of(branches.begin(), branches.end(), [](const Tensor& x) { return x.scalar_type() == ScalarType::Double; });
}

std::tuple<Tensor, Tensor, Tensor> mixed_sum(std::vector<Tensor> branches, Tensor weights, std::vector<bool> normalize,
                                             std::optional<Tensor> mean, std::optional<Tensor> rstd, double eps) {
  return any_double(branches) ? forward<double>(branches, weights, ScalarType::Double, normalize, mean, rstd, eps)
                              : forward<float>(branches, weights, ScalarType::Float, normalize, mean, rstd, eps);
}

std::tuple<std::vector<Tensor>, Tensor> mixed_sum_backward(Tensor grad, std::vector<Tensor> branches, Tensor weights,
                                                           std::vector<bool> normalize, Tensor mean, Tensor rstd,
                                                           bool batch_statistics, bool weights_grad) {
  const auto run = [&](auto acc, ScalarType dtype) {
    return backward<decltype(acc)>(grad, branches, weights, dtype, normalize, mean, rstd, batch_statistics, weights_grad);
  };
  return any_double(branches) ? run(double(), ScalarType::Double) : run(float(), ScalarType::Float);
}

}  // namespace

DDARTS_CPU_KERNELS(m) {
  m.impl("mixed_sum", TORCH_BOX(&mixed_sum));
  m.impl("mixed_sum_backward", TORCH_BOX(&mixed_sum_backward));
}
